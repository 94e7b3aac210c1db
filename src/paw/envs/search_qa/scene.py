"""Search results as a person would read them: passages under their titles, the answer marked."""

import re
from collections.abc import Iterator, Sequence

from paw.envs.search_qa.environment import INVALID, NO_RESULTS, parse_command
from paw.style import LINKS, Block, Step

MAX_ANSWER = 300
"""Characters; a longer one is no answer to be looked for in passages."""

_OPENING, _CLOSING = "<information>", "</information>"
_DOC = re.compile(r'Doc (\d+)(?:\(Title: "(.*?)"\)|:) ')


def scenes(instruction: str, turns: Sequence[Step]) -> Iterator[Sequence[Block]]:
    """Of each turn the question; or the query and its passages, with the words of the answer that
    was given at the end marked where they stand."""
    answer, before = _answer(turns), ""
    for text, command in turns:
        yield _seen(instruction, text, before, answer)
        before = command


def _seen(instruction: str, text: str, before: str, answer: str) -> Sequence[Block]:
    """One turn; `before`: the command that led there, "" at the first."""
    facts = []
    if (parsed := parse_command(before)) and parsed[0] == "search":
        facts.append(("Query", parsed[1]))
    if text == instruction and not before:
        return [Block("facts", "Question", (("", text),))]
    if text in (INVALID, NO_RESULTS):
        facts.append(("Results", "none"))
        if text == INVALID:
            facts = [("Not carried out", before)]
        return [Block("facts", "Search", tuple(facts))]
    passages = _passages(text)
    if not passages:
        return ()
    marks = _marks([passage for _, passage in passages], answer)
    found = [Block("facts", "Search", tuple(facts))] if facts else []
    return [*found, Block("passage", "Passages", tuple(passages), tuple(marks))]


def _passages(text: str) -> list[tuple[str, str]]:
    """(title, text) of each passage; none where the text is no block of results."""
    if not (text.startswith(_OPENING) and text.endswith(_CLOSING)):
        return []
    found: list[list[str]] = []
    titles: list[str] = []
    for line in text[len(_OPENING) : -len(_CLOSING)].split("\n"):
        match = _DOC.match(line)
        if match and match[1] == str(len(titles) + 1):
            titles.append(match[2] or f"Doc {match[1]}")
            found.append([line[match.end() :]])
        elif not found:
            return []
        else:
            found[-1].append(line)  # a passage of several lines
    return [(title, "\n".join(lines)) for title, lines in zip(titles, found, strict=True)]


def _answer(turns: Sequence[Step]) -> str:
    """What the policy finally answered; empty where its last command is no answer."""
    last = next((command for _, command in reversed(turns) if command), "")
    parsed = parse_command(last)
    return parsed[1] if parsed and parsed[0] == "answer" else ""


def _marks(texts: Sequence[str], answer: str) -> list[tuple[int, int, int]]:
    """(text, first character, one past the last) of the answer, or of words of it that name
    something."""
    words = re.findall(r"\w+", answer) if len(answer) <= MAX_ANSWER else []
    if not words:
        return []
    naming = [re.escape(word) for word in words if word.lower() not in LINKS]
    whole = r"\W+".join(map(re.escape, words))
    pattern = re.compile(rf"\b(?:{'|'.join([whole, *naming])})\b", re.IGNORECASE)
    return [(i, *match.span()) for i, text in enumerate(texts) for match in pattern.finditer(text)]
