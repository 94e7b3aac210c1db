"""PaW in verl: our environments as an agent loop, the prediction beside its loss, and GiGPO.

    VERL_USE_EXTERNAL_MODULES=paw.integrations.verl \\
        python -m paw.integrations.verl --config-path DIR --config-name verl_alfworld

with `trainer.v1.trainer_mode: paw`, `data.custom_cls` `PawDataset` and a table `paw`, as in
examples/verl_alfworld.yaml. Importing this registers the trainer `paw`, the agent loop `paw` and
the estimator `gigpo`. Needs verl 0.9.1 in an environment of its own.
"""

from paw.integrations.versions import VERL

VERL.check_installed()

from paw.integrations.verl.dataset import PawDataset  # noqa: E402
from paw.integrations.verl.loop import PawAgentLoop  # noqa: E402
from paw.integrations.verl.loss import PawLoss  # noqa: E402
from paw.integrations.verl.trainer import PawPPOTrainer  # noqa: E402

__all__ = ["PawAgentLoop", "PawDataset", "PawLoss", "PawPPOTrainer"]
