"""Who may use a server of environments: the token, and what counts as this machine alone."""

import ipaddress
import os
from pathlib import Path

from paw.errors import UserError

TOKEN_VARIABLE = "PAW_ENV_TOKEN"
"""What `paw serve-env` asks of clients, and what `openenv:URL` shows to a server."""


def is_loopback(host: str) -> bool:
    """Does an address mean this machine alone?"""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(file: str | None = None) -> str | None:
    """The token of a file, else of the environment variable; None where there is neither.

    Raises:
        UserError: the file cannot be read, or what is there is no token.
    """
    where = TOKEN_VARIABLE if file is None else f"--token-file {file}"
    if file is None and TOKEN_VARIABLE not in os.environ:
        return None
    try:
        token = os.environ[TOKEN_VARIABLE] if file is None else Path(file).read_text("utf-8")
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        token = ""
    token = token.strip()
    if not (token.isascii() and token.isprintable()) or not token or " " in token:
        raise UserError(f"{where}: a token is one word of ASCII, such as `openssl rand -hex 32`")
    return token
