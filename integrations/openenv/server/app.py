"""The application that a container serves: PAW_SERVE_ENV holds what stands behind `paw serve-env`,
such as `alfworld --split train,valid_seen`."""

import argparse
import os
import shlex
import sys
from typing import TYPE_CHECKING

from paw.commands.arguments import whole
from paw.commands.serve_env import application_of
from paw.errors import UserError

if TYPE_CHECKING:
    from paw.integrations.openenv.guard import Guard

WHAT = os.environ.get("PAW_SERVE_ENV", "household")


def _application() -> "Guard":
    try:
        return application_of(shlex.split(WHAT))
    except (UserError, ImportError, ValueError) as error:
        sys.exit(f"PAW_SERVE_ENV={WHAT!r}: {error}")


app = _application()


def main() -> None:
    """Serve it to this machine; a container's own command opens it to others."""
    parser = argparse.ArgumentParser("server", allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=whole(0, 65_535), default=8000)
    place = parser.parse_args()

    from paw.integrations.openenv.server import serve

    try:
        serve(app, WHAT, place.host, place.port)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
