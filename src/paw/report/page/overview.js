// Overview: what the runs are, what is odd about them, success with its intervals, curves.
(() => {
  const { h } = PAW;
  const MOST = 12; // odd things at once
  let chosen = ""; // whose success is shown by kind; stays while a live page grows

  const span = (odd) =>
    odd.first == null ? "" : odd.last == null || odd.last === odd.first
      ? `update ${odd.first}` : `updates ${odd.first}–${odd.last}`;

  function oddities(runs, show) {
    const several = runs.length > 1;
    const all = runs.flatMap((run) => run.odd.map((odd) => ({ run, odd })));
    if (!all.length) return null;
    const one = ({ run, odd }) => h("li", {},
      h(odd.metric ? "button" : "span", {
        type: odd.metric ? "button" : null, class: "oddity", title: odd.metric,
        onclick: () => odd.metric && show(odd.metric),
      },
      several ? h("b", {}, PAW.short(run.name, 60), ": ") : null,
      PAW.short(odd.text, 300),
      span(odd) && !odd.text.includes("update") ? h("span", { class: "dim" }, ` ${span(odd)}`) : null));
    const rest = all.slice(MOST);
    return h("section", { class: "panel odd", "aria-labelledby": "odd-title" },
      h("h2", { id: "odd-title" }, "What is odd"),
      h("ul", {}, all.slice(0, MOST).map(one)),
      rest.length ? h("details", {}, h("summary", {}, `${PAW.count(rest.length)} more`), h("ul", {}, rest.map(one))) : null);
  }

  const STATES = { finished: "good", unfinished: "warn", failed: "bad", empty: "warn" };

  function stateOf(run) {
    const made = run.source === "evaluation" ? "evaluation"
      : run.planned ? `${PAW.count(run.updates)} of ${PAW.many(run.planned, "update")}` : PAW.many(run.updates, "update");
    return [h("span", { class: `badge ${STATES[run.state] ?? ""}` }, run.state), " ", h("span", { class: "dim" }, made)];
  }

  /** What all runs have in common once, and a table of what differs. */
  function facts(runs) {
    const names = [...new Set(runs.flatMap((run) => run.facts.map(([name]) => name)))];
    const values = (name) => runs.map((run) => run.facts.find(([own]) => own === name)?.[1] ?? "");
    const common = names.filter((name) => new Set(values(name)).size === 1);
    const different = names.filter((name) => !common.includes(name));
    const list = h("dl", { class: "facts" }, common.map((name) => h("div", {}, h("dt", {}, PAW.short(name, 80)), h("dd", {}, PAW.short(values(name)[0], 400)))));
    const rows = runs.map((run, number) => h("tr", {},
      h("th", { scope: "row" }, h("i", { class: `swatch ${PAW.lineOf(run).hue}` }), PAW.short(run.name, 80)),
      h("td", {}, stateOf(run)),
      different.map((name) => h("td", {}, PAW.short(values(name)[number], 200)))));
    const table = h("div", { class: "scroll runs", tabindex: 0, role: "region", "aria-label": "Table of runs" },
      h("table", { class: "plain" },
        h("thead", {}, h("tr", {}, ["run", "state", ...different].map((name) => h("th", { scope: "col" }, PAW.short(name, 80))))),
        h("tbody", {}, rows)));
    const reasons = runs.filter((run) => run.reason).map((run) => h("div", { class: `reason ${run.state}` },
      h("b", {}, PAW.short(run.name, 80), " "), PAW.prose(run.reason, "prose inline")));
    return h("section", { class: "panel", "aria-labelledby": "facts-title" },
      h("h2", { id: "facts-title" }, runs.length > 1 ? "Runs" : "Run"),
      table, reasons, list, PAW.leftOut());
  }

  /** What was left out of the page, and by what rule. */
  PAW.leftOut = () => {
    const runs = PAW.page.runs.filter((run) => run.left_out);
    const lines = runs.map((run) =>
      h("p", { class: "dim" }, PAW.page.runs.length > 1 ? `${PAW.short(run.name, 60)}: ` : "", PAW.short(run.left_out, 600)));
    return runs.length < 3 ? lines : h("details", {}, h("summary", {}, `Episodes left out of ${PAW.count(runs.length)} runs`), lines);
  };

  PAW.lineOf = (run) => PAW.lines().find((line) => line.runs.includes(run));

  const share = (value) => PAW.percent(value);

  function rowsOf(evaluation, hue) {
    return evaluation.kinds.map((kind) => ({
      label: kind.kind || "all tasks", hue, low: kind.low, high: kind.high, value: kind.success,
      text: `${PAW.percent(kind.success, 1)} of ${PAW.count(kind.episodes)}`,
      title: `95 %: ${PAW.percent(kind.low, 1)} to ${PAW.percent(kind.high, 1)}`, strong: !kind.kind,
    }));
  }

  const all = (evaluation) => evaluation.kinds.find((kind) => !kind.kind) ?? evaluation.kinds[0];

  function failures(evaluation) {
    const list = Object.entries(evaluation.failures);
    if (!list.length) return null;
    return h("div", { class: "reason" }, "Not counted, their environments failed:",
      h("ul", {}, list.map(([reason, number]) => h("li", {}, `${PAW.count(number)} × `, PAW.short(reason, 300)))));
  }

  function history(runs) {
    const model = () => {
      const shown = runs.filter((run) => run.evaluations.filter((one) => one.update != null && all(one)).length > 1);
      const own = (run) => run.evaluations.filter((one) => one.update != null && all(one));
      const xs = PAW.union(shown.map((run) => own(run).map((one) => one.update)));
      const onto = (run, field) => PAW.onto(xs, own(run).map((one) => one.update), own(run).map((one) => all(one)[field]));
      const few = shown.length <= 3;
      return {
        xs, percent: true, log: false, marked: null,
        bands: few ? shown.map((run) => ({ hue: PAW.lineOf(run).hue, low: onto(run, "low"), high: onto(run, "high") })) : [],
        lines: shown.map((run) => ({ name: run.name, hue: PAW.lineOf(run).hue, dash: PAW.lineOf(run).dash, values: onto(run, "success") })),
      };
    };
    if (model().xs.length < 2) return null;
    return PAW.chart({ label: "Success of evaluations by update", model });
  }

  function success(runs) {
    const order = PAW.lines().flatMap((line) => line.runs); // arms together
    const evaluated = order.filter((run) => runs.includes(run) && run.evaluations.some(all));
    if (!evaluated.length) return null;
    const last = (run) => run.evaluations.findLast(all);
    const axis = { low: 0, high: 1, shown: share };
    const each = evaluated.map((run) => ({ ...rowsOf(last(run), PAW.lineOf(run).hue).find((row) => row.strong) ?? {}, label: run.name, strong: false }));
    const body = h("div", {});
    const show = (run) => {
      const one = last(run);
      chosen = run.name;
      const played = [
        one.update == null ? null : `update ${one.update}`, `split ${one.split}`,
        one.temperature == null ? null : `temperature ${PAW.number(one.temperature)}`,
      ].filter(Boolean).join(", ");
      body.replaceChildren(h("p", { class: "dim" }, `Last evaluation: ${PAW.short(played, 200)}. Bars: 95 % Wilson intervals.`),
        PAW.intervals(rowsOf(one, PAW.lineOf(run).hue), axis, "Success by kind of task"), failures(one) ?? "");
    };
    const choice = evaluated.length > 1
      ? h("label", { class: "bar" }, "By kind of ", h("select", { onchange: (event) => show(evaluated[event.target.selectedIndex]) },
        evaluated.map((run) => h("option", { selected: run.name === chosen }, PAW.short(run.name, 60)))))
      : null;
    show(evaluated.find((run) => run.name === chosen) ?? evaluated[0]);
    const several = evaluated.length > 1;
    const curve = PAW.page.comparison ? null : history(runs); // arms have theirs among the curves
    const chart = curve && [h("p", { class: "dim" }, "Evaluations by update, all tasks"), curve];
    return h("section", { class: "panel", "aria-labelledby": "success-title" },
      h("h2", { id: "success-title" }, "Success"),
      h("div", { class: "columns" },
        several ? h("div", {}, PAW.intervals(each, axis, "Success of each run"), chart) : h("div", {}, body),
        several ? h("div", {}, choice, body) : chart && h("div", {}, chart)));
  }

  PAW.views = { overview: { title: "Overview" } };

  PAW.views.overview.render = (root) => {
    const curves = PAW.curves();
    const top = h("div", {});
    const fillTop = () => {
      const { runs } = PAW.page;
      const parts = [oddities(runs, curves.showMetric), facts(runs), success(runs)];
      top.replaceChildren(...parts.filter(Boolean));
      if (!runs.length) top.replaceChildren(h("p", {}, "There are no runs here."));
    };
    fillTop();
    curves.hidden = PAW.page.runs.length > 0 && PAW.page.runs.every((run) => run.source === "evaluation");
    root.replaceChildren(h("h1", { class: "visually-hidden" }, "Overview"), top, curves);
    const { metric } = PAW.state();
    if (metric) curves.showMetric(metric);
    return { refresh() { fillTop(); curves.refresh(); } };
  };
})();
