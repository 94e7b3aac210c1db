"""The page in a Chromium: what it shows of known numbers, and where its links and keys lead."""

import math

import pytest

from paw.report.data import Chunk
from report import pages, tabs
from report.tabs import Show

pytestmark = pytest.mark.browser


# ------------------------------------------------------------------------------- overview


def test_overview_says_what_the_runs_are(show: Show) -> None:
    tab = show(pages.usual())
    assert tab.title() == "a page"
    text = tab.locator("main").inner_text()
    for part in ("run-a", "run-b", "2 of 2 updates", "2 of 9 updates", "household", "grpo"):
        assert part in text
    assert "25.0 % of 10" in text  # the kind `pick` of the last evaluation
    assert "2 × died" in text
    assert "2 of 6 episodes were left out" in text
    assert "Never measured: time/diagnose" in text
    assert tab.evaluate("PAW.unpacked") == 0
    # `tokens/sampled` is not among the first ones; a search finds it.
    tabs.seen(tab.locator('[data-metric="tokens/sampled"]').count, 0)
    tab.fill("#metric-search", "sampled")
    chart = tab.locator('[data-metric="tokens/sampled"]')
    chart.locator(".values").get_by_text("200").wait_for()


def test_what_is_odd_leads_to_its_curve(show: Show) -> None:
    tab = show(pages.usual(), viewport={"width": 800, "height": 400})
    tab.get_by_role("button", name="success rose from 25 %").click()
    found = tab.locator('[data-metric="policy/kl"]')
    found.locator("canvas").wait_for()
    inside = "node => node.getBoundingClientRect().top < innerHeight"
    tabs.seen(lambda: found.evaluate(inside), True)


def test_values_under_the_pointer_are_those_of_one_update_in_all_charts(show: Show) -> None:
    tab = show(pages.usual(), viewport={"width": 1280, "height": 2000})
    plot = tab.locator('[data-metric="rollout/success_rate"] .u-over')
    tab.locator('[data-metric="policy/kl"] .u-over').wait_for()
    box = plot.bounding_box()
    tab.mouse.move(box["x"] + 2, box["y"] + 20)
    for metric, value in (("rollout/success_rate", "25.0 %"), ("policy/kl", "0.001")):
        values = tab.locator(f'[data-metric="{metric}"] .values')
        tabs.seen(values.locator(".at").inner_text, "update 1")
        tabs.says(values, value)


def test_controls_of_the_curves(show: Show) -> None:
    tab = show(pages.usual(), viewport={"width": 1280, "height": 2000})
    values = tab.locator('[data-metric="rollout/success_rate"] .values')
    values.get_by_text("50.0 %").first.wait_for()
    tab.locator(".range input").fill("0.5")
    # 0.25, then (0.5 x 0.5 x 0.25 + 0.5 x 0.5) / (0.5 x 0.5 + 0.5) = 0.3125 / 0.75 = 0.41667
    values.get_by_text("41.7 %").first.wait_for()
    tab.get_by_label("log").check()
    for key in tab.locator("button.key").all():
        key.click()
    tabs.seen(values.inner_text, "last")
    tab.get_by_label("Which metrics").select_option(label="policy")
    tabs.seen(tab.locator(".charts .card").count, 1)
    tab.fill("#metric-search", "no such metric")
    tab.get_by_text("No metric has this name").wait_for()


# ------------------------------------------------------------------------------- episodes


