"""Classes of tokens in search results."""

import re
from collections.abc import Iterator

from paw.style import WORD, Found, Wording, verb, words_of

FRAME = re.compile(r"</?information>|Doc \d+(?:\(Title: \"|:)|\"\)(?= )")
TITLE = re.compile(r"(?<=\(Title: \").*?(?=\"\) )")


def _result_words(text: str, command: str, instruction: str) -> Iterator[Found]:
    for match in FRAME.finditer(text):
        yield "frame", *match.span()
    # The tags of the command are no words of its query.
    query = words_of(re.sub(r"</?\w+>", " ", command))
    for match in WORD.finditer(text):
        if match[0].lower() in query:
            yield "words of the query", *match.span()
    for match in TITLE.finditer(text):
        yield "titles", *match.span()
    for match in re.finditer(r"\d+", text):
        yield "numbers", *match.span()


CLASSES = ("frame", "words of the query", "titles", "numbers", "other words")
WORDING = Wording(CLASSES, _result_words, verb)
