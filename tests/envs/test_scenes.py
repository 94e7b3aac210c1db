"""Scenes: what is drawn of an episode, held against what the environments know themselves."""

from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from alfworld_small import HEAT, write_game
from hypothesis import given, settings
from hypothesis import strategies as st
from search_qa_small import CORPUS
from webshop_small import shop

from paw import envs
from paw.envs.alfworld import Alfworld
from paw.envs.alfworld.engine import BANNER, HELP
from paw.envs.base import Environment, Observation
from paw.envs.household import Household
from paw.envs.probe import RandomPlayer, check_scene
from paw.envs.retrieval.base import Passage
from paw.envs.search_qa.environment import INVALID, NO_RESULTS, format_passages
from paw.envs.webshop import pages
from paw.style import Block, Step

SCENES = {name: envs.style(name).scenes for name in envs.BUILT_IN}


def draw(env: str, turns: list[Step], index: int = -1, instruction: str = "") -> list[Block]:
    scenes = SCENES[env]
    assert scenes is not None
    every = list(scenes(instruction, turns))
    assert len(every) == len(turns)
    blocks = list(every[index])
    check_scene(blocks, env)
    return blocks


def facts(blocks: list[Block]) -> dict[str, str]:
    return dict(entry for block in blocks if block.kind == "facts" for entry in block.entries)


def of(blocks: list[Block], title: str) -> tuple[tuple[str, str], ...]:
    return next((block.entries for block in blocks if block.title == title), ())


def chosen(observation: Observation, rng: Random) -> str:
    """A kind of command first, so that few are `go`; now and then what is refused."""
    if rng.random() < 0.1:
        return rng.choice(["take mug 1", "help", "look ", "go to"])
    verb = rng.choice(sorted({c.partition(" ")[0] for c in observation.commands}))
    return rng.choice([c for c in observation.commands if c.startswith(verb)])


# --- household and ALFWorld


def alfworld_state(env: Any) -> tuple[set[str], str, dict[str, tuple[str, set[str]]]]:
    state, game = env._state, env._state._game
    places = {}
    for r, name in enumerate(game.receptacles):
        is_open = "open" if r in state._opened else "closed"
        found = {game.objects[o] for o in state._contents[r]}
        places[name] = (is_open if r in game.openable else "", found)
    held = game.objects[state._held] if state._held >= 0 else "nothing"
    return {game.receptacles[r] for r in state._here}, held, places


def household_state(env: Any) -> tuple[set[str], str, dict[str, tuple[str, set[str]]]]:
    places = {}
    for name, found in env._contents.items():
        shut = not env._accessible(name)
        places[name] = ("closed" if shut else "open" if name in env._open else "", set(found))
    return {env._location} - {None}, env._held or "nothing", places


def hold_against_engine(name: str, env: Environment, seed: int, turns: int) -> set[str]:
    """Play at random; place, what is carried and every content agree with the engine's own."""
    rng, steps, verbs = Random(seed), [], set[str]()
    observation = env.reset()
    for _ in range(turns):
        here, held, places = (alfworld_state if name == "alfworld" else household_state)(env)
        command = chosen(observation, rng)
        steps.append((observation.text, command))
        blocks = draw(name, steps)
        told = facts(blocks)
        place = told.pop("Place")
        assert place in here or (place, here) == ("the middle of the room", set())
        assert told.pop("Carried").partition(" (")[0] == held
        listed = {label.partition(" (")[0] for label in told}
        assert listed <= here and (not here or place in listed)
        seen = told | dict(of(blocks, "Last seen elsewhere"))
        for label, text in seen.items():
            if not label or text == "not looked into":
                continue
            receptacle, _, state = label.removesuffix(")").partition(" (")
            things = {part.partition(" (")[0] for part in text.split(", ") if " " in part}
            things -= {"and what was there before"}
            assert state == places[receptacle][0], steps[-3:]
            if "what was there before" in text:
                assert things <= places[receptacle][1]
            elif state != "closed" or text != "not looked into":
                assert things == places[receptacle][1], steps[-3:]
        result = env.step(command)
        verbs |= {command.partition(" ")[0]} if result.valid else set()
        observation = result.observation
        if result.terminated:
            break
    return verbs


