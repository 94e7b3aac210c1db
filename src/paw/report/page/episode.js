// An episode: its turns with all tokens, or with `side=group` all attempts at its task.
(() => {
  const { h } = PAW;
  const MANY = 20000; // tokens from which turns are built only when they come near

  const set = { by: "entropy", scenes: true }; // across episodes

  const fact = (name, value, about) => h("div", { title: about }, h("dt", {}, name), h("dd", {}, value));

  function header(row, episode, state) {
    const run = PAW.page.runs[row.run];
    const facts = [
      fact("result", h("span", { class: `result ${PAW.result(row).replace(" ", "-")}` }, PAW.result(row))),
      fact("return", PAW.number(row.return), "sum of the task's rewards, without penalties"),
      episode?.score != null ? fact("score", PAW.number(episode.score), "the benchmark's own") : null,
      fact("turns", PAW.number(row.turns)),
      fact("valid", PAW.percent(row.valid), "share of valid turns"),
      fact("advantage", PAW.number(row.advantage), "mean over its turns"),
      fact("λ", PAW.number(episode?.group_weight), "group weight, Eq. 10: 1 minus the group's mean return over the maximum; – where nothing was selected"),
      row.nll != null ? fact("nll", PAW.number(row.nll), "mean of a token of the next observations, nats") : null,
      fact("end", episode ? (episode.prompt_limit ? "prompt limit" : episode.terminated ? "terminated" : "cut by a limit") : "–"),
      row.why ? fact("kept", PAW.short(row.why, 60), "why it stands in this page whole") : null,
    ];
    const group = state.side === "group";
    return h("header", { class: "episode-head" },
      h("p", { class: "crumbs" }, h("a", { href: PAW.lastTable ?? "#view=episodes" }, "Episodes"), " / ",
        PAW.page.runs.length > 1 ? `${PAW.short(run.name, 60)} · ` : "", PAW.where(row), row.task.kind ? ` · ${PAW.short(row.task.kind, 80)}` : ""),
      h("h1", {}, PAW.short(row.task.instruction || row.task.id || "(no name)", 400)),
      h("p", { class: "dim id" }, PAW.short(row.task.id, 200)),
      row.failure != null ? h("div", { class: "reason" }, h("b", {}, "Its environment failed. "), PAW.prose(row.failure, "prose inline")) : null,
      h("dl", { class: "numbers" }, facts),
      h("nav", { class: "bar", "aria-label": "This episode" },
        h("a", { class: "button", "aria-current": group ? null : "page", href: PAW.linkOf(row) }, "Turns"),
        h("a", { class: "button", "aria-current": group ? "page" : null, href: PAW.linkOf(row, { side: "group" }) }, `The group (${PAW.groupOf(row).length})`),
        h("a", { class: "button", href: PAW.link({ view: "compare", a: `${row.run}.${row.row}` }) }, "Compare…")));
  }

  function tokensOf(episode) {
    const size = (tokens) => tokens?.text.length ?? 0;
    return episode.turns.reduce((sum, turn) => sum + size(turn.action) + size(turn.target), 0);
  }

  function section(episode, number, row, context, lazy) {
    const turn = episode.turns[number];
    const node = h("section", { class: `turn ${turn.valid ? "" : "refused"}`, id: `turn-${number + 1}`, tabindex: -1, "aria-label": `Turn ${number + 1}` },
      h("div", { class: "turn-head" },
        h("a", { class: "turn-number", href: PAW.linkOf(row, { turn: number + 1 }), "aria-label": `Turn ${number + 1}` }, String(number + 1)),
        h("h2", { class: "command" }, PAW.short(turn.command, 200) || "(no command)"),
        PAW.turnMarks(turn),
        turn.advantage != null ? h("span", { class: "dim" }, `A ${PAW.number(turn.advantage)}`) : null));
    const body = h("div", { class: "turn-slot" });
    node.append(body);
    const build = () => { body.replaceChildren(PAW.turnBody(episode, number, context)); body.style.minHeight = ""; };
    if (lazy) {
      const letters = turn.response.length + (turn.next_observation ?? "").length;
      body.style.minHeight = `${90 + 24 * Math.ceil(letters / 80)}px`;
      PAW.lazily(body, build);
    } else build();
    return node;
  }

  function rail(episode, row) {
    return h("nav", { class: "rail", "aria-label": "Turns" }, h("ol", {}, episode.turns.map((turn, i) =>
      h("li", {}, h("a", { href: PAW.linkOf(row, { turn: i + 1 }), class: turn.valid ? "" : "refused", title: PAW.short(turn.command, 200) },
        h("span", { class: "turn-number" }, String(i + 1)),
        h("i", { class: `dot ${!turn.valid ? "bad" : turn.reward > 0 ? "good" : turn.selected ? "blue" : ""}` }),
        h("span", { class: "command" }, PAW.short(turn.command, 60) || "(none)"),
        turn.reward ? h("b", {}, `+${PAW.number(turn.reward)}`.replace("+−", "−")) : null,
        turn.valid ? null : h("span", { class: "visually-hidden" }, "refused"))))));
  }

  /** The row before or after in the table's order, or the run's, that was kept. */
  function beside(row, by) {
    const order = PAW.order?.includes(row) ? PAW.order : PAW.rows()[row.run];
    for (let i = order.indexOf(row) + by; i >= 0 && i < order.length; i += by) if (order[i].kept) return order[i];
    return null;
  }

  PAW.episodeView = (root, state) => {
    const find = () => PAW.row(PAW.whole(state.run) ?? 0, PAW.whole(state.episode));
    let row = find();
    if (!row || !row.kept) {
      root.replaceChildren(row ? header(row, null, state) : h("h1", {}, "No such episode"),
        h("p", {}, row ? "This episode was left out of the page: only its row is known." : "The address names an episode that this page has not."),
        row && state.side === "group" ? PAW.groupTable(row) : "");
      return { refresh: () => find()?.kept && PAW.remount(), keys: row ? keysOf(row, () => null) : {} };
    }
    const run = PAW.page.runs[row.run];
    let episode = null;
    let text = ""; // of the episode, to see whether a live page has another
    let current = 0;

    const head = h("div", {}, header(row, null, state));
    const body = h("div", { class: "episode" }, h("p", { class: "dim" }, "unpacking…"));
    const panel = PAW.tokenPanel(body);
    root.replaceChildren(head, body, state.side === "group" ? "" : panel);

    function draw() {
      head.replaceChildren(header(row, episode, state));
      if (state.side === "group") {
        body.className = "";
        body.replaceChildren(PAW.groupTable(row));
        return;
      }
      const context = { run, by: set.by, scenes: set.scenes };
      const lazy = tokensOf(episode) > MANY;
      const sections = episode.turns.map((_, i) => section(episode, i, row, context, lazy));
      body.className = "episode";
      body.replaceChildren(rail(episode, row), h("div", { class: "turns" }, toolbar(), sections.length ? sections : h("p", {}, "It has no turns.")));
      mark(current);
    }

    function toolbar() {
      const by = (name) => h("button", { type: "button", "aria-pressed": String(set.by === name), onclick: () => { set.by = name; redraw(); } }, name);
      const scenes = episode.turns.some((turn) => turn.scene.length)
        ? h("button", { type: "button", "aria-pressed": String(!set.scenes), onclick: plain, title: "key t" }, "plain text")
        : null;
      return h("div", { class: "toolbar" }, h("div", { class: "bar" }, h("span", { class: "dim" }, "actions by"), by("entropy"), by("advantage"), scenes), PAW.legend(run, set.by));
    }

    function redraw() {
      const focus = document.activeElement?.textContent;
      const at = document.getElementById(`turn-${current}`)?.getBoundingClientRect().top;
      draw();
      const now = document.getElementById(`turn-${current}`)?.getBoundingClientRect().top;
      if (at != null && now != null) scrollBy(0, now - at);
      [...body.querySelectorAll(".toolbar button")].find((button) => button.textContent === focus)?.focus({ preventScroll: true });
    }

    function plain() {
      set.scenes = !set.scenes;
      redraw();
      PAW.say(set.scenes ? "the environment's own view" : "plain text");
    }

    function mark(number) {
      for (const link of body.querySelectorAll(".rail a[aria-current]")) link.removeAttribute("aria-current");
      const link = body.querySelectorAll(".rail a")[number - 1];
      link?.setAttribute("aria-current", "step");
      const list = body.querySelector(".rail");
      if (link && list) list.scrollTo({ top: link.offsetTop - list.clientHeight / 2, left: link.offsetLeft - list.clientWidth / 2 });
    }

    function to(number) {
      current = number;
      const node = document.getElementById(`turn-${number}`);
      if (!node) return;
      PAW.build(node.querySelector(".turn-slot"));
      node.scrollIntoView({ block: "start" });
      node.focus({ preventScroll: true });
      mark(number);
    }

    async function load(first) {
      const found = await PAW.episode(row);
      const now = JSON.stringify(found);
      if (now === text || !root.contains(body)) return;
      episode = found;
      text = now;
      draw();
      if (first && PAW.whole(state.turn)) to(PAW.whole(state.turn));
      body.dataset.ready = "yes";
    }

    load(true).catch((error) => { body.replaceChildren(); PAW.complain(error); });
    const step = (by) => {
      if (!episode?.turns.length || state.side === "group") return;
      const next = Math.max(1, Math.min(current + by, episode.turns.length));
      PAW.go({ ...PAW.state(), turn: next }, { replace: true });
    };
    return {
      update: (now) => { if (episode && PAW.whole(now.turn) && state.side !== "group") to(PAW.whole(now.turn)); },
      refresh: () => {
        row = find();
        if (row?.kept) load(false).catch(PAW.complain);
        else PAW.remount();
      },
      keys: { ...keysOf(row, step), t: () => episode?.turns.some((turn) => turn.scene.length) && plain(), e: () => { set.by = set.by === "entropy" ? "advantage" : "entropy"; if (episode) redraw(); } },
    };
  };

  function keysOf(row, step) {
    const open = (other) => other && (location.hash = PAW.linkOf(other));
    return {
      j: () => open(beside(row, 1)), k: () => open(beside(row, -1)),
      n: () => step(1), p: () => step(-1),
      g: () => { location.hash = PAW.linkOf(row, PAW.state().side ? {} : { side: "group" }); },
      Escape: () => { location.hash = PAW.lastTable ?? "#view=episodes"; },
    };
  }
})();
