"""Layers, suggestions, types, ranges, and the way back to TOML."""

import tomllib
import typing
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paw.config.describe import describe, field_docs, origins
from paw.config.parse import parse_flags
from paw.config.presets import LORA, NEW_MODEL, PRESETS
from paw.config.read import (
    CHANGEABLE,
    IMITATION_CHANGEABLE,
    Resolved,
    changes,
    check_options,
    convert,
    ignored,
    overlay,
    resolve,
    to_toml,
)
from paw.config.tree import Config, EnvConfig, Only
from paw.config.words import TABLES, annotation, beside, keys_of, shown_range
from paw.envs import factory
from paw.errors import UserError
from paw.runs.layout import read_card

KEYS = [(table, key) for table in TABLES for key in keys_of(table)]


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


PROTOCOLS = {
    "webshop": {"rollout": {"max_turns": 15, "max_prompt_tokens": 4096}},
    "search_qa": {"rollout": {"max_turns": 4}, "eval": {"temperature": 0.0}},
}


def layered(*flags: str, card: dict | None = None, files: list[Path] | None = None) -> Resolved:
    return overlay(files or [], flags, card, lambda env: PROTOCOLS.get(env, {}))


def test_each_layer_wins_over_those_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Default < protocol < preset < card < file < flag: six keys, each said by one layer more."""
    monkeypatch.chdir(tmp_path)
    file = Path("c.toml")
    file.write_text("[rollout]\nmax_response_tokens = 9\ngroup_size = 9\n")
    said = {"max_prompt_tokens": 7, "max_response_tokens": 7, "group_size": 7}
    card = {"env": {"name": "webshop"}, "rollout": said}
    resolved = layered("--env.name=webshop", "--rollout.group_size=8", card=card, files=[file])
    rollout = resolved.config.rollout
    assert (rollout.groups, rollout.max_turns) == (16, 15)  # default, protocol
    assert (rollout.max_prompt_tokens, rollout.max_response_tokens) == (7, 9)  # card, file
    assert rollout.group_size == 8  # flag
    assert origins(resolved) == [
        "protocol of webshop: rollout.max_turns = 15",
        "card: rollout.max_prompt_tokens = 7",
        "c.toml: rollout.max_response_tokens = 9",
        'flags: env.name = "webshop"',  # group_size = 8 is the default
    ]


def test_origins_are_told_short_and_without_a_break_inside():
    phrases = [f"phrase {i}" for i in range(30)]
    flags = (f"--imitate.phrases={phrases}", "--env.level=2", "--imitate.from_scratch=true")
    preset, said = origins(layered(*flags, "--run.directory=a b" + "c" * 55))
    assert preset == (
        f'preset for {NEW_MODEL}: rollout.context = "append",\n    '
        'rollout.response_format = "command", optimizer.learning_rate = 0.0001,\n    '
        "imitate.learning_rate = 0.002"
    )
    lines = said.splitlines()
    assert lines[0] == f'flags: run.directory = "a b{"c" * 55}",'
    assert (
        lines[1] == "    env.level = 2, imitate.from_scratch = true, imitate.phrases = (30 values)"
    )


def test_a_bad_value_names_the_layer_that_said_it():
    with pytest.raises(UserError, match=r"^card: rollout.groups = 0: must be at least 1$"):
        layered(card={"rollout": {"groups": 0}})
    with pytest.raises(UserError, match=r"^protocol of x: rollout.turns: no such key"):
        overlay([], ["--env.name=x"], None, lambda env: {"rollout": {"turns": 1}})


@pytest.mark.parametrize(
    ("flags", "rl", "imitation"),
    [
        ([], 1e-6, 1e-5),
        (["--model.lora_rank=8"], 1e-5, 1e-4),
        (["--imitate.from_scratch=true"], 1e-4, 2e-3),
        (["--imitate.from_scratch=true", "--model.lora_rank=8"], 1e-4, 2e-3),
        (["--model.lora_rank=8", "--optimizer.learning_rate=3"], 3.0, 1e-4),
    ],
)
def test_learning_rates_by_what_is_trained(flags: list[str], rl: float, imitation: float):
    config = resolve([], flags)
    assert (config.optimizer.learning_rate, config.imitate.learning_rate) == (rl, imitation)
    assert f"learning_rate = {rl}" in to_toml(config)


def test_presets_are_keys_of_the_tree():
    for name in (LORA, NEW_MODEL):
        convert(PRESETS[name])


def test_learning_rates_of_a_card_are_of_what_it_trained():
    card = {"model": {"lora_rank": 8}, "optimizer": {"learning_rate": 0.5}}

    def rate(*flags: str) -> float:
        return layered(*flags, card=card).config.optimizer.learning_rate

    assert rate() == rate("--model.lora_rank=4") == 0.5
    assert rate("--model.lora_rank=0") == 1e-6  # all weights: the tree's own
    assert rate("--imitate.from_scratch=true") == 1e-4
    del card["model"]  # it does not say
    assert rate("--model.lora_rank=4") == 0.5


def test_a_card_speaks_of_its_own_environment_only():
    card = {
        "env": {"name": "search_qa", "top_k": 1},
        "rollout": {"max_turns": 3, "context": "append"},
        "eval": {"split": "eval_nq", "episodes": 5, "max_turns": 3, "temperature": 1.0},
        "run": {"updates": 7},
    }
    at_home = layered(card=card).config
    assert at_home.env == EnvConfig(name="search_qa", options={"top_k": 1})
    assert (at_home.rollout.max_turns, at_home.eval.split, at_home.run.updates) == (3, "eval_nq", 7)
    assert layered("--env.name", "search_qa", card=card).config == at_home

    shop = layered("--env.name", "webshop", card=card).config
    assert (shop.env, shop.run.updates) == (EnvConfig(name="webshop"), 150)
    assert (shop.eval.split, shop.eval.episodes, shop.eval.max_turns) == (None, 128, None)
    assert (shop.rollout.max_turns, shop.rollout.context) == (15, "append")  # protocol, card
    assert shop.eval.temperature == 1.0
    # An environment without a protocol: the card's turns are better than none.
    assert layered("--env.name", "x", card=card).config.rollout.max_turns == 3
    # A new model for another environment has nothing to do with the card.
    new = layered("--env.name", "webshop", "--imitate.from_scratch=true", card=card)
    assert new.config.eval.temperature == 0.4


@pytest.mark.parametrize(
    ("flags", "key", "needs"),
    [
        (["--algorithm.gae_lambda=0.9"], "algorithm.gae_lambda = 0.9", 'algorithm.name = "ppo"'),
        (["--algorithm.value_clip=1"], "value_clip = 1.0", 'algorithm.name = "ppo"'),
        (["--algorithm.step_weight=2"], "step_weight = 2.0", 'algorithm.name = "gigpo"'),
        (
            ["--algorithm.scale_by_std=false", "--algorithm.name=rloo"],
            "algorithm.scale_by_std = false",
            'algorithm.name = "grpo" or "gigpo"',
        ),
        (["--paw.constant=2"], "paw.constant = 2.0", '"constant" or "decay"'),
        (["--paw.match=runs/x"], 'paw.match = "runs/x"', 'paw.weight = "matched_constant"'),
        (["--paw.alternate_every=2"], "alternate_every = 2", 'paw.schedule = "alternate"'),
        (["--paw.probability_cap=0.5", "--paw.loss=ce"], "probability_cap", 'paw.loss = "cmae"'),
        (["--paw.selection_fraction=0.5", "--paw.select=all"], "selection_fraction", '"lowest"'),
        (["--paw.loss=ce", "--paw.enabled=false"], 'paw.loss = "ce"', "paw.enabled = true"),
        (
            ["--rollout.history_turns=3", "--rollout.context=append"],
            "rollout.history_turns = 3",
            'rollout.context = "window"',
        ),
        (["--imitate.hidden_size=32"], "hidden_size = 32", "imitate.from_scratch = true"),
        (["--imitate.junk=0", "--imitate.trajectories=x"], "junk = 0.0", "imitate.trajectories"),
    ],
)
def test_a_key_that_changes_nothing_is_said(flags: list[str], key: str, needs: str):
    (line,) = ignored(resolve_all(flags))
    assert line.startswith("--") and key in line
    assert "changes nothing that is learned: it counts only with" in line and line.endswith(needs)


def resolve_all(flags: list[str], card: dict | None = None) -> Resolved:
    return overlay([], flags, card)


def test_only_what_is_meant_for_this_run_is_said(tmp_path: Path):
    card = {"algorithm": {"gae_lambda": 0.9}, "paw": {"constant": 2.0}}
    assert ignored(resolve_all([], card)) == []
    assert ignored(resolve_all(["--algorithm.gae_lambda=1.0"])) == []  # the default
    assert ignored(resolve_all(["--algorithm.gae_lambda=0.9", "--algorithm.name=ppo"])) == []
    file = tmp_path / "c.toml"
    file.write_text("[paw]\nenabled = false\nconstant = 2\n")
    (line,) = ignored(layered(files=[file]))
    assert line == (
        f"{file}: paw.constant = 2.0 changes nothing that is learned: it counts only with "
        "paw.enabled = true"
    )


def test_what_keys_need_are_keys_with_such_values():
    for table, key in KEYS:
        for only in beside(table, key, Only):
            other, _, name = only.key.partition(".")
            assert name in keys_of(other), f"{table}.{key}"
            for value in only.values:
                data: dict = {"paw": {"match": "run"}}
                data.setdefault(other, {})[name] = value
                convert(data)


def test_what_a_run_that_goes_on_may_change():
    assert {key for key in CHANGEABLE if not key.startswith("imitate.")} == {
        "run.directory", "run.updates", "run.resume", "run.checkpoint_every",
        "run.keep_checkpoints", "run.save_trajectories_every", "run.track", "run.threads",
        "rollout.workers", "rollout.step_seconds", "rollout.vllm_memory", "rollout.vllm_server",
        "eval.every", "parallel.mode",
        "eval.episodes",
        # What memory sets: another number of processes may need others.
        "optimizer.tokens_per_micro_batch", "rollout.conversations", "model.gradient_checkpointing",
    }  # fmt: skip
    assert "imitate.steps" in CHANGEABLE


def test_what_an_imitation_that_goes_on_may_change():
    """What it reads stays; the tables of training are another command's, but for two keys."""
    own = {key for key in IMITATION_CHANGEABLE if key.startswith("imitate.")}
    names = ("output", "checkpoint_every", "eval_every", "stop_at_success")
    assert own == {f"imitate.{name}" for name in names}
    assert {"run.threads", "rollout.workers", "paw.enabled"} <= IMITATION_CHANGEABLE
    read = {"paw.max_observation_tokens", "optimizer.tokens_per_micro_batch", "run.seed"}
    assert not read & IMITATION_CHANGEABLE


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
        (["--run.track", "tensorboard"], ("tensorboard",)),
        (["--run.track", "tensorboard,wandb"], ("tensorboard", "wandb")),
        (["--run.track=tensorboard, wandb"], ("tensorboard", "wandb")),
        (["--optimizer.betas", "0.9,0.95"], (0.9, 0.95)),
        (["--imitate.phrases", "go to"], ("go to",)),
        (["--imitate.phrases", '["a, b"]'], ("a, b",)),
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
        (["--run.track", "wandbb"], ["must be a list", "tensorboard, wandb, trackio", "'wandb'?"]),
        (["--optimizer.betas", "[0.9]"], ["optimizer.betas", "a list of 2, each a number"]),
        (["--optimizer.betas", "[0.9, 1.0]"], ["optimizer.betas = [0.9, 1.0]", "less than 1"]),
        (["--env.options", "3"], ["env.options", "table"]),
        (["--eval.max_turns", "x"], ["eval.max_turns", "must be a whole number"]),
        (["--optimizer.learning_rate", "nan"], ["learning_rate", "finite"]),
        (["--optimizer.learning_rate", "inf"], ["learning_rate", "finite"]),
        (["--run.seed", "-1"], ["run.seed = -1", "must not be negative"]),
        (["--rollout.temperature", "0"], ["training needs sampling"]),
        (["--optimizer.mini_batches", "129"], ["more than the 128 trajectories"]),
        (["--paw.weight", "matched_constant"], ["needs paw.match"]),
        (["--paw.horizon=2", "--paw.target=shuffled"], ["horizon = 2", 'paw.target = "shuffled"']),
        (["--paw.horizon=2", "--paw.condition=no_action"], ["horizon", '"no_action"']),
        (["--paw.horizon=0"], ["paw.horizon = 0", "must be at least 1"]),
        (["--paw.normalise=turn"], ["paw.normalise", "transition"]),
        (["--optimizer.epochs=0"], ["optimizer.epochs = 0", "must be at least 1"]),
        (
            ["--paw.schedule", "alternate", "--paw.alternate_every", "1"],
            ["must be at least 2", "train the prediction alone"],
        ),
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
        ("[rollout]\ngroups = 0", ["rollout.groups = 0", "at least 1"]),
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
        (binary, "UTF-8"),
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


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("run.updates", "1000000", "must be at most 999,999"),
        ("run.seed", "2147483648", "must be less than 2,147,483,648"),
        ("rollout.groups", "2000000", "must be at most 1,000,000"),
        ("rollout.groups", "0", "must be at least 1"),
        ("rollout.invalid_penalty", "-1", "must not be negative"),
        ("optimizer.learning_rate", "2e30", "must be at most 1e+30"),
        ("optimizer.max_grad_norm", "0", "must be greater than 0"),
        ("paw.selection_fraction", "2", "must be at most 1"),
        ("paw.selection_fraction", "-1", "must not be negative"),
        ("algorithm.anchor_similarity", "2", "must be at most 1"),
        ("imitate.final_learning_rate", "-1", "must not be negative"),
        ("eval.max_turns", "0", "must be at least 1"),
    ],
)
def test_ranges(key: str, value: str, rule: str):
    assert complaint(f"--{key}", value).endswith(f": {rule}")


