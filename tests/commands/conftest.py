"""The tiny policy and the process that forks `paw` commands, as in the tests of training."""

from train.conftest import policy, server

__all__ = ["policy", "server"]
