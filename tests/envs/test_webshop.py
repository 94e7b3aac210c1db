"""The shop on a hand-made catalogue of five products: pages, grammar, purchases, expert."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from webshop_small import play, shop, start

from paw.envs.check import check_environment, format_report
from paw.envs.webshop.session import commands, parse


def test_first_page(shop_dir):
    source = shop(shop_dir)
    env = source.open(source[0])
    observation = env.reset()
    goal = source[0].instruction
    assert observation.text == f"WebShop [SEP] Instruction: [SEP] {goal} [SEP] Search"
    assert observation.commands == ("search[<query>]",)
    assert env.max_return == 10


def test_search_page(shop_dir):
    env = start(shop(shop_dir), "B000000001")
    result = play(env, "search[RED boots]")
    # Both words: product 3. One word: 1 by `red`, also within the options of none.
    pieces = result.observation.text.split(" [SEP] ")
    assert pieces[0] == "Instruction:" and pieces[2] == "Back to Search"
    assert pieces[3:] == [
        "Page 1 (Total results: 2)",
        "Next >",
        "B000000003",
        "Red Boots",
        "$1000.0 to $2000.0",
        "B000000001",
        "Red Running Shoes",
        "$19.99",
    ]
    assert result.observation.commands == (
        "click[back to search]",
        "click[next >]",
        "click[b000000003]",
        "click[b000000001]",
    )
    result = play(env, "click[next >]")
    assert result.observation.text.endswith("Page 2 (Total results: 2) [SEP] < Prev [SEP] Next >")


def test_item_page(shop_dir):
    source = shop(shop_dir, show_attributes=True)
    env = start(source, "B000000001")
    result = play(env, "search[running]", "click[B000000001]")
    assert result.observation.text.endswith(
        " [SEP] < Prev [SEP] size [SEP] small [SEP] l | xl [SEP] fit [SEP] no"
        " [SEP] Red Running Shoes [SEP] Price: $19.99 [SEP] Rating: N.A."
        " [SEP] Description [SEP] Features [SEP] Reviews [SEP] Attributes [SEP] Buy Now"
    )
    assert result.observation.commands[-4:] == (
        "click[buy now]",
        "click[small]",
        "click[l | xl]",
        "click[no]",
    )
    ends = {
        "description": "< Prev [SEP] About Red Running Shoes",
        "features": "< Prev [SEP] First point [SEP] Second point",
        "reviews": "Back to Search [SEP] < Prev",
        "attributes": "non slip [SEP] fashion [SEP] red shoes [SEP] Clothing › Shoes › Red",
    }
    for name, end in ends.items():
        assert play(env, f"click[{name}]").observation.text.endswith(end)
        play(env, "click[< prev]")


def test_white_space_and_markup(shop_dir):
    env = start(shop(shop_dir), "B000000001")
    result = play(env, "search[plain]", "click[b000000005]", "click[features]")
    # Of the bullets "", " ", "a\n" and "\n", shown behind a blank each: "\n" alone vanishes.
    assert result.observation.text.endswith("< Prev [SEP]  [SEP]  [SEP] a")
    result = play(env, "click[back to search]", "search[tea]")
    assert "Tea <b>&amp; Cake</b> [SEP] $100.0" in result.observation.text


def test_rich_text(shop_dir):
    source = shop(shop_dir, observation="text_rich")
    env = start(source, "B000000001")
    text = play(
        env, "search[running]", "click[b000000001]", "click[no]", "click[small]"
    ).observation.text
    assert text.startswith("You have clicked no.\nYou have clicked small.\nInstruction:\n")
    assert "\n[button] < Prev [button_]\nsize\n  [clicked button] small [clicked button_]\n" in text
    assert "  [button] l | xl [button_]\n" in text
    text = play(env, "click[< prev]").observation.text
    assert "\n\n[clicked button] B000000001 [clicked button_]\nRed Running Shoes\n$19.99\n" in text
    text = play(env, "click[back to search]", "search[running]").observation.text
    assert "\n\n[button] B000000001 [button_]\n" in text


def test_shared_value_sets_the_later_option(shop_dir):
    env = start(shop(shop_dir), "B000000003")
    result = play(env, "search[boots]", "click[b000000003]", "click[small]", "click[buy now]")
    assert result.info["options"] == {"cut": "small"}


def test_page_name_in_the_query_changes_prev(shop_dir):
    env = start(shop(shop_dir), "B000000001")
    result = play(env, "search[search_results boots]", "click[b000000003]", "click[< prev]")
    assert "Page 0 (Total results: 1) [SEP] Next >" in result.observation.text
    result = play(env, "click[next >]")
    assert "Page 1 (Total results: 1)" in result.observation.text


def test_keyword_searches(shop_dir):
    env = start(shop(shop_dir), "B000000001")
    for query, count in {
        "<c> garden": 1,
        "<c> fashion more words": 4,
        "<c>": 0,
        "<q> red shoes": 4,
        "<a> rubber sole": 0,
        "<r>": 5,
        "the": 0,
    }.items():
        text = play(env, f"search[{query}]").observation.text
        assert f"Page 1 (Total results: {count})" in text, query


def test_purchase(shop_dir):
    source = shop(shop_dir)
    env = start(source, "B000000001")
    want = source._goal(next(t for t in source if source._goal(t).asin == "B000000001")).options
    result = play(
        env,
        "search[running]",
        "click[b000000001]",
        f"click[{want['size']}]",
        "click[no]",
        "click[buy now]",
    )
    assert (result.reward, result.terminated, result.success) == (10.0, True, True)
    assert result.info["score"] == 1.0 and result.info["asin"] == "B000000001"
    assert "Purchased [SEP] asin [SEP] B000000001" in result.observation.text
    assert "Your score (min 0.0, max 1.0) [SEP] 1.0 [SEP] Reward Details" in result.observation.text
    assert result.observation.commands == ()
    with pytest.raises(RuntimeError):
        env.step("search[again]")


def test_partial_score_is_no_success(shop_dir):
    # Two of four points (rubber sole, price; neither option): 2/4 x r_type 1.
    env = start(shop(shop_dir), "B000000001")
    result = play(env, "search[running]", "click[b000000001]", "click[buy now]")
    assert (result.reward, result.success, result.info["score"]) == (0.0, False, 0.5)


REFUSED = """
search; search[]; click[]; Search[x];  search[x]; click[search]; click[b1]; buy now;
click[buy now]; search[x; [x]; click[next >]; click[description]; think[x]; search[a\nb]
"""


def test_refused_commands_change_nothing(shop_dir):
    source = shop(shop_dir)
    env = source.open(source[0])
    before = env.reset()
    for command in ["", *(command[1:] for command in REFUSED.split(";"))]:
        result = env.step(command)
        assert result.observation == before, command
        assert (result.valid, result.reward, result.success) == (False, 0, None)
        assert not result.terminated


def test_commands_are_what_a_click_can_name():
    names = ["buy now", "search", "", "x]", "a\nb", "[y", "ß"]
    assert commands(names) == ("click[buy now]", "click[x]]", "click[ß]")


PIECES = st.sampled_from(["search", "click", "[", "]", "a", " ", "\n", "]]", "red", "İ"])


@settings(deadline=None)
@given(st.lists(PIECES).map("".join) | st.text())
@example("search[red [shoes]]")
@example("search[shoes]]")
@example("search[shoes] please")
def test_parse_is_the_greedy_regular_expression(action):
    match = re.match(r"(.+)\[(.+)\]", action)
    assert parse(action) == (match and (match[1], match[2].lower()))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text() | st.sampled_from(["search[red]", "click[b000000003]", "click[small]"])))
def test_any_text_is_survived(shop_dir, texts):
    source = shop(shop_dir, observation="text_rich")
    env = source.open(source[0])
    env.reset()
    for text in texts:
        for command in (text, f"search[{text}]", f"click[{text}]"):
            observation = env.step(command).observation
            assert observation.text.isprintable() or observation.text


@pytest.mark.parametrize("unit", ["[", "]", "_", "'a", "a b ", "é", "\U0001f381\u200d"])
def test_a_megabyte_does_not_hang(shop_dir, unit):
    source = shop(shop_dir, observation="text_rich")
    env = source.open(source[0])
    env.reset()
    text = unit * (1_000_000 // len(unit))
    assert not env.step(text).valid
    # The last bracket opens the argument: of `search[[[` none is left.
    assert env.step(f"search[{text}]").valid == (unit != "[")


def test_contract(shop_dir):
    report = check_environment(shop(shop_dir, observation="text_rich", show_attributes=True))
    assert report.passed, format_report(report)


@pytest.mark.parametrize("kind", ["oracle", "heuristic"])
@pytest.mark.parametrize("observation", ["text", "text_rich"])
def test_expert_succeeds(shop_dir, kind, observation):
    source = shop(shop_dir, observation=observation)
    for task in source:
        if source._goal(task).asin == "B000000003":
            continue  # both of its options have the value `small`: only one can be set
        env, expert = source.open(task), source.expert(task, kind=kind)
        seen = env.reset()
        for _ in range(15):
            result = env.step(expert.act(seen))
            seen = result.observation
            if result.terminated:
                break
        assert result.success, task


@pytest.mark.parametrize("observation", ["text", "text_rich"])
def test_expert_that_clicks_what_is_shown(shop_dir, observation):
    # A page shows `B000000001` and `Buy Now`; the commands are the same in small letters.
    source = shop(shop_dir, observation=observation)
    plain, shown = (source.expert(source[0], kind="oracle", as_shown=a) for a in (False, True))
    env = source.open(source[0])
    seen, clicks = env.reset(), []
    while not env._ended:
        command, small = shown.act(seen), plain.act(seen)
        assert command.lower() == small.lower()
        if command.startswith("click["):
            assert command[6:-1] in seen.text
            clicks.append(command)
        result = env.step(command)
        assert result.valid
        seen = result.observation
    assert clicks[-1] == "click[Buy Now]"
    assert result.success


def test_expert_says_what_is_junk(shop_dir):
    source = shop(shop_dir)
    junk = valid = 0
    for seed in range(40):
        env, expert = source.open(source[0]), source.expert(source[0], seed, noise=0.3, junk=0.3)
        seen = env.reset()
        for _ in range(20):
            result = env.step(expert.act(seen))
            assert result.valid != expert.last_was_junk
            junk, valid = junk + (not result.valid), valid + result.valid
            seen = result.observation
            if result.terminated:
                break
    assert 0.2 < junk / (junk + valid) < 0.4
