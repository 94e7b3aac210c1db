"""Text as the tokens that it has between the pieces of a chat template.

A tokenizer splits a text by its neighbours: it may put "▁" before a first word, or make one token
of two line breaks of which the template wrote the first. So a text is never encoded alone, but
together with the template's text around it, up to the nearest control token on each side, where
every tokenizer begins anew. An anchor, a token added to a copy of the tokenizer, stands for that
control token; all control tokens spelled out in the text itself are text to the copy.
"""

import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence, Set
from copy import deepcopy
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, cast

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerBase

from paw.errors import UserError
from paw.text.parse import THINK_TAG
from paw.text.prompts import Span

START, END = itemgetter(0), itemgetter(1)
Found = tuple[list[int], list[tuple[int, int]], int]
"""(token ids, their first and one past their last characters, the character where a text begins)"""


@dataclass(frozen=True, slots=True)
class Edge:
    """What stands on one side of a text."""

    ids: tuple[int, ...] = ()
    """Scaffold up to the nearest control token, that one included."""
    text: str = ""
    """Scaffold between that control token and the text."""
    anchor: str = ""
    """Stands for the control token; empty where there is none."""


MARKUP = re.compile(r"\s*[<\[]\S*\w\S*[>\]]\s*")
"""A token written like a control token: a word in brackets."""

Tags = Mapping[str, Edge]
"""Think tags that are tokens of their own."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A text with the scaffold around it."""

    before: tuple[int, ...]
    ids: tuple[int, ...]
    """Every token with a character of the text in it, shared ones too."""
    roles: tuple[int, ...]
    """A Role per token of `ids`; a token of two spans is the first one's."""
    after: tuple[int, ...]


def tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[tuple[int, int, int]]:
    """(token id, first character, one past the last) of a text with its control tokens."""
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = cast(Any, found["input_ids"]), cast(Any, found["offset_mapping"])
    return [(i, start, end) for i, (start, end) in zip(ids, offsets, strict=True)]


