import pytest
from hypothesis import given
from hypothesis import strategies as st

from paw import envs
from paw.style import Style
from paw.text.parse import Parsed, parse_response, write_response, writes_observation

Y = Parsed("y", True)
GOOD = "<think>I need the mug.</think>\n<action>Go to Shelf 1</action>"


@pytest.mark.parametrize(
    ("response", "environment", "expected"),
    [
        (GOOD, "alfworld", Parsed("go to shelf 1", True)),  # ALFWorld's commands are lower case
        (GOOD, "webshop", Parsed("Go to Shelf 1", True)),
        ("<action>look</action>", "alfworld", Parsed("", False)),  # no reasoning
        ("<think>hm</think> look", "alfworld", Parsed("", False)),
        ("<think>hm</think><action> </action>", "alfworld", Parsed("", False)),
        ("<think><action>no</action></think><action>yes</action>", "x", Parsed("yes", True)),
        ("<think>a</think><action>one</action><action>two</action>", "x", Parsed("one", True)),
        (
            "<think>?</think><search> who wrote it </search>",
            "search_qa",
            Parsed("<search> who wrote it </search>", True),
        ),
        ("<answer>Ada</answer>", "search_qa", Parsed("<answer>Ada</answer>", True)),
        ("<search>no end</answer>", "search_qa", Parsed("", False)),
        # What stands inside a think block is no command: cut, ...
        ("<think>it could be <answer>Paris</answer> but I", "search_qa", Parsed("", False)),
        ("<think>a</think> <think>b <action>x</action>", "x", Parsed("", False)),
        # ... repeated, nested, ...
        ("<think>a</think><think>b <action>x</action></think><action>y</action>", "x", Y),
        ("<think>a<think>b</think><action>x</action></think><action>y</action>", "x", Y),
        ("<think>a<think>b</think><action>x</action>", "x", Parsed("", False)),
        ("<think>a</think><action>x<think></action></think><action>y</action>", "x", Y),
        # ... spelled otherwise, ...
        ("<THINK>a <action>x</action></Think ><action>y</action>", "x", Y),
        ("< think\n>it is <answer>Paris</answer>", "search_qa", Parsed("", False)),
        # ... or begun before the response.
        ("it is <action>x</action></think><action>y</action>", "x", Y),
        ("it is <action>x</action></think>", "x", Parsed("", False)),
        # ... marked as other models mark it, ...
        ('<think effort="low">it is <answer>Paris</answer>', "search_qa", Parsed("", False)),
        ("<reasoning><action>x</action></reasoning><action>y</action>", "x", Y),
        ("<seed:think><action>x</action></seed:think><action>y</action>", "x", Y),
        ("[THINK]<answer>Paris</answer>", "search_qa", Parsed("", False)),
        ("◁think▷<action>x</action>◁/think▷<action>y</action>", "x", Y),
        ("<|START_THINKING|><action>x</action><|END_THINKING|><action>y</action>", "x", Y),
        ("<|begin_of_thought|><action>x</action><|end_of_thought|><action>y</action>", "x", Y),
        (
            "<|channel|>analysis<|message|><action>x</action><|end|><|start|>assistant"
            "<|channel|>analysis<|message|><action>x</action><|end|><|start|>assistant"
            "<|channel|>final<|message|><action>y</action>",
            "x",
            Y,
        ),
        ("<|channel>thought\n<action>x</action><channel|><action>y</action>", "x", Y),
        ("<thinking>a</think><action>x</action></thinking><action>y</action>", "x", Y),
        # ... and no other words in brackets are such a mark.
        ("<think>a</think><action>click[think]</action>", "x", Parsed("click[think]", True)),
        (
            "<think>a</think><action>click[<thinkpad>]</action>",
            "x",
            Parsed("click[<thinkpad>]", True),
        ),
        ("<think/><think>a</think><action>y</action>", "x", Y),
        # What stands behind a block is one, whatever follows.
        ("<think>a</think><action>y</action><think>and <action>x</action>", "x", Y),
        ("<think>a</think><action>y</action><think>b</think><action>x</action>", "x", Y),
    ],
)
def test_tags(response, environment, expected):
    assert parse_response(response, "tags", style(environment)) == expected


def style(environment: str) -> Style:
    return Style() if environment == "x" else envs.style(environment)


def test_command_format_takes_the_whole_response():
    assert parse_response(" Go to fridge 1 ", "command", style("household")) == Parsed(
        "go to fridge 1", True
    )
    assert parse_response("  ", "command", style("household")) == Parsed("", False)


