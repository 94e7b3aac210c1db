"""Names of run directories: no two arms of a comparison share one."""

from pathlib import Path

import pytest

from paw.config.read import resolve
from paw.runs.layout import read_card, run_directory


def named(*flags: str) -> str:
    """The default directory of `paw train` from the shipped policy."""
    folder = run_directory(resolve([], flags, read_card("household")))
    assert folder.parent == Path("runs")
    return folder.name


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ([], "household-grpo-paw-seed0"),
        (["--run.seed=3"], "household-grpo-paw-seed3"),
        (["--paw.enabled=false"], "household-grpo-seed0"),
        (["--paw.enabled=false", "--optimizer.epochs=2"], "household-grpo-epochs_2-seed0"),
        (["--paw.coefficient=0"], "household-grpo-seed0"),
        (["--algorithm.name=ppo"], "household-ppo-paw-seed0"),
        (["--paw.loss=ce"], "household-grpo-paw-ce-seed0"),
        (["--paw.target=shuffled"], "household-grpo-paw-shuffled-seed0"),
        (["--paw.target=random"], "household-grpo-paw-random-seed0"),
        (["--paw.target=vocabulary"], "household-grpo-paw-vocabulary-seed0"),
        (["--paw.random_sign=true"], "household-grpo-paw-random_sign-seed0"),
        (["--paw.normalise=token"], "household-grpo-paw-normalise_token-seed0"),
        (["--paw.horizon=3"], "household-grpo-paw-horizon_3-seed0"),
        (["--paw.dedup=true"], "household-grpo-paw-dedup-seed0"),
        (["--paw.select=random"], "household-grpo-paw-select_random-seed0"),
        (["--paw.condition=no_action"], "household-grpo-paw-no_action-seed0"),
        (["--paw.weight=constant"], "household-grpo-paw-constant-seed0"),
        (["--paw.loss=ce", "--paw.schedule=alternate"], "household-grpo-paw-ce-alternate-seed0"),
        (["--rollout.context=window"], "household-grpo-paw-window-seed0"),
        (["--paw.loss=ce", "--paw.enabled=false"], "household-grpo-seed0"),
    ],
)
def test_default_directory(flags: list[str], name: str):
    assert named(*flags) == name


def test_the_usual_context_is_the_cards_or_the_default():
    """A model without a card is asked in a window, unless told otherwise."""
    model = ["--model.path", "some/model", "--env.name", "mine:Shop"]
    assert run_directory(resolve([], model)).name == "mine.Shop-grpo-paw-seed0"
    append = resolve([], [*model, "--rollout.context=append"])
    assert run_directory(append).name == "mine.Shop-grpo-paw-append-seed0"
    assert run_directory(resolve([], ["--run.directory=x"])) == Path("x")
