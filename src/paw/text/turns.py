"""The pieces that a chat template puts around turns, found once per tokenizer.

A conversation is built piece by piece, so that every token's role is known where it is made and
sampled action tokens are never decoded and tokenised again:

    opening | user text | to_policy | action … end_of_turn | to_user | user text | to_policy | …
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from paw.errors import UserError, first_line
from paw.text.encode import Edge, Encoder, Turn, control_tokens, tokens
from paw.text.parse import THINK_TAG, edge_of, read_thought
from paw.text.prompts import Span


@dataclass(frozen=True, slots=True)
class Pieces:
    """What the template puts around turns, as text."""

    opening: str
    to_policy: str
    end_of_turn: str
    to_user: str
    lead: str = ""
    """White space before a response, which the policy writes itself (Mistral)."""
    tail: str = ""
    """The same between a response and its end-of-turn token (Llama 2)."""
    trim_user: str = ""
    """What is taken off the ends of a user's text: a key of `TRIMS`."""
    trim_response: str = ""


@dataclass(frozen=True, slots=True)
class TurnFormat:
    """Token ids around turns; all SCAFFOLD except the end-of-turn token, which is sampled.

    Where a text's first or last characters are one token with the scaffold beside them, that token
    is the text's, and the scaffold around it (`turn`) is another than these.
    """

    opening: tuple[int, ...]
    """Before the first user text (start token, default system prompt, user header)."""
    to_policy: tuple[int, ...]
    """From the end of a user text to where the policy writes."""
    end_of_turn: int
    """The token with which a finished action ends."""
    to_user: tuple[int, ...]
    """From the end-of-turn token to the next user text: the header before an observation."""
    end_ids: tuple[int, ...]
    """Tokens at which sampling stops."""
    header_ids: frozenset[int]
    """Control tokens of the header before an observation; in an action they are role confusion."""
    header_text: str
    """What marks that header as text, as "[INST]"; empty where nothing but its words does."""
    opens_thinking: bool
    """A prompt ends inside a think block: a response begins with reasoning."""
    pieces: Pieces
    edges: "Edges"
    encoder: Encoder

    def turn(self, first: bool, spans: Sequence[Span]) -> Turn:
        """A user turn: the first of a conversation, or one behind an end-of-turn token."""
        left = self.edges.opening if first else self.edges.to_user
        right, tags = self.edges.to_policy, self.edges.think_tags
        return self.encoder.turn(left, self._trimmed(spans), right, tags)

    def offsets(self, spans: Sequence[Span]) -> list[tuple[int, int]]:
        """First and one past the last character, in the text of `spans`, of each token of a later
        `turn`; see `Encoder.offsets`."""
        shown = self._trimmed(spans)
        whole, kept = ("".join(span.text for span in some) for some in (spans, shown))
        cut = whole.find(kept)
        edges = self.edges
        found = self.encoder.offsets(edges.to_user, shown, edges.to_policy, edges.think_tags)
        return [(start + cut, end + cut) for start, end in found]

    def response(self, text: str) -> tuple[int, ...]:
        """`text` as the policy would write it, with its end-of-turn token. Its think tags may be
        control tokens, nothing else of it."""
        text = TRIMS[self.pieces.trim_response](text)
        if self.opens_thinking and (tag := THINK_TAG.match(text)) and not edge_of(tag)[1]:
            text = text[tag.end() :]  # the prompt has it
        span = Span(f"{self.pieces.lead}{text}{self.pieces.tail}", own=True)
        left, right, tags = self.edges.response, self.edges.end_of_turn, self.edges.think_tags
        return (*self.encoder.behind(left, span, right, tags), self.end_of_turn)

    def _trimmed(self, spans: Sequence[Span]) -> Sequence[Span]:
        """Spans as the template shows them."""
        whole = "".join(span.text for span in spans)
        kept = TRIMS[self.pieces.trim_user](whole)
        if kept == whole:
            return spans
        first = whole.find(kept)
        stop, start, shown = first + len(kept), 0, []
        for span in spans:
            end = start + len(span.text)
            shown.append(replace(span, text=whole[max(start, first) : min(end, stop)]))
            start = end
        return shown


