import pytest
from hypothesis import given
from hypothesis import strategies as st

from paw import envs
from paw.style import Style
from paw.text.parse import Parsed, parse_response, write_response, writes_observation

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


def test_role_confusion_by_a_header_of_the_chat_template():
    """Spelled out in text it is no header: only the control token is."""
    assert writes_observation("go<|observation|>Nothing", (5, 9, 6), header_ids={9})
    assert not writes_observation("go<|observation|>Nothing", (5, 7, 6), header_ids={9})
