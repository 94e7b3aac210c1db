"""The client with types; `GenericEnvClient` of OpenEnv plays just as well, with dicts."""

from typing import Any

from openenv.core import EnvClient
from openenv.core.client_types import StepResult

from paw.integrations.openenv.models import PawAction, PawObservation, PawState

__all__ = ["PawAction", "PawEnv", "PawObservation", "PawState"]


class PawEnv(EnvClient[PawAction, PawObservation, PawState]):
    """A session on a server of `paw serve-env`.

    with PawEnv(base_url="http://127.0.0.1:8000").sync() as env:
        result = env.reset(index=3)
        result = env.step(PawAction(command="look"))
    """

    def _step_payload(self, action: PawAction) -> dict[str, Any]:
        return {"command": action.command}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[PawObservation]:
        reward, done = payload["reward"], payload["done"]
        seen = PawObservation(**payload["observation"], reward=reward, done=done)
        return StepResult(seen, reward=reward, done=done, metadata=seen.metadata)

    def _parse_state(self, payload: dict[str, Any]) -> PawState:
        return PawState(**payload)
