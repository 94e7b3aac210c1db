"""Every file that an environment reads, missing or damaged in every way: one clear line each."""

import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from alfworld_small import HEAT, write_game
from search_qa_small import CORPUS, QUESTIONS, write_rows
from webshop_small import PRODUCTS, product, write

from paw.envs.alfworld import Alfworld
from paw.envs.base import TaskSource
from paw.envs.retrieval import RetrievalError, build_index, open_index
from paw.envs.search_qa import SearchQA
from paw.envs.webshop import WebShop, catalog
from paw.errors import UserError

MENDING = re.compile(
    r"fetch|build|name (a|env)|get the games|holds no|but no|wanted|delete|needs|choose"
)
DEEP = b"[" * 200_000


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "binary": lambda data: bytes(range(256)),
    "null": lambda data: b"null",
    "number": lambda data: b"7\n",
    "list": lambda data: b"[]",
    "list of numbers": lambda data: b"[1, 2]",
    "object": lambda data: b"{}",
    "nested object": lambda data: b'{"x": {"y": null}}',
    "deep": lambda data: DEEP,
}
GONE = ("missing", "directory", "no permission")
INDEX_DAMAGES = ("empty", "cut", "last bytes", "binary", "missing", "directory")


def damage(path: Path, how: str) -> None:
    if how == "last bytes":
        path.write_bytes(path.read_bytes()[:-3])
    elif how in DAMAGES:
        path.write_bytes(DAMAGES[how](path.read_bytes()))
    elif how == "no permission":
        if os.geteuid() == 0:
            pytest.skip("root may read everything")
        path.chmod(0)
    else:
        path.unlink()
        if how == "directory":
            path.mkdir()


def use(source: TaskSource) -> None:
    """List, open and play one turn: whatever is read lazily is read now."""
    task = source[0]
    env, expert = source.open(task), source.expert(task)
    env.step(expert.act(env.reset()))


def one_line(call: Callable[[], object], name: str) -> str:
    """The message of the UserError that `call` raises: it names the file and a way to mend it."""
    with pytest.raises(UserError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line and name in line and MENDING.search(line), line
    assert len(line) < 600, line
    return line


@pytest.mark.parametrize("how", [*DAMAGES, *GONE])
@pytest.mark.parametrize(
    ("name", "goals"), [("game.tw-pddl", "template"), ("traj_data.json", "human")]
)
def test_alfworld(tmp_path: Path, name: str, goals, how: str):
    game = write_game(tmp_path, f"{HEAT}/trial_T1")
    people = {"turk_annotations": {"anns": [{"task_desc": "Warm an apple."}]}}
    game.with_name("traj_data.json").write_text(json.dumps(people))
    use(Alfworld("train", tmp_path, goals=goals))
    damage(game.with_name(name), how)
    seen = "no game of" if (name, how) == ("game.tw-pddl", "missing") else name
    one_line(lambda: use(Alfworld("train", tmp_path, goals=goals)), seen)


@pytest.mark.parametrize("sentence", [None, "", " ", 7, ["Warm an apple."]])
def test_alfworld_goals_that_are_no_sentence(tmp_path: Path, sentence: object):
    game = write_game(tmp_path, f"{HEAT}/trial_T1")
    people = {"turk_annotations": {"anns": [{"task_desc": sentence}]}}
    game.with_name("traj_data.json").write_text(json.dumps(people))
    one_line(lambda: Alfworld("train", tmp_path, goals="human")[0], "task_desc")


def test_alfworld_folder_that_cannot_be_listed(tmp_path: Path):
    folder = write_game(tmp_path, f"{HEAT}/trial_T1").parents[2]
    loop = folder / HEAT.replace("Shelf", "Fridge")
    loop.symlink_to(loop)
    one_line(lambda: Alfworld("train", tmp_path), loop.name)


WEBSHOP = ("items_shuffle_1000.json", "items_ins_v2_1000.json", "items_human_ins_1000.json")
PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "plain": ("", bytes),
    "gzip": (".gz", gzip.compress),
    "zstd": (".zst", zstandard.compress),
}


