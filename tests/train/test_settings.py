"""Layers, suggestions, types, ranges, and the way back to TOML."""

import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paw.config import read as settings
from paw.config.ranges import AT_MOST, NOT_NEGATIVE, POSITIVE, SHARES
from paw.config.read import (
    TABLES,
    changes,
    check_options,
    convert,
    describe,
    parse_flags,
    resolve,
    to_toml,
)
from paw.config.tree import Config, EnvConfig
from paw.envs import factory
from paw.errors import UserError
from paw.runs.layout import read_card


def complaint(*flags: str) -> str:
    with pytest.raises(UserError) as caught:
        resolve([], flags)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_no_layer_gives_the_defaults():
    assert resolve([]) == Config()


def test_the_home_directory_has_a_short_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/ada")
    keys = ("run.directory", "paw.match", "imitate.output", "imitate.trajectories")
    config = resolve([], [f"--{key}=~/{key}" for key in keys])
    assert config.run.directory == "/home/ada/run.directory"
    assert config.paw.match == "/home/ada/paw.match"
    assert config.imitate.output == "/home/ada/imitate.output"
    assert config.imitate.trajectories == "/home/ada/imitate.trajectories"
    assert resolve([], ["--run.directory=a~b"]).run.directory == "a~b"


def test_layers_overlay_from_left_to_right(tmp_path: Path):
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text("[run]\nupdates = 2\nseed = 2\n[rollout]\ngroups = 2\n")
    second.write_text("[run]\nseed = 3\n")
    card = {"run": {"updates": 1, "seed": 1}, "rollout": {"group_size": 1, "groups": 1}}
    config = resolve([first, second], ["--run.threads", "4"], card)
    assert (config.run.updates, config.run.seed, config.run.threads) == (2, 3, 4)
    assert (config.rollout.groups, config.rollout.group_size) == (2, 1)


def test_a_card_speaks_of_its_own_environment_only():
    card = {"env": {"name": "search_qa", "top_k": 1}, "rollout": {"max_turns": 3}}
    card["eval"] = {"split": "eval_nq", "episodes": 5}
    assert resolve([], [], card).eval.split == "eval_nq"
    elsewhere = resolve([], ["--env.name", "alfworld"], card).eval
    assert (elsewhere.split, elsewhere.episodes) == (None, 5)
    assert resolve([], [], card).env.options == {"top_k": 1}
    assert resolve([], ["--env.name", "search_qa"], card).env.options == {"top_k": 1}
    other = resolve([], ["--env.name", "household"], card)
    assert (other.env.name, other.env.options, other.rollout.max_turns) == ("household", {}, 3)


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        (["--run.directory", "7"], "7"),
        (["--run.directory=a=b"], "a=b"),
        (["--run.directory", "-x"], "-x"),
        (["--optimizer.learning-rate", "1e-4"], 1e-4),
        (["--optimizer.learning_rate", "1"], 1.0),
        (["--paw.enabled", "false"], False),
        (["--run.track", '["wandb"]'], ("wandb",)),
        (["--env.name", "alfworld"], "alfworld"),
        (["--algorithm.name=ppo"], "ppo"),
    ],
)
def test_flags(flags: list[str], value: object):
    table, _, key = flags[0][2:].partition("=")[0].replace("-", "_").partition(".")
    assert getattr(getattr(resolve([], flags), table), key) == value


