"""The versions of TRL that were run; another one is refused before anything is made."""

from importlib.metadata import PackageNotFoundError, version

OLDEST, NEWEST = (1, 8), (1, 16)
"""Tested: both, and what lies between was tried."""
BROKEN = ("1.15.0",)
"""Its fused head fails on a CPU."""
RANGE = f"trl>={OLDEST[0]}.{OLDEST[1]},<{NEWEST[0]}.{NEWEST[1] + 1},!={BROKEN[0]}"


def installed() -> str:
    """Version of TRL. Raises ImportError where there is none."""
    try:
        return version("trl")
    except PackageNotFoundError:
        raise ImportError("paw.integrations.trl needs TRL: pip install 'paw-rl[trl]'") from None


def check_version(found: str) -> None:
    """Raises ImportError where `found` is none of the versions that were run."""
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if not OLDEST <= numbers <= NEWEST or found in BROKEN:
        raise ImportError(f"paw.integrations.trl: trl {found} was not tried; pip install '{RANGE}'")
