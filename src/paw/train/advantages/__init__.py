"""Base algorithms: a file each, which says what it needs and how its advantages are made."""

from paw.train.advantages import gigpo, grpo, ppo, rloo
from paw.train.advantages.base import Advantages, Algorithm

__all__ = ["ALGORITHMS", "Advantages", "Algorithm"]

ALGORITHMS: dict[str, Algorithm] = {
    "grpo": grpo.ALGORITHM,
    "rloo": rloo.ALGORITHM,
    "gigpo": gigpo.ALGORITHM,
    "ppo": ppo.ALGORITHM,
}
"""By `algorithm.name`."""
