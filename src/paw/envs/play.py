"""A person plays an environment in the terminal."""

import builtins
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from paw.envs.base import Environment, Observation, StepResult, TaskSource
from paw.envs.probe import SLOT
from paw.errors import UserError

HELP = "Type a command; ? lists what is admissible now, quit (or :q) leaves and costs no turn."
SEND_QUIT = "!quit"
"""Sends `quit` to an environment that has such a command."""


def play(
    source: TaskSource,
    task_index: int = 0,
    seed: int = 0,
    input: Callable[[str], str] = builtins.input,
    output: Callable[[str], object] = print,
) -> StepResult | None:
    """Play one episode, reading commands from `input(prompt)` and showing lines by `output`.

    In a terminal the built-in `input` has a history and completes admissible commands with Tab.

    Returns:
        What the last command of the episode did; None when the player left before its end, by
        `quit`, end of file or Ctrl-C.

    Raises:
        UserError: the source has no task `task_index`.
    """
    for line in heading(source, task_index):
        output(line)
    output(f"{HELP}\n")
    env = source.open(source[task_index], seed=seed)
    admissible: list[str] = []
    with ExitStack() as stack:
        stack.callback(env.close)
        if input is builtins.input and sys.stdin.isatty():
            stack.enter_context(completing(admissible))
        return _episode(env, input, output, admissible)


def heading(source: TaskSource, task_index: int) -> list[str]:
    """Which task it is, in two lines. Raises UserError where there is none."""
    try:
        task = source[task_index]
    except IndexError as error:
        raise UserError(str(error)) from error
    return [
        f"{source.name} {source.split}, task {task_index}: {task.id} ({task.kind})",
        f"Task: {task.instruction}",
    ]


def outcome(result: StepResult, turns: int, return_: float, max_return: float) -> str:
    """How an episode ended, in a line."""
    end = "Success" if result.success else "Given up" if result.truncated else "Failure"
    found = result.info.get("score")
    shown = f"{found:g}" if isinstance(found, float | int) else f"{found!r:.50}"
    score = "" if found is None else f", score {shown}"
    return f"{end} after {_count(turns)}: return {return_:g} of {max_return:g}{score}."


def wrap(text: str, width: int) -> str:
    """Break lines longer than `width` between words; shorter ones (tables, lists) stay as they are.

    What follows of a line stands below its own first word.
    """
    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        broken = textwrap.wrap(
            line,
            width,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines += [line] if len(line) <= width else broken
    return "\n".join(lines)


def completions(text: str, commands: Sequence[str]) -> list[str]:
    """Commands that begin with `text`, up to their first slot: `search[` for `search[<query>]`."""
    begun = dict.fromkeys(_fixed_part(command) for command in commands)
    return [command for command in begun if command.startswith(text)]


@contextmanager
def completing(commands: Sequence[str]) -> Iterator[None]:
    """Tab completes a line to one of `commands`, as they are then; nothing without readline."""
    try:
        import readline
    except ImportError:  # Windows
        yield
        return

    def complete(text: str, state: int) -> str | None:
        return (completions(text, commands)[state:] or [None])[0]

    before = readline.get_completer(), readline.get_completer_delims()
    readline.set_completer(complete)
    readline.set_completer_delims("")  # the whole line is one command
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
    try:
        yield
    finally:
        readline.set_completer(before[0])
        readline.set_completer_delims(before[1])


def _episode(
    env: Environment,
    input: Callable[[str], str],
    output: Callable[[str], object],
    admissible: list[str],
) -> StepResult | None:
    observation = env.reset()
    output(observation.text)
    return_ = 0.0
    turns = 0
    while True:
        admissible[:] = observation.commands
        command = _ask(observation, input, output)
        if command is None:
            output(f"Left after {_count(turns)}; the return so far is {return_:g}.")
            return None
        result = env.step(command)
        turns += 1
        return_ += result.reward
        observation = result.observation
        if observation.text:
            output(observation.text)
        if not result.valid:
            output("(not a valid command)")
        if result.reward:
            output(f"(reward {result.reward:+g})")
        if result.terminated or result.truncated:
            output(outcome(result, turns, return_, env.max_return))
            return result


def _ask(
    observation: Observation, input: Callable[[str], str], output: Callable[[str], object]
) -> str | None:
    """The next command for the environment; None to leave."""
    while True:
        try:
            line = input("> ")
        except (EOFError, KeyboardInterrupt):
            output("")
            return None
        match line.strip():
            case "quit" | ":q":
                return None
            case "?":
                listed = "\n".join(f"  {command}" for command in observation.commands)
                output(listed or "  (this environment lists no commands)")
            case "":
                output(HELP)
            case _:
                return "quit" if line.strip() == SEND_QUIT else line


def _fixed_part(command: str) -> str:
    for slot in SLOT.finditer(command):
        if f"</{slot[1]}>" not in command:  # markup stays
            return command[: slot.start()]
    return command


def _count(turns: int) -> str:
    return "1 command" if turns == 1 else f"{turns} commands"
