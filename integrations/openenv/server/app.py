"""The application that a container serves: PAW_SERVE_ENV holds what stands behind `paw serve-env`,
such as `alfworld --split train,valid_seen`."""

import os
import shlex

from paw.commands.serve_env import application_of

app = application_of(shlex.split(os.environ.get("PAW_SERVE_ENV", "household")))


def main() -> None:
    """Serve it to this machine; a container's own command opens it to others."""
    import uvicorn

    from paw.integrations.openenv.guard import MAX_MESSAGE_BYTES

    uvicorn.run(app, host="127.0.0.1", port=8000, ws_max_size=MAX_MESSAGE_BYTES)


if __name__ == "__main__":
    main()
