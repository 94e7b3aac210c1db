"""What trl_alfworld.py and trl_webshop.py have in common."""

import argparse
import sys
from collections.abc import Sequence

from trl import GRPOConfig
from trl_tiny import tiny_model, tiny_tokenizer

from paw.errors import UserError
from paw.integrations.trl import PawConfig, PawGRPOTrainer, RunDirectory, environment

SMOKE = {
    "max_steps": 2,
    "gradient_accumulation_steps": 2,
    "num_generations": 4,
    "max_tool_calling_iterations": 2,
    "generation_kwargs": {"max_new_tokens": 8},
    "learning_rate": 1e-3,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "save_strategy": "no",
}
"""On a CPU: two groups of four trajectories, of three short actions each."""


def main(
    name: str,
    *,
    max_turns: int,
    max_completion_length: int,
    commands: Sequence[str],
    arguments: Sequence[str] | None = None,
) -> None:
    """Train on an environment's tasks.

    Args:
        name: of the environment.
        max_turns: of a trajectory.
        max_completion_length: tokens of a trajectory behind its prompt.
        commands: what the tiny policy of `--smoke` may give.
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", help="default: the environment's own variable")
    parser.add_argument("--split", help="default: the training tasks")
    parser.add_argument("--model", default="Qwen/Qwen3-0.6B")
    parser.add_argument("--output", default=f"runs/trl-{name}")
    parser.add_argument("--smoke", action="store_true", help="a tiny random model, two steps")
    options = parser.parse_args(arguments)
    try:
        train(name, options, max_turns, max_completion_length, commands)
    except UserError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(2)


def train(
    name: str,
    options: argparse.Namespace,
    max_turns: int,
    max_completion_length: int,
    commands: Sequence[str],
) -> None:
    """Train as the command line says."""
    factory, dataset = environment(name, split=options.split, data_dir=options.data_dir)
    settings = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "num_generations": 8,
        "max_completion_length": max_completion_length,
        "max_tool_calling_iterations": max_turns,
        "chat_template_kwargs": {"enable_thinking": False},
        "logging_steps": 1,
        "report_to": [],
        **(SMOKE if options.smoke else {}),
    }
    trainer = PawGRPOTrainer(
        model=tiny_model() if options.smoke else options.model,
        processing_class=tiny_tokenizer(commands) if options.smoke else None,
        args=GRPOConfig(output_dir=f"{options.output}-trl", **settings),
        train_dataset=dataset,
        environment_factory=factory,
        paw=PawConfig(),
        callbacks=[RunDirectory(options.output)],
    )
    trainer.train()
    learned = trainer.state.log_history[-2]
    print(f"reward {learned['reward']:.3f}, next-observation loss {learned['wm/loss']:.4f}")
