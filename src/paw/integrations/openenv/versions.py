"""The versions of OpenEnv that were run; another one is refused before anything is made."""

from importlib.metadata import PackageNotFoundError, version

OLDEST, NEWEST = (0, 10), (0, 10)
RANGE = f"openenv>={OLDEST[0]}.{OLDEST[1]},<{NEWEST[0]}.{NEWEST[1] + 1}"


def check_version() -> None:
    """Raises ImportError where OpenEnv is missing, or of a version that was not run."""
    try:
        found = version("openenv")
    except PackageNotFoundError:
        raise ImportError("OpenEnv is not installed: pip install 'paw-rl[openenv]'") from None
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if not OLDEST <= numbers <= NEWEST:
        raise ImportError(f"openenv {found} was not tried; pip install '{RANGE}'")
