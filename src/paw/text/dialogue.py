"""One episode as token ids with roles: the only place where environment text becomes tokens.

`append`: the episode is one growing conversation; h_t is all of it so far.
`window`: each prompt is made anew from the instruction and the last turns. In the `command` format
it is the conversation with its middle left out; in the `tags` format one user turn tells the past.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from paw.errors import UserError
from paw.style import Style
from paw.text import prompts
from paw.text.parse import Parsed, parse_response
from paw.text.prompts import Seen, Span
from paw.text.turns import TurnFormat, turn_format
from paw.types import Role, SampledAction, Task

RoledTokens = tuple[tuple[int, ...], tuple[int, ...]]
"""(token ids, a Role per token)"""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the policy is asked with at one turn."""

    token_ids: tuple[int, ...]
    """The whole prompt h_t."""
    context_ids: tuple[int, ...]
    """Its part that is new since the last action (`append`), or all of it (`window`)."""
    context_roles: tuple[int, ...]
    num_cut_tokens: int
    """RoledTokens that `max_prompt_tokens` cut out of the middle."""


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
        self._encode = lru_cache(maxsize=20_000)(self._tokenise)  # environments repeat themselves
        self.format: TurnFormat = turn_format(tokenizer)
        self.style = style
        self.append = context == "append"
        self.tags = response_format == "tags"
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

    def encode(self, text: str) -> tuple[int, ...]:
        """Environment text: control tokens spelled out in it stay text."""
        return self._encode(text)

    def _tokenise(self, text: str) -> tuple[int, ...]:
        encoding = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return tuple(encoding["input_ids"])

    def spans(self, spans: Sequence[Span]) -> RoledTokens:
        """RoledTokens of a user turn's spans."""
        pieces = [(self.encode(s.text), int(s.role)) for s in spans]
        ids = tuple(i for piece, _ in pieces for i in piece)
        return ids, tuple(role for piece, role in pieces for _ in piece)

    def to_user(self, action: SampledAction) -> tuple[int, ...]:
        """Scaffold from the end of an action to the next user text; closes a cut action's turn."""
        end = self.format.end_of_turn
        closed = bool(action.token_ids) and action.token_ids[-1] in self.format.end_ids
        return self.format.to_user if closed else (end, *self.format.to_user)

    def target(self, next_observation: str) -> tuple[tuple[int, ...], int]:
        """Target tokens of o_{t+1}, and how many more `max_observation_tokens` cut off."""
        ids = self.encode(next_observation)
        kept = ids[: self.max_observation_tokens]
        return kept, len(ids) - len(kept)

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
        return parse_response(response, self.response_format, self.style)

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
            spans = prompts.opening(s.style, s.tags, self._task, text, commands)
            before = s.format.opening
        else:
            spans = prompts.turn(s.style, s.tags, text, commands)
            before = s.to_user(self._actions[-1][0])
        return self._fit(before, s.spans(spans), s.format.to_policy)

    def _window(self) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """`window`: a whole prompt; all of it is context."""
        s, (text, commands) = self._serializer, self._observations[-1]
        past = list(zip(self._observations, self._actions, strict=False))
        recent = past[max(0, len(past) - s.history_turns) :]
        if s.tags:
            history = [Seen(o, command) for (o, _), (_, command) in recent]
            prompt = prompts.window(s.style, self._task, history, len(past), text, commands)
            body = s.encode(prompt)
        else:
            body = self._shortened(recent, text)
        context = (body, (int(Role.CONTEXT),) * len(body))
        return self._fit(s.format.opening, context, s.format.to_policy)

    def _shortened(self, recent: list, text: str) -> tuple[int, ...]:
        """The conversation without its middle: first observation, last actions and observations."""
        s = self._serializer
        ids = list(s.encode(self._observations[0][0]))
        shown = [o for (o, _), _ in recent[1:]] + [text] * bool(recent)
        for (_, (action, _)), observation in zip(recent, shown, strict=True):
            ids += [*s.format.to_policy, *action.token_ids, *s.to_user(action)]
            ids += s.encode(observation)
        if self._actions and not recent:  # no history wanted: the observation alone follows
            ids += s.encode("\n" + text)
        return tuple(ids)

    def _fit(
        self, before: tuple[int, ...], body: RoledTokens, after: tuple[int, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Put scaffold around a turn; cut the middle of a turn longer than the prompt limit."""
        ids, roles = body
        room = self._serializer.max_prompt_tokens - len(before) - len(after)
        cut = max(0, len(ids) - room)
        if cut:
            head = (len(ids) - cut) // 2
            ids = ids[:head] + ids[head + cut :]
            roles = roles[:head] + roles[head + cut :]
        scaffold = int(Role.SCAFFOLD)
        roles = (scaffold,) * len(before) + roles + (scaffold,) * len(after)
        return before + ids + after, roles, cut
