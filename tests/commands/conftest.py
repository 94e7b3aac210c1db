"""The tiny policy, as in the tests of training."""

from train.conftest import policy

__all__ = ["policy"]
