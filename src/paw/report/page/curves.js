// Curves of all metrics: runs overlaid, or in a comparison each arm's mean with its seeds.
(() => {
  const { h } = PAW;

  const FIRST = [
    "eval/success_rate", "rollout/success_rate", "rollout/return_mean",
    "rollout/valid_action_rate", "rollout/turns_mean", "wm/nll", "wm/loss",
    "wm/clipped_token_fraction", "wm/group_weight_mean", "policy/entropy", "policy/kl",
    "policy/gradient_norm", "wm/role_confusion_rate", "rollout/failures", "time/update",
    "imitate/nll", "imitate/action_nll",
  ];
  const PREFIXES = ["rollout", "policy", "wm", "critic", "eval", "imitate", "time", "tokens", "memory", "model"];
  const SHARE = /(_rate|_fraction)$|^wm\/selection_overlap$/;

  // 97.5 % point of Student's t by degrees of freedom, from 1; beyond, the normal's.
  const T = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179,
    2.16, 2.145, 2.131, 2.12, 2.11, 2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056,
    2.052, 2.048, 2.045, 2.042];

  // Across views, and while a live page grows.
  const set = { search: "", group: "first", log: false, smooth: 0, hidden: new Set() };
  PAW.curveSettings = set;

  const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;

  /** Half the width of the 95 % t interval of a mean. */
  PAW.tHalf = (list) => {
    const m = mean(list);
    const variance = list.reduce((sum, value) => sum + (value - m) ** 2, 0) / (list.length - 1);
    return (T[list.length - 2] ?? 1.96) * Math.sqrt(variance / list.length);
  };

  /** What a line stands for: a run, or in a comparison an arm with its runs. */
  PAW.lines = () => {
    const runs = PAW.page.runs;
    if (!PAW.page.comparison) {
      return runs.map((run, number) => ({ name: run.name, runs: [run], ...PAW.looks(number) }));
    }
    const arms = Map.groupBy(runs, (run) => run.arm ?? run.name);
    return [...arms].map(([name, own], number) => ({ name, runs: own, ...PAW.looks(number) }));
  };

  /** Mean and interval over runs of columns that were put onto one x axis. */
  function middle(columns, length) {
    const at = Array.from({ length }, (_, place) =>
      columns.map((column) => column[place]).filter((value) => value != null),
    );
    const means = at.map((list) => (list.length ? mean(list) : null));
    const wide = at.map((list) => (list.length > 2 ? PAW.tHalf(list) : null));
    const edge = (sign) => means.map((m, place) => (wide[place] == null ? null : m + sign * wide[place]));
    return { means, low: edge(-1), high: edge(1) };
  }

  function modelOf(metric) {
    const shown = PAW.lines().filter((line) => !set.hidden.has(line.name));
    const has = (run) => run.metrics[metric]?.some((value) => value != null);
    const xs = PAW.union(shown.flatMap((line) => line.runs.filter(has).map((run) => run.metrics.update)));
    const model = { xs, lines: [], bands: [], marked: null, log: set.log, percent: SHARE.test(metric) };
    for (const { name, hue, dash, runs } of shown) {
      const columns = runs
        .filter(has)
        .map((run) => PAW.onto(xs, run.metrics.update, run.metrics[metric]));
      if (!columns.length) continue;
      const main = { name, hue, dash };
      if (columns.length > 1) {
        const { means, low, high } = middle(columns, xs.length);
        const smooth = (values) => PAW.smooth(values, set.smooth);
        for (const values of columns) {
          model.lines.push({ ...main, values: smooth(values), width: 1, alpha: 0.25, quiet: true });
        }
        if (high.some((value) => value != null)) {
          model.bands.push({ hue, low: smooth(low), high: smooth(high) });
        }
        model.lines.push({ ...main, values: smooth(means), width: 2.2 });
      } else {
        if (set.smooth) {
          model.lines.push({ ...main, values: columns[0], width: 1, alpha: 0.25, quiet: true });
        }
        model.lines.push({ ...main, values: PAW.smooth(columns[0], set.smooth) });
      }
      const odd = runs.flatMap((run) => run.odd).find((one) => one.metric === metric && one.first != null);
      if (odd && !model.marked) model.marked = [odd.first, odd.last ?? xs.at(-1)];
    }
    return model;
  }

  /** Names of metrics, and of those with a value somewhere. */
  function names() {
    const names = [...new Set(PAW.page.runs.flatMap((run) => Object.keys(run.metrics)))].sort();
    const measured = (name) =>
      PAW.page.runs.some((run) => run.metrics[name]?.some((value) => typeof value === "number"));
    const rank = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
    return {
      measured: names
        .filter((name) => name !== "update" && measured(name))
        .sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1)),
      empty: names.filter((name) => name !== "update" && !measured(name)),
    };
  }

  function wanted(name) {
    if (set.search) return name.toLowerCase().includes(set.search.toLowerCase());
    if (set.group === "first") return FIRST.includes(name);
    return set.group === "all" || name.split("/")[0] === set.group;
  }

  function card(metric) {
    const meaning = PAW.page.metrics[metric];
    const last = PAW.lines()
      .flatMap((line) => line.runs.map((run) => run.metrics[metric]?.findLast((v) => v != null)))
      .filter((value) => value != null)
      .map((value) => PAW.number(value));
    const title = meaning
      ? h("details", { class: "meaning" }, h("summary", { title: meaning }, metric), h("p", {}, meaning))
      : h("div", { class: "meaning" }, metric);
    const box = PAW.chart({
      label: `${metric} by update; last ${last.slice(0, 8).join(", ")}`,
      model: () => modelOf(metric),
    });
    const node = h("section", { class: "card chart", data: { metric }, "aria-label": metric }, title, box);
    node.box = box;
    return node;
  }

  /** The panel of curves: `refresh()` takes what is new, `showMetric(name)` brings one into view. */
  PAW.curves = () => {
    const grid = h("div", { class: "charts" });
    const absent = h("p", { class: "dim" });
    const cards = new Map();

    function refresh() {
      const { measured, empty } = names();
      const list = measured.filter(wanted);
      for (const name of list) if (!cards.has(name)) cards.set(name, card(name));
      const nodes = list.map((name) => cards.get(name));
      if (nodes.length !== grid.children.length || nodes.some((node, i) => node !== grid.children[i])) {
        grid.replaceChildren(...nodes);
      }
      for (const node of nodes) if (node.box.querySelector(".uplot")) node.box.draw();
      const made = PAW.page.runs.some((run) => run.metrics.update?.length);
      absent.textContent = [
        !made ? "No update has been made: no curves yet." : null,
        measured.length && !list.length ? "No metric has this name." : null,
        empty.length ? `Never measured: ${PAW.show(empty.join(", "))}.` : null,
      ].filter(Boolean).join(" ");
    }

    const search = h("input", {
      type: "search", id: "metric-search", placeholder: "metric…", "aria-label": "Find a metric",
      value: set.search,
      oninput: () => { set.search = search.value; refresh(); },
    });
    const prefixes = new Set(names().measured.map((name) => name.split("/")[0]));
    const groups = ["first", ...PREFIXES.filter((name) => prefixes.has(name)), "all"];
    const group = h("select", {
      "aria-label": "Which metrics",
      onchange: () => { set.group = groups[group.selectedIndex]; set.search = search.value = ""; refresh(); },
    }, groups.map((name) => h("option", { selected: name === set.group },
      { first: "most important", all: "all metrics" }[name] ?? name)));
    const log = h("input", {
      type: "checkbox", checked: set.log, onchange: () => { set.log = log.checked; refresh(); },
    });
    const smooth = h("input", {
      type: "range", min: 0, max: 0.95, step: 0.05, value: set.smooth,
      oninput: () => { set.smooth = Number(smooth.value); refresh(); },
    });
    const lines = PAW.lines();
    const legend = h("div", { class: "legend-lines", role: "group", "aria-label": "Lines" },
      lines.map((line) => {
        const button = h("button", {
          type: "button", class: "key", "aria-pressed": String(!set.hidden.has(line.name)),
          title: "shown or not",
          onclick: () => {
            if (!set.hidden.delete(line.name)) set.hidden.add(line.name);
            button.setAttribute("aria-pressed", String(!set.hidden.has(line.name)));
            refresh();
          },
        }, h("i", { class: line.hue }), PAW.short(line.name, 60));
        return button;
      }));
    const seeds = PAW.page.comparison
      ? h("p", { class: "dim" }, "Means over seeds; thin: single seeds; bands: 95 % t interval of the mean (three seeds or more).")
      : null;
    const node = h("section", { class: "panel", "aria-labelledby": "curves-title" },
      h("h2", { id: "curves-title" }, "Curves"),
      h("div", { class: "bar" }, search, group,
        h("label", {}, log, " log"),
        h("label", { class: "range" }, "smooth ", smooth)),
      lines.length > 1 ? legend : null, seeds, grid, absent);
    node.refresh = refresh;
    node.showMetric = (metric) => {
      if (!wanted(metric)) { set.search = search.value = metric; refresh(); }
      const found = cards.get(metric);
      if (!found?.isConnected) return;
      found.scrollIntoView({ block: "center" });
      found.classList.add("found");
      setTimeout(() => found.classList.remove("found"), 2000);
    };
    refresh();
    return node;
  };
})();
