"""One episode as token ids with roles: the only place where environment text becomes tokens.

`append`: the episode is one growing conversation; h_t is all of it so far.
`window`: each prompt is made anew from the instruction and the last turns. In the `command` format
it is the conversation with its middle left out; in the `tags` format one user turn tells the past.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from sys import getsizeof
from typing import Any

from transformers import PreTrainedTokenizerBase

from paw.errors import UserError
from paw.style import Style
from paw.text import prompts
from paw.text.cache import ByteCache
from paw.text.encode import Turn
from paw.text.fidelity import check_fidelity
from paw.text.parse import Parsed, parse_response, write_response
from paw.text.prompts import Seen, Span
from paw.text.turns import TurnFormat, turn_format
from paw.types import Role, SampledAction, Task

CACHE_BYTES = 64 << 20
"""Of turns encoded before: environments repeat themselves."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the policy is asked with at one turn."""

    token_ids: tuple[int, ...]
    """The whole prompt h_t."""
    context_ids: tuple[int, ...]
    """Its part that is new since the last action (`append`), or all of it (`window`)."""
    context_roles: tuple[int, ...]
    num_cut_tokens: int
    """Tokens that `max_prompt_tokens` cut out of the middle."""


class Serializer:
    """Token ids and roles for one tokenizer and one way of prompting.

    Args:
        tokenizer: of the policy.
        style: of the environment, for its prompt texts and how responses are parsed.
        context: "append" or "window".
        response_format: "tags" or "command".
        history_turns: earlier turns in a `window` prompt.
        max_prompt_tokens: longer prompts are cut in the middle.
        max_observation_tokens: longer targets are cut at the end.

    Raises:
        UserError: a chat template whose conversations cannot be made turn by turn, or a prompt
            limit below what it takes itself.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        style: Style,
        *,
        context: str,
        response_format: str,
        history_turns: int,
        max_prompt_tokens: int,
        max_observation_tokens: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.append = context == "append"
        self.tags = response_format == "tags"
        one_turn = self.tags and not self.append
        self.format: TurnFormat = turn_format(tokenizer, one_turn)
        check_fidelity(tokenizer, self.format, _answers(response_format, style), one_turn)
        self._turn = ByteCache(self._encoded, _num_bytes, CACHE_BYTES)
        self.style = style
        self.response_format = response_format
        self.history_turns = history_turns
        self.max_prompt_tokens = max_prompt_tokens
        self.max_observation_tokens = max_observation_tokens
        shortest = len(self.format.opening) + len(self.format.to_policy)
        if max_prompt_tokens <= shortest:
            raise UserError(
                f"rollout.max_prompt_tokens = {max_prompt_tokens}: the chat template alone takes "
                f"{shortest} tokens"
            )

    def _encoded(self, first: bool, *spans: Span) -> Turn:
        return self.format.turn(first, spans)

    def turn(self, first: bool, spans: Sequence[Span]) -> Turn:
        """A user turn as the template shows it: the first, or one behind an action."""
        return self._turn(first, *spans)

    def encode(self, text: str) -> tuple[int, ...]:
        """Environment text as in a later turn: control tokens spelled out in it stay text."""
        return self.turn(False, (Span(text),)).ids

    @cached_property
    def vocabulary(self) -> tuple[int, ...]:
        """Tokens that environment text may have; see `Encoder.vocabulary`."""
        return self.format.encoder.vocabulary()

    def to_user(self, action: SampledAction, header: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Scaffold from the end of an action to the next user text; closes a cut action's turn.

        Args:
            action: what stands before it.
            header: of that text, where it is not the usual one.
        """
        end, header = self.format.end_of_turn, header or self.format.to_user
        closed = bool(action.token_ids) and action.token_ids[-1] in self.format.end_ids
        return header if closed else (end, *header)

    def to_policy(self, observation: str) -> tuple[int, ...]:
        """Scaffold from the end of an observation that stands alone to the policy's next action."""
        return self.turn(False, prompts.turn(self.style, self.tags, observation, ())).after

    def target(
        self, next_observation: str, commands: Sequence[str] = ()
    ) -> tuple[tuple[int, ...], int]:
        """Target tokens of o_{t+1}, and how many more `max_observation_tokens` cut off.

        Args:
            next_observation: its text.
            commands: admissible then; the `tags` format shows them behind it.
        """
        turn = self._next_turn(next_observation, commands)
        count = turn.roles.count(int(Role.OBSERVATION))
        kept = turn.ids[: min(count, self.max_observation_tokens)]
        return kept, count - len(kept)

    def offsets(self, next_observation: str, commands: Sequence[str] = ()) -> list[tuple[int, int]]:
        """First and one past the last character of each token of `target`, in that text."""
        ids, _ = self.target(next_observation, commands)
        found = self.format.offsets(self._next_spans(next_observation, commands))
        length = len(next_observation)
        return [(max(start, 0), min(end, length)) for start, end in found[: len(ids)]]

    def header(self, next_observation: str, commands: Sequence[str] = ()) -> tuple[int, ...]:
        """The header before o_{t+1}; () where it is the usual one. Another where its end is one
        token with the observation's beginning."""
        before = self._next_turn(next_observation, commands).before
        return () if before == self.format.to_user else before

    def _next_turn(self, text: str, commands: Sequence[str]) -> Turn:
        """A later turn as a growing conversation has it; a window's target stands alone."""
        return self.turn(False, self._next_spans(text, commands))

    def _next_spans(self, text: str, commands: Sequence[str]) -> list[Span]:
        shown = commands if self.append else ()
        return prompts.turn(self.style, self.tags, text, shown)

    def response(self, action: SampledAction) -> str:
        """An action as people read it, without its end-of-turn token."""
        ids = list(action.token_ids)
        if ids and ids[-1] in self.format.end_ids:
            ids.pop()
        # Some tokenizers would tidy "red , blue" to "red, blue": a command that nobody sampled.
        text = self.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(text)

    def parse(self, response: str) -> Parsed:
        """The command in a response."""
        opened = self.format.opens_thinking
        return parse_response(response, self.response_format, self.style, opened)

    def dialogue(self, task: Task) -> "Dialogue":
        """A new episode of `task`."""
        return Dialogue(self, task)


