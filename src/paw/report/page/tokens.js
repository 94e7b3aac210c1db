// Tokens in a row, coloured by what the policy expected or was unsure of, and the numbers of one.
(() => {
  const { h } = PAW;

  // Limits between the colours; the strongest stands for what surprised, or was least certain.
  const P = [0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95];
  const ENTROPY = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2.5];
  const ADVANTAGE = [0.05, 0.25, 0.5, 1, 2];

  const bin = (limits, value) => {
    const place = limits.findIndex((limit) => value < limit);
    return place < 0 ? limits.length : place;
  };

  const colours = {
    p: (value) => (value == null ? "unknown" : `p${bin(P, value)}`),
    entropy: (value) => (value == null ? "unknown" : `e${bin(ENTROPY, value)}`),
    advantage: (value) => value == null ? "unknown" : `a${value < 0 ? "m" : "p"}${bin(ADVANTAGE, Math.abs(value))}`,
  };

  const ROLES = ["context", "action", "observation", "scaffold"];

  /** May a target token have a gradient: null where no cap says otherwise. */
  PAW.clipped = (run, p) =>
    run.loss === "cmae" && run.probability_cap != null && p != null && p > run.probability_cap;

  /** How a token looks: space alone and new lines would not be seen. */
  function textOf(node, text) {
    if (!/[\n\t]|^ *$/.test(text)) {
      node.textContent = PAW.show(text.length > 2000 ? `${text.slice(0, 2000)}…` : text);
      return;
    }
    if (/^ +$/.test(text)) node.classList.add("space");
    if (text === "") node.classList.add("empty");
    for (const part of text.split(/(\n|\t)/)) {
      if (part === "\n" || part === "\t") node.append(h("i", { class: part === "\n" ? "newline" : "tab" }), part);
      else if (part) node.append(PAW.show(part));
    }
  }

  /**
   * A strip of tokens. what: "prompt" | "action" | "target"; by: "entropy" | "advantage" of actions.
   * Its numbers come from `turn` and `run` when somebody points at one.
   */
  PAW.strip = (what, tokens, { turn, run, by, label }) => {
    const strip = h("div", { class: `strip ${what}`, tabindex: 0, role: "group",
      "aria-label": `${label}, ${PAW.many(tokens.text.length, "token")}; arrow keys go through them` });
    tokens.text.forEach((text, i) => {
      const node = document.createElement("span");
      node.dataset.i = i;
      node.className = `k ${look(what, tokens, i, turn, run, by)}`;
      textOf(node, text);
      strip.append(node);
    });
    strip.of = { what, tokens, turn, run };
    return strip;
  };

  function look(what, tokens, i, turn, run, by) {
    if (what === "prompt") return tokens.role ? `r${tokens.role[i]}` : "";
    if (what === "action") {
      return by === "advantage" ? colours.advantage(turn.advantage) : colours.entropy(tokens.entropy?.[i]);
    }
    const logprob = tokens.logprob?.[i];
    const p = logprob == null ? null : Math.exp(logprob);
    return colours.p(p) + (PAW.clipped(run, p) ? " clipped" : "");
  }

  /** What is known of a token, as [name, value]. */
  PAW.tokenNumbers = ({ what, tokens, turn, run }, i) => {
    const logprob = tokens.logprob?.[i];
    const p = logprob == null ? null : Math.exp(logprob);
    const entropy = tokens.entropy?.[i];
    const list = [["token", JSON.stringify(tokens.text[i].slice(0, 60))], ["id", String(tokens.id[i])]];
    if (what === "prompt") list.push(["role", tokens.role ? ROLES[tokens.role[i]] ?? "?" : "not known"]);
    else {
      const kept = logprob == null ? "not kept" : null;
      list.push(["p", kept ?? PAW.number(p)], ["nll", kept ?? PAW.number(-logprob)]);
      list.push(["log-prob", kept ?? PAW.number(logprob)]);
    }
    if (what === "action") {
      list.push(["entropy", entropy == null ? "not kept" : PAW.number(entropy)]);
      list.push(["advantage", PAW.number(turn.advantage)]);
    }
    if (what === "target") {
      list.push(["1 − p", p == null ? "not kept" : PAW.number(1 - p)], ["gradient", gradient(turn, run, p)]);
    }
    return list;
  };

  function gradient(turn, run, p) {
    if (!turn.weight) return turn.selected ? "no: weight 0" : "no: not selected";
    if (run.loss === "cmae" && p == null) return "not known";
    return PAW.clipped(run, p) ? `no: p > ${PAW.number(run.probability_cap)}` : "yes";
  }

  /** The fixed line of numbers below an episode; one listener for all strips in `root`. */
  PAW.tokenPanel = (root) => {
    const panel = h("div", { class: "token-panel", role: "status", "aria-live": "polite" });
    const hint = "Point at a token, or go through a strip with the arrow keys: its numbers stand here.";
    let marked = null;
    const clear = () => { marked?.classList.remove("at"); marked = null; panel.replaceChildren(h("span", { class: "dim" }, hint)); };
    const mark = (node) => {
      if (node === marked) return;
      marked?.classList.remove("at");
      marked = node;
      node.classList.add("at");
      panel.replaceChildren(h("dl", {}, PAW.tokenNumbers(node.closest(".strip").of, Number(node.dataset.i))
        .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
    };
    const point = (event) => { const node = event.target.closest?.(".strip .k"); if (node) mark(node); };
    root.addEventListener("pointerover", point);
    root.addEventListener("click", point);
    root.addEventListener("focusin", (event) => {
      const strip = event.target;
      if (strip.classList.contains("strip") && marked?.parentNode !== strip && strip.firstChild) mark(strip.firstChild);
    });
    root.addEventListener("keydown", (event) => {
      const strip = event.target;
      if (!strip.classList?.contains("strip") || marked?.parentNode !== strip) return;
      const next = { ArrowRight: marked.nextSibling, ArrowLeft: marked.previousSibling, Home: strip.firstChild, End: strip.lastChild }[event.key];
      if (!next) return;
      event.preventDefault();
      mark(next);
      next.scrollIntoView({ block: "nearest" });
    });
    clear();
    return panel;
  };

  const swatches = (name, prefix, limits, low, high) =>
    h("span", { class: "scale" }, h("b", {}, name), ` ${low} `,
      Array.from({ length: limits.length + 1 }, (_, i) => h("i", { class: `k ${prefix}${i}`,
        title: i === 0 ? `below ${limits[0]}` : i === limits.length ? `${limits.at(-1)} and more` : `${limits[i - 1]} to ${limits[i]}` })), ` ${high}`);

  /** What the colours mean. */
  PAW.legend = (run, by) => {
    const parts = by === "advantage"
      ? [h("span", { class: "scale" }, h("b", {}, "action: advantage"), " −2 ",
        [5, 4, 3, 2, 1].map((i) => h("i", { class: `k am${i}` })), h("i", { class: "k ap0" }), [1, 2, 3, 4, 5].map((i) => h("i", { class: `k ap${i}` })), " +2")]
      : [swatches("action: entropy", "e", ENTROPY, "0", "2.5 nats")];
    parts.push(swatches("next observation: p", "p", P, "0", "1"));
    if (run.loss === "cmae" && run.probability_cap != null) {
      parts.push(h("span", { class: "scale" }, h("span", { class: "k clipped" }, "clipped"), ` p > ${PAW.number(run.probability_cap)}: no gradient`));
    }
    parts.push(h("span", { class: "scale" }, h("span", { class: "k unknown" }, "not kept")));
    return h("div", { class: "legend" }, parts);
  };
})();