@pytest.mark.parametrize(("table", "key"), KEYS, ids=lambda x: x)
def test_every_number_has_a_range(table: str, key: str):
    """So that no slip overflows, or hangs without a word; an infinite one is refused by it."""
    if {int, float} & numbers(annotation(table, key)):
        assert shown_range(annotation(table, key)), f"{table}.{key}"
        assert "inf" not in shown_range(annotation(table, key))


def numbers(kind: typing.Any) -> set:
    """The type and all types in it."""
    parts = typing.get_args(kind) if typing.get_origin(kind) is not typing.Literal else ()
    return {kind} if not parts else set().union(*(numbers(p) for p in parts if p is not ...))


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
            assert field_docs(kind).get(field.name), f"{kind.__name__}.{field.name}"
    assert "[rollout]" not in describe(["run"])
    card = resolve([], [], read_card("household"))
    rate = f"{card.optimizer.learning_rate:.0e}".replace("e-0", "e-")
    note = " ".join(text.split())
    assert note.endswith(f"for {card.run.updates} updates at a learning rate of {rate}.")
    assert "\n  groups = 16    (1 to 1,000,000)\n" in text
    assert '\n  loss = "cmae"    (cmae | mae | ce)\n' in text
    assert 'Counts only with algorithm.name = "ppo".' in note
    assert f"For {LORA}: 1e-05." in note
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