class Dialogue:
    """The growing record of one episode: `observe`, `prompt`, `act`, `observe`, …"""

    def __init__(self, serializer: Serializer, task: Task) -> None:
        self._serializer = serializer
        self._task = task
        self._conversation: list[int] = []
        self._observations: list[tuple[str, tuple[str, ...]]] = []
        self._actions: list[tuple[SampledAction, str]] = []

    def observe(self, text: str, commands: Sequence[str]) -> None:
        """The environment said `text`."""
        self._observations.append((text, tuple(commands)))

    def act(self, action: SampledAction, command: str) -> None:
        """The policy answered the last prompt with `action`."""
        self._conversation.extend(action.token_ids)
        self._actions.append((action, command))

    def prompt(self) -> Prompt:
        """The prompt h_t for the last observation; call it once a turn."""
        if not self._serializer.append:
            ids, roles, cut = self._window()
            return Prompt(ids, ids, roles, cut)
        ids, roles, cut = self._new_turn()
        self._conversation.extend(ids)
        return Prompt(tuple(self._conversation), ids, roles, cut)

    def _new_turn(self) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """`append`: the tokens between the last action and the next."""
        s, (text, commands) = self._serializer, self._observations[-1]
        if not self._actions:
            turn = s.turn(True, prompts.opening(s.style, s.tags, self._task, text, commands))
            before = turn.before
        else:
            turn = s.turn(False, prompts.turn(s.style, s.tags, text, commands))
            before = s.to_user(self._actions[-1][0], turn.before)
        return self._fit(before, turn.ids, turn.roles, turn.after)

    def _window(self) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """`window`: a whole prompt; all of it is context."""
        s, (text, commands) = self._serializer, self._observations[-1]
        past = list(zip(self._observations, self._actions, strict=False))
        recent = past[max(0, len(past) - s.history_turns) :]
        if s.tags:
            history = [Seen(o, command) for (o, _), (_, command) in recent]
            spans = prompts.window_spans(s.style, self._task, history, len(past), text, commands)
            turn = s.turn(True, spans)
            return self._fit(turn.before, turn.ids, turn.roles, turn.after)
        return self._shortened(recent, text)

    def _shortened(self, recent: list, text: str) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """The conversation without its middle: first observation, last actions and observations."""
        s, first = self._serializer, self._observations[0][0]
        alone = self._actions and not recent  # no history wanted: the observation alone follows
        spans = (Span(first), Span("\n" + text)) if alone else (Span(first),)
        turn = s.turn(True, spans)
        before, ids = turn.before, [*turn.ids]
        shown = [o for (o, _), _ in recent[1:]] + [text] * bool(recent)
        for (_, (action, _)), observation in zip(recent, shown, strict=True):
            ids += [*turn.after, *action.token_ids]
            turn = s.turn(False, (Span(observation),))
            ids += [*s.to_user(action, turn.before), *turn.ids]
        return self._fit(before, tuple(ids), (int(Role.CONTEXT),) * len(ids), turn.after)

    def _fit(
        self,
        before: tuple[int, ...],
        ids: tuple[int, ...],
        roles: tuple[int, ...],
        after: tuple[int, ...],
    ) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Put scaffold around a turn; cut the middle of a turn longer than the prompt limit."""
        room = self._serializer.max_prompt_tokens - len(before) - len(after)
        cut = max(0, len(ids) - room)
        if cut:
            head = (len(ids) - cut) // 2
            ids = ids[:head] + ids[head + cut :]
            roles = roles[:head] + roles[head + cut :]
        scaffold = int(Role.SCAFFOLD)
        roles = (scaffold,) * len(before) + roles + (scaffold,) * len(after)
        return before + ids + after, roles, cut


def _answers(response_format: str, style: Style) -> tuple[str, str]:
    """Responses such as a policy writes, without and with a thought."""
    plain = write_response("go to shelf 1", response_format, style)
    thought = plain.replace("<think></think>", "<think>\nWhere is it?\n</think>\n\n")
    return plain, thought


def _num_bytes(key: tuple[Any, ...], turn: Turn) -> int:
    """About what a turn takes: a token is an integer of 32 bytes and two pointers."""
    num_tokens = len(turn.before) + 2 * len(turn.ids) + len(turn.after)
    return 1000 + sum(getsizeof(span.text) for span in key[1:]) + 40 * num_tokens