class Encoder:
    """Encodes texts between edges.

    Args:
        tokenizer: of the policy; it stays as it is.
        control: ids of the added tokens that no text may become.

    Raises:
        UserError: a tokenizer without a fast form.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, control: Set[int]) -> None:
        core = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(core, Tokenizer):
            raise UserError(
                f"the tokenizer ({type(tokenizer).__name__}) has no fast form; PaW needs one that "
                "has a tokenizer.json"
            )
        self.control = frozenset(control)
        unknown = getattr(core.model, "unk_token", None) or tokenizer.unk_token
        self._never = self.control.difference([core.token_to_id(str(unknown))])
        self._tokenizer = tokenizer
        self._added = tokenizer.added_tokens_decoder
        self._core: Any = deepcopy(core)
        self._core.post_processor = None
        self._core.no_truncation()
        self._core.no_padding()
        self._core.add_special_tokens(
            [AddedToken(self._added[i].content, special=True) for i in sorted(control)]
        )
        self._core.encode_special_tokens = True
        self._anchors: dict[tuple[bool, bool, bool], str] = {}

    def left(self, text: str, behind: str = "") -> Edge:
        """The edge of scaffold `text` that stands before a text, itself right behind `behind`."""
        whole, start = behind + text, len(behind)
        found = tokens(self._tokenizer, whole)
        last = max((k for k, (i, _, _) in enumerate(found) if i in self.control), default=-1)
        if last < 0:
            return Edge((), whole)
        i, _, end = found[last]
        ids = tuple(i for i, begin, _ in found[: last + 1] if begin >= start)
        return Edge(ids, whole[end:], self._anchor(i))

    def right(self, text: str) -> Edge:
        """The edge of scaffold `text` that follows a text."""
        found = tokens(self._tokenizer, text)
        control = (k for k, (i, _, _) in enumerate(found) if i in self.control)
        first = next(control, None)
        if first is None:
            return Edge((), text)
        ids = tuple(i for i, _, _ in found[first:])
        return Edge(ids, text[: found[first][1]], self._anchor(ids[0]))

    def token(self, token_id: int) -> Edge:
        """The edge of one added token."""
        return Edge((token_id,), "", self._anchor(token_id))

    def turn(self, left: Edge, spans: Sequence[Span], right: Edge, tags: Tags) -> Turn:
        """Spans one after the other between two edges; `tags` by what they look like."""
        ids, offsets, start = self._parts(left, spans, right, tags)
        # Tokens that overlap the text; those of no characters at its ends are scaffold.
        begin = done = bisect_right(offsets, start, key=END)
        roles: list[int] = []
        for span in spans:
            start += len(span.text)
            upto = max(done, bisect_left(offsets, start, key=START)) if span.text else done
            roles += [int(span.role)] * (upto - done)
            done = upto
        before, after = (*left.ids, *ids[:begin]), (*ids[done:], *right.ids)
        return Turn(before, tuple(ids[begin:done]), tuple(roles), after)

    def offsets(
        self, left: Edge, spans: Sequence[Span], right: Edge, tags: Tags
    ) -> list[tuple[int, int]]:
        """First and one past the last character, in the spans' text, of each of the tokens `ids`
        of `turn`; some of the scaffold behind may follow. One shared with it begins below 0."""
        _, offsets, start = self._parts(left, spans, right, tags)
        begin = bisect_right(offsets, start, key=END)
        return [(first - start, end - start) for first, end in offsets[begin:]]

    def behind(self, left: Edge, span: Span, right: Edge, tags: Tags) -> tuple[int, ...]:
        """What is written behind `left`, whose tokens stand already, up to `right`."""
        stands, _, _ = self._between(left, "", Edge())
        ids, _, _ = self._parts(left, [span], right, tags)
        if ids[: len(stands)] == stands:
            return tuple(ids[len(stands) :])
        # One token with the scaffold.
        ids, _, _ = self._parts(Edge(anchor=right.anchor), [span], right, tags)
        return tuple(ids)

    def vocabulary(self) -> tuple[int, ...]:
        """Ids that a text may become, in order: no control tokens, no added tokens written like one
        (`<unused7>`, `[PAD3]`), no pieces that the tokenizer's model never puts together."""
        tokenize = self._core.model.tokenize
        pieces = self._core.get_vocab(with_added_tokens=False)
        made = {i for piece, i in pieces.items() if [t.id for t in tokenize(piece)] == [i]}
        words = {i for i, token in self._added.items() if not MARKUP.fullmatch(token.content)}
        return tuple(sorted((made - self._added.keys() | words) - self.control))

    def _parts(self, left: Edge, spans: Sequence[Span], right: Edge, tags: Tags) -> Found:
        """The same as `_between`, with the tags in spans that may have them as tokens."""
        text, marks = "", []
        for span in spans:
            if span.own and tags:
                for tag in THINK_TAG.finditer(span.text):
                    if tag[0] in tags:
                        marks.append((len(text) + tag.start(), len(text) + tag.end(), tags[tag[0]]))
            text += span.text
        if not marks:
            return self._between(left, text, right)
        ids, offsets, at = [], [], 0
        for start, end, token in marks:
            some, places, origin = self._between(left, text[at:start], token)
            ids += [*some, *token.ids]
            offsets += [(a - origin + at, b - origin + at) for a, b in places] + [(start, end)]
            left, at = token, end
        some, places, origin = self._between(left, text[at:], right)
        offsets += [(a - origin + at, b - origin + at) for a, b in places]
        return ids + some, offsets, 0

    def _between(self, left: Edge, text: str, right: Edge) -> Found:
        """Tokens between the anchors."""
        whole = f"{left.anchor}{left.text}{text}{right.text}{right.anchor}"
        encoding = self._core.encode(whole, add_special_tokens=False)
        inner = slice(int(bool(left.anchor)), -1 if right.anchor else None)
        ids, offsets = encoding.ids[inner], encoding.offsets[inner]
        if not self._never.isdisjoint(ids):
            ids, offsets = self._spelled(ids, offsets)
        return ids, offsets, len(left.anchor) + len(left.text)

    def _spelled(self, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> tuple[list, list]:
        """Control tokens that the model itself puts together from a text's pieces, spelled."""
        spelled = [
            (piece, offset)
            for i, offset in zip(ids, offsets, strict=True)
            for piece in (self._letters(i) if i in self._never else (i,))
        ]
        return [piece for piece, _ in spelled], [offset for _, offset in spelled]

    def _letters(self, token_id: int) -> list[int]:
        letters = self._core.id_to_token(token_id)
        pieces = [token.id for letter in letters for token in self._core.model.tokenize(letter)]
        return [piece for piece in pieces if piece not in self._never]

    def _anchor(self, token_id: int) -> str:
        """A token that takes white space and is found as this one does, of no text."""
        like = self._added[token_id]
        kind = (like.normalized, like.lstrip, like.rstrip)
        if kind not in self._anchors:
            # Drawn, so that no text can spell it.
            content = "".join(chr(0xF0000 + byte) for byte in os.urandom(8))
            self._core.add_tokens(
                [AddedToken(content, normalized=kind[0], lstrip=kind[1], rstrip=kind[2])]
            )
            self._anchors[kind] = content
        return self._anchors[kind]


def control_tokens(
    tokenizer: PreTrainedTokenizerBase, scaffold: Sequence[str], end: int
) -> frozenset[int]:
    """Added tokens that no text may become: special ones, think tags, and the template's own,
    which need not be special. Words that a tokenizer has as added tokens are none.

    Args:
        tokenizer: of the policy.
        scaffold: the template's pieces.
        end: the end-of-turn token.
    """
    source = tokenizer.get_chat_template() if tokenizer.chat_template else ""
    written = {i for text in scaffold for i, _, _ in tokens(tokenizer, text)}

    def is_control(token_id: int, token: Any) -> bool:
        text = token.content.strip()
        signs = [not (c.isalnum() or c.isspace()) for c in text]
        if token.special or not text:
            return token.special
        if token_id in written:
            return any(signs)
        return signs[0] and signs[-1] and text in source

    added = tokenizer.added_tokens_decoder
    found = {i for i, token in added.items() if is_control(i, token)}
    thinking = {i for i, token in added.items() if THINK_TAG.fullmatch(token.content.strip())}
    return frozenset(found | thinking | {end})
