"""One rank of `test_parallel.py`."""

import os
import resource
import sys
from pathlib import Path

import torch

from paw.cli import main
from paw.commands import arguments
from paw.model.packing import pack
from paw.model.policy import Policy
from paw.runs.layout import resolve_model
from paw.train.loop import train
from paw.train.parallel import Replicas, Shards

MODES = {"replicate": Replicas, "shard": Shards}


def play(environ: dict[str, str], said: Path, work: list) -> None:
    """With torchrun's variables in `environ` and stderr in `said`: `work` is the words of a `paw`
    command, a list of (mode, flags), runs that are trained one after the other, or `kept`. FOLDER,
    WORDS and FILE_LIMIT of `environ` are this one's working directory, further words of its command
    and the size of files that it may write."""
    os.environ |= environ
    os.chdir(environ.get("FOLDER", "."))
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    torch.set_num_threads(1)
    if limit := environ.get("FILE_LIMIT"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    arguments.FOLLOW_SECONDS = 0.2  # no torchrun is there to end who waits
    if work == ["kept"]:
        return print(*kept())
    if isinstance(work[0], str):
        sys.exit(main([*work, *environ.get("WORDS", "").split()]))
    for mode, flags in work:
        ranks = MODES[mode]()
        train(arguments.configuration([], flags), ranks=ranks)
    ranks.close()


def kept() -> list[int]:
    """Bytes that stand for a policy's weights: at first, while it is kept, while it is gathered and
    afterwards; and is it the same then?"""

    def held() -> int:
        places = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors()}
        return sum(place.nbytes() for place in places.values())

    def tensors() -> list[torch.Tensor]:
        return [*policy.model.parameters(), *ranks.parts(ranks._parts)]

    ranks, place = Shards(), resolve_model("household")
    policy, other = (Policy.load(place) for _ in range(2))
    ranks.split(other, None)
    before, tokens = held(), pack([[1, 2, 3, 4]], policy.device)
    wanted = policy.logprobs(tokens, torch.tensor([1, 2, 3]))[0]
    ranks.keep(policy)
    found = [before, held()]
    with ranks.gathered(policy):
        same = torch.equal(wanted, policy.logprobs(tokens, torch.tensor([1, 2, 3]))[0])
        found.append(held())
    ranks.close()
    return [*found, held(), same]
