"""Episodes played with a scripted sampler in scripted environments."""

from collections.abc import Mapping, Sequence

import pytest

from paw.envs.base import Observation, StepResult
from paw.rollout.collect import Limits, Plan, collect, group_trajectories
from paw.rollout.pool import Failure
from paw.rollout.sampler import SampleRequest
from paw.style import Style
from paw.text.dialogue import Serializer
from paw.text.tokenizer import make_tokenizer
from paw.types import Role, SampledAction, Task, Trajectory

TOKENIZER = make_tokenizer(["look go north You see a door. The door is locked. " * 3])
END = TOKENIZER.eos_token_id
HEADER = TOKENIZER.convert_tokens_to_ids("<|observation|>")


def serializer(context: str, **options) -> Serializer:
    settings = {
        "response_format": "command",
        "history_turns": 2,
        "max_prompt_tokens": 200,
        "max_observation_tokens": 100,
    }
    return Serializer(TOKENIZER, Style(), context=context, **(settings | options))


class ScriptedSampler:
    """Says what the script has for (slot, turn); a text without END is a cut response."""

    def __init__(self, script: Mapping[tuple[int, int], str], default: str = "look"):
        self.script, self.default = script, default
        self.requests: list[SampleRequest] = []
        self.num_resets = 0

    returns_entropy = True

    def load(self, policy, version) -> None:
        raise AssertionError("weights do not change while episodes are played")

    def sample(
        self, requests: Sequence[SampleRequest], *, temperature: float, max_tokens: int
    ) -> list[SampledAction]:
        self.requests += requests
        actions = []
        for request in requests:
            text = self.script.get((request.slot, request.seed[-1]), self.default)
            ids = tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"])
            finished = len(ids) < max_tokens
            ids = (*ids, END) if finished else ids[:max_tokens]
            numbers = (-0.5,) * len(ids)
            actions.append(SampledAction(ids, numbers, (0.25,) * len(ids), finished))
        return actions

    def reset(self) -> None:
        self.num_resets += 1


class ScriptedEnvironments:
    """A list of answers per slot; the last one repeats. Refuses what a pool would refuse."""

    def __init__(self, first: Mapping[int, str | Failure], answers: Mapping[int, list]):
        self.first, self.answers = first, answers
        self.open_slots: set[int] = set()
        self.commands: dict[int, list[str]] = {}

    def open(self, requests):
        found = {}
        for slot, task, seed in requests:
            assert (task.id.startswith("task-"), seed) == (True, 7)
            first = self.first.get(slot, "You see a door.")
            found[slot] = first if isinstance(first, Failure) else Observation(first)
            self.open_slots.add(slot)
            self.commands[slot] = []
        return found

    def step(self, commands):
        results = {}
        for slot, command in commands.items():
            assert slot in self.open_slots
            number = len(self.commands[slot])
            self.commands[slot].append(command)
            answers = self.answers.get(slot, [answer("The door is locked.")])
            results[slot] = answers[min(number, len(answers) - 1)]
        return results

    def close_slots(self, slots):
        self.open_slots -= set(slots)


def answer(text: str, reward: float = 0.0, **options) -> StepResult:
    return StepResult(Observation(text), reward, **options)


