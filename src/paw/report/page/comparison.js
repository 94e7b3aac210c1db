// A comparison of arms: differences with intervals, each seed's results, curves, verdicts.
(() => {
  const { h } = PAW;
  const METRICS = ["final", "late_window", "area"];
  const TITLES = { final: "final: success on the panel after the last update", late_window: "late window: success of the training episodes of the last quarter", area: "area: mean height of the curve of panel success" };

  const points = (value) => `${value > 0 ? "+" : ""}${(100 * value).toFixed(1)}`.replace("-", "−");

  const hueOf = (arm) => PAW.lines().find((line) => line.name === arm)?.hue ?? "hue-6";

  const metricsOf = (data) => [...new Set([...METRICS, ...data.comparisons.map((one) => one.metric)])].filter((metric) => data.comparisons.some((one) => one.metric === metric) || METRICS.includes(metric));

  function forest(data, metric) {
    const list = data.comparisons.filter((one) => one.metric === metric && one.mean_difference != null);
    if (!list.length) return null;
    const reach = list.flatMap((one) => [...(one.interval ?? []), ...(one.differences ?? []), one.mean_difference]).map(Math.abs);
    const edge = Math.max(...reach, 0.02) * 1.08;
    return h("div", {}, h("h3", {}, PAW.short(TITLES[metric] ?? metric, 120)),
      PAW.intervals(list.map((one) => ({
        label: `${one.arm} − ${one.baseline}`, hue: hueOf(one.arm), value: one.mean_difference,
        low: one.interval?.[0], high: one.interval?.[1],
        dots: (one.differences ?? []).map((value, i) => ({ value, title: `seed ${one.seeds?.[i]}: ${points(value)}` })),
        text: one.interval ? `${points(one.mean_difference)} [${points(one.interval[0])}, ${points(one.interval[1])}]` : points(one.mean_difference),
        title: `${one.num_pairs} pairs`,
      })), { low: -edge, high: edge, shown: points, zero: true }, `Differences in ${metric}, points of success`));
  }

  function seeds(data, metric) {
    const arms = [...new Set(data.runs.map((run) => run.arm))];
    const of = (arm) => data.runs.filter((run) => run.arm === arm && run[metric] != null);
    const values = data.runs.map((run) => run[metric]).filter((value) => value != null);
    if (!values.length) return null;
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = (high - low || 0.1) * 0.08;
    return h("div", {}, h("h3", {}, `${metric} of each seed`), PAW.intervals(arms.map((arm) => {
      const own = of(arm);
      const mean = own.length ? own.reduce((sum, run) => sum + run[metric], 0) / own.length : null;
      return { label: arm, hue: hueOf(arm), value: mean, text: PAW.percent(mean, 1),
        dots: own.map((run) => ({ value: run[metric], title: `seed ${run.seed}: ${PAW.percent(run[metric], 1)}` })) };
    }), { low: low - room, high: high + room, shown: (value) => PAW.percent(value) }, `${metric} of each arm and seed`));
  }

  function curve(data) {
    const arms = [...new Set(data.runs.map((run) => run.arm))];
    const model = () => {
      const xs = PAW.union(data.runs.map((run) => (run.curve ?? []).map(([x]) => x)));
      const result = { xs, lines: [], bands: [], percent: true, log: false, marked: null };
      for (const arm of arms) {
        const own = data.runs.filter((run) => run.arm === arm && run.curve?.length);
        if (!own.length) continue;
        const hue = hueOf(arm);
        const columns = own.map((run) => PAW.onto(xs, run.curve.map(([x]) => x), run.curve.map(([, y]) => y)));
        const at = xs.map((_, i) => columns.map((column) => column[i]).filter((value) => value != null));
        const means = at.map((list) => (list.length ? list.reduce((a, b) => a + b, 0) / list.length : null));
        const wide = at.map((list) => (list.length > 2 ? PAW.tHalf(list) : null));
        for (const values of columns) result.lines.push({ name: arm, hue, values, width: 1, alpha: 0.25, quiet: true });
        if (wide.some((one) => one != null)) result.bands.push({ hue, low: means.map((m, i) => (wide[i] == null ? null : m - wide[i])), high: means.map((m, i) => (wide[i] == null ? null : m + wide[i])) });
        result.lines.push({ name: arm, hue, values: means, width: 2.2 });
      }
      return result;
    };
    if (!model().xs.length) return null;
    return h("div", {}, h("h3", {}, "panel success by update"),
      h("div", { class: "legend" }, arms.map((arm) => h("span", {}, h("i", { class: `swatch ${hueOf(arm)}` }), " ", PAW.short(arm, 60)))),
      PAW.chart({ label: "Panel success by update, mean of each arm", model }));
  }

  function verdicts(data) {
    const heads = ["arm", "metric", "pairs", "difference", "95 % interval", "p", "Holm p", "verdict", "pairs needed", "won by it alone", "by the baseline alone"];
    const p = (value) => (value == null ? "–" : value.toFixed(3));
    return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Differences to the baseline" }, h("table", { class: "plain verdicts" },
      h("caption", {}, `Differences to ${PAW.short(data.baseline ?? "the baseline", 60)}, points of success. p: exact sign flip. Won: episodes of the panel.`),
      h("thead", {}, h("tr", {}, heads.map((name) => h("th", { scope: "col", class: ["arm", "metric", "verdict"].includes(name) ? "" : "number" }, name)))),
      h("tbody", {}, data.comparisons.map((one) => h("tr", {},
        h("th", { scope: "row" }, h("i", { class: `swatch ${hueOf(one.arm)}` }), PAW.short(one.arm, 60)), h("td", {}, PAW.short(one.metric, 60)),
        h("td", { class: "number" }, PAW.number(one.num_pairs)),
        h("td", { class: "number" }, one.mean_difference == null ? "–" : points(one.mean_difference)),
        h("td", { class: "number" }, one.interval ? `${points(one.interval[0])} to ${points(one.interval[1])}` : "–"),
        h("td", { class: "number" }, p(one.p_value)), h("td", { class: "number" }, p(one.holm_p_value)),
        h("td", {}, one.verdict ?? "none: too few pairs"), h("td", { class: "number" }, PAW.number(one.pairs_needed)),
        h("td", { class: "number" }, PAW.number(one.panel?.arm_only)), h("td", { class: "number" }, PAW.number(one.panel?.baseline_only)))))));
  }

  function absent(data) {
    const list = data.runs.filter((run) => run.status !== "finished");
    if (!list.length) return null;
    return h("div", {}, h("h3", {}, "Runs that are in no pair"), h("ul", {}, list.map((run) => h("li", {},
      h("b", {}, PAW.short(`${run.arm}, seed ${run.seed}`, 80)), " ", h("span", { class: `badge ${run.status === "failed" ? "bad" : "warn"}` }, run.status), " ",
      run.reason ? PAW.short(run.reason, 400) : ""))));
  }

  PAW.comparisonPanel = (data) => {
    const metrics = metricsOf(data);
    return h("section", { class: "panel comparison", "aria-labelledby": "comparison-title" },
      h("h2", { id: "comparison-title" }, "Arms"),
      h("p", { class: "dim" }, "Dots are seeds, the large dot their mean, the bar the 95 % paired t interval."),
      h("div", { class: "columns" }, h("div", {}, metrics.map((metric) => forest(data, metric))), h("div", {}, curve(data), seeds(data, "final"), seeds(data, "late_window"))),
      verdicts(data), absent(data));
  };

  PAW.views.compare = {
    title: "Compare",
    key: (state) => `compare ${state.a ?? ""} ${state.b ?? ""}`,
    render: (root, state) => {
      const draw = () => root.replaceChildren(h("h1", { class: "visually-hidden" }, "Compare"),
        PAW.page.comparison && !state.a ? PAW.comparisonPanel(PAW.page.comparison) : "", PAW.pairPanel(state));
      draw();
      return { refresh: draw };
    },
  };
})();
