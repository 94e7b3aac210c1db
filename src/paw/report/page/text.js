// Text and elements. All that models, environments and people wrote reaches the page through
// PAW.show, as text: nothing here or elsewhere sets HTML.
"use strict";

const PAW = {};

// Control characters, and those that are not seen or that turn text around. New lines and tabs stay.
const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\u{e0000}-\u{e0fff}\ud800-\udfff]/gu;

/** The text with every character visible: escape is ␛, a bidirectional control ⟨U+202E⟩. */
PAW.show = (text) =>
  String(text).replace(UNSEEN, (character) => {
    const code = character.codePointAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    if (code === 0x7f) return "␡";
    return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });

/** The first characters of a text; how many there are more is said. */
PAW.short = (text, most = 160) =>
  text.length > most ? `${whole(text.slice(0, most))}… (${PAW.count(text.length)} characters)` : text;

// A cut text that does not end within a pair of surrogates.
function whole(part) {
  const last = part.charCodeAt(part.length - 1);
  return last >= 0xd800 && last < 0xdc00 && part.length > 1 ? part.slice(0, -1) : part;
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "data") {
      for (const [key, text] of Object.entries(value)) node.dataset[key] = PAW.show(text);
    }
    else if (name === "href" && !String(value).startsWith("#")) throw Error(`a link to ${value}`);
    else node.setAttribute(name, value === true ? "" : PAW.show(value));
  }
  for (const child of children.flat(3)) {
    if (child == null || child === false) continue;
    node.append(child instanceof Node ? child : PAW.show(child));
  }
  return node;
}

/** An element: attributes, listeners (`onclick`) and children, strings as text. */
PAW.h = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

/** The same of SVG. */
PAW.svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

PAW.count = (number) => number.toLocaleString("en-US");

/** A number for reading: three digits; null is a dash. */
PAW.number = (value, digits = 3) => {
  if (value == null) return "–";
  if (value === 0) return "0"; // not −0
  if (Number.isInteger(value)) return PAW.count(value).replace("-", "−");
  const size = Math.abs(value);
  if (size >= 1e7 || size < 1e-4) return value.toExponential(digits - 1).replace("-", "−");
  if (size >= 1000) return PAW.count(Math.round(value)).replace("-", "−");
  return String(Number(value.toPrecision(digits))).replace("-", "−");
};

PAW.percent = (share, digits = 0) =>
  share == null ? "–" : `${(100 * share).toFixed(digits).replace("-", "−")} %`;

/** "1 turn", "2 turns". */
PAW.many = (number, noun) => `${PAW.count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** Says something to a screen reader. */
PAW.say = (text) => {
  document.getElementById("status").textContent = PAW.show(text);
};

const LONG = 6000;

/** A block of text as it is; of a very long one a part, and the rest when asked for. */
PAW.prose = (text, className = "prose") => {
  const block = PAW.h("div", { class: className });
  let shown = 0;
  const more = PAW.h("button", { type: "button", class: "quiet" });
  const next = (size) => {
    const part = shown + size < text.length ? whole(text.slice(shown, shown + size)) : text.slice(shown);
    more.before(PAW.show(part));
    shown += part.length;
    more.textContent = `${PAW.count(text.length - shown)} more characters`;
    more.hidden = shown >= text.length;
  };
  block.append(more);
  more.addEventListener("click", () => next(100000));
  next(LONG);
  if (more.hidden) more.remove();
  return block;
};

/** Builds what an element holds when it comes near the window. */
const waiting = new WeakMap();
const near = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) PAW.build(target);
  },
  { rootMargin: "600px" },
);
PAW.lazily = (element, build) => {
  waiting.set(element, build);
  near.observe(element);
  return element;
};
PAW.build = (element) => {
  const build = waiting.get(element);
  if (!build) return;
  waiting.delete(element);
  near.unobserve(element);
  build(element);
};