@pytest.mark.parametrize(
    ("response", "command"),
    [
        ("<think>Perhaps\ngo to bed 1</think>\n\nGo to fridge 1", "go to fridge 1"),
        ("<think>go to fridge 1", ""),
        ("go to bed 1</think>go to fridge 1", "go to fridge 1"),
        ("<think>a<think>b</think>go to fridge 1", ""),
        ("<think>a</think>go to fridge 1<think>b", "go to fridge 1"),
    ],
)
def test_command_format_takes_what_stands_behind_the_reasoning(response, command):
    assert parse_response(response, "command", style("household")) == Parsed(command, bool(command))


def test_a_response_that_begins_inside_a_block():
    """The prompt opened it, so nothing of the response is said before the block ends."""
    x = style("x")
    assert parse_response("<action>x</action>", "tags", x, opened=True) == Parsed("", False)
    assert parse_response("go", "command", x, opened=True) == Parsed("", False)
    assert parse_response("a</think><action>y</action>", "tags", x, opened=True) == Y
    assert parse_response("\n<think>a</think><action>y</action>", "tags", x, opened=True) == Y
    nested = "a <think>b</think> <action>x</action></think><action>y</action>"
    assert parse_response(nested, "tags", x, opened=True) == Y


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "x", "<action>x</action>"]), max_size=9),
    st.sampled_from(["tags", "command"]),
)
def test_no_command_comes_from_inside_a_block(parts, response_format):
    """By depth; a closing tag at depth 0 ends a block that began before the response."""
    depth, depths, stray = 0, [], -1
    for i, part in enumerate(parts):
        stray = i if part == "</think>" and not depth else stray
        depth = max(0, depth + (part == "<think>") - (part == "</think>"))
        depths.append(depth)
    marked = [
        part.replace("x", "no" if depths[i] or i < stray else "yes") for i, part in enumerate(parts)
    ]
    own = Style(needs_reasoning=False)
    assert "no" not in parse_response("".join(marked), response_format, own).command


@given(st.text(), st.sampled_from(["tags", "command"]), st.sampled_from(["search_qa", "webshop"]))
def test_any_text_is_parsed_without_an_exception(response, response_format, environment):
    parsed = parse_response(response, response_format, style(environment))
    assert parsed.well_formed == bool(parsed.command)


def test_tags_of_ones_own():
    """Two tags that a command stands in, the reasoning left to the policy."""
    own = Style(tags=("say", "do"), needs_reasoning=False)
    assert parse_response("<do> Nod </do><say>Yes</say>", "tags", own) == Parsed("Nod", True)
    assert parse_response("<think><do>no</do></think><say>Yes</say>", "tags", own).command == "Yes"
    assert parse_response("<action>nod</action>", "tags", own) == Parsed("", False)
    assert parse_response("<do>nod</say>", "tags", own) == Parsed("", False)


@pytest.mark.parametrize(
    ("environment", "response_format", "command", "response"),
    [
        ("alfworld", "tags", "look", "<think></think><action>look</action>"),
        ("search_qa", "tags", "<search>who</search>", "<think></think><search>who</search>"),
        ("search_qa", "tags", "<search>who", "<think></think><search>who"),  # junk stays junk
        ("alfworld", "command", "look", "look"),
    ],
)
def test_a_written_response_is_read_back(environment, response_format, command, response):
    own = style(environment)
    assert write_response(command, response_format, own) == response
    if command != "<search>who":
        assert parse_response(response, response_format, own) == Parsed(command, True)


@pytest.mark.parametrize(
    ("response", "confused"),
    [
        ("<action>look</action>\nObservation: you see a mug", True),
        ("<search>x</search><information>Doc 1</information>", True),
        ("<action>look</action>\nuser\nNothing happens.", True),
        ("<think>My last observation: a mug.</think><action>look</action>", False),
        ("<think>The\nuser wants a mug</think><action>look</action>", False),
    ],
)
def test_role_confusion_in_text(response, confused):
    assert writes_observation(response, (5, 6)) == confused


def test_role_confusion_by_a_header_of_text():
    """[INST] is text to Mistral's tokenizer, and no word of a response."""
    assert writes_observation("go [INST] Nothing", (5, 9), header_text="[INST]")
    assert not writes_observation("go INST", (5, 9), header_text="[INST]")


def test_role_confusion_by_a_header_of_the_chat_template():
    """Spelled out in text it is no header: only the control token is."""
    assert writes_observation("go<|observation|>Nothing", (5, 9, 6), header_ids={9})
    assert not writes_observation("go<|observation|>Nothing", (5, 7, 6), header_ids={9})
