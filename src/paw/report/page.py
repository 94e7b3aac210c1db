"""A `Page` and its chunks as one HTML file: template, styles and scripts of `page/` put together.

Nothing is built and nothing is fetched: the file holds data as JSON, chunks compressed, and the
hashes of its one style sheet and its one script in a content-security policy that allows no other.
"""

import base64
import hashlib
import html
import json
import re
import zlib
from collections.abc import Sequence
from importlib.resources import files

import msgspec

from paw.report.data import Chunk, Page

STYLES = (
    "vendor/uPlot.min.css",
    "page/style.css",
    "page/views.css",
)
SCRIPTS = (
    "vendor/uPlot.iife.min.js",
    "page/text.js",
    "page/data.js",
    "page/charts.js",
    "page/curves.js",
    "page/intervals.js",
    "page/overview.js",
    "page/filter.js",
    "page/episodes.js",
    "page/tokens.js",
    "page/turn.js",
    "page/episode.js",
    "page/group.js",
    "page/pairs.js",
    "page/comparison.js",
    "page/live.js",
    "page/main.js",
)
"""In this order; each adds to the one name `PAW`."""

ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})
"""What may end a script element, or a line of one: escaped it is the same JSON."""


def render(page: Page, packed: Sequence[str]) -> str:
    """The page as one self-contained HTML file.

    Args:
        page: `Episodes.chunk` counts the chunks from 0.
        packed: chunks, as `packed_chunk` gives them.
    """
    chunks = "\n".join(
        f'<script type="text/plain" id="chunk-{number}">{chunk}</script>'
        for number, chunk in enumerate(packed)
    )
    return _filled(page, chunks, connect="'none'")


def render_live(page: Page) -> str:
    """The page of a server, which has it again as `page.json` and chunks as `chunk/N`."""
    return _filled(page, "", connect="'self'")


def encoded(value: Page | Chunk) -> bytes:
    """As JSON; half a surrogate pair, which UTF-8 cannot hold, as its escape."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()


def packed_chunk(chunk: Chunk) -> str:
    """Its JSON as raw deflate in base64: DecompressionStream("deflate-raw") reads it."""
    deflate = zlib.compressobj(level=9, wbits=-zlib.MAX_WBITS)
    return base64.b64encode(deflate.compress(encoded(chunk)) + deflate.flush()).decode()


def _filled(page: Page, packed: str, connect: str) -> str:
    root = files("paw.report")
    style = "\n".join(root.joinpath(name).read_text(encoding="utf-8") for name in STYLES)
    licence = root.joinpath("vendor/uPlot.LICENSE").read_text(encoding="utf-8")
    script = f"/*! uPlot 1.6.32\n{licence}*/\n" + "\n".join(
        root.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS
    )
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        f"img-src data:; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "title": html.escape("".join(c for c in page.title if c.isprintable())),
        "csp": policy,
        "style": style,
        "script": script,
        "data": encoded(page).decode().translate(ESCAPES),
        "chunks": packed,
    }
    template = root.joinpath("page/page.html").read_text(encoding="utf-8")
    # In one pass: what stands in the data may look like a placeholder.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
