// Two kept episodes of one task beside each other, the first difference of their commands marked.
(() => {
  const { h } = PAW;

  const name = (row) => `${row.run}.${row.row}`;

  const find = (text) => {
    const match = /^(\d+)\.(\d+)$/.exec(text ?? "");
    const row = match && PAW.row(Number(match[1]), Number(match[2]));
    return row?.kept ? row : null;
  };

  /** Kept episodes by task, of tasks that were kept at least twice. */
  PAW.comparable = () => {
    const kept = PAW.rows().flat().filter((row) => row.kept && row.task.id);
    return [...Map.groupBy(kept, (row) => row.task.id).values()].filter((rows) => rows.length > 1);
  };

  /** Others of the same task, the likest first: the same place in another run, then other updates. */
  PAW.partners = (row) => {
    const same = (other, field) => (other[field] === row[field] ? 0 : 1);
    const distance = (other) =>
      other.run !== row.run
        ? same(other, "update") * 4 + same(other, "group") * 2 + same(other, "index")
        : same(other, "update") ? 8 + same(other, "index") : 16;
    return PAW.rows().flat()
      .filter((other) => other !== row && other.kept && other.task.id === row.task.id)
      .sort((a, b) => distance(a) - distance(b));
  };

  const label = (row) =>
    `${PAW.page.runs.length > 1 ? `${PAW.short(PAW.page.runs[row.run].name, 40)} · ` : ""}${PAW.where(row)} · ${PAW.result(row)}`;

  function head(row) {
    return h("div", { class: "side-head" }, h("a", { href: PAW.linkOf(row) }, label(row)),
      h("div", { class: "dim" }, `return ${PAW.number(row.return)} · ${PAW.many(row.turns, "turn")} · nll ${PAW.number(row.nll)}`));
  }

  function side(row, episode, number, context) {
    const turn = episode.turns[number];
    if (!turn) return h("td", { class: "none" }, number === episode.turns.length ? "ended" : "");
    return h("td", {},
      h("div", { class: "turn-head" }, h("a", { href: PAW.linkOf(row, { turn: number + 1 }) }, h("code", { class: "command" }, PAW.short(turn.command, 200) || "(no command)")), PAW.turnMarks(turn)),
      turn.action ? PAW.actionOf(turn, context) : null, PAW.nextOf(turn, context));
  }

  async function both(box, a, b) {
    box.replaceChildren(h("p", { class: "dim" }, "unpacking…"));
    const [left, right] = await Promise.all([PAW.episode(a), PAW.episode(b)]);
    const length = Math.max(left.turns.length, right.turns.length);
    let first = 0;
    while (first < length && left.turns[first]?.command === right.turns[first]?.command) first += 1;
    const told = first === length ? "The same commands in both." : `First difference: turn ${first + 1}.`;
    const contexts = [a, b].map((row) => ({ run: PAW.page.runs[row.run], by: "entropy", scenes: false }));
    const panel = PAW.tokenPanel(box);
    box.replaceChildren(
      h("div", { class: "bar" }, h("p", { role: "status" }, told),
        first < length ? h("button", { type: "button", onclick: () => document.getElementById("first-difference").scrollIntoView({ block: "center" }) }, "show it") : null),
      PAW.legend((contexts.find(({ run }) => run.probability_cap != null) ?? contexts[0]).run, "entropy"),
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Two episodes beside each other" },
        h("table", { class: "plain pair" },
          h("caption", { class: "visually-hidden" }, "Two episodes, a row a turn"),
          h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "turn"), h("th", { scope: "col" }, head(a)), h("th", { scope: "col" }, head(b)))),
          h("tbody", {},
            Array.from({ length }, (_, i) => h("tr", { id: i === first ? "first-difference" : null, class: i === first ? "first" : i > first ? "after" : "" },
              h("th", { scope: "row" }, String(i + 1), i === first ? h("div", { class: "badge warn" }, "differs") : null),
              side(a, left, i, contexts[0]), side(b, right, i, contexts[1])))))),
      panel);
    box.dataset.ready = "yes";
  }

  function select(title, rows, chosen, change) {
    const node = h("select", { "aria-label": title, onchange: () => change(rows[node.selectedIndex]) },
      rows.map((row) => h("option", { selected: row === chosen }, label(row))));
    return node;
  }

  /** The part of the view that chooses and shows a pair. */
  PAW.pairPanel = (state) => {
    const groups = PAW.comparable();
    const node = h("section", { class: "panel pairs", "aria-labelledby": "pairs-title" }, h("h2", { id: "pairs-title" }, "Two episodes of one task"));
    const asked = find(state.a);
    if (!groups.length || (asked && !PAW.partners(asked).length)) {
      node.append(h("p", { class: "dim" }, asked
        ? "This page holds no other whole episode of the same task. Give `paw report` two runs, or a run with more updates saved."
        : "No task was kept twice: there is nothing to set beside each other."));
      return node;
    }
    const cross = (rows) => (new Set(rows.map((row) => row.run)).size > 1 ? 0 : new Set(rows.map((row) => row.update)).size > 1 ? 1 : 2);
    groups.sort((a, b) => cross(a) - cross(b));
    const a = asked ?? groups[0]?.[0];
    const partners = PAW.partners(a);
    if (!partners.length) return node;
    const chosen = find(state.b);
    const b = partners.includes(chosen) ? chosen : partners[0];
    const go = (left, right) => PAW.go({ view: "compare", a: name(left), b: right ? name(right) : "" });
    const rows = groups.find((list) => list.includes(a));
    const tasks = h("select", { "aria-label": "Task", onchange: () => go(groups[tasks.selectedIndex][0]) },
      groups.map((list) => h("option", { selected: list === rows }, PAW.short(`${list[0].task.instruction || list[0].task.id} (${list.length})`, 120))));
    const box = h("div", { class: "pair-box" });
    node.append(
      h("div", { class: "bar" }, h("label", {}, "task ", tasks)),
      h("div", { class: "bar" }, h("label", {}, "left ", select("Left episode", rows, a, (row) => go(row))),
        h("label", {}, "right ", select("Right episode", partners, b, (row) => go(a, row))),
        h("button", { type: "button", onclick: () => go(b, a) }, "swap")),
      box);
    both(box, a, b).catch(PAW.complain);
    return node;
  };
})();
