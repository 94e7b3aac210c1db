"""What passes between client and server."""

from paw.integrations.openenv.models import PawAction, PawObservation, PawState

__all__ = ["PawAction", "PawObservation", "PawState"]