def test_filters_and_order(show: Show) -> None:
    tab = show(pages.usual(), "view=episodes")
    tabs.seen(lambda: len(tabs.rows(tab)), 8)
    tab.select_option("#filter-run", "run-a")
    tabs.seen(lambda: len(tabs.rows(tab)), 6)
    tab.fill("#filter-update", "2")
    tabs.seen(lambda: tabs.rows(tab), ["2 0.0", "2 0.1", "2 1.0"])
    tab.select_option("#filter-kind", "heat")
    tab.select_option("#filter-result", "failed")
    tabs.seen(lambda: tabs.rows(tab), ["2 0.1"])
    tab.get_by_role("button", name="clear").click()
    tab.select_option("#filter-run", "run-a")
    tab.select_option("#filter-kept", "left out")
    tabs.seen(lambda: tabs.rows(tab), ["1 0.2", "2 1.0"])
    tabs.seen(tab.locator("tbody a").count, 0)  # what is not in the page has no link
    tabs.seen(tab.locator("tbody tr").first.locator(".c-why").inner_text, "left out")
    tabs.go(tab, "view=episodes&run=0&sort=-nll")  # 2.5, 0.75, the two of 0.5, then the unknown one
    tab.locator("th[aria-sort=descending]").wait_for()
    tabs.seen(lambda: tabs.rows(tab)[:2], ["1 0.1", "1 0.0"])
    assert tabs.rows(tab)[-1] == "2 0.0"
    tab.get_by_role("button", name="return").click()
    tab.locator("th.c-return[aria-sort=ascending]").wait_for()
    returns = tab.locator("tbody .c-return").all_inner_texts
    tabs.seen(returns, lambda found: found == sorted(found, key=float))
    tab.fill("#filter-q", "egg heat")
    tabs.seen(lambda: [row[:3] for row in tabs.rows(tab)], ["2 0", "2 0"])


def test_search_in_texts_unpacks_on_request(show: Show) -> None:
    tab = show(pages.usual(), "view=episodes")
    tab.fill("#filter-q", "zither")
    tabs.seen(lambda: tabs.rows(tab), [])
    assert tab.evaluate("PAW.unpacked") == 0
    tab.get_by_role("button", name="Search their texts").click()
    tab.locator("tbody tr").wait_for()
    tabs.seen(lambda: tabs.rows(tab), ["2 0.0"])


def test_keys(show: Show) -> None:
    tab = show(pages.usual(), "view=episodes")
    tab.keyboard.press("j")
    tab.keyboard.press("j")
    tab.locator('tr[aria-current][data-place="1"]').wait_for()
    tab.keyboard.press("k")
    tab.keyboard.press("/")
    tab.keyboard.type("j")  # a letter, here
    tabs.seen(lambda: tab.input_value("#filter-q"), "j")
    tab.keyboard.press("Escape")
    tabs.seen(lambda: (tab.input_value("#filter-q"), len(tabs.rows(tab))), ("", 8))
    tab.keyboard.press("Escape")
    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    tabs.ready(tab)
    tab.keyboard.press("n")
    tab.keyboard.press("n")
    tabs.seen(lambda: tab.evaluate("location.hash"), lambda hash: hash.endswith("turn=2"))
    tabs.seen(lambda: tabs.focused(tab.locator("#turn-2")), True)
    tab.keyboard.press("p")
    tabs.seen(lambda: tab.evaluate("location.hash"), lambda hash: hash.endswith("turn=1"))
    tab.keyboard.press("?")
    tabs.seen(tab.get_by_role("dialog").is_visible, True)
    tab.keyboard.press("Escape")
    tabs.seen(tab.get_by_role("dialog").is_visible, False)
    tab.keyboard.press("Escape")
    tab.locator("table.episodes").wait_for()


def test_links_and_back(show: Show) -> None:
    tab = show(pages.usual(), "run=0&view=episodes&episode=1&turn=2")
    tabs.ready(tab)
    tabs.seen(lambda: tabs.focused(tab.locator("#turn-2")), True)
    tabs.seen(tab.locator("#turn-2 .command").inner_text, "open fridge")
    tab.get_by_role("link", name="The group").click()
    tab.locator(".group table").wait_for()
    tab.go_back()
    tab.locator("#turn-2").wait_for()
    tabs.go(tab, "run=0&view=episodes&episode=2")
    tab.get_by_text("This episode was left out of the page").wait_for()
    tabs.go(tab, "run=7&view=episodes&episode=99")
    tab.get_by_text("No such episode").wait_for()
    tabs.go(tab, "view=episodes&sort=toString")
    tab.locator("table.episodes").wait_for()
    tabs.go(tab, "view=constructor&turn=x")
    tab.get_by_text("Curves").wait_for()


# ------------------------------------------------------------------------------- tokens


