"""One whole update shaped like ALFWorld's: 16 x 8 episodes of at most 50 turns, PaW on and off.

The stages are those of `paw train`. Episodes are played once, by the session with PaW; both
sessions learn from them, as acting is the same with PaW and without. `append` as its recipes ask
for commands, `window` with the paper's prompts.
"""

import tempfile
from collections.abc import Iterator
from functools import partial

from gpu_parts.bench import Bench, Cell, Numbers
from gpu_parts.models import build
from gpu_parts.replay import vocabulary
from paw.config.read import resolve
from paw.text.tokenizer import make_tokenizer
from paw.train.loop import act, learn_from
from paw.train.session import Session, open_session
from paw.types import Group

RESPONSE = 64
PROMPT = {"append": 5632, "window": 2048}
"""A conversation of 50 turns has about 4,800 tokens, the longest 5,300."""
FORMAT = {"append": "command", "window": "tags"}
PLAN = (("1.5B", "append", 16, 110), ("0.5B", "window", 16, 90), ("0.5B", "append", 16, 50),
        ("1.5B", "window", 4, 80))  # fmt: skip
"""Shape, context, groups and seconds that are set aside, the most wanted first."""


def cells(bench: Bench) -> Iterator[Cell]:
    """An update each of shapes and contexts."""
    toy = (("toy", "append", 2, 0), ("toy", "window", 2, 0))
    for shape, context, groups, seconds in toy if bench.toy else PLAN:
        size = 2 if bench.toy else 8
        name = f"{shape}, {context}, {groups} x {size} episodes"
        yield name, seconds, partial(measure, bench, shape, context, groups)


def measure(bench: Bench, shape: str, context: str, groups: int) -> Numbers:
    """Seconds of acting and of learning with PaW and without, tokens, peaks of memory."""
    found: Numbers = {}
    with tempfile.TemporaryDirectory(prefix="paw-gpu-") as directory:
        model = build(bench, shape)
        model.save_pretrained(f"{directory}/model")
        del model
        make_tokenizer(vocabulary(), min_count=1).save_pretrained(f"{directory}/model")
        flags = _flags(bench, directory, context, groups)
        played: list[Group] = []
        for name, enabled in (("on", "true"), ("off", "false")):
            own = ["--paw.enabled", enabled, "--run.directory", f"{directory}/{name}"]
            if played:  # the same passes, and none for what the first session still holds
                size = found["tokens_per_micro_batch"]
                own += ["--optimizer.tokens_per_micro_batch", str(size)]
            session = open_session(resolve([], [*flags, *own]))
            try:
                if not played:
                    played = _act(bench, session, found)
                _learn(bench, session, played, name, found)
            finally:
                session.close()
            del session
            bench.release()
    on, off = (float(found[f"learn_{name}_s"] or 0) for name in ("on", "off"))
    acting = float(found["act_s"] or 0)
    return found | {"update_s": acting + on, "paw_share": (on - off) / (acting + on)}


def _flags(bench: Bench, directory: str, context: str, groups: int) -> list[str]:
    size, turns, response = (2, 3, 8) if bench.toy else (8, 50, RESPONSE)
    dtype = "float32" if bench.toy else "bfloat16"
    return [
        "--env.name", "gpu_parts.replay:Replay", "--rollout.workers", "0",
        "--model.path", f"{directory}/model", "--model.device", str(bench.device),
        "--model.dtype", dtype, "--rollout.context", context,
        "--rollout.groups", str(groups), "--rollout.group_size", str(size),
        "--rollout.max_turns", str(turns), "--rollout.max_response_tokens", str(response),
        "--rollout.max_prompt_tokens", str(PROMPT[context]), "--optimizer.learning_rate", "1e-9",
        "--rollout.response_format", FORMAT[context], "--run.save_trajectories_every", "0",
    ]  # fmt: skip


def _act(bench: Bench, session: Session, found: Numbers) -> list[Group]:
    played: list[Group] = []
    with bench.peak(found, "act_peak_gib"):
        found["act_s"] = bench.seconds(lambda: played.extend(act(session, 1)))
    turns = [t for group in played for x in group.trajectories for t in x.transitions]
    sampled = sum(len(t.action.token_ids) for t in turns)
    settled = session.run.config
    found |= {
        "turns": len(turns),
        "sampled": sampled,
        "side_by_side": settled.rollout.conversations,
        "tokens_per_micro_batch": settled.optimizer.tokens_per_micro_batch,
    }
    found["sampled_per_s"] = sampled / float(found["act_s"] or 1)
    return played


def _learn(bench: Bench, session: Session, played: list[Group], name: str, found: Numbers) -> None:
    learn_from(session, 1, played[:1])  # warms up
    metrics = {}
    with bench.peak(found, f"learn_{name}_peak_gib"):
        found[f"learn_{name}_s"] = bench.seconds(
            lambda: metrics.update(learn_from(session, 2, played))
        )
    found[f"trained_{name}"] = metrics["tokens/trained"]
    if name == "on":
        found["kl"] = metrics["policy/kl"]  # sampler against learner: the weights hardly moved
