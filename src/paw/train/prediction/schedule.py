"""When the prediction is trained, and when the policy."""

from collections.abc import Callable

from paw.config.tree import PawConfig

SCHEDULES: dict[str, Callable[[PawConfig, int], tuple[bool, bool]]] = {
    "joint": lambda paw, update: (True, True),
    "alternate": lambda paw, update: (
        update % paw.alternate_every == 0,
        update % paw.alternate_every != 0,
    ),
}
"""([paw], number of the update, the first is 1) -> trains (the prediction, the policy)."""


def scheduled(paw: PawConfig, update: int) -> tuple[bool, bool]:
    """Does this update train (the prediction, the policy)? Without PaW the policy alone."""
    if not paw.enabled or paw.coefficient == 0:
        return False, True
    return SCHEDULES[paw.schedule](paw, update)