def test_numbers_of_tokens(show: Show) -> None:
    tab = show(pages.usual(), "run=0&view=episodes&episode=0")
    tabs.ready(tab)
    target = tab.locator("#turn-1 .strip.target .k")
    tabs.seen(target.count, 5)
    target.nth(1).hover()  # log-prob -3: p = exp(-3) = 0.0498, below the cap of 0.2
    known = {
        "token": '" see"', "id": "101", "p": "0.0498", "nll": "3", "log-prob": "−3",
        "1 − p": "0.95", "gradient": "yes",
    }  # fmt: skip
    tabs.seen(lambda: tabs.numbers(tab), known)
    target.nth(0).hover()  # p = exp(-0.1) = 0.905
    tabs.seen(lambda: tabs.numbers(tab)["p"], f"{math.exp(-0.1):.3f}")
    tabs.seen(lambda: tabs.numbers(tab)["gradient"], "no: p > 0.2")
    target.nth(2).hover()
    tabs.seen(lambda: tabs.numbers(tab)["p"], "not kept")
    assert tabs.numbers(tab)["nll"] == "not kept"
    tabs.seen(lambda: tabs.numbers(tab)["gradient"], "not known")
    # Of 4 kept, exp(-0.1) and exp(-0.5) lie above the cap; exp(-3) and exp(-2) = 0.135 below.
    clipped = target.evaluate_all("all => all.map(k => k.classList.contains('clipped'))")
    assert clipped == [True, False, False, False, True]
    assert "unknown" in target.nth(2).get_attribute("class")
    line = (
        "selected · weight 0.01 · 25.00 % of the update's prediction loss · 2 of 4 tokens clipped"
    )
    tabs.seen(tab.locator("#turn-1 .learning").inner_text, line)
    strip = tab.locator("#turn-1 .strip.action")
    strip.focus()
    tab.keyboard.press("ArrowRight")
    tabs.seen(lambda: tabs.numbers(tab).get("entropy"), "0.5")
    assert tabs.numbers(tab)["advantage"] == "1.25"
    shade = strip.locator(".k").nth(2)
    tabs.seen(lambda: shade.get_attribute("class").split()[1], "e6")  # 1 nat
    tab.get_by_role("button", name="advantage").click()
    tabs.seen(lambda: shade.get_attribute("class").split()[1], "ap4")  # 1.25
    tab.locator("#turn-1 summary", has_text="Prompt: 4 tokens").click()
    tab.locator("#turn-1 .strip.prompt .k").nth(2).hover()
    tabs.seen(lambda: tabs.numbers(tab)["role"], "observation")


def test_what_is_not_learned_is_said(show: Show) -> None:
    tab = show(pages.usual(), "run=0&view=episodes&episode=1")
    tabs.ready(tab)
    tabs.says(tab.locator("#turn-1 .learning"), "weight 0: nothing is learned from it")
    tab.locator("#turn-1 .strip.target .k").first.hover()
    tabs.seen(lambda: tabs.numbers(tab)["gradient"], "no: weight 0")
    tabs.says(tab.locator("#turn-2 .learning"), "not selected")
    tabs.says(tab.locator("#turn-2 .turn-head"), "refused")
    tabs.says(tab.locator(".numbers"), "cut by a limit", "0.5")
    tabs.go(tab, "run=0&view=episodes&episode=4")
    tab.get_by_text("the worker died").wait_for()
    tab.get_by_text("It has no turns").wait_for()


def test_own_view_and_plain_text(show: Show) -> None:
    tab = show(pages.usual(), "run=0&view=episodes&episode=0")
    tabs.ready(tab)
    tabs.seen(tab.locator("#turn-2 mark").inner_text, "Paris")  # counted in characters
    tabs.says(tab.locator("#turn-2 .scene"), "holding")
    tab.keyboard.press("t")
    tabs.seen(tab.locator(".scene").count, 0)
    tabs.says(tab.locator("#turn-2 .turn-body"), "you see a\n cup here")
    tab.keyboard.press("t")
    tabs.seen(tab.locator("#turn-2 .scene").count, 1)


