"""The page at its bounds: hostile texts, runs with nothing in them, many episodes, phones."""

import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from paw.report.data import Chunk, Evaluation, Kind, Oddity, Page, Task, Tokens
from paw.report.page import encoded, render_live
from paw.style import Block
from report import pages, tabs
from report.tabs import Show

pytestmark = pytest.mark.browser

VIEWS = ("view=overview", "view=episodes", "run=0&view=episodes&episode=0&turn=1",
         "run=0&view=episodes&episode=0&side=group", "view=compare")  # fmt: skip

EVIL = (
    "</script><script>window.struck = 1</script><img src=x onerror='window.struck = 2'>"
    "<svg onload=window.struck=3> javascript:window.struck=4 {{script}} ${window.struck=5} <!--"
)
CONTROLS = (
    "\x1b[31mred\x1b[0m \x00 \x07 \x9b \x7f \u202eright\u202c \u200b \ufeff \u2028 \ud83d end"
)
SEEN = "␛[31mred␛[0m ␀ ␇ ⟨U+009B⟩ ␡ ⟨U+202E⟩right⟨U+202C⟩ ⟨U+200B⟩ ⟨U+FEFF⟩ ⟨U+2028⟩ ⟨U+D83D⟩ end"
BAD = f"{EVIL} {CONTROLS}"


def hostile() -> tuple[Page, list[Chunk]]:
    strip = Tokens(text=(EVIL, CONTROLS), id=(1, 2), role=(0, 2), entropy=(1.0, 2.0),
                   logprob=(-1.0, -2.0))  # fmt: skip
    blocks = tuple(
        Block(kind, BAD, ((BAD, BAD),)) for kind in ("facts", "items", "buttons", "passage")
    )
    turn = pages.turn(
        BAD, seen=BAD, then=f"{BAD} {'x' * 1_000_000}", commands=(BAD, "look"), context=strip,
        action=strip, target=strip, selected=True, weight=0.1, share=0.5, notes=(BAD,), reward=1.0,
    )  # fmt: skip
    scenes = msgspec.structs.replace(turn, scene=blocks, valid=False, next_observation=None)
    bare = msgspec.structs.replace(turn, action=None, target=None, context=None)
    rows = [{"why": BAD}, {"index": 1, "place": 1}, {"index": 2, "failure": BAD, "place": 2},
            {"index": 3, "failure": BAD, "chunk": -1}]  # fmt: skip
    chunk = Chunk(run=0, episodes=tuple(pages.episode(i, turn, scenes, bare) for i in range(3)))
    kinds = (Kind(kind="", success=0.5, low=0.4, high=0.6, episodes=9),
             Kind(kind=BAD, success=0.5, low=0.4, high=0.6, episodes=9))  # fmt: skip
    run = pages.run(
        name=BAD, state="failed", reason=BAD, facts=((BAD, BAD),), left_out=BAD, arm=BAD, seed=0,
        odd=(Oddity(text=BAD, metric=BAD),),
        metrics={"update": (1, 2), BAD: (1.0, 2.0), "constructor": (1.0, 2.0)},
        tasks=(Task(id=BAD, kind=BAD, instruction=BAD),), episodes=pages.columns(rows),
        evaluations=(Evaluation(update=1, split=BAD, temperature=1.0, kinds=kinds,
                                failures={BAD: 2}),),
    )  # fmt: skip
    other = msgspec.structs.replace(
        run,
        name="other",
        metrics={"update": (1,), "a": (0.5,)},
        facts=((BAD, "otherwise"),),
        arm="other",
    )
    data = {
        "baseline": BAD,
        "runs": [{"arm": BAD, "seed": 0, "status": "failed", "reason": BAD, "final": 0.5,
                  "late_window": 0.5, "area": 0.5, "curve": [[0, 0.5]]}],
        "comparisons": [{"arm": BAD, "baseline": BAD, "metric": "final", "num_pairs": 1,
                         "seeds": [0], "differences": [0.1], "mean_difference": 0.1,
                         "interval": None, "p_value": None, "holm_p_value": None, "verdict": BAD,
                         "pairs_needed": None}],
    }  # fmt: skip
    made = pages.page(run, other, title=BAD, metrics={BAD: BAD}, version=BAD, comparison=data)
    return made, [chunk]


