"""The token pieces that a chat template puts around turns, found once per tokenizer.

A conversation is built piece by piece, so that every token's role is known where it is made and
sampled action tokens are never decoded and tokenised again:

    opening | user text | to_policy | action … end_of_turn | to_user | user text | to_policy | …
"""

from dataclasses import dataclass
from typing import cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from paw.errors import UserError


@dataclass(frozen=True, slots=True)
class TurnFormat:
    """Token ids around turns; all SCAFFOLD except the end-of-turn token, which is sampled."""

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
    header_ids: frozenset[int] = frozenset()
    """Control tokens of the header before an observation; in an action they are role confusion."""


PLAIN = ("", "\nAction:", "\nObservation: ")
"""opening, to_policy, to_user of models without a chat template; actions end with the EOS token."""
ONE_DAY = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"
"""Before a template that writes today's date (Llama 3.2, which falls back to this one): a run that
goes on tomorrow, and an evaluation next week, have the same prompts."""


def turn_format(tokenizer: PreTrainedTokenizerBase) -> TurnFormat:
    """Split the tokenizer's own chat template into pieces, and check that they make up the whole.

    Raises:
        UserError: a template that is not made of such pieces, or no end-of-turn token.
    """
    eos = cast(int | None, tokenizer.eos_token_id)
    start = cast(int | None, tokenizer.bos_token_id)
    if tokenizer.chat_template is None:
        if eos is None:
            raise UserError("the tokenizer has neither a chat template nor an EOS token")
        opening, to_policy, to_user = (tuple(_ids(tokenizer, text)) for text in PLAIN)
        first = () if start is None else (start,)
        return TurnFormat(first + opening, to_policy, eos, to_user, (eos,))

    first, action, second = "FIRSTUSER", "POLICYACTION", "SECONDUSER"
    whole = _render(tokenizer, first, action, second)
    opening, rest = _split(whole, first)
    to_policy, rest = _split(rest, action)
    after_action, last = _split(rest, second)
    ids = _ids(tokenizer, after_action)
    control = {eos, *cast(PreTrainedTokenizerFast, tokenizer).get_added_vocab().values()}
    if not ids or ids[0] not in control:
        raise UserError("chat template: the policy's turn does not end with a control token")
    end_ids = (ids[0],) if eos in (None, ids[0]) else (ids[0], eos)
    special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    pieces = TurnFormat(
        opening=tuple(_ids(tokenizer, opening)),
        to_policy=tuple(_ids(tokenizer, to_policy)),
        end_of_turn=ids[0],
        to_user=tuple(ids[1:]),
        end_ids=end_ids,
        header_ids=frozenset(special.intersection(ids).difference(end_ids)),
    )
    if last != to_policy:
        raise UserError(
            f"chat template: a reply to sample begins with {last!r}, an earlier one with "
            f"{to_policy!r}; PaW needs both alike, so none that opens <think> itself fits"
        )
    other = ("Look around.", "go to shelf 1", "Nothing happens.")
    built = opening + other[0] + to_policy + other[1] + after_action + other[2] + last
    if built != _render(tokenizer, *other):
        raise UserError(
            "chat template: a turn's text changes the text around it; PaW needs a template that "
            "renders turns one after the other"
        )
    return pieces


def _render(tokenizer: PreTrainedTokenizerBase, first: str, action: str, second: str) -> str:
    messages = [
        {"role": "user", "content": first},
        {"role": "assistant", "content": action},
        {"role": "user", "content": second},
    ]
    try:
        text = tokenizer.apply_chat_template(
            messages,
            chat_template=ONE_DAY + tokenizer.get_chat_template(),
            tokenize=False,
            add_generation_prompt=True,
        )
    except TemplateError as error:
        raise UserError(f"chat template: it cannot be rendered: {error}") from error
    return str(text)


def _split(text: str, mark: str) -> tuple[str, str]:
    before, found, after = text.partition(mark)
    if not found or mark in after:
        raise UserError(f"chat template: a turn's text appears {text.count(mark)} times in it")
    return before, after


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []
