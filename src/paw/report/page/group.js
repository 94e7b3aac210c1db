// All attempts of a group beside each other: one column an attempt, one row a turn.
(() => {
  const { h } = PAW;

  function head(row, chosen, weight) {
    const name = `index ${row.index}`;
    return h("th", { scope: "col", class: row.row === chosen.row ? "chosen" : "" },
      row.kept ? h("a", { href: PAW.linkOf(row) }, name) : h("span", {}, name), " ",
      h("span", { class: `result ${PAW.result(row).replace(" ", "-")}` }, PAW.result(row)),
      h("div", { class: "dim" }, `return ${PAW.number(row.return)} · ${PAW.many(row.turns, "turn")}`),
      h("div", { class: "dim" }, `A ${PAW.number(row.advantage)}${weight == null ? "" : ` · λ ${PAW.number(weight)}`}`));
  }

  function cell(row, episode, number) {
    const turn = episode?.turns[number];
    if (!turn) return h("td", { class: "none" });
    return h("td", { class: turn.valid ? "" : "refused" },
      h("a", { href: PAW.linkOf(row, { turn: number + 1 }), title: PAW.short(turn.next_observation ?? "", 300) },
        h("code", {}, PAW.short(turn.command, 80) || "(no command)")),
      turn.valid ? null : h("span", { class: "badge bad" }, "refused"),
      turn.reward ? h("span", { class: "badge good" }, PAW.number(turn.reward)) : null,
      turn.selected ? h("i", { class: "dot blue", title: "selected" }) : null);
  }

  PAW.groupTable = (row) => {
    const rows = PAW.groupOf(row);
    const box = h("div", { class: "scroll group", tabindex: 0, role: "region", "aria-label": "The group's attempts" });
    const fill = async () => {
      const episodes = await Promise.all(rows.map((one) => (one.kept ? PAW.episode(one) : null)));
      const kept = episodes.filter(Boolean);
      const length = Math.max(0, ...kept.map((episode) => episode.turns.length));
      const weight = kept[0]?.group_weight;
      const mean = rows.reduce((sum, one) => sum + one.return, 0) / rows.length;
      const out = (one) => h("td", { class: "stub", rowspan: Math.max(length, 1) }, "left out: its turns are not in this page",
        one.failure != null ? h("p", {}, PAW.short(one.failure, 200)) : null);
      box.replaceChildren(h("table", { class: "plain" },
        h("caption", {}, `${PAW.many(rows.length, "attempt")} at one task, mean return ${PAW.number(mean)}, λ ${PAW.number(weight)}`),
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "turn"), rows.map((one, i) => head(one, row, episodes[i]?.group_weight)))),
        h("tbody", {}, Array.from({ length: Math.max(length, 1) }, (_, number) => h("tr", {},
          h("th", { scope: "row" }, number < length ? String(number + 1) : ""),
          rows.map((one, i) => (one.kept ? cell(one, episodes[i], number) : number === 0 ? out(one) : null)))))));
      box.dataset.ready = "yes";
    };
    fill().catch(PAW.complain);
    return box;
  };
})();
