"""Environments of paw as an OpenEnv package: what `openenv push`, `build` and AutoEnv look for."""

from .client import PawAction, PawEnv, PawObservation, PawState

__all__ = ["PawAction", "PawEnv", "PawObservation", "PawState"]
