// Line charts with uPlot: colours from the style sheet, values under the pointer in a line below.
(() => {
  const { h } = PAW;
  const HEIGHT = 170;
  const probe = h("span", { hidden: true });

  /** What a colour of the style sheet is now: the canvas does not know variables. */
  PAW.colour = (name) => {
    if (!probe.isConnected) document.body.append(probe);
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };

  const HUES = 7;
  const DASHES = [[], [6, 3], [2, 3]];

  /** The n-th line's looks: colours, then the same ones dashed. */
  PAW.looks = (number) => ({
    hue: `hue-${number % HUES}`,
    dash: DASHES[Math.floor(number / HUES) % DASHES.length],
  });

  const faded = (colour, alpha) => colour.replace("rgb(", "rgba(").replace(")", `, ${alpha})`);

  /** Runs of one group of lines go to the same x values: their union. */
  PAW.union = (lists) => [...new Set(lists.flat())].sort((a, b) => a - b);
  PAW.onto = (xs, own, values) => {
    const at = new Map(own.map((x, place) => [x, values[place]]));
    return xs.map((x) => at.get(x) ?? null);
  };

  /** Exponential moving average without the pull to its first value; gaps stay gaps. */
  PAW.smooth = (values, keep) => {
    if (!keep) return values;
    let sum = 0;
    let weight = 0;
    return values.map((value) => {
      if (value == null) return null;
      sum = keep * sum + (1 - keep) * value;
      weight = keep * weight + 1 - keep;
      return sum / weight;
    });
  };

  function axis(grid, text, values) {
    return {
      stroke: text,
      font: "11px system-ui, sans-serif",
      grid: { stroke: grid, width: 1 },
      ticks: { show: false },
      gap: 4,
      ...values,
    };
  }

  const tick = (value) =>
    value == null ? "" : Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3)
      ? value.toExponential(0).replace("-", "−")
      : String(Number(value.toPrecision(4))).replace("-", "−");

  /**
   * A chart in a box of its own.
   *
   * model(): {xs, lines: [{name, hue, dash, width, alpha, values, quiet}], bands: [{hue, low, high}],
   * marked: [first, last] | null, log, percent}; quiet lines have no value in the line below.
   */
  PAW.chart = ({ label, model }) => {
    const plot = h("div", { class: "plot", role: "img", "aria-label": label });
    const values = h("div", { class: "values", "aria-hidden": "true" });
    const box = h("div", { class: "chart-box" }, plot, values);
    let chart = null;
    let now = null;
    let shape = "";

    const shown = (value) => (now.percent ? PAW.percent(value, 1) : PAW.number(value));

    function tell(place) {
      const last = (line) => line.values.findLast((value) => value != null);
      const entries = now.lines
        .filter((line) => !line.quiet)
        .map((line) => [line, place == null ? last(line) : line.values[place]]);
      values.replaceChildren(
        h("span", { class: "at" }, place == null ? "last" : `update ${now.xs[place]}`),
        ...entries.slice(0, 6).map(([line, value]) =>
          h("span", { class: "value", title: line.name }, h("i", { class: line.hue }), shown(value)),
        ),
      );
    }

    function columns() {
      const fit = (list) => (now.log ? list.map((value) => (value > 0 ? value : null)) : list);
      return [
        now.xs,
        ...now.bands.flatMap((band) => [fit(band.high), fit(band.low)]),
        ...now.lines.map((line) => fit(line.values)),
      ];
    }

    function options() {
      const grid = PAW.colour("line");
      const text = PAW.colour("dim");
      const hidden = { show: true, width: 0, points: { show: false }, stroke: "transparent" };
      const [only] = now.xs;
      // Of one value, and of none, uPlot would choose from 0 to 100.
      const flat = (_, low, high) =>
        low == null ? [0, 1] : low < high ? uPlot.rangeNum(low, high, 0.1, true)
          : [low - Math.abs(low) / 10, high + (Math.abs(high) / 10 || 1)];
      return {
        width: Math.max(plot.clientWidth, 100),
        height: HEIGHT,
        legend: { show: false },
        padding: [8, 10, 0, 0],
        cursor: {
          y: false,
          sync: { key: "updates" },
          drag: { x: true, y: false },
          points: { size: 6 },
        },
        scales: {
          x: { time: false, ...(now.xs.length === 1 ? { range: [only - 1, only + 1] } : {}) },
          y: now.log ? { distr: 3 } : { range: flat },
        },
        axes: [
          axis(grid, text, {
            space: 60,
            size: 24,
            values: (_, ticks) => ticks.map((x) => (Number.isInteger(x) ? String(x) : "")),
          }),
          axis(grid, text, {
            size: 52,
            space: 28,
            values: (_, ticks) =>
              ticks.map((y) => (now.percent && y != null ? `${tick(100 * y)} %` : tick(y))),
          }),
        ],
        bands: now.bands.map((band, place) => ({
          series: [2 * place + 1, 2 * place + 2],
          fill: faded(PAW.colour(band.hue), 0.13),
        })),
        series: [
          {},
          ...now.bands.flatMap(() => [hidden, hidden]),
          ...now.lines.map((line) => ({
            stroke: faded(PAW.colour(line.hue), line.alpha ?? 1),
            width: line.width ?? 1.6,
            dash: line.dash,
            spanGaps: true,
            points: {
              show: line.values.filter((value) => value != null).length <= 12 && !line.quiet,
              size: 5,
            },
          })),
        ],
        hooks: { drawClear: [mark], setCursor: [(u) => tell(u.cursor.idx)] },
      };
    }

    // The updates that the strip of odd things speaks of.
    function mark(u) {
      if (!now.marked) return;
      const [first, last] = now.marked.map((x) => u.valToPos(x, "x", true));
      u.ctx.save();
      u.ctx.fillStyle = faded(PAW.colour("warn"), 0.16);
      u.ctx.fillRect(first - 2, u.bbox.top, Math.max(last - first, 0) + 4, u.bbox.height);
      u.ctx.restore();
    }

    box.draw = () => {
      if (!plot.isConnected) return;
      now = model();
      const next = JSON.stringify([
        now.log, now.percent, now.marked, now.bands.length,
        now.lines.map((line) => [line.name, line.hue, line.alpha]),
        document.documentElement.dataset.theme,
      ]);
      if (chart && next === shape && now.xs.length > 2) chart.setData(columns());
      else {
        chart?.destroy();
        chart = new uPlot(options(), columns(), plot);
      }
      shape = next;
      tell(null);
    };
    box.forget = () => (shape = "");

    new ResizeObserver(() => {
      const width = plot.clientWidth;
      if (chart && width && width !== chart.width) chart.setSize({ width, height: HEIGHT });
    }).observe(plot);
    PAW.lazily(box, box.draw);
    return box;
  };
})();