def test_a_placebo_is_shown_beside_what_followed(show: Show) -> None:
    turn = pages.learned("look", "nothing here", (-1.0, -1.0))
    turn = pages.turn("look", then="a whole other room", target=turn.target, action=turn.action)
    made = pages.page(pages.run(episodes=pages.columns([{}])))
    tab = show((made, [Chunk(run=0, episodes=(pages.episode(0, turn),))]),
               "run=0&view=episodes&episode=0")  # fmt: skip
    tabs.ready(tab)
    parts = ("nothing here", "is not what followed", "a whole other room")
    tabs.says(tab.locator("#turn-1"), *parts)


def test_the_group_side_by_side(show: Show) -> None:
    tab = show(pages.usual(), "run=0&view=episodes&episode=0&side=group")
    tabs.ready(tab)
    table = tab.locator(".group table")
    # Returns 10, 0, 0: a mean of 3.33.
    tabs.says(table, "3 attempts", "mean return 3.33")
    tabs.seen(table.locator("thead th").count, 4)
    cells = table.locator("tbody tr").nth(1).locator("td").all_inner_texts()
    assert cells[0].startswith("take cup") and "refused" in cells[1]
    tabs.seen(table.locator(".stub").count, 1)


def test_ten_thousand_tokens_do_not_shift(show: Show) -> None:
    words = " ".join(f"word{i % 97}" for i in range(200))
    size = len(words.split(" "))
    turn = pages.learned(words, words, [-1.0] * size)
    made = pages.page(pages.run(episodes=pages.columns([{"turns": 60}])))
    chunk = Chunk(run=0, episodes=(pages.episode(0, *[turn] * 60),))
    tab = show((made, [chunk]), "run=0&view=episodes&episode=0&turn=40")
    tabs.ready(tab)
    here = "node => Math.abs(node.getBoundingClientRect().top) < 400"
    tabs.seen(lambda: tab.locator("#turn-40").evaluate(here), True)
    tab.wait_for_timeout(300)
    tab.evaluate(
        "() => { window.shift = 0; new PerformanceObserver(list => { for (const e of"
        " list.getEntries()) window.shift += e.value }).observe({type: 'layout-shift'}) }"
    )
    for place in (3, 50, 120):
        tab.locator("#turn-40 .strip.target .k").nth(place).hover()
    tabs.seen(lambda: tabs.numbers(tab)["p"], "0.368")
    assert tab.evaluate("window.shift") == 0


# ------------------------------------------------------------------------------- compare


def test_two_episodes_of_one_task(show: Show) -> None:
    tab = show(pages.usual(), "view=compare&a=0.0")
    tabs.ready(tab)
    # The same update, group and index of the other run comes first.
    right = tab.get_by_label("Right episode")
    first = right.locator("option").first.inner_text()
    assert first.startswith("run-b · update 1 · group 0 · index 0")
    tabs.seen(tab.get_by_text("The same commands in both").is_visible, True)
    right.select_option(label="run-a · update 1 · group 0 · index 1 · no success")
    tab.locator("tr.first").wait_for()
    tabs.seen(tab.locator("tr.first th").inner_text, "1differs")
    tabs.says(tab.locator("table.pair tbody tr").nth(2), "ended")


def test_arms(show: Show) -> None:
    tab = show(pages.comparison(), "view=compare")
    parts = ("+10.0 [+5.0, +15.0]", "0.063", "no difference shown", "paw, seed 6")
    tabs.says(tab.locator(".comparison"), *parts, "loss was not finite")
    # Twelve dots of `final`: 0.30 to 0.35, and the same 0.1 higher.
    seeds = tab.locator(".intervals", has_text="final of each arm and seed")
    tabs.seen(seeds.locator("circle.seed").count, 12)
    tabs.seen(seeds.locator("circle.point").count, 2)
    tabs.go(tab, "view=overview")
    tab.locator('[data-metric="rollout/success_rate"] canvas').wait_for()
    values = tab.locator('[data-metric="rollout/success_rate"] .values')
    tabs.says(values, "32.5 %", "42.5 %")  # means over six seeds: 0.325 and 0.425
