// One turn: what was seen, in the environment's own way or as text, what was said, what followed.
(() => {
  const { h } = PAW;

  /** A text with marked parts; places count characters as Python does, not UTF-16 units. */
  function marked(text, marks) {
    if (!marks.length) return PAW.prose(text, "prose inline");
    const characters = Array.from(text);
    const nodes = [];
    let done = 0;
    for (const [first, last] of marks.toSorted((a, b) => a[0] - b[0])) {
      if (first < done) continue;
      nodes.push(characters.slice(done, first).join(""), h("mark", {}, characters.slice(first, last).join("")));
      done = last;
    }
    return h("div", { class: "prose inline" }, nodes, characters.slice(done).join(""));
  }

  const DRAW = {
    facts: (entries, text) => h("dl", { class: "facts" }, entries.map(([label, value], i) => h("div", { class: value.length > 30 ? "wide" : "" }, h("dt", {}, PAW.short(label, 200)), h("dd", {}, text(i))))),
    items: (entries, text) => h("ul", { class: entries.every(([label, value]) => label.length + value.length < 24) ? "short" : "" }, entries.map(([label], i) => h("li", {}, label ? h("b", {}, PAW.short(label, 200), " ") : null, text(i)))),
    buttons: (entries) => h("div", { class: "chips" }, entries.map(([label, value]) => h("span", { class: "chip", title: label && value ? PAW.short(label, 200) : null }, PAW.short(value || label, 200)))),
    passage: (entries, text) => entries.map(([label], i) => h("div", { class: "passage" }, label ? h("b", {}, PAW.short(label, 200)) : null, text(i))),
  };

  /** The environment's own view of a turn. */
  PAW.scene = (blocks) =>
    h("div", { class: "scene" }, blocks.map((block) => {
      const text = (i) => marked(block.entries[i][1], (block.marks ?? []).filter((mark) => mark[0] === i).map(([, first, last]) => [first, last]));
      const draw = DRAW[block.kind] ?? DRAW.items;
      return h("section", { class: `block ${block.kind}` }, block.title ? h("h4", {}, PAW.short(block.title, 200)) : null, draw(block.entries, text));
    }));

  const squeezed = (text) => text.replace(/\s+/g, "").toLowerCase();

  /** Is what was learned the beginning of what was seen? With a placebo it is not. */
  // A token that holds a part of a character's bytes reads �.
  function same(target, observation) {
    const seen = squeezed(observation);
    let at = 0;
    return squeezed(target.text.join("")).split(/\ufffd+/).every((piece, i) => {
      const found = seen.indexOf(piece, at);
      const near = found >= 0 && found - at <= (i ? 16 : 0);
      at = found + piece.length;
      return near;
    });
  }

  /** What the prediction's loss makes of this transition, in a line. */
  function learning(turn, run) {
    if (turn.next_observation == null) return "";
    if (run.loss == null && !turn.selected) return "nothing is predicted in this run";
    if (!turn.selected && !turn.weight) return "not selected: nothing is learned from it";
    const parts = [turn.selected ? "selected" : "not selected"];
    parts.push(turn.weight ? `weight ${PAW.number(turn.weight)}` : "weight 0: nothing is learned from it");
    if (turn.share != null) parts.push(`${PAW.percent(turn.share, 2)} of the update's prediction loss`);
    const known = (turn.target?.logprob ?? []).filter((logprob) => logprob != null);
    if (known.length && run.loss === "cmae" && run.probability_cap != null) {
      const clipped = known.filter((logprob) => PAW.clipped(run, Math.exp(logprob))).length;
      parts.push(`${clipped} of ${PAW.many(known.length, "token")} clipped`);
    }
    if (!turn.target) parts.push("its tokens were not kept");
    else if (!known.length) parts.push("p of its tokens was not kept");
    return parts.join(" · ");
  }

  const badge = (text, kind, title) => h("span", { class: `badge ${kind}`, title }, text);

  PAW.turnMarks = (turn) => [
    turn.valid ? null : badge("refused", "bad", "not well formed, or not accepted"),
    turn.reward ? badge(`reward ${PAW.number(turn.reward)}`, turn.reward > 0 ? "good" : "bad") : null,
    turn.penalty ? badge(`penalty ${PAW.number(turn.penalty)}`, "warn") : null,
    turn.selected ? badge(turn.weight ? "selected" : "selected, weight 0", "blue", "by the entropy of its action (Eq. 4)") : null,
    turn.notes.map((note) => badge(PAW.short(note, 200), "warn")),
  ];

  const part = (title, ...body) => h("div", { class: "part" }, h("h3", {}, title), body);

  /** What follows an action: the target's tokens where they were kept, else the text. */
  PAW.nextOf = (turn, context) => {
    if (turn.next_observation == null) return h("p", { class: "dim" }, "None: the episode ended with this action.");
    const text = () => PAW.prose(turn.next_observation);
    if (!turn.target) return text();
    const strip = PAW.strip("target", turn.target, { ...context, turn, label: "What followed" });
    if (same(turn.target, turn.next_observation)) {
      const cut = squeezed(turn.next_observation).length > squeezed(turn.target.text.join("")).length;
      return cut ? [strip, h("details", {}, h("summary", {}, "The target is its beginning; the whole text"), text())] : strip;
    }
    return [strip, h("p", { class: "note" }, "What was learned, above, is not what followed:"), text()];
  };

  PAW.actionOf = (turn, context) =>
    turn.action
      ? PAW.strip("action", turn.action, { ...context, turn, label: "Response" })
      : PAW.prose(turn.response, "prose mono");

  function folded(title, build) {
    const details = h("details", {}, h("summary", {}, title));
    details.addEventListener("toggle", () => { if (details.open && details.children.length < 2) details.append(build()); });
    return details;
  }

  /** The body of turn `number` (from 0) of an episode. */
  PAW.turnBody = (episode, number, context) => {
    const turn = episode.turns[number];
    const before = episode.turns[number - 1]?.next_observation;
    const seen = turn.scene.length && context.scenes ? PAW.scene(turn.scene)
      : before === turn.observation && context.scenes !== false && !turn.scene.length
        ? folded("As above: the observation", () => PAW.prose(turn.observation))
        : PAW.prose(turn.observation);
    const folds = [
      turn.commands.length
        ? folded(`${PAW.many(turn.commands.length, "admissible command")}`, () => h("div", { class: "chips" }, turn.commands.map((command) => h("span", { class: command === turn.command ? "chip taken" : "chip" }, PAW.short(command, 200)))))
        : null,
      turn.context
        ? folded(`Prompt: ${PAW.many(turn.context.text.length, "token")}`, () => h("div", {},
          h("div", { class: "legend" }, ["context", "action", "observation", "scaffold"].map((role, i) => h("span", { class: `k r${i}` }, role))),
          PAW.strip("prompt", turn.context, { ...context, turn, label: "Prompt" })))
        : null,
    ];
    const line = learning(turn, context.run);
    const flow = [
      part("Response", PAW.actionOf(turn, context),
        turn.command !== turn.response ? h("p", { class: "dim" }, "command given: ", h("code", {}, PAW.short(turn.command, 400) || "(none)")) : null),
      part("What followed", PAW.nextOf(turn, context), line ? h("p", { class: "dim learning" }, line) : null),
    ];
    const look = part("Seen", seen, h("div", { class: "folds" }, folds));
    return turn.scene.length && context.scenes
      ? h("div", { class: "turn-body beside" }, h("div", {}, flow), h("div", {}, look))
      : h("div", { class: "turn-body" }, look, flow);
  };
})();
