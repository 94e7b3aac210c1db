"""Plays episodes with a model behind an endpoint; each finished one goes to a journal at once.

A thread holds an episode. Environments stand in an `EnvironmentPool` behind a lock: they take
microseconds to milliseconds where the model takes seconds, and a hanging one costs itself alone.
"""

import hashlib
import json
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from paw.envs.base import Observation, StepResult, TaskSource
from paw.evals.agents import Agent, Turn, reflection_messages, reflection_text
from paw.evals.endpoint import Endpoint, EndpointError, Message, Stopped
from paw.evals.journal import Journal
from paw.evals.replies import Reply
from paw.evals.selection import chosen
from paw.rollout.pool import EnvironmentPool, Failure
from paw.types import Task

T = TypeVar("T")
Record = dict[str, Any]
"""One finished episode, as the journal holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a score depends on; a journal of another setup is refused."""

    env: str
    split: str
    env_options: dict[str, Any]
    agent: str
    trials: int
    """Episodes per task (`reflexion`); 1 for the other agents."""
    shots: int
    """1 shows an expert's episode in the prompt (`react`, `reflexion`)."""
    model: str
    api_host: str
    temperature: float
    seed: int
    max_turns: int
    history_turns: int
    max_response_tokens: int
    validity: str
    """`accepted` or `format`, as `rollout.validity`."""


@dataclass(slots=True)
class Usage:
    """What an episode used, all trials and reflections included."""

    num_requests: int = 0
    num_uncounted: int = 0
    """Requests whose answer said nothing of tokens."""
    prompt: int = 0
    completion: int = 0


@dataclass(slots=True)
class Answers:
    """How the answers of an episode ended, where they were not whole."""

    num_cut: int = 0
    """At the limit of tokens."""
    num_filtered: int = 0
    """Refused by the model, or stopped by a filter."""
    num_empty: int = 0
    """Without any text: mostly a limit that went into reasoning."""


@dataclass(slots=True)
class Tally:
    """Counts of an episode's replies."""

    tokens: Usage = field(default_factory=Usage)
    answers: Answers = field(default_factory=Answers)
    left_out: set[str] = field(default_factory=set)
    """Parameters that some request went without, as the endpoint refuses them."""

    def add(self, reply: Reply) -> None:
        """Count one reply."""
        self.tokens.num_requests += 1
        self.tokens.num_uncounted += not reply.counted
        self.tokens.prompt += reply.prompt_tokens
        self.tokens.completion += reply.completion_tokens
        self.answers.num_cut += reply.cut
        self.answers.num_filtered += reply.filtered
        self.answers.num_empty += not reply.text.strip()
        self.left_out |= set(reply.left_out)


@dataclass(slots=True)
class Trial:
    """One attempt at a task."""

    turns: list[dict[str, Any]] = field(default_factory=list)
    """observation, response, command, reward, valid, cut"""
    success: bool = False
    terminated: bool = False
    score: float | None = None
    end: str = ""
    """The last observation."""
    reflection: str | None = None
    """What the model wrote after it."""


class _EnvironmentFailure(Exception):
    """The environment is gone; the message says why."""


