"""Models that are asked about one trajectory file: what each is asked, before any is loaded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from paw import envs
from paw.config.tree import Config
from paw.errors import UserError
from paw.evals.answers import Answer, read_answers
from paw.evals.predictions import CONDITIONS, MAX_TOKENS, Asked, Predictions, ask, predict
from paw.model.load import read_shape
from paw.model.positions import check_length
from paw.rollout.actor import check_vocabulary, load_policy, make_serializer, unknown_ids
from paw.runs.format import TrajectoryRecord
from paw.runs.gguf import unpack
from paw.runs.layout import resolve_model, tokenizer_place
from paw.runs.threads import set_threads
from paw.style import Style
from paw.text.dialogue import Serializer
from paw.text.tokenizer import load_tokenizer

WHOLE = 2**31
"""`paw.max_observation_tokens` here: a cut text would be another one for each tokenizer."""
Key = tuple[int, int]
"""(episode, turn)"""


@dataclass(frozen=True, slots=True)
class Model:
    """A model to ask, and how."""

    name: str
    """As the user named it"""
    path: str
    config: Config
    """Of its card, files and flags"""
    serializer: Serializer


def open_model(name: str, config: Config) -> Model:
    """Its tokenizer and prompts; no weights are read.

    Raises:
        UserError: no such model, or a chat template that cannot be used.
    """
    path = unpack(resolve_model(config.model.path))
    config = replace(config, paw=replace(config.paw, max_observation_tokens=WHOLE))
    tokenizer = load_tokenizer(tokenizer_place(config.model.adapter, path))
    return Model(name, path, config, make_serializer(config, tokenizer))


@dataclass(frozen=True, slots=True)
class Questions:
    """What every one of the models is asked: the same texts."""

    records: Sequence[TrajectoryRecord]
    answers: Sequence[Answer]
    """Those that all models can be asked about"""
    num_left_out: Mapping[str, int]
    """By model: answers beyond its `rollout.max_prompt_tokens`, which no model is then asked"""
    num_cut: Mapping[str, int]
    """By model: answers whose prompt it cuts"""
    style: Style
    conditions: Sequence[str] = field(default=CONDITIONS)


def open_questions(
    models: Sequence[Model],
    records: Sequence[TrajectoryRecord],
    env: str,
    *,
    seed: int,
    conditions: Sequence[str] = CONDITIONS,
) -> Questions:
    """Read the answers, and hold their rows against the models' lengths.

    Args:
        models: to be asked.
        records: of the file.
        env: the environment that they are of.
        seed: of the draws of other commands.
        conditions: that will be asked.

    Raises:
        UserError: nothing to predict; nothing that all models have room for; a row that a model
            cannot read.
    """
    style = envs.style(env)
    answers = read_answers(records, style, seed)
    kept = {(a.episode, a.turn) for a in answers}
    left_out, cut = {}, {}
    for model in models:
        found: set[Key] = set()
        longest = num_cut = 0
        for asked in _all(model.serializer, records, answers, conditions):
            found.add((asked.answer.episode, asked.answer.turn))
            longest = max(longest, asked.longest)
            num_cut += asked.prompt_cut
        shape = read_shape(model.path)
        if shape is not None:
            check_length(shape.positions, longest, f"{model.name}: the longest row")
        left_out[model.name], cut[model.name] = len(answers) - len(found), num_cut
        kept &= found
    if not kept:
        raise UserError(
            "no answer that all models have room for: raise rollout.max_prompt_tokens (now "
            + ", ".join(f"{m.name}: {m.config.rollout.max_prompt_tokens}" for m in models)
            + ")"
        )
    asked_of_all = [a for a in answers if (a.episode, a.turn) in kept]
    return Questions(records, asked_of_all, left_out, cut, style, conditions)


def answer(
    model: Model, questions: Questions, progress: Callable[[int], None] = lambda done: None
) -> Predictions:
    """Load a model and ask it everything."""
    config, serializer = model.config, model.serializer
    policy = load_policy(config, model.path, lora=False)
    check_vocabulary(policy, serializer.tokenizer, model.name)
    rows = policy.head.embedding.weight.shape[0]
    policy.head.forget(unknown_ids(serializer.tokenizer, rows))
    set_threads(config.run.threads, policy.num_parameters)
    return predict(
        policy,
        _all(serializer, questions.records, questions.answers, questions.conditions),
        num_classes=len(questions.style.wording.classes),
        max_tokens=config.optimizer.tokens_per_micro_batch or MAX_TOKENS,
        progress=progress,
    )


def _all(
    serializer: Serializer,
    records: Sequence[TrajectoryRecord],
    answers: Sequence[Answer],
    conditions: Sequence[str],
) -> Iterator[Asked]:
    by_episode: dict[int, dict[int, Answer]] = {}
    for one in answers:
        by_episode.setdefault(one.episode, {})[one.turn] = one
    for episode, of_episode in by_episode.items():
        yield from ask(serializer, records[episode], of_episode, conditions)
