// The frame: header, views by the fragment, keys, help, light and dark.
(() => {
  const { h } = PAW;
  const KEYS = [
    ["j, k", "next, previous episode"], ["Enter", "open the episode"], ["n, p", "next, previous turn"],
    ["g", "the whole group, and back"], ["t", "the environment's own view or plain text"],
    ["e", "colour actions by entropy or by advantage"], ["← →", "through the tokens of a strip"],
    ["/", "search"], ["1, 2, 3", "overview, episodes, compare"], ["?", "this help"], ["Esc", "close, back"],
  ];
  const THEMES = ["auto", "light", "dark"];

  const top = document.getElementById("top");
  const root = document.getElementById("main");
  let view = {};
  let mounted = null;
  let help = null;
  const scrolls = new Map(); // of views, for the way back
  history.scrollRestoration = "manual";

  PAW.complain = (error) => {
    const text = `This could not be shown: ${error.message}`;
    root.prepend(h("p", { class: "reason", role: "alert" }, text));
  };

  const stored = () => { try { return localStorage.getItem("paw-theme"); } catch { return null; } };
  function theme(name) {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    try { localStorage.setItem("paw-theme", name); } catch { /* a page from a file may not keep anything */ }
  }

  function nameOf(state) { return Object.hasOwn(PAW.views, state.view ?? "") ? state.view : "overview"; }

  PAW.render = () => {
    const state = PAW.state();
    const name = nameOf(state);
    const key = PAW.views[name].key?.(state) ?? name;
    if (name === "episodes" && state.episode == null) PAW.lastTable = PAW.link(state);
    for (const link of top.querySelectorAll("nav a")) {
      if (link.dataset.view === "episodes") link.setAttribute("href", PAW.lastTable ?? "#view=episodes");
      if (link.dataset.view === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (key === mounted) {
      view.update?.(state);
      return;
    }
    const before = mounted;
    if (before) scrolls.set(before, scrollY);
    mounted = key;
    const label = document.activeElement?.getAttribute("aria-label");
    try {
      view = PAW.views[name].render(root, state) ?? {};
    } catch (error) {
      view = {};
      root.replaceChildren();
      PAW.complain(error);
      throw error;
    }
    if (before && before !== key && !PAW.whole(state.turn)) {
      const inside = name === "compare" && before.startsWith("compare"); // another pair
      scrollTo(0, inside ? scrollY : key === "episodes" ? scrolls.get(key) ?? 0 : 0);
      const same = label && root.querySelector(`[aria-label="${CSS.escape(label)}"]`);
      if (!root.contains(document.activeElement)) (same || root).focus({ preventScroll: true });
    }
    PAW.say(PAW.views[name].title);
  };

  /** Makes the view anew. */
  PAW.remount = () => {
    mounted = null;
    PAW.render();
  };

  PAW.refresh = () => {
    const y = scrollY;
    try { view.refresh?.(); } catch (error) { PAW.complain(error); }
    scrollTo(0, y);
  };

  function showHelp() {
    help ??= h("dialog", { "aria-labelledby": "help-title" },
      h("h2", { id: "help-title" }, "Keys"),
      h("dl", { class: "keys" }, KEYS.map(([keys, what]) => h("div", {}, h("dt", {}, keys.split(", ").map((one) => [h("kbd", {}, one), " "])), h("dd", {}, what)))),
      h("button", { type: "button", onclick: () => help.close() }, "close"));
    if (!help.isConnected) document.body.append(help);
    help.showModal();
  }

  function frame() {
    const { page } = PAW;
    document.title = PAW.show(PAW.short(page.title, 120));
    const told = h("span", { class: "dim live", hidden: !page.live });
    const dark = h("button", { type: "button", class: "quiet", title: "light, dark, or as the system has it",
      onclick: () => {
        choose(THEMES[(THEMES.indexOf(dark.textContent) + 1) % THEMES.length]);
        PAW.refresh();
      } });
    const choose = (name) => {
      theme(name);
      dark.textContent = name;
      dark.setAttribute("aria-label", `Light or dark: ${name}`);
    };
    choose(THEMES.includes(stored()) ? stored() : "auto");
    const links = Object.entries(PAW.views).map(([name, { title }]) => h("a", { href: `#view=${name}`, data: { view: name } }, title));
    top.replaceChildren(
      h("div", { class: "title" }, h("b", {}, PAW.short(page.title, 120)), " ", h("span", { class: "dim" }, `paw ${PAW.short(page.version, 40)}`)),
      h("nav", { "aria-label": "Views" }, links), told, dark,
      h("button", { type: "button", class: "quiet", "aria-label": "Keys", onclick: showHelp }, "?"));
    if (page.live) PAW.live((text, bad) => { told.textContent = PAW.show(text); told.classList.toggle("bad", Boolean(bad)); });
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help?.open) return;
    const typing = event.target.matches("input, textarea, select");
    if (typing && event.key !== "Escape") return;
    const number = Number(event.key) - 1;
    const name = Object.keys(PAW.views)[number];
    const own = view.keys?.[event.key];
    if (event.key === "?") showHelp();
    else if (name) location.hash = `#view=${name}`;
    else if (event.key === "/" && !own) location.hash = "#view=episodes";
    else if (own) own();
    else return;
    // Enter on a link or a button stays what it is.
    if (event.key !== "Enter") event.preventDefault();
  });
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the fragment is the state
    root.focus();
  });
  addEventListener("hashchange", PAW.render);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => PAW.refresh());

  const element = document.getElementById("page");
  try {
    PAW.load(JSON.parse(element.textContent));
    element.remove();
    frame();
    PAW.render();
  } catch (error) {
    PAW.complain(error);
    throw error;
  }
})();
