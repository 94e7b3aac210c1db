"""PaW in TRL's GRPO: a drop-in for `GRPOTrainer`, our environments for it, and our run directory.

    from paw.integrations.trl import PawConfig, PawGRPOTrainer, RunDirectory, environment

    factory, dataset = environment("alfworld", split="train", data_dir="data/alfworld")
    trainer = PawGRPOTrainer(
        model="Qwen/Qwen3-0.6B", args=GRPOConfig(max_completion_length=8192, …),
        train_dataset=dataset, environment_factory=factory, paw=PawConfig(),
        callbacks=[RunDirectory("runs/trl")],
    )

Needs the extra `paw-rl[trl]`. What TRL keeps from the prediction: `max_completion_length` (512 by
default, of a whole trajectory) ends an episode before the observation that does not fit, and the
last call of `max_tool_calling_iterations` is never executed: in both cases the last action has no
next observation in the row and predicts nothing. An observation that ends an episode in time is
kept.
"""

from paw.integrations.versions import TRL

TRL.check_installed()

from paw.integrations.trl.environment import environment  # noqa: E402
from paw.integrations.trl.rundir import RunDirectory  # noqa: E402
from paw.integrations.trl.settings import PawConfig  # noqa: E402
from paw.integrations.trl.trainer import PawGRPOTrainer  # noqa: E402

__all__ = ["PawConfig", "PawGRPOTrainer", "RunDirectory", "environment"]
