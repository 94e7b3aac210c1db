"""`python -m paw.integrations.verl`: verl's trainer, after a look at its configuration.

The arguments are those of `verl.trainer.main_ppo`. What cannot be done, and data that are missing,
are a line here; in the processes of Ray they are a traceback.
"""

import sys
from typing import Any

import hydra
from verl.trainer.main_ppo import main as train

from paw.errors import UserError
from paw.integrations.verl.settings import check_config, open_tasks, read_settings


def check(config: Any) -> None:
    """Raises UserError where the trainer `paw`, or the data set, would."""
    settings = read_settings(config.get("paw"))
    check_config(config, settings)
    for split in (config.data.train_files, config.data.val_files):
        open_tasks(settings, str(split))


@hydra.main(config_path=None, version_base=None)
def main(config: Any) -> None:
    """Check, then train."""
    try:
        check(config)
    except UserError as error:
        print(f"paw: {error}", file=sys.stderr)
        sys.exit(2)
    train(config)


if __name__ == "__main__":
    main()  # pyright: ignore[reportCallIssue]
