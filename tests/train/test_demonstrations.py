"""What `paw imitate` learns from reads as the policy will read it in play."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from paw.config.read import resolve
from paw.config.tree import Config
from paw.envs import make
from paw.errors import UserError
from paw.imitate.demonstrations import Demonstration, expert_demonstrations, read_demonstrations
from paw.imitate.rows import demonstration_rows
from paw.rollout.actor import make_serializer
from paw.rollout.collect import Limits, Plan, collect, group_trajectories
from paw.rollout.pool import EnvironmentPool
from paw.rollout.sampler import SampleRequest
from paw.text.tokenizer import make_tokenizer
from paw.train.records import records
from paw.train.score import flatten
from paw.types import Judgement, SampledAction, Targets, Trajectory

TOKENIZER = make_tokenizer(["You are in a room. Your task is to: put a mug on a shelf. " * 3])
END: Any = TOKENIZER.eos_token_id
SOURCE = make("household", split="train", num_tasks=1)


class Says:
    """A sampler that answers with one response after the other."""

    def __init__(self, responses: Sequence[str]):
        self.left = list(responses)

    def sample(
        self, requests: Sequence[SampleRequest], *, temperature: float, max_tokens: int
    ) -> list[SampledAction]:
        ids = TOKENIZER(self.left.pop(0), add_special_tokens=False)["input_ids"]
        ids = (*ids, END)
        return [SampledAction(ids, (0.0,) * len(ids), None, finished=True)]

    def reset(self) -> None:
        pass


def configuration(context: str, response_format: str) -> Config:
    settings = {
        "rollout.context": context, "rollout.response_format": response_format,
        "rollout.max_prompt_tokens": 100_000, "imitate.demonstrations": 1, "imitate.junk": 0.3,
    }  # fmt: skip
    return resolve([], [f"--{key}={value}" for key, value in settings.items()])


def played(config: Config, demonstration: Demonstration) -> Trajectory:
    """The demonstrated responses, given by a policy in play."""
    limits = Limits(50, 1000, 1.0, 0.1, refused_is_invalid=True)
    plans = [Plan(demonstration.task, 0, 0, environment_seed=0, sample_seed=(0,))]
    with EnvironmentPool("household", "train", {"num_tasks": 1}, workers=0) as environments:
        serializer = make_serializer(config, TOKENIZER)
        return collect(
            plans, Says(demonstration.responses), environments, serializer, limits
        )[0]  # fmt: skip


def file_of(folder: Path, trajectory: Trajectory) -> Path:
    """As a run would write it."""
    groups = group_trajectories([trajectory])
    nothing = 0 * flatten(groups)[1].rewards
    none = nothing > 0
    judgement = Judgement(nothing, None, nothing, none, none, nothing[:1], nothing, none.long())
    rows = records(1, groups, judgement, Targets({}, 0.0), {})
    lines = [msgspec.json.encode(r) + b"\n" for r in rows]
    file = folder / "update-000001.jsonl.zst"
    file.write_bytes(zstandard.ZstdCompressor().compress(b"".join(lines)))
    return file


@pytest.mark.parametrize("response_format", ["tags", "command"])
@pytest.mark.parametrize("context", ["window", "append"])
def test_prompts_are_those_of_play(tmp_path: Path, context: str, response_format: str):
    config = configuration(context, response_format)
    demonstration = expert_demonstrations(SOURCE, config)[0]
    trajectory = played(config, demonstration)
    assert trajectory.success and len(trajectory.transitions) > 3
    turns = [(*t.context_ids, *t.action.token_ids) for t in trajectory.transitions]
    serializer = make_serializer(config, TOKENIZER)
    (again,) = read_demonstrations(str(file_of(tmp_path, trajectory)))
    for source in (demonstration, again):
        rows = [row.token_ids for row in demonstration_rows(serializer, source, config)]
        if context == "append":  # and behind it the last observation
            whole = tuple(i for turn in turns for i in turn)
            assert [row[: len(whole)] for row in rows] == [whole]
        else:
            assert rows == turns


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    file = tmp_path / "numbers.jsonl.zst"
    turn = {"observation": 5, "response": "look", "next_observation": None, "valid": True}
    row = {"success": True, "task": {"id": "a", "kind": "b", "instruction": "c"}, "turns": [turn]}
    file.write_bytes(zstandard.ZstdCompressor().compress(msgspec.json.encode(row)))
    with pytest.raises(UserError, match="not a run's trajectory file"):
        read_demonstrations(str(file))
