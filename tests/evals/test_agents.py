import pytest
from fake_endpoint import ADMISSIBLE, answer

from paw.envs.alfworld import Alfworld
from paw.envs.base import Observation
from paw.envs.household import Household
from paw.envs.search_qa import SearchQA
from paw.errors import UserError
from paw.evals.agents import Plain, React, Turn, expert_example, reflection_messages
from paw.evals.replies import Reply, read_reply
from paw.text import prompts
from paw.text.prompts import Seen
from paw.types import Task

STYLE = Alfworld.style
TASK = Task("valid/1", "heat", "heat some mug and put it in cabinet.")
HERE = Observation("You arrive at fridge 1.", ("open fridge 1", "look", "help"))
PAST = [Turn(f"o{i}", f"Thought: t{i}\nAction: c{i}", f"c{i}") for i in range(3)]


def test_plain_asks_what_training_asks():
    """History 2: turns 2 and 3 of the three are shown."""
    (message,) = Plain(STYLE, 2).messages(TASK, PAST, HERE)
    assert message == {
        "role": "user",
        "content": prompts.window(
            STYLE, TASK, [Seen("o1", "c1"), Seen("o2", "c2")], 3, HERE.text, HERE.commands
        ),
    }
    assert "[Observation 2: 'o1', Command 2: 'c1']" in message["content"]
    assert "o0" not in message["content"]


def test_plain_without_history():
    (message,) = Plain(STYLE, 0).messages(TASK, PAST, HERE)
    assert "o2" not in message["content"]


@pytest.mark.parametrize(
    ("reply", "command", "well_formed"),
    [
        (Reply("<think>a</think><action>Go to fridge 1</action>"), "go to fridge 1", True),
        (Reply("<action>look</action>"), "", False),
        (Reply("<action>look</action>", reasoning="apart"), "look", True),
        (Reply("in the prompt</think>\n<action>look</action>"), "look", True),
        (Reply(""), "", False),
        (Reply("", reasoning="cut <action>look</action>"), "", False),
        (Reply("<Think>a <action>no</action>"), "", False),
        (Reply("a <action>no</action></THINK><action>look</action>"), "look", True),
        (Reply("a<think>b</think><action>no</action></think><action>look</action>"), "look", True),
        # A tag in what the server kept apart ends nothing.
        (Reply("", reasoning="a</think><action>no</action>"), "", False),
        (Reply("<action>look</action>", reasoning="a</think><action>no</action>"), "look", True),
    ],
)
def test_plain_reads_as_training_reads(reply, command, well_formed):
    agent = Plain(STYLE, 2)
    parsed = agent.parse(agent.response(reply))
    assert (parsed.command, parsed.well_formed) == (command, well_formed)


def test_plain_in_search_qa():
    agent = Plain(SearchQA.style, 4)
    (message,) = agent.messages(Task("q", "nq", "who?"), [], Observation("who?"))
    assert "<search> query </search>" in message["content"]
    assert agent.parse("<search> him </search>").command == "<search> him </search>"


def test_react_conversation_grows():
    """Three past turns and the present: u a u a u a u; commands only at the end."""
    messages = React(STYLE).messages(TASK, PAST, HERE)
    assert [m["role"] for m in messages] == ["user", "assistant"] * 3 + ["user"]
    assert [m["content"] for m in messages[1::2]] == [t.response for t in PAST]
    assert messages[2]["content"] == "Observation: o1"
    assert messages[0]["content"].endswith(f"Your task is: {TASK.instruction}\n\nObservation: o0")
    assert messages[-1]["content"] == (
        "Observation: You arrive at fridge 1.\n"
        "Your admissible commands are: ['open fridge 1', 'look']."
    )


