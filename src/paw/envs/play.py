"""A person plays an environment in the terminal."""

import builtins
from collections.abc import Callable

from paw.envs.base import Environment, Observation, StepResult, TaskSource
from paw.errors import UserError

HELP = "Type a command; ? lists what is admissible now, :q leaves."


def play(
    source: TaskSource,
    task_index: int = 0,
    seed: int = 0,
    input: Callable[[str], str] = builtins.input,
    output: Callable[[str], object] = print,
) -> StepResult | None:
    """Play one episode, reading commands from `input(prompt)` and showing lines by `output`.

    Returns:
        What the last command of the episode did; None when the player left before its end, by
        `:q`, end of file or Ctrl-C.

    Raises:
        UserError: the source has no task `task_index`.
    """
    try:
        task = source[task_index]
    except IndexError as error:
        raise UserError(str(error)) from error
    env = source.open(task, seed=seed)
    try:
        output(f"{source.name} {source.split}, task {task_index}: {task.id} ({task.kind})")
        output(f"Task: {task.instruction}")
        output(f"{HELP}\n")
        return _episode(env, input, output)
    finally:
        env.close()


def _episode(
    env: Environment, input: Callable[[str], str], output: Callable[[str], object]
) -> StepResult | None:
    observation = env.reset()
    output(observation.text)
    return_ = 0.0
    turns = 0
    while True:
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
            end = "Success" if result.success else "Given up" if result.truncated else "Failure"
            score = f", score {result.info['score']:g}" if "score" in result.info else ""
            output(f"{end} after {_count(turns)}: return {return_:g} of {env.max_return:g}{score}.")
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
            case ":q":
                return None
            case "?":
                listed = "\n".join(f"  {command}" for command in observation.commands)
                output(listed or "  (this environment lists no commands)")
            case "":
                output(HELP)
            case _:
                return line


def _count(turns: int) -> str:
    return "1 command" if turns == 1 else f"{turns} commands"
