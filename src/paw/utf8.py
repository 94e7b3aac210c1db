"""The first bytes of a text file that another program may have written in another encoding."""

import codecs

MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
ZEROS = ([1, 3], [0, 2], [1, 2, 3], [0, 1, 2])
"""Places of the zeros among the first four bytes of UTF-16 and UTF-32 without a mark."""


def utf8(data: bytes) -> bytes:
    """UTF-8 text without the byte-order mark that programs of Windows put before it.

    Args:
        data: a file, or its first bytes.

    Raises:
        ValueError: it is UTF-16 or UTF-32.
    """
    zeros = [place for place, byte in enumerate(data[:4]) if byte == 0]
    if data.startswith(MARKS) or (len(data) >= 4 and zeros in ZEROS):
        raise ValueError("UTF-16 or UTF-32 text; save it as UTF-8")
    return data.removeprefix(codecs.BOM_UTF8)
