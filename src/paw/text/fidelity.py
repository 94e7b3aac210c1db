"""The start-up check that conversations made turn by turn are those of the chat template."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from paw.errors import UserError
from paw.text.prompts import Span
from paw.text.turns import TurnFormat, render, render_ids
from paw.types import Role

PROBES = (
    ("You see a mug 1.", "You pick up the mug 1.", "Nothing happens."),
    ("\n\n-= Welcome =-\n\nYour task is: look.\n", "  [1] 'Élan' 日本 😀\n", "(two  blanks). "),
    ("ünder", " .hidden\t", "\n"),
)
"""User texts of three turns: sentences; line breaks and blanks at either end; signs first."""


def check_fidelity(
    tokenizer: PreTrainedTokenizerBase, form: TurnFormat, answers: Sequence[str], one_turn: bool
) -> None:
    """Hold conversations of three turns against `apply_chat_template` of the whole.

    Args:
        tokenizer: of the policy.
        form: the template's pieces.
        answers: two responses as the policy would write them.
        one_turn: prompts are a single user turn.

    Raises:
        UserError: other tokens, or an observation that is not found among them.
    """
    for texts in PROBES[: None if tokenizer.chat_template else 0]:
        ids: list[int] = []
        said: list[str] = []
        for i, text in enumerate(texts[: 1 if one_turn else None]):
            turn = form.turn(i == 0, [Span(text, Role.OBSERVATION)])
            ids += [*turn.before, *turn.ids, *turn.after]
            said.append(text)
            expected = render_ids(tokenizer, said)
            if ids != expected:
                raise UserError(_difference(tokenizer, ids, expected, said))
            alone = tokenizer(text, add_special_tokens=False)["input_ids"]
            if text.strip() in _text(tokenizer, alone) and text.strip() not in (
                shown := _text(tokenizer, turn.ids)
            ):
                raise UserError(
                    f"{_name(tokenizer)}: of the observation {text!r} only {shown!r} is found "
                    "among the conversation's tokens; use another tokenizer"
                )
            if i < len(answers):
                ids += form.response(answers[i])
                said.append(answers[i])


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _difference(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], expected: list[int], said: list[str]
) -> str:
    """What is not as it should be, and what to do."""
    whole = render(tokenizer, said)
    for answer in said[1::2]:
        if answer not in whole:
            return (
                f"{_name(tokenizer)}: its chat template shows the earlier response {answer!r} "
                "otherwise than the policy wrote it (it takes the reasoning out), so no "
                "conversation can grow; use rollout.context = 'window', or "
                "rollout.response_format = 'command', or a chat template that keeps responses"
            )
    same = next(
        (i for i, (a, b) in enumerate(zip(ids, expected, strict=False)) if a != b),
        min(len(ids), len(expected)),
    )
    ours, theirs = (
        tokenizer.convert_ids_to_tokens(found[same : same + 4]) for found in (ids, expected)
    )
    return (
        f"{_name(tokenizer)}: turn by turn, the conversation {said!r} has the tokens {ours} where "
        f"its chat template has {theirs} (token {same}); PaW cannot train on tokens that the model "
        "would not be asked with; use another chat template (chat_template.jinja beside the model)"
    )


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    name = tokenizer.name_or_path
    return f"the tokenizer of {name!r}" if name else "the tokenizer"
