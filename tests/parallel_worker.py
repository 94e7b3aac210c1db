"""One rank of `test_parallel.py`."""

import os
import sys
from pathlib import Path

import torch

from paw.cli import main
from paw.commands import arguments
from paw.train.loop import train
from paw.train.parallel import Replicas, Shards

MODES = {"replicate": Replicas, "shard": Shards}


def play(environ: dict[str, str], said: Path, work: list) -> None:
    """With torchrun's variables in `environ` and stderr in `said`: `work` is the words of a `paw`
    command, or a list of (mode, flags), runs that are trained one after the other."""
    os.environ |= environ
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    torch.set_num_threads(1)
    arguments.FOLLOW_SECONDS = 0.2  # no torchrun is there to end who waits
    if isinstance(work[0], str):
        sys.exit(main(work))
    for mode, flags in work:
        ranks = MODES[mode]()
        train(arguments.configuration([], flags), ranks=ranks)
    ranks.close()