NOT_DAMAGED = ((WEBSHOP[1], "object"), (WEBSHOP[1], "nested object"), (WEBSHOP[2], "object"))
"""These speak of no product of the shop: there is no goal."""


@pytest.mark.parametrize("how", [*DAMAGES, *GONE])
@pytest.mark.parametrize("name", WEBSHOP)
def test_webshop(tmp_path: Path, name: str, how: str):
    write(tmp_path)
    damage(tmp_path / name, how)
    goals = "human" if name == WEBSHOP[2] else "synthetic"
    # A human file that is not there is sought under the name of the full set too.
    seen = name.removesuffix("_1000.json") if how in GONE else name
    if (name, how) in NOT_DAMAGED:
        seen = f"no {goals} goal"
    one_line(lambda: use(WebShop("all", tmp_path, goals=goals)), seen)


@pytest.mark.parametrize("packed", ["gzip", "zstd"])
@pytest.mark.parametrize("how", ["empty", "cut", "binary"])
@pytest.mark.parametrize("name", WEBSHOP)
def test_webshop_compressed(tmp_path: Path, name: str, how: str, packed: str):
    write(tmp_path)
    suffix, pack = PACKED[packed]
    path = tmp_path / (name + suffix)
    path.write_bytes(pack((tmp_path / name).read_bytes()))
    (tmp_path / name).unlink()
    use(WebShop("all", tmp_path, goals="human"))
    damage(path, how)
    catalog._open.cache_clear()
    one_line(lambda: use(WebShop("all", tmp_path, goals="human")), path.name)


def test_webshop_zstandard_file_of_several_frames(tmp_path: Path):
    write(tmp_path)
    path = tmp_path / WEBSHOP[0]
    data = path.read_bytes()
    (tmp_path / f"{path.name}.zst").write_bytes(
        zstandard.compress(data[:1000]) + zstandard.compress(data[1000:])
    )
    plain = list(WebShop("all", tmp_path))
    path.unlink()
    assert list(WebShop("all", tmp_path)) == plain


def test_webshop_names_a_malformed_product_in_one_line(tmp_path: Path):
    odd = product("B\n1", "x") | {"customization_options": "x"}
    write(tmp_path, items_shuffle_1000=[*PRODUCTS, odd])
    one_line(lambda: WebShop("all", tmp_path), r"'B\n1'")