def test_hostile_texts_are_shown_and_not_run(show: Show) -> None:
    made, chunks = hostile()
    tab = show((made, chunks))
    head = tab.locator("#top .title").inner_text()
    assert head.startswith("</script><script>window.struck")
    found = []
    for state in (*VIEWS, "run=0&view=episodes&episode=2", "view=overview&metric=%3Cimg%3E"):
        tabs.go(tab, state)
        tab.locator("main").get_by_text("unpacking").wait_for(state="detached")
        tab.locator("main").get_by_text("window.struck").first.wait_for(state="attached")
        if tab.get_by_label("Which metrics").count():
            tab.get_by_label("Which metrics").select_option(label="all metrics")
        tab.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        tab.wait_for_timeout(50)
        assert tab.evaluate("window.struck") is None, state
        tabs.seen(tab.locator("img, iframe, object, embed, form, base").count, 0)
        tabs.seen(tab.locator("a:not([href^='#'])").count, 0)
        tabs.seen(tab.locator("[onerror], [onload], [onclick]").count, 0)
        # Nothing that turns text around or is not seen stands in the document, hidden or not.
        raw = tab.evaluate(
            "() => { const all = [...document.body.querySelectorAll('*:not(script)')];"
            " const texts = all.flatMap(e => [...[...e.childNodes].filter(n => n.nodeType === 3)"
            ".map(n => n.data), ...[...e.attributes].map(a => a.value)]);"
            r" return texts.concat(document.title).filter(t => /[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b"
            r"\u202a-\u202e\u2028\ufeff]|\p{Surrogate}/u.test(t)).map(t => t.slice(0, 60)) }"
        )
        assert raw == [], state
        found.append(tab.locator("main").inner_text())
    assert SEEN in found[0] and SEEN in found[2]
    for text in found[:5]:
        assert "<img src=x onerror='window.struck" in text


def test_long_lines_are_given_in_parts(show: Show) -> None:
    made, chunks = hostile()
    tab = show((made, chunks), "run=0&view=episodes&episode=0")
    tabs.ready(tab)
    more = tab.locator("#turn-3").get_by_role("button", name="more characters")
    before = tab.locator("#turn-3 .prose").last.evaluate("node => node.textContent.length")
    more.first.click()
    longer = "node => node.textContent.length > 100_000"
    tabs.seen(lambda: tab.locator("#turn-3 .prose").last.evaluate(longer), True)
    assert before < 10_000