def test_react_keeps_empty_responses_apart():
    messages = React(STYLE).messages(TASK, [Turn("o", "", "")], HERE)
    assert messages[1]["content"] == "Thought:"


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("Thought: hm\nAction: Open Fridge 1", "open fridge 1"),
        ("**Action:** `open fridge 1`", "open fridge 1"),
        ("> Action 2: open fridge 1", "open fridge 1"),
        ("Action: look\nObservation: a lie\nAction: open fridge 1", "look"),
        ("<think>Action: look</think>Thought: a\nAction: open fridge 1", "open fridge 1"),
        ("Action: look\nAction: open fridge 1", "look"),
        ("<think>Action: look", ""),
        ("<THINK>\nAction: look", ""),
        ("<think>a</think><think>\nAction: look\n</think>Action: open fridge 1", "open fridge 1"),
        ("<think>a<think>b</think>\nAction: look", ""),
        ("a\nAction: look\n</think>\nAction: open fridge 1", "open fridge 1"),
        ("Thought: my next action: open it", ""),
        ("Action:", ""),
        ("", ""),
    ],
)
def test_react_command(text, command):
    agent = React(STYLE)
    parsed = agent.parse(agent.response(Reply(text)))
    assert (parsed.command, parsed.well_formed) == (command, bool(command))


def test_react_history_holds_no_invented_observation():
    response = React(STYLE).response(Reply("Thought: a\nAction: look\nObservation: a lie"))
    assert response == "Thought: a\nAction: look"


def test_react_in_search_qa():
    agent = React(SearchQA.style)
    (message,) = agent.messages(Task("q", "nq", "who?"), [], Observation("who?", ("<x>",)))
    assert "<answer> answer </answer>" in message["content"]
    assert "admissible" not in message["content"]
    reply = Reply("Thought: easy\nAction: <answer>Him</answer>")
    assert agent.parse(agent.response(reply)).command == "<answer>Him</answer>"
    assert not agent.parse("Action: search him").well_formed


def test_reflections_are_read_and_the_oldest_forgotten():
    first = React(STYLE).messages(TASK, [], HERE, ["one", "two\nlines", "three", "four"])[0]
    assert "- two lines\n- three\n- four" in first["content"]
    assert "one" not in first["content"].partition("What you wrote")[2].partition("Your task")[0]


def test_reflection_prompt_holds_the_whole_trial():
    (message,) = reflection_messages(TASK, PAST, "the end", ["earlier"])
    for text in ("o0", "Action: c2", "Observation: the end", "- earlier", TASK.instruction):
        assert text in message["content"]


def test_expert_example_is_a_won_episode_of_the_kind():
    source = Household("train")
    kind = "pick_heat_then_place_in_recep"
    example = expert_example(source, kind, 30, frozenset())
    task = next(t for t in source if t.kind == kind)
    assert task.instruction in example
    assert "\nAction: heat " in example
    assert "\nAction: move " in example, "the wording of ALFWorld 2.1.2"
    other = expert_example(source, kind, 30, frozenset([task.id]))
    assert other != example
    shown = React(STYLE, {kind: example}).messages(Task("v", kind, "x."), [], Observation("here"))
    assert example in shown[0]["content"]


def test_example_of_another_kind_where_there_is_none():
    source = Household("train")
    assert expert_example(source, "unheard of", 30, frozenset()).startswith("Observation: ")


def test_no_expert(monkeypatch):
    class Bare(Household):
        def expert(self, task, seed=0, **options):
            raise NotImplementedError

    with pytest.raises(UserError, match="no expert; use --shots 0"):
        expert_example(Bare("train"), "", 30, frozenset())
    with pytest.raises(UserError, match="wins none of the tasks tried in 1 turns"):
        expert_example(Household("train"), "", 1, frozenset())


def test_fake_reads_the_commands_back():
    shown = prompts.admissible(HERE.commands, STYLE)
    found = ADMISSIBLE.search(HERE.text + shown)
    assert found and found[1] == "'open fridge 1', 'look'"
    assert read_reply(answer("x")).text == "x"