@pytest.fixture(scope="module")
def full_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full product set with its index built in `cache`."""
    folder = tmp_path_factory.mktemp("full")
    write(folder, "")
    use(WebShop("all", folder, cache_dir=folder / "cache"))
    return folder


COLUMN_FILES = [*(f"{name}.npy" for name in catalog.COLUMNS), "records.bin"]


def test_webshop_index_holds_these_files(full_set: Path):
    (built,) = (full_set / "cache").iterdir()
    assert {path.name for path in built.iterdir()} == set(COLUMN_FILES)


@pytest.mark.parametrize("name", COLUMN_FILES)
@pytest.mark.parametrize("how", INDEX_DAMAGES)
def test_webshop_index(full_set: Path, name: str, how: str):
    (built,) = (full_set / "cache").iterdir()
    path = built / name
    data = path.read_bytes()
    try:
        damage(path, how)
        catalog._open.cache_clear()
        one_line(lambda: use(WebShop("all", full_set, cache_dir=full_set / "cache")), built.name)
    finally:
        if path.is_dir():
            path.rmdir()
        path.write_bytes(data)
        catalog._open.cache_clear()


def test_webshop_index_whose_place_is_taken(full_set: Path, tmp_path: Path):
    (built,) = (full_set / "cache").iterdir()
    (tmp_path / built.name).write_text("a file")
    catalog._open.cache_clear()
    one_line(lambda: WebShop("all", full_set, cache_dir=tmp_path), built.name)


@pytest.mark.parametrize("how", [*DAMAGES, *GONE])
@pytest.mark.parametrize("named", [True, False], ids=["named", "split"])
def test_search_qa_questions(qa_folder: Path, how: str, named: bool):
    path = qa_folder / "train.jsonl"
    damage(path, how)
    options = {"questions": path, "corpus": qa_folder / "corpus.jsonl"}
    build = (lambda: SearchQA(**options)) if named else (lambda: SearchQA("train", qa_folder))
    one_line(build, "train")


@pytest.mark.parametrize("how", [*DAMAGES, *GONE])
@pytest.mark.parametrize("named", [True, False], ids=["named", "folder"])
def test_search_qa_corpus(qa_folder: Path, how: str, named: bool):
    path = qa_folder / "corpus.jsonl"
    damage(path, how)
    one_line(lambda: SearchQA("train", qa_folder, corpus=path if named else None), "corpus.jsonl")


@pytest.mark.parametrize("packed", ["gzip", "zstd"])
@pytest.mark.parametrize("how", ["empty", "cut", "binary"])
@pytest.mark.parametrize("name", ["train.jsonl", "corpus.jsonl"])
def test_search_qa_compressed(qa_folder: Path, name: str, how: str, packed: str):
    path = qa_folder / name
    suffix, pack = PACKED[packed]
    other = qa_folder / (name + suffix)
    other.write_bytes(pack(path.read_bytes()))
    path.unlink()
    use(SearchQA("train", qa_folder))
    damage(other, how)
    one_line(lambda: SearchQA("train", qa_folder), name.removesuffix(".jsonl"))


INDEX_FILES = (
    *("index.json", "passages.bin", "spans.npy", "documents.npy", "impacts.npy"),
    *("postings.npy", "terms.npy", "term_ends.npy"),
)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    # The id that is last in order stands first: its record ends early in the file.
    corpus = write_rows(tmp_path / "corpus.jsonl", [CORPUS[0] | {"id": "99"}, *CORPUS[1:]])
    write_rows(tmp_path / "questions.jsonl", QUESTIONS)
    build_index(corpus, tmp_path / "index", progress=False)
    return tmp_path / "index"


@pytest.mark.parametrize("name", INDEX_FILES)
@pytest.mark.parametrize("how", [*INDEX_DAMAGES, "other"])
def test_search_qa_index(index: Path, name: str, how: str):
    assert {path.name for path in index.iterdir()} == set(INDEX_FILES)
    path = index / name
    if how == "other":
        if name == "index.json":
            path.write_text('{"format": 0}')
        else:
            other = write_rows(index.parent / "other.jsonl", CORPUS[1:3])
            build_index(other, index.parent / "other", progress=False)
            path.write_bytes((index.parent / "other" / name).read_bytes())
    else:
        damage(path, how)
    questions = index.parent / "questions.jsonl"
    one_line(lambda: SearchQA(questions=questions, retriever=index), str(index))


@pytest.mark.parametrize("how", ["null", "list", "object", "deep"])
def test_search_qa_index_facts(index: Path, how: str):
    damage(index / "index.json", how)
    one_line(lambda: open_index(index), str(index))


def test_search_qa_index_that_is_a_file(index: Path):
    one_line(lambda: open_index(index / "index.json"), str(index))


def test_search_qa_damaged_text_loses_the_episode(index: Path):
    path = index / "passages.bin"
    path.write_bytes(path.read_bytes().replace(b"Frankfurt", b"Frank\xffurt"))
    source = SearchQA(questions=index.parent / "questions.jsonl", retriever=index)
    env = source.open(source[0])
    env.reset()
    with pytest.raises(RetrievalError, match=r"passages\.bin is damaged"):
        env.step("<search>Goethe Frankfurt born</search>")


def test_search_qa_index_in_the_cache(qa_folder: Path, tmp_path: Path):
    use(SearchQA("train", qa_folder))
    (built,) = (p for p in (tmp_path / "cache" / "retrieval").iterdir() if p.is_dir())
    damage(built / "spans.npy", "cut")
    one_line(lambda: SearchQA("train", qa_folder), str(built))
