"""A cache whose size is bounded in bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """Values by key; those used longest ago make room for new ones.

    Args:
        make: the value of a key.
        num_bytes: about what a key with its value takes.
        limit: bytes kept at most.
    """

    def __init__(
        self,
        make: Callable[..., Value],
        num_bytes: Callable[[tuple[Any, ...], Value], int],
        limit: int,
    ) -> None:
        self._make, self._num_bytes, self._limit = make, num_bytes, limit
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self.num_bytes = 0
        """Of what is kept."""

    def __call__(self, *key: Hashable) -> Value:
        """The value of `key`: `make(*key)`."""
        found = self._values.get(key)
        if found is not None:
            self._values.move_to_end(key)
            return found[0]
        value = self._make(*key)
        size = self._num_bytes(key, value)
        if size <= self._limit:
            self._values[key] = value, size
            self.num_bytes += size
        while self.num_bytes > self._limit:
            self.num_bytes -= self._values.popitem(last=False)[1][1]
        return value