def test_further_keys_of_env_are_the_environments_own(tmp_path: Path):
    file = tmp_path / "c.toml"
    file.write_text('[env]\nname = "household"\nlevel = 2\n[env.options]\nnum_tasks = 5\n')
    env = resolve([file], ["--env.kinds", '["look_at_obj_in_light"]']).env
    expected = {"level": 2, "num_tasks": 5, "kinds": ["look_at_obj_in_light"]}
    assert env == EnvConfig(options=expected)


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--rolout.groups", "2"], ["rolout: no such table", "did you mean 'rollout'?"]),
        (["--rollout.group", "2"], ["rollout.group: no such key", "did you mean 'group"]),
        (["--rollout.groups"], ["--rollout.groups needs a value"]),
        (["--rollout.groups", "--run.seed", "1"], ["--rollout.groups needs a value"]),
        (["--updates", "2"], ["unexpected argument '--updates'", "--run.updates"]),
        (["--rollout.groups", "two"], ['rollout.groups = "two"', "must be a whole number"]),
        (["--rollout.groups", "2.5"], ["rollout.groups = 2.5", "must be a whole number"]),
        (["--paw.enabled", "maybe"], ['paw.enabled = "maybe"', "must be true or false"]),
        (["--optimizer.learning_rate", "x"], ["must be a number"]),
        (
            ["--algorithm.name", "grop"],
            ["must be one of grpo, rloo, gigpo, ppo", "did you mean 'grpo'?"],
        ),
        (["--run.track", "wandb"], ["must be a list", "tensorboard, wandb, trackio"]),
        (["--optimizer.betas", "[0.9]"], ["optimizer.betas", "a list of 2, each a number"]),
        (["--optimizer.betas", "[0.9, 1.0]"], ["optimizer.betas", "[0, 1)"]),
        (["--env.options", "3"], ["env.options", "table"]),
        (["--eval.max_turns", "x"], ["eval.max_turns", "must be a whole number"]),
        (["--optimizer.learning_rate", "nan"], ["learning_rate", "finite"]),
        (["--optimizer.learning_rate", "inf"], ["learning_rate", "finite"]),
        (["--run.seed", "-1"], ["run.seed", "between 0 and 2147483647"]),
        (["--rollout.temperature", "0"], ["training needs sampling"]),
        (["--optimizer.mini_batches", "129"], ["more than the 128 trajectories"]),
        (["--paw.weight", "matched_constant"], ["needs paw.match"]),
        (["--paw.schedule", "alternate", "--paw.alternate_every", "1"], ["use 2 or more"]),
        (["--imitate.num_heads", "3"], ["imitate.num_heads = 3", "divide"]),
        (["--run.directory", "a\nb"], ["run.directory", "not readable"]),
        (["--optimizer.learning_rate", "1e-400"], ["learning_rate", "1e-400", "would be 0"]),
        (["--rollout.step_seconds", "1e300"], ["step_seconds", "at most 1,000,000"]),
    ],
)
def test_mistakes_in_flags(flags: list[str], parts: list[str]):
    message = complaint(*flags)
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[rollout]\ngruops = 2", ["rollout.gruops: no such key", "did you mean 'groups'?"]),
        ("[rolout]\ngroups = 2", ["rolout: no such table", "'rollout'"]),
        ("seed = 2", ["seed: no such table"]),
        ("rollout = 2", ["rollout must be a table: write [rollout]"]),
        ("[rollout]\ngroups = two", ["not valid TOML", "line 2"]),
        ('[rollout]\ngroups = "2"', ['rollout.groups = "2"', "whole number"]),
        ("[rollout]\ngroups = 0", ["rollout.groups = 0", "greater than 0"]),
        ("[algorithm]\nname = 3", ["algorithm.name = 3", "one of grpo"]),
        ("[imitate]\nexpert = 3", ["imitate.expert", "table"]),
        ('[run]\ndirectory = "a\\u0000b"', ["run.directory", "not readable text"]),
        ('[env]\ndata = "a\\u0000b"', ["env.data", "not readable text"]),
        ("[optimizer]\nlearning_rate = 2e-999", ["2e-999 is too small"]),
    ],
)
def test_mistakes_in_files_name_the_file(tmp_path: Path, text: str, parts: list[str]):
    good, file = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text("[run]\nupdates = 3\n")
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        resolve([good, file])
    assert str(caught.value).startswith(f"{file}: ")
    assert [part for part in parts if part not in str(caught.value)] == []


def test_unreadable_files(tmp_path: Path):
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for file, part in (
        (tmp_path / "none.toml", "no such configuration file"),
        (tmp_path, "directory"),
        (binary, "utf-8"),
    ):
        with pytest.raises(UserError, match=part) as caught:
            resolve([file])
        assert str(file) in str(caught.value)


def test_files_may_begin_with_a_byte_order_mark(tmp_path: Path):
    file = tmp_path / "windows.toml"
    file.write_bytes(b"\xef\xbb\xbf[run]\r\nupdates = 3\r\n")
    assert resolve([file]).run.updates == 3
    file.write_text("[optimizer]\nlearning_rate = 0.0e5\n")
    assert resolve([file]).optimizer.learning_rate == 0


