"""The client; AutoEnv finds all three classes here."""

from paw.integrations.openenv import PawAction, PawEnv, PawObservation, PawState

__all__ = ["PawAction", "PawEnv", "PawObservation", "PawState"]
