"""The LM head at a large vocabulary: `token_logprobs` against naive log_softmax and entropy.

    python benchmarks/head.py [--positions 768] [--hidden 64] [--vocab 151936] [--pairs 3]

Forward and backward, one thread, each run in a process of its own so that its peak memory is its
own. Prints CPU seconds and peak memory above what the inputs take, and the median ratios.
"""

import argparse
import multiprocessing
import resource
import statistics
import time

import torch
from torch import Tensor

from paw.model.head import token_logprobs


def naive(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The same two vectors by way of [positions, vocabulary] tensors."""
    logprobs = (hidden @ weight.T).log_softmax(-1)
    with torch.no_grad():
        entropy = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(1, targets[:, None]).squeeze(1), entropy


def measure(name: str, positions: int, size: int, vocab: int, queue) -> None:
    """Put (CPU seconds, peak bytes above the inputs, loss) of one forward and backward."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(positions, size, generator=generator).requires_grad_()
    weight = (torch.randn(vocab, size, generator=generator) / size**0.5).requires_grad_()
    targets = torch.randint(vocab, (positions,), generator=generator)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    logprobs, entropy = (naive if name == "naive" else token_logprobs)(hidden, weight, targets)
    loss = logprobs.sum()
    loss.backward()
    seconds = time.process_time() - start
    peak = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    queue.put((seconds, peak, loss.item(), entropy.sum().item()))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--positions", type=int, default=768)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--vocab", type=int, default=151936)
    parser.add_argument("--pairs", type=int, default=3)
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    times, peaks = [], []
    for _ in range(args.pairs):
        results = {}
        for name in ("naive", "chunked"):
            queue = context.Queue()
            shape = (args.positions, args.hidden, args.vocab)
            process = context.Process(target=measure, args=(name, *shape, queue))
            process.start()
            seconds, peak, loss, entropy = results[name] = queue.get()
            process.join()
            print(
                f"{name}: {seconds:.2f} s, {peak / 2**30:.2f} GiB, loss {loss:.2f}, "
                f"entropy {entropy:.2f}"
            )
        times.append(results["naive"][0] / results["chunked"][0])
        peaks.append(results["naive"][1] / results["chunked"][1])
    print(
        f"median: naive takes {statistics.median(peaks):.1f} x the memory, "
        f"{statistics.median(times):.2f} x the time"
    )


if __name__ == "__main__":
    main()
