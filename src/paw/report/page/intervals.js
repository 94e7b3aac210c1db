// Intervals and dots on a common axis: one row a label, positions in percent, so that they stretch.
(() => {
  const { h, svg } = PAW;

  /** Round numbers from low to high, about `most` of them. */
  function ticks(low, high, most = 5) {
    const rough = (high - low) / most || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((k) => k * power).find((one) => one >= rough * 0.999);
    const first = Math.ceil(low / step - 1e-9) * step;
    return Array.from({ length: Math.floor((high - first) / step + 1e-9) + 1 }, (_, i) => {
      const value = first + i * step;
      return Math.abs(value) < step / 1e6 ? 0 : value;
    });
  }

  /**
   * rows: {label, hue, low, high, value, dots: [{value, title}], text, title, strong}
   * axis: {low, high, shown(value), zero}
   */
  PAW.intervals = (rows, axis, label) => {
    const at = (value) => `${(100 * (value - axis.low)) / (axis.high - axis.low || 1)}%`;
    const marks = ticks(axis.low, axis.high);
    const grid = () =>
      marks.map((x) =>
        svg("line", { class: x === 0 && axis.zero ? "zero" : "grid", x1: at(x), x2: at(x), y1: 0, y2: "100%" }));

    const track = (row) => {
      const middle = row.dots?.length ? "34%" : "50%";
      const picture = svg("svg", { class: `track ${row.hue ?? "hue-0"}`, "aria-hidden": "true" }, grid());
      if (row.low != null && row.high != null) {
        const clip = (value) => Math.min(Math.max(value, axis.low), axis.high);
        picture.append(svg("line", { class: "range", x1: at(clip(row.low)), x2: at(clip(row.high)), y1: middle, y2: middle }));
      }
      for (const dot of row.dots ?? []) {
        picture.append(svg("circle", { class: "seed", cx: at(dot.value), cy: "78%", r: 3 }, svg("title", {}, dot.title)));
      }
      if (row.value != null) {
        picture.append(svg("circle", { class: "point", cx: at(row.value), cy: middle, r: 5 }));
      }
      return picture;
    };

    const scale = svg("svg", { class: "track scale", "aria-hidden": "true" },
      marks.map((x) => svg("text", { x: at(x), y: 12, "text-anchor": "middle" }, axis.shown(x))));
    return h("table", { class: "intervals" },
      h("caption", { class: "visually-hidden" }, label),
      h("tbody", {},
        rows.map((row) => h("tr", { class: row.strong ? "strong" : "", title: row.title },
          h("th", { scope: "row" }, PAW.short(row.label, 60)),
          h("td", { class: "wide" }, track(row)),
          h("td", { class: "number" }, row.text))),
        h("tr", { "aria-hidden": "true" }, h("td"), h("td", { class: "wide" }, scale), h("td"))));
  };
})();
