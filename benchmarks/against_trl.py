"""One update of ours beside one of TRL's GRPOTrainer: the same model, games and turns, in pairs.

    python=$(tests/integrations/environment.sh trl==1.16.0 jmespath requests)
    $python benchmarks/against_trl.py [--turns 8] [--tokens 8] [--pairs 7]

8 x 8 episodes of `--turns` turns of `--tokens` tokens by a random Qwen3 of 5.0 M parameters, in
fp32, on one thread. Three take turns in one process, in changing order: TRL with an
`environment_factory`, ours without the prediction and ours with it. Seconds are the process's own
processor time, which other work on the machine moves less than the clock's. TRL runs without
gradient checkpointing, its default, which costs it more. Prints medians, and ratios with the 95 %
interval of the median; `tokens` are those of the rows that are learned from.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from paw_overhead import interval
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from paw.config.read import resolve
from paw.integrations.trl import environment
from paw.train.loop import act, learn_from
from paw.train.session import Session, open_session

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from trl_tiny import TEMPLATE, tiny_tokenizer

GROUPS, GROUP_SIZE, VOCABULARY, POSITIONS = 8, 8, 2000, 8192
WARM_UP = 1
Round = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--turns", type=int, default=8, help="of an episode")
    parser.add_argument("--tokens", type=int, default=8, help="of a response")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--trl-batch", type=int, default=16, help="rows of TRL's micro-batches")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="paw-bench-") as directory:
        rounds = measure(options, Path(directory))[WARM_UP:]
    print(f"{options.turns} turns of {options.tokens} tokens, {len(rounds)} pairs")
    for name in ("trl", "off", "on"):
        told = {part: statistics.median(r[f"{name} {part}"] for r in rounds) for part in PARTS}
        print(f"  {NAMES[name]:22}" + "".join(f"   {p} {v:9.2f}" for p, v in told.items()))
    for over, under in (("trl", "off"), ("on", "off")):
        for part in PARTS:
            ratios = [r[f"{over} {part}"] / r[f"{under} {part}"] for r in rounds]
            low, high = interval(ratios)
            median = statistics.median(ratios)
            print(f"  {NAMES[over]} / {NAMES[under]}, {part}: {median:.3f} [{low:.3f}, {high:.3f}]")


NAMES = {"trl": "TRL", "off": "ours", "on": "ours with the prediction"}
PARTS = ("all", "act", "learn", "tokens")


def measure(options: argparse.Namespace, directory: Path) -> list[Round]:
    """Seconds and tokens of each round: one update of each of the three."""
    model = random_model()
    tokenizer = tiny_tokenizer(["open" + " door" * n for n in range(10)])
    tokenizer.save_pretrained(directory / "policy")
    model.save_pretrained(directory / "policy")
    plain = PreTrainedTokenizerFast.from_pretrained(directory / "policy")
    plain.chat_template = TEMPLATE
    plain.save_pretrained(directory / "policy")
    sessions = {name: open_ours(directory, name, options) for name in ("off", "on")}
    rounds: list[Round] = []

    def ours(found: Round) -> None:
        for name in ("off", "on") if len(rounds) % 2 else ("on", "off"):
            found |= {f"{name} {part}": v for part, v in update(sessions[name], len(rounds) + 1)}

    trainer = make_trl(model, tokenizer, options, ours, rounds)
    trainer.train()
    for session in sessions.values():
        session.close()
    return rounds


def random_model() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=768, num_hidden_layers=6,
        num_attention_heads=8, num_key_value_heads=2, head_dim=32,
        max_position_embeddings=POSITIONS, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


def update(session: Session, number: int) -> list[tuple[str, float]]:
    started = time.process_time()
    groups = act(session, number)
    acted = time.process_time()
    metrics = learn_from(session, number, groups)
    learned = time.process_time()
    return [
        ("act", acted - started),
        ("learn", learned - acted),
        ("all", learned - started),
        ("tokens", metrics["tokens/trained"]),
    ]


def open_ours(directory: Path, name: str, options: argparse.Namespace) -> Session:
    flags = {
        "model.path": directory / "policy", "env.name": "corridor:Corridor",
        "run.directory": directory / name, "run.threads": 1, "run.save_trajectories_every": 0,
        "paw.enabled": str(name == "on").lower(), "rollout.context": "append",
        "rollout.response_format": "command", "rollout.groups": GROUPS,
        "rollout.group_size": GROUP_SIZE, "rollout.max_turns": options.turns,
        "rollout.max_response_tokens": options.tokens, "rollout.workers": 0,
    }  # fmt: skip
    return open_session(resolve([], [x for k, v in flags.items() for x in (f"--{k}", str(v))]))


class Timed(GRPOTrainer):
    """Notes when it acts: everything of a generation batch but the loss."""

    acting = 0.0
    tokens = 0

    def _generate_and_score_completions(self, *args: Any, **kwargs: Any) -> Any:
        started = time.process_time()
        found = super()._generate_and_score_completions(*args, **kwargs)
        self.acting += time.process_time() - started
        self.tokens += int(found["prompt_mask"].sum() + found["completion_mask"].sum())
        return found


class Alternate(TrainerCallback):
    """Before or behind a step of TRL, ours."""

    trainer: Timed

    def __init__(self, ours: Callable[[Round], None], rounds: list[Round]) -> None:
        self.ours, self.rounds = ours, rounds

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.found: Round = {}
        if len(self.rounds) % 2:
            self.ours(self.found)
        self.trainer.acting, self.trainer.tokens = 0.0, 0
        self.started = time.process_time()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        total, trainer = time.process_time() - self.started, self.trainer
        parts = {"all": total, "act": trainer.acting, "learn": total - trainer.acting}
        self.found |= {f"trl {p}": v for p, v in (parts | {"tokens": trainer.tokens}).items()}
        if not len(self.rounds) % 2:
            self.ours(self.found)
        self.rounds.append(self.found)


def make_trl(
    model: Qwen3ForCausalLM,
    tokenizer: Any,
    options: argparse.Namespace,
    ours: Callable[[Round], None],
    rounds: list[Round],
) -> Timed:
    factory, dataset = environment("corridor:Corridor")
    # As ours: the first observation alone, to which TRL adds it.
    dataset = dataset.map(lambda row: {"prompt": [{"role": "user", "content": ""}]})
    rows = GROUPS * GROUP_SIZE
    settings = GRPOConfig(
        output_dir=tempfile.gettempdir(), max_steps=options.pairs + WARM_UP,
        per_device_train_batch_size=options.trl_batch,
        gradient_accumulation_steps=rows // options.trl_batch, num_generations=GROUP_SIZE,
        max_completion_length=POSITIONS, max_tool_calling_iterations=options.turns - 1,
        generation_kwargs={"max_new_tokens": options.tokens}, gradient_checkpointing=False,
        use_cpu=True, bf16=False, save_strategy="no", report_to=[], logging_strategy="no",
        disable_tqdm=True, log_level="error",
    )  # fmt: skip
    callback = Alternate(ours, rounds)
    trainer = Timed(
        model=model, args=settings, train_dataset=dataset, processing_class=tokenizer,
        reward_funcs=[], environment_factory=factory, callbacks=[callback],
    )  # fmt: skip
    callback.trainer = trainer
    return trainer


if __name__ == "__main__":
    main()
