// The table of all episodes: filters, order and page stand in the fragment.
(() => {
  const { h } = PAW;
  const PAGE = 100; // rows

  const WHY = {
    beside: "its group has one that was chosen", room: "there was room for it",
    "": "only this row is in the page", "most surprising": "the highest nll of its update",
  };
  const results = ["success", "no success", "failed"];

  function cells(row, names) {
    const link = (text) => (row.kept ? h("a", { href: PAW.linkOf(row) }, text) : text);
    const made = {
      run: () => [h("i", { class: `swatch ${PAW.lineOf(PAW.page.runs[row.run]).hue}` }), PAW.short(PAW.page.runs[row.run].name, 60)],
      update: () => PAW.number(row.update),
      group: () => `${row.group}.${row.index}`,
      kind: () => PAW.short(row.task.kind, 60),
      task: () => [link(PAW.short(row.task.instruction || row.task.id || "(no name)", 140)),
        row.failure == null ? null : h("div", { class: "dim" }, PAW.short(row.failure, 140))],
      result: () => h("span", { class: `result ${PAW.result(row).replace(" ", "-")}` }, PAW.result(row)),
      return: () => PAW.number(row.return),
      turns: () => PAW.number(row.turns),
      valid: () => PAW.percent(row.valid),
      nll: () => PAW.number(row.nll),
      advantage: () => PAW.number(row.advantage),
      why: () => h("span", { title: WHY[row.why] }, row.kept ? PAW.short(row.why || "kept", 40) : "left out"),
    };
    return names.map((name) =>
      h("td", { class: `${PAW.columns[name].number ? "number " : ""}c-${name}`, title: named[name]?.(row) }, made[name]()));
  }

  // Names that may be cut in their cells.
  const named = { run: (row) => PAW.page.runs[row.run].name, kind: (row) => row.task.kind };

  /** Columns that say something here. */
  function columns() {
    const rows = PAW.rows().flat();
    const some = (field) => rows.some((row) => row[field] != null);
    const skip = {
      run: PAW.page.runs.length < 2, update: !some("update"), valid: !some("valid"),
      nll: !some("nll"), advantage: !some("advantage"), kind: !rows.some((row) => row.task.kind),
    };
    return Object.keys(PAW.columns).filter((name) => !skip[name]);
  }

  let hits = { query: null, rows: null }; // of the last search in texts
  PAW.order = null; // rows as the table last had them: j and k in an episode follow it

  function mount(root) {
    const names = columns();
    let rows = [];
    let chosen = 0; // place in rows
    const state = () => ({ view: "episodes", ...PAW.state() });
    const change = (values) => PAW.go({ ...state(), page: "", ...values }, { replace: true });

    const field = (name, placeholder, label, type = "search") => {
      const input = h("input", { type, placeholder, "aria-label": label, id: `filter-${name}`,
        oninput: () => change({ [name]: input.value, ...(name === "q" ? { text: "" } : {}) }) });
      return input;
    };
    const choice = (name, label, values, texts = values) => {
      const select = h("select", { "aria-label": label, id: `filter-${name}`,
        onchange: () => change({ [name]: values[select.selectedIndex - 1] ?? "" }) },
        h("option", {}, `any ${label}`), texts.map((text) => h("option", {}, PAW.short(text, 60))));
      select.show = (value) => (select.selectedIndex = values.map(String).indexOf(String(value)) + 1);
      return select;
    };
    const q = field("q", "task, instruction…", "Search tasks and instructions");
    const update = field("update", "update 12 or 10-20", "Updates, such as 12 or 10-20");
    const kinds = [...new Set(PAW.page.runs.flatMap((run) => run.tasks.map((task) => task.kind)))].filter(Boolean).sort();
    const numbers = PAW.page.runs.map((_, number) => number);
    const selects = {
      run: choice("run", "run", numbers, PAW.page.runs.map((run) => run.name)),
      kind: choice("kind", "kind", kinds),
      result: choice("result", "result", results),
      kept: choice("kept", "kept", ["kept", "left"], ["kept whole", "left out"]),
    };
    const clear = h("button", { type: "button", class: "quiet", onclick: () => PAW.go({ view: "episodes" }, { replace: true }) }, "clear");
    const texts = h("button", { type: "button", onclick: () => change({ text: "1" }) }, "Search their texts too");
    const told = h("p", { class: "dim told", role: "status" });
    const head = h("tr", {}, names.map((name) => {
      const { title, about, number } = PAW.columns[name];
      return h("th", { scope: "col", class: `${number ? "number " : ""}c-${name}`, data: { name }, title: about },
        h("button", { type: "button", onclick: () => sort(name) }, title));
    }));
    const body = h("tbody", { onclick: open });
    const pages = h("nav", { class: "pages", "aria-label": "Pages of the table" });
    root.replaceChildren(
      h("h1", { class: "visually-hidden" }, "Episodes"),
      h("div", { class: "bar filters", role: "search" }, q,
        PAW.page.runs.length > 1 ? selects.run : null,
        names.includes("update") ? update : null,
        kinds.length > 1 ? selects.kind : null, selects.result, selects.kept, clear),
      h("div", { class: "bar" }, told, texts),
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Episodes" },
        h("table", { class: "plain episodes" }, h("thead", {}, head), body)),
      pages,
      ...[PAW.leftOut()].flat());

    function sort(name) {
      const now = PAW.state().sort;
      change({ sort: now === name ? `-${name}` : now === `-${name}` ? "" : name });
    }

    function open(event) {
      if (event.target.closest("a")) return;
      const place = Number(event.target.closest("tr")?.dataset.place ?? -1);
      if (place < 0) return;
      chosen = place;
      if (rows[place].kept) location.hash = PAW.linkOf(rows[place]);
      else choose(place);
    }

    function choose(place) {
      if (!rows.length) return;
      chosen = Math.max(0, Math.min(place, rows.length - 1));
      const page = Math.floor(chosen / PAGE);
      if (page !== (PAW.whole(PAW.state().page) ?? 1) - 1) PAW.go({ ...state(), page: page + 1 }, { replace: true });
      const node = body.querySelector(`[data-place="${chosen}"]`);
      for (const other of body.querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
      node.setAttribute("aria-current", "true");
      node.focus({ preventScroll: true });
      node.scrollIntoView({ block: "nearest" });
    }

    function draw(now) {
      if (document.activeElement !== q) q.value = now.q ?? "";
      if (document.activeElement !== update) update.value = now.update ?? "";
      update.setAttribute("aria-invalid", String(Boolean(now.update) && !PAW.range(now.update)));
      for (const [name, select] of Object.entries(selects)) select.show(now[name] ?? "");
      for (const cell of head.children) {
        const sorted = now.sort === cell.dataset.name ? "ascending" : now.sort === `-${cell.dataset.name}` ? "descending" : "none";
        cell.setAttribute("aria-sort", sorted);
      }
      const found = now.text && hits.query === now.q ? hits.rows : null;
      rows = PAW.filtered(now, found);
      PAW.order = rows;
      const count = Math.ceil(rows.length / PAGE);
      const page = Math.min((PAW.whole(now.page) ?? 1) - 1, Math.max(count - 1, 0));
      const at = body.querySelector("[aria-current]")?.dataset.place;
      const focused = body.contains(document.activeElement);
      const restore = () => {
        const node = body.querySelector(`[data-place="${at}"]`);
        node?.setAttribute("aria-current", "true");
        if (focused) node?.focus({ preventScroll: true });
      };
      body.replaceChildren(...rows.slice(page * PAGE, (page + 1) * PAGE).map((row, i) =>
        h("tr", { data: { place: page * PAGE + i }, tabindex: -1, class: row.kept ? "kept" : "left" }, cells(row, names))));
      if (at) restore();
      const total = PAW.rows().reduce((sum, list) => sum + list.length, 0);
      const kept = rows.filter((row) => row.kept).length;
      told.textContent = total
        ? `${PAW.count(rows.length)} of ${PAW.many(total, "episode")}, ${PAW.count(kept)} kept whole${found ? `; texts of ${PAW.count(found.size)} hold the words` : ""}`
        : "No episode was kept or has been played yet.";
      texts.hidden = !now.q || Boolean(found) || !PAW.rows().flat().some((row) => row.kept);
      clear.hidden = !Object.keys(now).some((key) => !["view", "page"].includes(key));
      drawPages(page, count);
      if (now.text && !found && now.q) look(now.q);
    }

    function drawPages(page, count) {
      const step = (to, text, able) => able
        ? h("a", { href: PAW.link({ ...state(), page: to + 1 }) }, text)
        : h("span", { class: "dim" }, text);
      pages.hidden = count < 2;
      pages.replaceChildren(step(page - 1, "← before", page > 0),
        h("span", {}, `page ${page + 1} of ${count}`), step(page + 1, "next →", page < count - 1));
    }

    async function look(query) {
      hits = { query, rows: new Set() };
      try {
        const found = await PAW.searchTexts(query, PAW.rows().flat(), (done, all) => {
          texts.textContent = `searching ${Math.round((100 * done) / all)} %`;
        });
        if (hits.query === query) hits.rows = found;
      } catch (error) {
        PAW.complain(error);
      }
      texts.textContent = "Search their texts too";
      if (root.contains(body)) draw(PAW.state());
    }

    draw(PAW.state());
    return {
      update: draw,
      refresh: () => { hits = { query: null, rows: null }; draw(PAW.state()); },
      keys: {
        j: () => choose(body.querySelector("[aria-current]") ? chosen + 1 : chosen),
        k: () => choose(chosen - 1),
        Enter: () => { if (body.contains(document.activeElement) && rows[chosen]?.kept) location.hash = PAW.linkOf(rows[chosen]); },
        "/": () => q.focus(),
        Escape: () => { if (document.activeElement === q && q.value) { q.value = ""; change({ q: "", text: "" }); } else document.activeElement.blur(); },
      },
    };
  }

  PAW.views.episodes = {
    title: "Episodes",
    key: (state) => (state.episode == null ? "episodes" : `episode ${state.run ?? 0} ${state.episode} ${state.side ?? ""}`),
    render: (root, state) => (state.episode == null ? mount(root) : PAW.episodeView(root, state)),
  };
})();