@dataclass(frozen=True, slots=True)
class Edges:
    """What stands left or right of a text, by what it is."""

    opening: Edge
    to_user: Edge
    to_policy: Edge
    response: Edge
    """Left of a response."""
    end_of_turn: Edge
    think_tags: dict[str, Edge]
    """Think tags that are tokens of their own."""


PLAIN = "", "\nAction:", "\nObservation: "
"""opening, to_policy, to_user of models without a chat template; actions end with the EOS token."""
ONE_DAY = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"
"""Before a template that writes today's date (Llama 3.2, which falls back to this one): a run that
goes on tomorrow, and an evaluation next week, have the same prompts."""
TRIMS: dict[str, Callable[[str], str]] = {
    "": lambda text: text,
    "strip": str.strip,
    "lstrip": str.lstrip,
    "rstrip": str.rstrip,
    "strip lines": lambda text: text.strip("\n"),
    "lstrip lines": lambda text: text.lstrip("\n"),
    "rstrip lines": lambda text: text.rstrip("\n"),
}
FIRST, ACTION, SECOND = "FIRSTUSER", "POLICYACTION", "SECONDUSER"


def turn_format(tokenizer: PreTrainedTokenizerBase, one_turn: bool = False) -> TurnFormat:
    """Split the tokenizer's own chat template into pieces, and check that they make up the whole.

    Args:
        tokenizer: of the policy.
        one_turn: prompts are a single user turn: earlier responses may be rendered otherwise than
            the one to sample begins.

    Raises:
        UserError: a template that is not made of such pieces, or no end-of-turn token.
    """
    pieces = _pieces(tokenizer, one_turn)
    end = cast(int, tokenizer.convert_tokens_to_ids(pieces.end_of_turn))
    eos = cast(int | None, tokenizer.eos_token_id)
    scaffold = (pieces.opening, pieces.to_policy, pieces.to_user)
    encoder = Encoder(tokenizer, control_tokens(tokenizer, scaffold, end))
    added = tokenizer.added_tokens_decoder
    edges = Edges(
        opening=encoder.left(pieces.opening),
        to_user=encoder.left(pieces.to_user, behind=pieces.end_of_turn),
        to_policy=encoder.right(pieces.to_policy),
        response=encoder.left(pieces.to_policy),
        end_of_turn=encoder.token(end),
        think_tags={
            t.content: encoder.token(i) for i, t in added.items() if THINK_TAG.fullmatch(t.content)
        },
    )
    first = encoder.turn(edges.opening, [Span(FIRST)], edges.to_policy, {})
    later = encoder.turn(edges.to_user, [Span(SECOND)], edges.to_policy, {})
    end_ids = (end,) if eos in (None, end) else (end, eos)
    return TurnFormat(
        opening=first.before,
        to_policy=later.after,
        end_of_turn=end,
        to_user=later.before,
        end_ids=end_ids,
        header_ids=encoder.control.intersection(later.before).difference(end_ids),
        header_text=_header_text(edges.to_user.text) if tokenizer.chat_template else "",
        opens_thinking=read_thought(pieces.to_policy).is_open,
        pieces=pieces,
        edges=edges,
        encoder=encoder,
    )