NONE = pages.columns([])
BARE = pages.turn("look", then="a door")
LAMPS = Evaluation(
    update=None, split="test", temperature=None, failures={},
    kinds=(Kind(kind="", success=0.0, low=0.0, high=0.3, episodes=9),),
)  # fmt: skip
SPARSE: dict[str, Any] = {
    "nothing": pages.page(),
    "empty": pages.page(pages.run(state="empty", updates=0, planned=None, metrics={}, tasks=())),
    "no updates": pages.page(pages.run(state="failed", reason="no GPU", metrics={"update": ()})),
    "one update": pages.page(pages.run(metrics={"update": (1,), "wm/nll": (0.5,)})),
    "all null": pages.page(pages.run(metrics={"update": (1, 2), "wm/nll": (None, None)})),
    "evaluation": pages.page(
        pages.run(source="evaluation", metrics={}, evaluations=(LAMPS,), updates=0, planned=None,
                  probability_cap=None, loss=None,
                  episodes=pages.columns([{"update": None, "nll": None, "advantage": None,
                                           "valid": None}]))
    ),
    "comparison": pages.page(
        comparison={"baseline": "b", "comparisons": [], "runs": [
            {"arm": "b", "seed": 0, "status": "missing", "reason": None, "final": None,
             "late_window": None, "area": None, "curve": []}]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPARSE)
def test_runs_with_little_in_them(show: Show, name: str) -> None:
    chunk = Chunk(run=0, episodes=(pages.episode(0, BARE, group_weight=None),))
    tab = show((SPARSE[name], [chunk]))
    said = {
        "nothing": "There are no runs here", "no updates": "no GPU", "evaluation": "0.0 % of 9",
        "empty": "no curves yet", "all null": "Never measured: wm/nll",
    }  # fmt: skip
    tabs.says(tab.locator("main"), said.get(name, ""))
    for state in VIEWS:
        tabs.go(tab, state)
        tab.wait_for_timeout(60)
        assert len(tab.locator("main").inner_text()) > 5, state
        assert "could not be shown" not in tab.locator("main").inner_text()
        assert "NaN" not in tab.locator("main").inner_text()
        assert "undefined" not in tab.locator("main").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(show: Show, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    rules = {"resultTypes": ["violations"]}
    if scheme == "dark":  # the rest is the same
        rules["runOnly"] = ["color-contrast"]
    for made, views in ((pages.usual(), VIEWS), (pages.comparison(), (VIEWS[0], VIEWS[-1]))):
        tab = show(made, color_scheme=scheme)
        tab.evaluate(axe.Axe().axe_script)
        for state in views:
            tabs.go(tab, state)
            tab.wait_for_timeout(100)
            found = tab.evaluate("rules => axe.run(document, rules)", rules)["violations"]
            bad = [
                (one["id"], [node["html"][:200] for node in one["nodes"]][:3])
                for one in found
                if one["impact"] in ("serious", "critical")
            ]
            assert not bad, state


def test_a_phone_shows_every_view_without_scrolling_sideways(show: Show) -> None:
    for made, views in ((pages.usual(), VIEWS), (pages.comparison(), ("view=compare",))):
        tab = show(made, viewport={"width": 390, "height": 844})
        for state in views:
            tabs.go(tab, state)
            tab.wait_for_timeout(100)
            assert tab.evaluate("document.documentElement.scrollWidth") <= 390, state


def test_light_and_dark(show: Show) -> None:
    tab = show(pages.usual(), color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(background)
    button = tab.get_by_role("button", name="Light or dark")
    button.click()
    assert tab.evaluate(background) == light
    button.click()
    assert tab.evaluate(background) != light
    button.click()
    assert button.inner_text() == "auto" and tab.evaluate(background) == light


def test_a_long_run_is_small_and_stays_packed(show: Show) -> None:
    """150 updates of 16 x 8 episodes, of which 40 groups are kept whole."""
    dice = random.Random(0)
    words = ["".join(dice.choices("abcdefghij", k=dice.randint(2, 9))) for _ in range(2000)]
    rows, chunks = [], []
    for update in range(1, 151):
        for group in range(16):
            kept = group == 0 and update <= 40
            for index in range(8):
                rows.append({"update": update, "group": group, "index": index,
                             "chunk": update - 1 if kept else -1, "place": index,
                             "nll": dice.random(), "return_": 10.0 * (index % 2)})  # fmt: skip
    for number in range(40):
        turns = [
            pages.learned("go to shelf", " ".join(dice.choices(words, k=40)),
                          [round(-dice.expovariate(1), 4) for _ in range(40)])
            for _ in range(12)
        ]  # fmt: skip
        first = number * 128
        episodes = tuple(pages.episode(first + index, *turns) for index in range(8))
        chunks.append(Chunk(run=0, episodes=episodes))
    names = [f"policy/m{i}" for i in range(60)]
    metrics = {"update": tuple(range(1, 151))} | {
        name: tuple(dice.random() for _ in range(150)) for name in names
    }
    made = pages.page(pages.run(metrics=metrics, episodes=pages.columns(rows), updates=150))
    text = pages.html(made, chunks)
    assert len(text.encode()) < 15e6
    tab = show(text, "view=episodes")
    tabs.says(tab.locator(".told"), "19,200 of 19,200 episodes, 320 kept")
    tabs.seen(tab.locator("table.episodes tbody tr").count, 100)
    tab.get_by_role("link", name="next").click()
    tab.locator('tbody tr:first-child[data-place="100"]').wait_for()
    assert tab.evaluate("PAW.unpacked") == 0
    tabs.go(tab, f"run=0&view=episodes&episode={39 * 128}")
    tab.locator("#turn-12").wait_for()
    assert tab.evaluate("PAW.unpacked") == 1


class Served:
    """What a live server would answer; `page` and `chunks` change while it runs."""

    def __init__(self, page: Page, chunks: list[Chunk]) -> None:
        self.page, self.chunks, self.version = page, chunks, 1
        self.asked: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body, kind = outer.answer(self.path), "application/json"
                if self.path == "/":
                    body, kind = render_live(outer.page).encode(), "text/html; charset=utf-8"
                tag = f'"{outer.version}"'
                known = self.headers.get("If-None-Match")
                if self.path == "/page.json":
                    outer.asked.append(known)
                if known == tag:
                    self.send_response(304)
                    self.end_headers()
                    return
                self.send_response(200 if body else 404)
                self.send_header("Content-Type", kind)
                self.send_header("ETag", tag)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> bytes:
        if path == "/page.json":
            return encoded(self.page)
        if path.startswith("/chunk/"):
            return encoded(self.chunks[int(path.removeprefix("/chunk/"))])
        return b""


@pytest.fixture
def served() -> Iterator[Served]:
    page, chunks = pages.usual()
    served = Served(msgspec.structs.replace(page, live=True), chunks)
    yield served
    served.server.shutdown()
    served.server.server_close()


def test_a_live_page_takes_what_is_new_and_stays_where_it_was(browser: Any, served: Served) -> None:
    context = browser.new_context(viewport={"width": 900, "height": 500})
    tab = context.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    address = f"http://127.0.0.1:{served.server.server_port}/"
    tab.goto(f"{address}#run=0&view=episodes&episode=0&turn=1")
    tabs.ready(tab)
    tab.locator("#turn-2 .command").wait_for()
    page, chunk = served.page, served.chunks[0]
    first = page.runs[0]
    more = {"metrics": first.metrics | {"rollout/success_rate": (0.25, 0.875)}, "updates": 3}
    served.page = msgspec.structs.replace(
        page, runs=(msgspec.structs.replace(first, **more), page.runs[1])
    )
    longer = (*chunk.episodes[0].turns, pages.turn("sit down"))
    served.chunks[0] = msgspec.structs.replace(
        chunk, episodes=(pages.episode(0, *longer), chunk.episodes[1])
    )
    served.version = 2
    tab.locator("#turn-3").wait_for(timeout=8000)
    tabs.says(tab.locator("#turn-3 .turn-head"), "sit down")
    tabs.seen(lambda: tab.evaluate("location.hash"), lambda hash: hash.endswith("turn=1"))
    tabs.go(tab, "view=overview")
    chart = tab.locator('[data-metric="rollout/success_rate"]')
    chart.scroll_into_view_if_needed()
    chart.get_by_text("87.5 %").wait_for()
    scrolled = tab.evaluate("scrollY")
    rates = {"rollout/success_rate": (0.25, 0.9375)}
    served.page = msgspec.structs.replace(
        page, runs=(msgspec.structs.replace(first, metrics=first.metrics | rates), page.runs[1])
    )
    served.version = 3
    chart.get_by_text("93.8 %").wait_for(timeout=8000)
    assert scrolled > 0 and tab.evaluate("scrollY") == scrolled
    assert not errors
    assert '"1"' in served.asked  # what it has, so that an unchanged page costs nothing
    context.close()