@pytest.mark.parametrize("key", AT_MOST)
def test_absurd_sizes_are_refused(key: str):
    most = AT_MOST[key]
    shown = "1e+30" if "learning_rate" in key else f"{most:,}"
    assert complaint(f"--{key}", str(2 * most)).endswith(f"must be at most {shown}")
    if "_heads" not in key:  # which depend on one another
        resolve([], [f"--{key}", str(most)])


@pytest.mark.parametrize(
    ("keys", "value"), [(POSITIVE, 0), (NOT_NEGATIVE, -1), (SHARES, 2), (SHARES, -1)]
)
def test_every_range_is_held(keys: tuple[str, ...], value: int):
    for key in keys:
        assert complaint(f"--{key}", str(value)).startswith(f"--{key} = {value}"), key


def test_the_lists_of_ranges_name_keys_that_exist():
    known = {f"{table}.{f.name}" for table, kind in TABLES.items() for f in fields(kind)}
    assert {*POSITIVE, *NOT_NEGATIVE, *SHARES, *AT_MOST} <= known


def test_types_of_environment_options():
    household = factory("household")
    good = {"level": 2, "kinds": ["look_at_obj_in_light"], "num_tasks": None}
    check_options(household, Config(env=EnvConfig(options=good)))
    for key, value in (("level", "two"), ("level", 1.5), ("num_tasks", "many")):
        with pytest.raises(UserError, match=rf"env\.{key} = .*: must be a whole number"):
            check_options(household, Config(env=EnvConfig(options={key: value})))


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
options = st.dictionaries(
    st.text(min_size=1).filter(lambda k: k not in ("name", "split", "data_dir", "options")),
    st.one_of(
        TEXT,
        st.integers(-(2**63), 2**63 - 1),
        st.booleans(),
        st.floats(allow_nan=False),
        st.lists(st.integers(0, 9)),
    ),
)


@given(
    TEXT,
    st.floats(0, 1000, exclude_min=True),
    options,
    st.dictionaries(TEXT, st.integers(0, 9)),
)
def test_toml_round_trip(name: str, rate: float, env_options: dict, expert: dict):
    env_options = {k: v for k, v in env_options.items() if k.isprintable()}
    config = Config()
    config = replace(
        config,
        env=replace(config.env, name=name, options=env_options),
        optimizer=replace(config.optimizer, learning_rate=rate),
        run=replace(config.run, track=("wandb", "trackio")),
        imitate=replace(config.imitate, expert=expert, phrases=("a b", 'c"d')),
    )
    assert convert(tomllib.loads(to_toml(config))) == config


def test_changes_name_key_and_values():
    old = Config()
    new = replace(
        old,
        run=replace(old.run, updates=3),
        rollout=replace(old.rollout, groups=3),
        env=replace(old.env, options={"level": 2}),
        eval=replace(old.eval, split="test"),
    )
    assert sorted(changes(old, new, ["run.updates"])) == [
        "env.level: None -> 2",
        'eval.split: None -> "test"',
        "rollout.groups: 16 -> 3",
    ]
    assert changes(new, new, []) == []


def test_describe_lists_every_key_with_a_meaning():
    text = describe()
    for kind in TABLES.values():
        for field in fields(kind):
            assert f"\n  {field.name}" in text
            assert settings._field_docs(kind).get(field.name), f"{kind.__name__}.{field.name}"
    assert "[rollout]" not in describe(["run"])
    card = resolve([], [], read_card("household"))
    rate = f"{card.optimizer.learning_rate:.0e}".replace("e-0", "e-")
    assert text.endswith(f"for {card.run.updates} updates at a learning rate of {rate}.")
    with pytest.raises(UserError, match="did you mean 'rollout'"):
        describe(["rolout"])


def test_flag_tables_are_plain_toml_values():
    assert parse_flags(["--env.level", "2", "--env.goals", "human"]) == {
        "env": {"level": 2, "goals": "human"}
    }


@pytest.mark.parametrize(
    ("flags", "coefficient"),
    [
        ([], 1.0),
        (["--paw.loss", "mae"], 1.0),
        (["--paw.loss", "ce"], 0.03),
        (["--paw.loss", "ce", "--paw.coefficient", "0.2"], 0.2),
        (["--paw.loss", "ce", "--paw.coefficient", "0"], 0.0),
    ],
)
def test_each_loss_has_a_coefficient_of_its_own(flags, coefficient):
    config = resolve([], flags)
    assert config.paw.coefficient == coefficient
    assert f"coefficient = {coefficient}" in to_toml(config)