def _pieces(tokenizer: PreTrainedTokenizerBase, one_turn: bool) -> Pieces:
    eos = cast(str | None, tokenizer.eos_token)
    if tokenizer.chat_template is None:
        if eos is None:
            raise UserError("the tokenizer has neither a chat template nor an EOS token")
        opening, to_policy, to_user = PLAIN
        return Pieces(str(tokenizer.bos_token or "") + opening, to_policy, eos, to_user)
    whole = render(tokenizer, (FIRST, ACTION, SECOND))
    opening, rest = _split(whole, FIRST)
    earlier, rest = _split(rest, ACTION)
    after_action, last = _split(rest, SECOND)
    lead = earlier[len(last) :] if earlier.startswith(last) else ""
    alike = earlier == last + lead and not lead.strip()
    if not alike and not (one_turn and last.startswith(earlier)):
        raise UserError(
            f"chat template: a reply to sample begins with {last!r}, an earlier one with "
            f"{earlier!r}; PaW needs both alike, so none that opens <think> itself fits, but for "
            "rollout.context = 'window' with rollout.response_format = 'tags': one turn a prompt"
        )
    turns = ["Look around.", "go to shelf 1"] * (1 if one_turn else 25)
    turns.append("Nothing happens. " * 1000 + "Look again.")
    between = itertools.cycle((earlier, after_action))
    built = opening + turns[0] + "".join(map("".join, zip(between, turns[1:], strict=False))) + last
    if built != render(tokenizer, turns):
        raise UserError(
            "chat template: a turn's text, its length or its place changes the text around it; PaW "
            "needs a template that renders turns one after the other"
        )
    tail, end_of_turn, to_user = _end_of_turn(tokenizer, after_action)
    probe = " \n X \n "
    shown = render(tokenizer, (probe, ACTION, SECOND))
    user = shown.removeprefix(opening).partition(earlier + ACTION)[0]
    shown = render(tokenizer, (FIRST, probe, SECOND))
    action = shown.removeprefix(opening + FIRST + earlier).partition(after_action + SECOND)[0]
    return Pieces(
        opening, last, end_of_turn, to_user, lead, tail, _trim(probe, user), _trim(probe, action)
    )


def render(tokenizer: PreTrainedTokenizerBase, contents: Sequence[str]) -> str:
    """The template's text of user, policy, user, … up to where the policy writes next."""
    return cast(str, _templated(tokenizer, contents, tokenize=False))


def render_ids(tokenizer: PreTrainedTokenizerBase, contents: Sequence[str]) -> list[int]:
    """The same as token ids."""
    return cast(list[int], _templated(tokenizer, contents, tokenize=True))


def _templated(tokenizer: PreTrainedTokenizerBase, contents: Sequence[str], tokenize: bool) -> Any:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    try:
        return tokenizer.apply_chat_template(
            messages,
            chat_template=ONE_DAY + tokenizer.get_chat_template(),
            tokenize=tokenize,
            return_dict=False,
            add_generation_prompt=True,
        )
    except Exception as error:  # a template is code, and raises what code raises
        reason = first_line(error)
        raise UserError(f"chat template: it cannot be rendered: {reason}") from error


def _split(text: str, mark: str) -> tuple[str, str]:
    before, found, after = text.partition(mark)
    if not found or mark in after:
        raise UserError(f"chat template: a turn's text appears {text.count(mark)} times in it")
    return before, after


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, after_action: str) -> tuple[str, str, str]:
    """What stands between a response and its end-of-turn token, that token, what follows it."""
    added = tokenizer.added_tokens_decoder
    found = next((t for t in tokens(tokenizer, after_action) if t[0] in added), None)
    if found is not None:
        tail, token, to_user = after_action.partition(added[found[0]].content)
        if not tail.strip():
            return tail, token, to_user
    raise UserError("chat template: the policy's turn does not end with a control token")


def _trim(text: str, shown: str) -> str:
    """The name of what makes `shown` of `text`."""
    for name, trim in TRIMS.items():
        if trim(text) == shown:
            return name
    raise UserError(f"chat template: it shows the text {text!r} as {shown!r}")


def _header_text(text: str) -> str:
    """The text of a header, if it has more than the words and spaces that any text has."""
    text = text.strip()
    return text if any(not (c.isalnum() or c.isspace()) for c in text) else ""
