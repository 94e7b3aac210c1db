"""WebShop as a task source: splits, tasks, episodes."""

import functools
import hashlib
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from paw.envs.base import Observation, StepResult, TaskSource, digest
from paw.envs.webshop.catalog import Catalog, open_catalog
from paw.envs.webshop.expert import WebShopExpert
from paw.envs.webshop.goals import (
    DEV,
    SHUFFLE_SEED,
    TEST,
    Goals,
    HumanGoals,
    SyntheticGoals,
)
from paw.envs.webshop.reward import rule_nouns, spacy_nouns
from paw.envs.webshop.scene import scenes
from paw.envs.webshop.session import Session, Shop
from paw.envs.webshop.wording import WORDING
from paw.errors import UserError, nearest
from paw.style import Style
from paw.types import Task

MAX_RETURN = 10.0
SPLITS = ("train", "dev", "test", "all")
FACTS_GOALS = 500
"""Goals of a split whose instructions are hashed for `facts`: all of the official test split."""


class WebShopEnvironment:
    """One episode: search, look, choose, buy."""

    max_return = MAX_RETURN

    def __init__(self, session: Session, rich: bool) -> None:
        self._session: Session | None = session
        self._rich = rich
        self._started = self._ended = False

    def reset(self) -> Observation:
        """The page with the search bar."""
        if self._started or self._session is None:
            raise RuntimeError("an environment is single-use: open a new one")
        self._started = True
        return self._observe(self._session)

    def step(self, command: str) -> StepResult:
        """Search or click.

        `info["score"]` is the official score, 0 until something is bought; with the purchase come
        `asin`, `options` and the `terms` of the score. Reward is 10 for a score of 1, else 0.
        """
        session = self._session
        if session is None or not self._started or self._ended:
            raise RuntimeError("step needs an environment that was reset and has not ended")
        score, bought, accepted = session.act(command)
        self._ended = bought
        info: dict[str, Any] = {"score": score}
        if bought and session.bought is not None and session.number is not None:
            info["terms"] = session.bought[1]
            info["asin"] = session.shop.catalog.product(session.number).asin
            info["options"] = dict(session.options)
        success = score == 1.0
        return StepResult(
            observation=self._observe(session),
            reward=MAX_RETURN if success else 0.0,
            terminated=bought,
            valid=accepted,
            success=success if bought else None,
            info=info,
        )

    def close(self) -> None:
        """Let go of the session."""
        self._session = None

    def _observe(self, session: Session) -> Observation:
        return Observation(session.text_rich if self._rich else session.text, session.commands)


def _choice(option: str, value: Any, known: Iterable[str]) -> None:
    known = list(known)
    if value not in known:
        hint = nearest(str(value), known)
        raise UserError(f"env.{option}: WebShop has no {option} {value!r}{hint}")