def test_alfworld_agrees_with_the_engine(tmp_path: Path):
    """Receptacles at one location, a mug that lies in two, closed ones, all kinds of command."""
    write_game(tmp_path, f"{HEAT}/trial_T1")
    source = Alfworld("train", data_dir=tmp_path)
    played = [
        hold_against_engine("alfworld", source.open(source[0]), seed, 60) for seed in range(12)
    ]
    assert set().union(*played) >= {
        "take", "move", "open", "close", "heat", "cool", "clean", "slice", "use", "help",
    }  # fmt: skip


def test_household_agrees_with_the_engine():
    source = Household("train", level=2)
    played = [
        hold_against_engine("household", source.open(source[seed]), seed, 50) for seed in range(12)
    ]
    assert set().union(*played) >= {"take", "move", "open", "close", "clean", "cool", "use"}


@pytest.mark.data
@pytest.mark.parametrize("split", ["valid_seen", "train"])
def test_alfworld_agrees_with_the_engine_on_the_real_games(alfworld_dir: Path, split: str):
    source = Alfworld(split, data_dir=alfworld_dir)
    for seed in range(10):
        env = source.open(source[seed * len(source) // 10])
        hold_against_engine("alfworld", env, seed, 50)


WALK = [
    ("You are in the middle of a room. Looking quickly around you, you see a fridge 1, and a "
     "mug 1.\n\nYour task is to: put a cool mug in shelf.", "go to table 1"),
    ("You arrive at table 1. On the table 1, you see a mug 2, and a mug 1.", "take mug 1"),
    ("Nothing happens.", "take mug 1 from table 1"),
    ("You pick up the mug 1 from the table 1.", "go to fridge 1"),
    ("You arrive at fridge 1. The fridge 1 is closed.", "cool mug 1 with fridge 1"),
    ("You cool the mug 1 using the fridge 1.", "open fridge 1"),
    ("You open the fridge 1. The fridge 1 is open. In it, you see nothing.", "examine shelf 1"),
    ("On the shelf 1, you see a pen 1.", "move mug 1 to shelf 1"),
    ("You move the mug 1 to the shelf 1.", "look"),
]  # fmt: skip


def test_what_is_drawn_of_a_walk():
    """Turn by turn; nothing changes where a command was refused. The shelf is used from the fridge,
    so it stands there too."""
    assert draw("alfworld", WALK, 0) == [
        Block(
            "facts",
            "Where things are",
            (("Place", "the middle of the room"), ("Carried", "nothing")),
        )
    ]
    arrived = [
        Block(
            "facts",
            "Where things are",
            (("Place", "table 1"), ("Carried", "nothing"), ("table 1", "mug 2, mug 1")),
        )
    ]
    assert draw("alfworld", WALK, 1) == draw("alfworld", WALK, 2) == arrived
    assert facts(draw("alfworld", WALK, 3)) == {
        "Place": "table 1", "Carried": "mug 1", "table 1": "mug 2",
    }  # fmt: skip
    at_fridge = draw("alfworld", WALK, 4)
    assert facts(at_fridge)["fridge 1 (closed)"] == "not looked into"
    assert of(at_fridge, "Last seen elsewhere") == (("table 1", "mug 2"),)
    assert facts(draw("alfworld", WALK, 5))["Carried"] == "mug 1 (cool)"
    assert facts(draw("alfworld", WALK, 6))["fridge 1 (open)"] == "nothing"
    assert facts(draw("alfworld", WALK, 8)) == {
        "Place": "fridge 1", "Carried": "nothing", "fridge 1 (open)": "nothing",
        "shelf 1": "pen 1, mug 1 (cool)",
    }  # fmt: skip


def test_of_many_places_the_latest_are_listed():
    turns = [
        (f"You arrive at shelf {i}. On the shelf {i}, you see nothing.", "") for i in range(20)
    ]
    items = of(draw("household", turns), "Last seen elsewhere")
    assert [label for label, _ in items[:-1]] == [f"shelf {i}" for i in range(18, 6, -1)]
    assert items[-1] == ("", "… and 7 more")


def test_behind_a_text_of_another_game_nothing_is_claimed():
    turns = [WALK[1], ("You are swept away.", "swim"), WALK[4]]
    assert [bool(draw("household", turns, i)) for i in range(3)] == [True, False, False]


# --- WebShop


@pytest.mark.parametrize("observation", ["text", "text_rich"])
def test_shop_pages_say_what_the_session_knows(shop_dir: Path, observation: str):
    source = shop(shop_dir, observation=observation, show_attributes=True)
    met, rng = set[str](), Random(0)
    for number in range(40):
        task = source[number % len(source)]
        env, player, turns = cast(Any, source.open(task)), RandomPlayer(str(number)), []
        now = env.reset()
        for _ in range(15):
            session = env._session
            met.add(session.page_name)
            command = player.act(now) if rng.random() < 0.8 else "search[red shoes]"
            turns.append((now.text, command))
            hold_against_session(draw("webshop", turns, instruction=task.instruction), session)
            result = env.step(command)
            now = result.observation
            if result.terminated:
                end = facts(draw("webshop", [*turns, (now.text, "")]))
                assert float(end["Score"]) == result.info["score"]
                assert end["Bought"] == result.info["asin"]
                met.add("done")
                break
    assert met == {"index", "search_results", "item_page", "item_sub_page", "done"}


def hold_against_session(blocks: list[Block], session: Any) -> None:
    told, page = facts(blocks), session._page
    buttons = [text for kind, text in page if kind == pages.BUTTON]
    titles = {block.title: block for block in blocks}
    if session.page_name == "index":
        assert of(blocks, "Search bar") == (("", "Search"),)
        return
    assert [text for _, text in of(blocks, "Buttons")] == buttons
    if session.page_name == "search_results":
        shown = [text for kind, text in page if kind == pages.PRODUCT]
        assert (told["Page"], told["Query"]) == (str(session.page), " ".join(session.keywords))
        products = [session.shop.catalog.product(session.shop.catalog.number(a)) for a in shown]
        wanted = [(f"{p.asin} {p.price_tag}", p.title) for p in products]
        assert list(of(blocks, "Products")) == wanted
    elif session.page_name == "item_page":
        product = session._product
        assert (told["Title"], told["Price"]) == (product.title, product.price_tag)
        options = titles.get("Options", Block("items", "", ()))
        marked = [options.entries[entry] for entry, _, _ in options.marks]
        named = all(name for name, _ in options.entries)
        values = [(n if named else "", v) for n, vs in product.options.items() for v in vs]
        assert [e for e in options.entries if e[1] not in product.options] == values
        clicked, set_now = {value for _, value in marked}, set(session.options.values())
        # Where names are not told from values, two values of one option may have been clicked.
        assert clicked == set_now if named else clicked >= set_now
    else:
        assert blocks[0].kind == "passage" and blocks[0].title in session.url


def test_what_is_drawn_of_a_product(shop_dir: Path):
    """`text` cannot tell names of options from values; `text_rich` marks them."""
    env = shop(shop_dir, observation="text").open(shop(shop_dir)[0])
    turns, now = [], env.reset().text
    for command in ("search[red shoes]", "click[b000000001]", "click[l | xl]", "click[features]"):
        turns.append((now, command))
        now = env.step(command).observation.text
    product = draw("webshop", turns)
    assert facts(product) == {
        "Title": "Red Running Shoes", "Price": "$19.99", "Rating": "N.A.", "Clicked": "l | xl",
    }  # fmt: skip
    options = next(block for block in product if block.title == "Options")
    assert [text for _, text in options.entries] == ["size", "small", "l | xl", "fit", "no"]
    assert options.marks == ((2, 0, 6),)
    features = draw("webshop", [*turns, (now, "click[< prev]")])
    assert features[0].title == "Features"
    assert [text for _, text in features[0].entries] == ["First point", "Second point"]


# --- search-QA

FOUND = format_passages([Passage(row["id"], row["title"], row["text"]) for row in CORPUS[:2]])


def test_passages_with_the_answer_marked():
    """The whole answer where it stands, words of it elsewhere; "by" names nothing, and "Hamlets"
    would be another word."""
    turns = [
        ("who wrote hamlet", "<search>hamlet</search>"),
        (FOUND, "<think>so</think><answer>by william shakespeare</answer>"),
    ]
    assert facts(draw("search_qa", turns, 0, "who wrote hamlet")) == {"": "who wrote hamlet"}
    query, passages = draw("search_qa", turns)
    assert query.entries == (("Query", "hamlet"),)
    assert passages.entries == (
        ("Hamlet", "Hamlet is a tragedy by William Shakespeare."),
        ("William Shakespeare", "He was born in Stratford-upon-Avon."),
    )
    marked = [passages.entries[i][1][start:end] for i, start, end in passages.marks]
    assert marked == ["by William Shakespeare"]
    turns[-1] = (FOUND, "<answer>born Shakespeare</answer>")
    passages = draw("search_qa", turns)[-1]
    marked = [passages.entries[i][1][start:end] for i, start, end in passages.marks]
    assert marked == ["Shakespeare", "born"]
    turns[-1] = (FOUND, "<answer>tragedy by</answer>")
    assert draw("search_qa", turns)[-1].marks == ((0, 12, 22),)
    for last in (
        "<search>more</search>",
        "",
        "<answer></answer>",
        f"<answer>{'a ' * 200}</answer>",
    ):
        assert draw("search_qa", [turns[0], (FOUND, last)])[-1].marks == ()


def test_searches_without_passages():
    turns = [("q", "<search>x</search>"), (NO_RESULTS, "what?"), (INVALID, "")]
    assert facts(draw("search_qa", turns, 1)) == {"Query": "x", "Results": "none"}
    assert facts(draw("search_qa", turns, 2)) == {"Not carried out": "what?"}


# --- texts of any kind


REAL = {
    "household": [text for text, _ in WALK],
    "alfworld": [f"{BANNER}\n\n{WALK[0][0]}", HELP, *(text for text, _ in WALK)],
    "webshop": [
        "WebShop [SEP] Instruction: [SEP] find me shoes [SEP] Search",
        "Instruction: [SEP] find me shoes [SEP] Back to Search [SEP] Page 1 (Total results: 1) "
        "[SEP] Next > [SEP] B000000001 [SEP] Shoes [SEP] $1.00",
        "Instruction:\nshoes\n[button] Back to Search [button_]\n[button] < Prev [button_]\n"
        "size\n  [clicked button] s [clicked button_]\nShoes\nPrice: $1.00\nRating: N.A.\n"
        "[button] Description [button_]\n[button] Buy Now [button_]\n",
        "Instruction: [SEP] x [SEP] Back to Search [SEP] < Prev [SEP] About shoes",
        "Thank you for shopping with us! [SEP] Purchased [SEP] asin [SEP] B000000001 [SEP] options "
        "[SEP] {} [SEP] Your score (min 0.0, max 1.0) [SEP] 1.0",
    ],
    "search_qa": ["who?", FOUND, NO_RESULTS, INVALID],
}  # fmt: skip
COMMANDS = [
    "", "look", "click[s]", "search[x]", "click[description]", "<search>x</search>",
    "<answer>Hamlet (by</answer>", "click[", "<answer>\\</answer>",
]  # fmt: skip


@st.composite
def damaged(draw_from: Any, texts: list[str]) -> str:
    """A text of the environment with a piece cut out, doubled or put in."""
    text = draw_from(st.sampled_from(texts))
    start = draw_from(st.integers(0, len(text)))
    end = draw_from(st.integers(start, len(text)))
    put = draw_from(st.sampled_from(["", text[start:end] * 2, " [SEP] ", "\n", "Doc 2: "]))
    return text[:start] + put + text[end:]


@pytest.mark.parametrize("name", envs.BUILT_IN)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_no_text_is_too_strange(name: str, data: st.DataObject):
    """Blocks with marks inside their texts, or none, of arbitrary and of damaged texts."""
    anything = st.text(st.characters(), max_size=40)
    texts = st.one_of(anything, st.sampled_from(REAL[name]), damaged(REAL[name]))
    commands = st.one_of(anything, st.sampled_from(COMMANDS))
    turns = data.draw(st.lists(st.tuples(texts, commands), min_size=1, max_size=6))
    for index in range(len(turns)):
        draw(name, turns, index, data.draw(anything))
    other = data.draw(anything)
    if name != "webshop" and other != "Nothing happens.":
        assert draw(name, [(other, "")], instruction=other + "?") == []


@pytest.mark.parametrize("name", envs.BUILT_IN)
@pytest.mark.timeout(20)
def test_long_texts_take_no_long_time(name: str):
    """A megabyte of what begins like a text of the environment."""
    for text in REAL[name]:
        half = len(text) // 2
        for long in (text[:half] + text[half:] * (2**20 // len(text)), text + " x" * 2**19):
            draw(name, [(long, long)])
