"""Environments of ours behind an OpenEnv server, and the client of it.

    paw serve-env household --port 8000

    from paw.integrations.openenv import PawAction, PawEnv
    with PawEnv(base_url="http://127.0.0.1:8000").sync() as env:
        result = env.reset(index=3)
        result = env.step(PawAction(command="look"))

Needs the extra `paw-rl[openenv]`. The other direction, training on somebody's OpenEnv server, is
`--env.name openenv:URL` (paw/envs/openenv).
"""

from paw.integrations.versions import OPENENV

OPENENV.check_installed()

from paw.integrations.openenv.client import PawEnv  # noqa: E402
from paw.integrations.openenv.models import PawAction, PawObservation, PawState  # noqa: E402

__all__ = ["PawAction", "PawEnv", "PawObservation", "PawState"]
