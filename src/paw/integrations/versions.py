"""The versions of other trainers that were run; others are refused before anything is made."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet


@dataclass(frozen=True)
class Package:
    """What is needed of a package."""

    name: str
    tried: str
    """Versions, as pip writes them"""
    install: str
    """What to install where it is missing"""

    def check_installed(self) -> None:
        """Raises ImportError where it is missing, or of a version that was not run."""
        try:
            found = version(self.name)
        except PackageNotFoundError:
            raise ImportError(
                f"{self.name} is not installed: pip install '{self.install}'"
            ) from None
        self.check(found)

    def check(self, found: str) -> None:
        """Raises ImportError where `found` is none of the versions that were run."""
        if not SpecifierSet(self.tried).contains(found, prereleases=True):
            raise ImportError(
                f"{self.name} {found} was not tried; pip install '{self.name}{self.tried}'"
            )


# Its oldest and newest, and what lies between was tried; 1.15.0's fused head fails on a CPU.
TRL = Package("trl", ">=1.8,<1.17,!=1.15.0", "paw-rl[trl]")
VERL = Package("verl", "==0.9.1", "verl[vllm]==0.9.1")
OPENENV = Package("openenv", ">=0.10,<0.11", "paw-rl[openenv]")