def play(
    *,
    answers: Mapping[int, list] | None = None,
    script: Mapping[tuple[int, int], str] | None = None,
    first: Mapping[int, str | Failure] | None = None,
    count: int = 1,
    max_turns: int = 3,
    max_response_tokens: int = 20,
    refused_is_invalid: bool = True,
    conversations: int = 0,
    context: str = "append",
    **options,
) -> tuple[list[Trajectory], ScriptedSampler, ScriptedEnvironments]:
    sampler = ScriptedSampler(script or {})
    environments = ScriptedEnvironments(first or {}, answers or {})
    plans = [
        Plan(Task(f"task-{i}", "kind", "Open the door."), i // 2, i % 2, 7, (0, i))
        for i in range(count)
    ]
    limits = Limits(
        max_turns, max_response_tokens, 1.0, 0.1, refused_is_invalid, conversations=conversations
    )
    played = collect(plans, sampler, environments, serializer(context, **options), limits)
    assert not environments.open_slots or any(
        isinstance(f, Failure) for f in (first or {}).values()
    )
    assert sampler.num_resets == -(-count // (conversations or count))
    return played, sampler, environments


def test_episodes_end_by_themselves_or_at_the_turn_limit():
    win = answer("You see a door.", 10.0, terminated=True, success=True, info={"score": 0.5})
    played, sampler, environments = play(
        count=3,
        answers={
            0: [answer("The door is locked."), win],
            2: [answer("You see a door.", truncated=True)],
        },
    )
    won, cut, gave_up = played
    assert (won.success, won.terminated, won.return_, won.score) == (True, True, 10.0, 0.5)
    assert [t.reward for t in won.transitions] == [0, 10]
    # Cut by the turn limit: not ended, and its last observation is still a target.
    assert (cut.success, cut.terminated, cut.failure, cut.score) == (False, False, None, None)
    assert len(cut.transitions) == 3
    assert cut.transitions[-1].next_observation == "The door is locked."
    assert cut.transitions[-1].next_observation_ids == tuple(
        TOKENIZER("The door is locked.", add_special_tokens=False)["input_ids"]
    )
    # The environment itself gave up: ended, not terminated.
    assert (gave_up.terminated, len(gave_up.transitions)) == (False, 1)
    # Nobody is asked again after the end; all slots side by side before.
    asked = [(r.slot, r.seed) for r in sampler.requests]
    turns = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (1, 2)]
    assert asked == [(slot, (0, slot, turn)) for slot, turn in turns]
    assert environments.commands == {0: ["look"] * 2, 1: ["look"] * 3, 2: ["look"]}


def test_transitions_chain():
    """o_{t+1} of a turn is o_t of the next; groups and indices are the plan's."""
    texts = ["You see a door.", "The door is locked.", "a locked door"]
    played, _, _ = play(count=4, answers={i: [answer(t) for t in texts] for i in range(4)})
    for trajectory in played:
        assert [t.observation for t in trajectory.transitions] == ["You see a door.", *texts[:2]]
        assert [t.next_observation for t in trajectory.transitions] == texts
    assert [(t.group, t.index) for t in played] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    groups = group_trajectories(played)
    assert [[t.index for t in g.trajectories] for g in groups] == [[0, 1], [0, 1]]
    assert [g.task.id for g in groups] == ["task-0", "task-2"]


def test_append_reads_what_was_sampled():
    """h_t is all earlier context and action tokens; o_t stands there as OBSERVATION, exactly."""
    played, sampler, _ = play(script={(0, 1): "go north"})
    conversation: list[int] = []
    for transition, request in zip(played[0].transitions, sampler.requests, strict=True):
        conversation += transition.context_ids
        assert request.prompt_ids == tuple(conversation)
        conversation += transition.action.token_ids
    first, second, _ = played[0].transitions
    assert (first.response, second.response, second.command) == ("look", "go north", "go north")
    observed = [
        token
        for token, role in zip(second.context_ids, second.context_roles, strict=True)
        if role == Role.OBSERVATION
    ]
    assert tuple(observed) == first.next_observation_ids
    assert second.context_ids[0] == HEADER and second.context_roles[0] == Role.SCAFFOLD


def test_a_cut_response_keeps_its_tokens_and_is_closed_by_scaffold():
    played, _, _ = play(script={(0, 0): "go north go north"}, max_response_tokens=3)
    first, second, _ = played[0].transitions
    assert not first.action.finished and len(first.action.token_ids) == 3
    assert END not in first.action.token_ids
    assert second.context_ids[:2] == (END, HEADER)
    assert second.context_roles[:2] == (Role.SCAFFOLD, Role.SCAFFOLD)


def test_a_conversation_ends_where_it_has_no_room():
    """Prompts may have 26 tokens: the episode is cut, nothing of it is."""
    played, sampler, environments = play(max_turns=50, max_prompt_tokens=26)
    (trajectory,) = played
    assert 1 < len(trajectory.transitions) < 10
    assert (trajectory.terminated, trajectory.failure) == (False, None)
    assert trajectory.prompt_limit
    lengths = [len(r.prompt_ids) for r in sampler.requests]
    step = lengths[-1] - lengths[-2]
    assert lengths[-1] <= 26 < lengths[-1] + step
    assert not any(t.prompt_cut_tokens for t in trajectory.transitions)
    assert len(environments.commands[0]) == len(trajectory.transitions)
    # The limit itself is allowed; a first prompt beyond it is cut to it and answered.
    for limit, turns in ((lengths[-1], len(lengths)), (lengths[-1] - 1, len(lengths) - 1)):
        assert len(play(max_turns=50, max_prompt_tokens=limit)[0][0].transitions) == turns
    (first,) = play(max_turns=50, max_prompt_tokens=lengths[0] - 1)[0][0].transitions
    assert first.prompt_cut_tokens == 1


def test_a_window_prompt_is_cut_in_the_middle_and_counted():
    long = "You see " + "a door. " * 30
    played, sampler, _ = play(answers={0: [answer(long)]}, context="window", max_prompt_tokens=40)
    assert len(played[0].transitions) == 3  # windows never end an episode
    assert not played[0].prompt_limit
    first, second, _ = played[0].transitions
    assert first.prompt_cut_tokens == 0 < second.prompt_cut_tokens
    assert all(len(r.prompt_ids) <= 40 for r in sampler.requests)
    assert len(second.context_ids) == len(second.context_roles) == 40


def test_a_long_observation_is_cut_as_a_target_and_counted():
    played, _, _ = play(max_observation_tokens=2)
    first = played[0].transitions[0]
    whole = TOKENIZER("The door is locked.", add_special_tokens=False)["input_ids"]
    assert first.next_observation_ids == tuple(whole[:2])
    assert first.num_cut_tokens == len(whole) - 2 > 0
    assert first.next_observation == "The door is locked."


def test_an_empty_observation_is_no_target():
    played, _, _ = play(answers={0: [answer("", 1.0, terminated=True, success=True)]})
    (last,) = played[0].transitions
    assert (last.next_observation, last.next_observation_ids) == (None, ())


def test_a_failed_environment_is_masked_and_the_others_go_on():
    played, sampler, environments = play(
        count=3,
        first={0: Failure("no such game")},
        answers={1: [answer("The door is locked."), Failure("took longer than 1 s")]},
    )
    assert [t.failure for t in played] == ["no such game", "took longer than 1 s", None]
    assert [len(t.transitions) for t in played] == [0, 1, 3]
    assert {r.slot for r in sampler.requests} == {1, 2}
    assert environments.open_slots == {0}  # never opened, so never closed
    assert not played[1].terminated and not played[1].success


@pytest.mark.parametrize(
    ("response", "accepted", "refused_is_invalid", "valid", "command"),
    [
        ("<think>t</think><action>look</action>", True, True, True, "look"),
        ("<think>t</think><action>look</action>", False, True, False, "look"),
        ("<think>t</think><action>look</action>", False, False, True, "look"),
        ("look", True, True, False, ""),
        ("look", True, False, False, ""),
        ("<action>look", True, True, False, ""),
    ],
)
def test_malformed_and_refused_responses_are_invalid_turns(
    response, accepted, refused_is_invalid, valid, command
):
    """A malformed response is a turn like any other, with an empty command and the penalty."""
    played, _, environments = play(
        script={(0, 0): response},
        answers={0: [answer("The door is locked.", 2.0, valid=accepted, terminated=True)]},
        refused_is_invalid=refused_is_invalid,
        response_format="tags",
        max_response_tokens=100,
    )
    (turn,) = played[0].transitions
    assert (turn.valid, turn.command, turn.response) == (valid, command, response)
    assert turn.penalty == (0.0 if valid else -0.1)
    assert environments.commands == {0: [command]}
    assert played[0].return_ == 2.0  # the penalty is no part of R(tau)


def test_parts_side_by_side_are_the_same_episodes():
    """Five in parts of two: slots begin anew, tasks, seeds, groups and what is sampled do not."""
    together, sampler, _ = play(count=5)
    apart, of_parts, _ = play(count=5, conversations=2)
    assert apart == together
    assert sorted(r.seed for r in of_parts.requests) == sorted(r.seed for r in sampler.requests)
    assert {r.slot for r in of_parts.requests} == {0, 1}


def test_progress_counts_the_episodes_that_have_not_begun():
    plans = [Plan(Task(f"task-{i}", "kind", "Open."), i, 0, 7, (0, i)) for i in range(3)]
    limits = Limits(1, 20, 1.0, 0.1, True, conversations=2)
    told: list[tuple[int, int]] = []
    collect(
        plans, ScriptedSampler({}), ScriptedEnvironments({}, {}), serializer("append"), limits,
        on_turn=lambda turn, num_active: told.append((turn, num_active)),
    )  # fmt: skip
    assert told == [(0, 3), (0, 1)]


def test_an_episode_that_breaks_off_leaves_no_cache():
    class Broken(ScriptedSampler):
        def sample(self, requests, *, temperature, max_tokens):
            raise KeyboardInterrupt

    sampler, limits = Broken({}), Limits(1, 20, 1.0, 0.1, True)
    plans = [Plan(Task("task-0", "kind", "Open."), 0, 0, 7, (0, 0))]
    with pytest.raises(KeyboardInterrupt):
        collect(plans, sampler, ScriptedEnvironments({}, {}), serializer("append"), limits)
    assert sampler.num_resets == 1
