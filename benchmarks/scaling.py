"""What an update takes on N GPUs, by arithmetic: memory of a GPU, and seconds from measured rates.

    python benchmarks/scaling.py [--gib 80] [--gpus 1 2 4 8 16 32 64]

Nothing is run. Memory is `paw.model.memory`'s estimate (held against measured peaks on one device
by benchmarks/memory.py; of shards nothing has been measured on GPUs). Seconds: one H200 played
and learned from an update of 16 x 8 ALFWorld-shaped episodes of Qwen2.5-1.5B in 34.5 + 14.5 s
(docs/LOG.md, "one H200"); the rest are the assumptions below.
"""

import argparse
import math

from transformers import Qwen2Config

from paw.model.load import shape_of
from paw.model.memory import ModelShape, Precision, Work, bytes_of

GIB = 2**30
CONVERSATIONS, LENGTH, MICRO_BATCH = 128, 4096, 16384
SHAPES = {  # hidden, layers, MLP, heads, key heads, tied
    "Qwen2.5-0.5B": (896, 24, 4864, 14, 2, True),
    "Qwen2.5-1.5B": (1536, 28, 8960, 12, 2, True),
    "Qwen2.5-3B": (2048, 36, 11008, 16, 2, True),
    "Qwen2.5-7B": (3584, 28, 18944, 28, 4, False),
    "Qwen2.5-14B": (5120, 48, 13824, 40, 8, False),
}

# Measured: a step of decoding takes base + each x conversations (64 and 128 conversations of 2,048
# tokens gave 8,757 and 13,204 tokens/s), and the update above so many steps, environments included.
STEP_BASE, STEP_EACH = 4.93e-3, 3.72e-5
STEPS = 34.5 / (STEP_BASE + STEP_EACH * CONVERSATIONS)
LEARNING = 14.5
SAMPLED_TOKENS, TRAINED_TOKENS = 264_676, 428_673
WEIGHTS = 1.54e9
# Assumed: bytes a second of a ring's slowest link, within a machine of eight and between machines;
# of pickled episodes over gloo; bytes of a pickled token; seconds that ranks wait for the longest.
WITHIN, BETWEEN, PICKLED, BYTES_A_TOKEN = 2.0e11, 2.5e10, 1.0e9, 6
IMBALANCE = 0.1  # of acting: the rank with the longest episodes; of learning: whole rows


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--gib", type=float, default=80, help="memory of a GPU")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    options = parser.parse_args()
    print_modes(options.gib * 0.8)
    print_seconds(options.gpus)


def shape(name: str) -> ModelShape:
    hidden, layers, mlp, heads, key_heads, tied = SHAPES[name]
    return shape_of(
        Qwen2Config(
            vocab_size=151_936, hidden_size=hidden, num_hidden_layers=layers,
            intermediate_size=mlp, num_attention_heads=heads, num_key_value_heads=key_heads,
            tie_word_embeddings=tied,
        )
    )  # fmt: skip


def peaks(name: str, gpus: int, shards: bool) -> tuple[float, float]:
    """GiB of a GPU while it learns and while it plays; bf16 weights with fp32 masters."""
    precision = Precision(weight=2, compute=2, checkpointing=True, device="cuda")
    work = Work(
        micro_batch=MICRO_BATCH, conversations=-(-CONVERSATIONS // gpus), length=LENGTH,
        shards=gpus if shards else 1,
    )  # fmt: skip
    found = bytes_of(shape(name), precision, work)
    return found.learning / GIB, found.playing / GIB


def print_modes(room: float) -> None:
    """The mode that fits, for model and number of GPUs."""
    counts = (1, 2, 4, 8)
    print(
        f"GiB of a GPU, learning / playing: {CONVERSATIONS} conversations of {LENGTH:,} tokens, "
        f"micro-batches of {MICRO_BATCH:,}, gradient checkpointing; `*` more than {room:.0f} GiB"
    )
    print("| | " + " | ".join(f"{n} GPU, {m}" for n in counts for m in modes(n)) + " |")
    print("|---" * (1 + sum(len(modes(n)) for n in counts)) + "|")
    for name in SHAPES:
        cells = []
        for gpus in counts:
            for mode in modes(gpus):
                found = peaks(name, gpus, mode == "shard")
                mark = " *" if max(found) > room else ""
                cells.append("{:.0f} / {:.0f}{}".format(*found, mark))
        print(f"| {name} | " + " | ".join(cells) + " |")


def modes(gpus: int) -> tuple[str, ...]:
    return ("replicate", "shard") if gpus > 1 else ("alone",)


def print_seconds(counts: list[int]) -> None:
    """Of one update of Qwen2.5-1.5B, `replicate` and `shard`."""
    print("\nSeconds of an update of 16 x 8 episodes, Qwen2.5-1.5B")
    modes = "`replicate`: add up | in all | `shard`: in passes | hand over | in all"
    print(f"| GPUs | act | gather | learn | {modes} |")
    print("|---" * 9 + "|")
    for gpus in counts:
        conversations = -(-CONVERSATIONS // gpus)
        uneven = 1 + (IMBALANCE if gpus > 1 else 0)
        act = STEPS * (STEP_BASE + STEP_EACH * conversations) * uneven
        link = WITHIN if gpus <= 8 else BETWEEN
        share = (gpus - 1) / gpus
        gather = share * TRAINED_TOKENS * BYTES_A_TOKEN / PICKLED
        learn = LEARNING / gpus * uneven
        add = 2 * share * 4 * WEIGHTS / link  # fp32
        # Weights for the forward and the backward pass and their gradient, as if nothing of it
        # went on beside the products.
        passes = math.ceil(TRAINED_TOKENS / gpus / MICRO_BATCH)
        inside = passes * share * (2 * 2 + 4) * WEIGHTS / link
        hand = share * 2 * WEIGHTS / link
        both = act + gather + learn
        cells = (act, gather, learn, add, both + add, inside, hand, both + inside + hand)
        print(f"| {gpus} | " + " | ".join(f"{x:.2f}" for x in cells) + " |")


if __name__ == "__main__":
    main()
