"""The version of verl that was run; another one is refused before anything is made."""

from importlib.metadata import PackageNotFoundError, version

RUN = "0.9.1"


def installed() -> str:
    """Version of verl. Raises ImportError where there is none."""
    try:
        return version("verl")
    except PackageNotFoundError:
        raise ImportError(
            f"paw.integrations.verl needs verl: pip install 'verl[vllm]=={RUN}'"
        ) from None


def check_version(found: str) -> None:
    """Raises ImportError where `found` is not the version that was run."""
    if found != RUN:
        raise ImportError(
            f"paw.integrations.verl: verl {found} was not tried; pip install 'verl=={RUN}'"
        )