class WebShop(TaskSource):
    """The goals of one split.

    Args:
        split: `test` (goals 0-499), `dev` (500-1499), `train` (the rest) or `all`.
        data_dir: folder of the official files, plain, .gz or .zst; default $WEBSHOP_DATA.
        products: `1000`, `full`, or `auto` for the first of them that `data_dir` holds.
        goals: `synthetic` or `human` instructions.
        observation: `text` (pieces joined by [SEP]) or `text_rich` (lines, buttons marked).
        seed: of sampled prices and price limits; the original's are unseeded.
        shuffle_seed: of the order of the goals and so of the splits; official: 233.
        show_attributes: product pages have an Attributes tab.
        matching: of options in the score, `official` or `repaired` (a value matches itself).
        tagger: of title nouns in the score, `rule` or the original's `spacy` model.
        product_split: divide products instead of goals: 10 % test, 10 % dev, 80 % train.
        cache_dir: where the full set's index is kept; default ~/.cache/paw/webshop.

    Raises:
        UserError: an unknown option value, a missing or damaged file, an empty split.
    """

    name = "webshop"
    max_return = MAX_RETURN
    style = Style(
        introduction=(
            "You are an agent in an online shop (WebShop). Find and buy what is asked for."
        ),
        validation_split="dev",
        protocol={"rollout": {"max_turns": 15, "max_prompt_tokens": 4096}},
        wording=WORDING,
        scenes=scenes,
    )

    def __init__(
        self,
        split: str = "train",
        data_dir: str | os.PathLike[str] | None = None,
        products: str = "auto",
        goals: str = "synthetic",
        observation: str = "text",
        seed: int = 233,
        shuffle_seed: int = SHUFFLE_SEED,
        show_attributes: bool = False,
        matching: str = "official",
        tagger: str = "rule",
        product_split: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        _choice("split", split, SPLITS)
        _choice("products", products, ("auto", "1000", "full"))
        _choice("goals", goals, ("synthetic", "human"))
        _choice("observation", observation, ("text", "text_rich"))
        _choice("matching", matching, ("official", "repaired"))
        _choice("tagger", tagger, ("rule", "spacy"))
        for option, value in (("seed", seed), ("shuffle_seed", shuffle_seed)):
            if not isinstance(value, int):
                raise UserError(f"env.{option} must be an integer, not {value!r}")
        data_dir = data_dir or os.environ.get("WEBSHOP_DATA")
        if not data_dir:
            raise UserError(
                "webshop needs env.data_dir (or $WEBSHOP_DATA): the folder with"
                " items_shuffle_1000.json and items_ins_v2_1000.json"
            )
        directory = Path(data_dir).expanduser().absolute()
        cache = Path(cache_dir).expanduser().absolute() if cache_dir else None
        catalog = open_catalog(directory, products, cache)
        self.split = split
        self._kind_of_goals, self._rich = goals, observation == "text_rich"
        order = "" if shuffle_seed == SHUFFLE_SEED else f"shuffle{shuffle_seed}-"
        self._prefix = f"{goals}-{seed}-{order}"
        nouns = spacy_nouns() if tagger == "spacy" else rule_nouns
        self._shop = Shop(catalog, show_attributes, matching, nouns)
        self._goals = _goals(catalog, goals, seed, shuffle_seed)
        self._numbers = _members(self._goals, split, shuffle_seed, product_split)
        if not len(self._goals):
            raise UserError(
                f"env.goals: the products in {directory} have no {goals} goal, in any split; fetch"
                " a product file and an instruction file of one set (`paw data webshop --check"
                f" {directory}` counts both)"
            )
        if not len(self._numbers):
            raise UserError(
                f"env.split: {split!r} is empty, for these products have"
                f" {len(self._goals)} {goals} goals in all; choose 'all' or the full product set"
            )

    def __reduce__(self) -> Any:
        return functools.partial(type(self), **self._arguments), ()

    def __len__(self) -> int:
        return len(self._numbers)

    def facts(self) -> dict[str, Any]:
        """Catalogue, goals, how they were split, and the options that a score depends on."""
        options, catalog = self._arguments, self._shop.catalog
        shown = ["goals", "seed", "shuffle_seed", "observation"]
        shown += ["show_attributes", "matching", "tagger"]
        return super().facts() | {
            "num_products": len(catalog),
            "catalog_sha256": _catalog_hash(catalog),
            "num_goals": len(self._goals),
            "tasks_sha256": digest(task.instruction for task in self[:FACTS_GOALS]),
            "split_by": "product" if options["product_split"] else "goal",
            **{name: options[name] for name in shown},
        }

    def task(self, index: int) -> Task:
        """Task number `index` of the split; its kind is the product's category."""
        goal = self._goals[int(self._numbers[index])]
        return Task(f"{self._prefix}{goal.index}", goal.category, goal.instruction)

    def _goal(self, task: Task):
        number = task.id.removeprefix(self._prefix)
        if not (task.id.startswith(self._prefix) and number.isdecimal()):
            raise ValueError(f"{task.id!r} is no task of these {self._kind_of_goals} goals")
        return self._goals[int(number)]

    def open(self, task: Task, seed: int = 0) -> WebShopEnvironment:
        """An episode of `task`; `seed` drives the random search `<r>` only."""
        goal = self._goal(task)
        session = Session(self._shop, goal, self._goals.prices, f"{seed} {task.id}")
        return WebShopEnvironment(session, self._rich)

    def expert(self, task: Task, seed: int = 0, **options: Any) -> WebShopExpert:
        """A player for one episode; options `kind`, `noise` and `junk` of `WebShopExpert`."""
        return WebShopExpert(task.instruction, self._goal(task), self._shop, seed, **options)


@functools.lru_cache(maxsize=8)
def _catalog_hash(catalog: Catalog) -> str:
    """Of every product's asin, record length, price range and option combinations: these take
    milliseconds where the records of the full set are gigabytes."""
    total = hashlib.sha256()
    for name in ("asins", "ends", "low", "high", "combinations"):
        total.update(catalog.columns[name].tobytes())
    return total.hexdigest()


@functools.lru_cache(maxsize=8)
def _goals(catalog: Any, kind: str, seed: int, shuffle_seed: int) -> Goals:
    return (SyntheticGoals if kind == "synthetic" else HumanGoals)(catalog, seed, shuffle_seed)


def _members(goals: Goals, split: str, shuffle_seed: int, by_product: bool) -> Any:
    """Numbers of the split's goals, ascending."""
    if split == "all":
        return range(len(goals))
    if not by_product:
        bounds = {"test": (0, TEST), "dev": (TEST, DEV), "train": (DEV, len(goals))}
        return range(len(goals))[slice(*bounds[split])]
    owners = goals.product_numbers()
    products = np.unique(owners).tolist()
    random.Random(shuffle_seed).shuffle(products)
    tenth = max(1, len(products) // 10)
    parts = {"test": products[:tenth], "dev": products[tenth : 2 * tenth]}
    parts["train"] = products[2 * tenth :]
    return np.flatnonzero(np.isin(owners, parts[split]))
