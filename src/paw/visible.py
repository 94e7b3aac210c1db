"""Texts of environments and models on a terminal: what would act on it is shown as a symbol."""

import unicodedata

HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Categories of characters that steer a terminal, turn the direction of a line, break it or are
not seen at all; line feed and tab are left."""


class _Symbols(dict[int, str]):
    """For `str.translate`; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character in "\n\t" or unicodedata.category(character) not in HIDDEN:
            shown = character
        elif code < 0x20:
            shown = chr(0x2400 + code)  # ␛ for an escape, ␍ for a carriage return
        else:
            shown = "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
        self[code] = shown
        return shown


_SYMBOLS = _Symbols()


def in_ascii(text: str) -> str:
    """The text in printable ASCII and line feeds, all else escaped: `\\x1b`."""
    lines = text.encode("ascii", "backslashreplace").decode().split("\n")
    return "\n".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in x) for x in lines)


def visible(text: str) -> str:
    """The text with a visible symbol for each control, bidirectional and invisible character.

    Line feeds and tabs stay. Lone surrogates become symbols too, so that any encoding of Unicode
    can write what is returned.
    """
    return text if text.isascii() and text.isprintable() else text.translate(_SYMBOLS)