class Player:
    """Plays episodes of one setup; `play` may be called from many threads."""

    def __init__(
        self,
        setup: Setup,
        source: TaskSource,
        agent: Agent,
        endpoint: Endpoint,
        environments: EnvironmentPool,
    ) -> None:
        self._setup, self.source = setup, source
        self._agent, self._endpoint = agent, endpoint
        self._environments = environments
        self._lock = threading.Lock()
        self._stopped = False

    def stop(self) -> None:
        """No request and no step any more: every `play` still going on raises Stopped."""
        self._endpoint.stop()
        with self._lock:
            self._stopped = True

    def play(self, number: int) -> Record:
        """Episode `number`: its task in order, past the end again with other seeds.

        Raises:
            UserError, Stopped: see `Endpoint.chat`.
        """
        lap, index = divmod(number, len(self.source))
        task, tally, trials = self.source[index], Tally(), [Trial()]
        failure, reflections = None, []
        try:
            self._try(task, number, lap, trials[-1], reflections, tally)
            while not trials[-1].success and len(trials) < self._setup.trials:
                reflections.append(self._reflect(task, number, trials, reflections, tally))
                trials[-1].reflection = reflections[-1]
                trials.append(Trial())
                self._try(task, number, lap, trials[-1], reflections, tally)
        except (EndpointError, _EnvironmentFailure) as error:
            failure = str(error)
        finally:
            self._close(number)
        return {
            "number": number,
            "task": task.id,
            "kind": task.kind,
            "success": trials[-1].success and failure is None,
            "failure": failure,
            "tokens": asdict(tally.tokens),
            "answers": asdict(tally.answers),
            "left_out": sorted(tally.left_out),
            "trials": [asdict(trial) for trial in trials],
        }

    def _try(
        self,
        task: Task,
        number: int,
        lap: int,
        trial: Trial,
        reflections: Sequence[str],
        tally: Tally,
    ) -> None:
        """One attempt from the start, written into `trial` as it goes."""
        observation = self._open(number, task, lap)
        past: list[Turn] = []
        for _ in range(self._setup.max_turns):
            messages = self._agent.messages(task, past, observation, reflections)
            reply = self._ask(messages, tally, number, len(reflections), len(past))
            response = self._agent.response(reply)
            parsed = self._agent.parse(response)
            result = self._step(number, parsed.command)
            accepted = result.valid or self._setup.validity == "format"
            past.append(Turn(observation.text, response, parsed.command))
            trial.turns.append(
                {
                    **asdict(past[-1]),
                    "reward": result.reward,
                    "valid": parsed.well_formed and accepted,
                    "cut": reply.cut,
                }
            )
            observation, trial.end = result.observation, result.observation.text
            trial.success, trial.terminated = bool(result.success), result.terminated
            trial.score = result.score
            if result.terminated or result.truncated:
                return

    def _reflect(
        self,
        task: Task,
        number: int,
        trials: Sequence[Trial],
        reflections: Sequence[str],
        tally: Tally,
    ) -> str:
        last = trials[-1]
        past = [Turn(t["observation"], t["response"], t["command"]) for t in last.turns]
        messages = reflection_messages(task, past, last.end, reflections)
        reply = self._ask(messages, tally, number, len(reflections), self._setup.max_turns)
        return reflection_text(reply)

    def _ask(self, messages: Sequence[Message], tally: Tally, *place: int) -> Reply:
        reply = self._endpoint.chat(messages, _seed(self._setup.seed, *place))
        tally.add(reply)
        return reply

    def _open(self, slot: int, task: Task, seed: int) -> Observation:
        return self._use(lambda: self._environments.open([(slot, task, seed)])[slot])

    def _step(self, slot: int, command: str) -> StepResult:
        return self._use(lambda: self._environments.step({slot: command})[slot])

    def _close(self, slot: int) -> None:
        with self._lock:
            if not self._stopped:
                self._environments.close_slots([slot])

    def _use(self, action: Callable[[], T | Failure]) -> T:
        with self._lock:
            if self._stopped:
                raise Stopped
            answer = action()
        if isinstance(answer, Failure):
            raise _EnvironmentFailure(f"environment: {answer.reason}")
        return answer


def play_all(
    player: Player,
    journal: Journal | None,
    *,
    episodes: int,
    concurrency: int,
    on_episode: Callable[[int, Record], None] = lambda num_done, record: None,
) -> list[Record]:
    """Play the episodes that the journal does not hold, and those that failed in it, again.

    The first UserError stops everything, as does Ctrl-C; what is finished stays in the journal.

    Returns:
        Every record of the `chosen` episodes, by number, an episode's failed ones before its last:
        all of them were paid for.
    """
    numbers = chosen(player.source, episodes)
    wanted = set(numbers)
    records = [r for r in journal.records if r["number"] in wanted] if journal else []
    done = {r["number"] for r in records if r["failure"] is None}
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in numbers:
        if number not in done:
            todo.put(number)
    finished: queue.SimpleQueue[Record | BaseException] = queue.SimpleQueue()

    def work() -> None:
        while True:
            try:
                finished.put(player.play(todo.get_nowait()))
            except queue.Empty:
                return
            except Stopped:
                return
            except BaseException as error:  # of whatever kind, it is raised in the main thread
                finished.put(error)
                return

    # Daemons: nobody waits for a model's answer after Ctrl-C.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(concurrency)]
    try:
        for thread in threads:
            thread.start()
        for num_done in range(len(done) + 1, episodes + 1):
            record = finished.get()
            if isinstance(record, BaseException):
                raise record
            if journal:
                journal.append(record)
            records.append(record)
            on_episode(num_done, record)
    finally:
        player.stop()
    return sorted(records, key=lambda r: r["number"])


def _seed(*place: int) -> int:
    """A sampling seed of its own for each request: 31 bits of (seed, episode, trial, turn)."""
    digest = hashlib.sha256(json.dumps(place).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
