"""Analysis, BM25 and index directories; every number has its derivation beside it."""

import gzip
import json
import math
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from paw.envs.retrieval import analysis, build_index, cached_index, index_facts, open_index
from paw.envs.retrieval.base import Passage, Retriever, largest, split_contents
from paw.envs.retrieval.files import clean, read_rows
from paw.envs.retrieval.store import id_key
from paw.errors import UserError

FOUR = [
    {"id": "0", "title": "Cat", "text": "sat"},
    {"id": "1", "title": "Dog", "text": "the dog sat, mat"},
    {"id": "2", "title": "Bird", "text": "flew"},
    {"id": "3", "title": "Cat", "text": "cat cat sat mat mat mat mat"},
]


def write_corpus(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def index(tmp_path: Path, rows: list[dict]) -> Retriever:
    corpus = write_corpus(tmp_path / "corpus.jsonl", rows)
    build_index(corpus, tmp_path / "index", progress=False)
    return open_index(tmp_path / "index")


def ids(passages: list[Passage]) -> list[str]:
    return [passage.id for passage in passages]


@pytest.mark.parametrize(
    ("word", "stem"),
    [  # the examples of Porter's paper, step by step
        ("caresses", "caress"),
        ("ponies", "poni"),
        ("cats", "cat"),
        ("feed", "feed"),
        ("agreed", "agre"),
        ("plastered", "plaster"),
        ("bled", "bled"),
        ("motoring", "motor"),
        ("sing", "sing"),
        ("conflated", "conflat"),
        ("hopping", "hop"),
        ("falling", "fall"),
        ("filing", "file"),
        ("happy", "happi"),
        ("sky", "sky"),
        ("relational", "relat"),
        ("conditional", "condit"),
        ("vietnamization", "vietnam"),
        ("sensibiliti", "sensibl"),
        ("electrical", "electr"),
        ("hopefulness", "hope"),
        ("adjustable", "adjust"),
        ("adoption", "adopt"),
        ("probate", "probat"),
        ("cease", "ceas"),
        ("controll", "control"),
        ("roll", "roll"),
        ("yoke", "yoke"),  # y starts the word: a consonant, so the rest is short
        ("employment", "employ"),  # y behind a vowel: a consonant, so -ment stands in R2
        ("formally", "formal"),
        ("timeli", "time"),
        ("s", ""),  # the possessive
        ("1998", "1998"),
        ("übers", "über"),
    ],
)
def test_porter_stems(word: str, stem: str) -> None:
    assert analysis.stem(word) == stem


def test_terms_are_lower_case_stems_without_stop_words() -> None:
    assert analysis.terms("The Running_dogs of U.S. cities, 2nd!") == [
        "run",
        "dog",
        "u",
        "",  # "S" of "U.S.": its stem is empty, and counts
        "citi",
        "2nd",
    ]


@settings(deadline=None)
@given(st.text())
def test_analysis_takes_any_text(text: str) -> None:
    assert all(term == term.lower() for term in analysis.terms(text) if term.isascii())


def test_long_tokens_stay_fast() -> None:
    started = time.process_time()
    analysis.terms("y" * 1_000_000)
    assert time.process_time() - started < 1.0


def test_bm25_worked_numbers(tmp_path: Path) -> None:
    # terms: cat sat | dog dog sat mat | bird flew | cat cat cat sat mat mat mat mat
    # |d| = 2, 4, 2, 8, average 4; k1 (1 - b + b |d| / 4) = 0.72, 0.9, 0.72, 1.26
    # idf(cat) = idf(mat) = ln(1 + 2.5 / 2.5) = ln 2;  idf(dog) = ln(1 + 3.5 / 1.5)
    retriever = index(tmp_path, FOUR)
    cats, dogs, twice = retriever.search(["a cat", "dog mats", "cats cat"], 3)
    assert ids(cats) == ["3", "0"]
    assert [p.score for p in cats] == pytest.approx(
        [math.log(2) * 3 / (3 + 1.26), math.log(2) * 1 / (1 + 0.72)]  # 0.488132, 0.402992
    )
    assert ids(dogs) == ["1", "3"]
    assert [p.score for p in dogs] == pytest.approx(
        [
            math.log(1 + 3.5 / 1.5) * 2 / (2 + 0.9) + math.log(2) * 1 / (1 + 0.9),  # 1.195140
            math.log(2) * 4 / (4 + 1.26),  # 0.527108
        ]
    )
    assert [p.score for p in twice] == pytest.approx([2 * p.score for p in cats])


def test_nothing_matches_means_no_passage(tmp_path: Path) -> None:
    retriever = index(tmp_path, FOUR)
    for query in [
        "",
        "   ",
        "the of and",
        "?!",
        "中文 查询",
        "zebra",
        "\ud800",
        "\x00",
        'AND "(:*',
    ]:
        assert retriever.search([query], 3) == [[]]
    assert retriever.search([], 3) == []


def test_more_passages_wanted_than_there_are(tmp_path: Path) -> None:
    assert ids(index(tmp_path, FOUR).search(["cat dog bird"], 1000)[0]) == ["1", "2", "3", "0"]


def test_one_passage_and_no_title(tmp_path: Path) -> None:
    retriever = index(tmp_path, [{"id": 7, "text": "alone"}])
    (found,) = retriever.search(["alone"], 3)[0]
    assert (found.id, found.title, found.text, found.contents) == ("7", "", "alone", "alone")


def test_a_corpus_of_stop_words_only(tmp_path: Path) -> None:
    assert index(tmp_path, [{"id": "0", "title": "", "text": "the"}]).search(["the x"], 3) == [[]]


@pytest.mark.parametrize("top_k", [1, 3, 5, 40])
def test_ties_go_by_id_whatever_the_order_of_the_file(tmp_path: Path, top_k: int) -> None:
    # numbers by value, then other strings; duplicates of a text have bit-equal scores
    names = ["10", "9", "b", "100", "a", "2", *map(str, range(1000, 1030))]
    retriever = index(tmp_path, [{"id": n, "title": "", "text": "same words"} for n in names])
    expected = ["2", "9", "10", "100", *map(str, range(1000, 1030)), "a", "b"]
    assert ids(retriever.search(["same"], top_k)[0]) == expected[:top_k]


def test_ids_order_without_reading_huge_numbers() -> None:
    assert sorted(["x", "10", "9", "007", "7", "1" * 5000], key=id_key) == [
        "007",
        "7",
        "9",
        "10",
        "1" * 5000,
        "x",
    ]


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=60), st.integers(0, 70))
def test_largest_is_a_stable_sort(values: list[int], k: int) -> None:
    scores = np.array(values, dtype=float)
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert largest(scores, k).tolist() == expected


@pytest.mark.parametrize("k", [3, 16, 17, 50, 200])
def test_largest_with_many_ties(k: int) -> None:
    scores = np.random.default_rng(0).integers(0, 5, 200).astype(float)
    expected = sorted(range(200), key=lambda i: (-scores[i], i))[:k]
    assert largest(scores, k).tolist() == expected


def test_passages_by_id_and_pickled_copies(tmp_path: Path) -> None:
    retriever = index(tmp_path, list(reversed(FOUR)))
    copy = pickle.loads(pickle.dumps(retriever))
    assert copy.search(["cat"], 2) == retriever.search(["cat"], 2)
    assert ids(copy.search(["cat"], 2)[0]) == ["3", "0"]  # though the file has them the other way
    for row in FOUR:
        found = retriever.passage(row["id"])
        assert found is not None and (found.title, found.text) == (row["title"], row["text"])
    assert retriever.passage("4") is None and retriever.passage("x") is None


def test_search_r1_corpora(tmp_path: Path) -> None:
    # the first line is the title, in quotes; inner quotes stay as they are
    contents = '"The ""Heroes"" song"\nA song by David Bowie.'
    retriever = index(tmp_path, [{"id": "0", "contents": contents}])
    (found,) = retriever.search(["bowie"], 3)[0]
    assert (found.title, found.text) == ('The ""Heroes"" song', "A song by David Bowie.")
    assert found.contents == contents
    assert split_contents("no title here") == ("", "no title here")


def test_text_is_cleaned_once() -> None:
    assert clean("&quot;Cafe\u0301&quot; AT&T &copy &#8211;") == '"Café" AT&T &copy –'


@pytest.mark.parametrize("packed", ["plain", "gzip", "zstd", "zstd frames", "blank last line"])
def test_compressions_by_their_first_bytes(tmp_path: Path, packed: str) -> None:
    text = "".join(json.dumps(row) + "\n" for row in FOUR).encode()
    zstd = zstandard.ZstdCompressor().compress
    data = {
        "plain": text.rstrip(b"\n"),
        "gzip": gzip.compress(text),
        "zstd": zstd(text),
        "zstd frames": zstd(text[:70]) + zstd(text[70:]),
        "blank last line": text + b"\n \n",
    }[packed]
    path = tmp_path / "corpus.any"
    path.write_bytes(data)
    assert list(read_rows(path)) == list(enumerate(FOUR, start=1))


BAD_FILES = {
    "missing": (None, "cannot read .*corpus"),
    "cut gzip": (gzip.compress(b'{"id": "0"}\n' * 9)[:-9], "behind line .* cut or damaged"),
    "cut zstd": (
        zstandard.ZstdCompressor().compress(b'{"id": "0"}\n' * 9)[:-3],
        "behind line .* cut or damaged",
    ),
    "bad gzip": (b"\x1f\x8b" + b"x" * 40, "behind line 0: .* cut or damaged"),
    "bad json": (b'{"id": "0", "contents": "x"}\n{"id": \n', "line 2: not a JSON object"),
    "bad utf-8": (b'{"id": "0", "contents": "\xff"}\n', "line 1: not a JSON object"),
    "deep": (b"[" * 100_000 + b"\n", "line 1: not a JSON object"),
    "array": (b'[{"id": "0"}]', "line 1: a JSON object is wanted, not a list"),
    "no id": (b'{"contents": "x"}', 'line 1: a passage needs an "id"'),
    "no text": (
        b'{"id": "0", "body": "x"}',
        'line 1: a passage needs "contents".*it has: id, body',
    ),
    "twice": (
        b'{"id": 3, "text": "x"}\n\n{"id": "3", "text": "y"}',
        "line 3: id '3' stands in line 1",
    ),
    "empty": (b"", "has no passage"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_corpora_are_one_line(tmp_path: Path, case: str) -> None:
    data, message = BAD_FILES[case]
    if data is not None:
        (tmp_path / "corpus").write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        build_index(tmp_path / "corpus", tmp_path / "index", progress=False)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == (["corpus"] if data is not None else [])


def test_index_directories(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", FOUR)
    output = tmp_path / "deep" / "index"
    facts = build_index(corpus, output, progress=False)
    assert index_facts(output) == facts
    assert (facts["kind"], facts["num_passages"], facts["average_terms"]) == ("bm25", 4, 4.0)
    old = open_index(output)
    write_corpus(corpus, FOUR[:2])
    build_index(corpus, output, progress=False)  # replaces an index, even one in use
    assert index_facts(output)["num_passages"] == 2
    assert ids(old.search(["bird"], 3)[0]) == ["2"]
    assert [path.name for path in output.parent.iterdir()] == ["index"]

    with pytest.raises(UserError, match="holds other files"):
        build_index(corpus, tmp_path, progress=False)
    with pytest.raises(UserError, match="is a file"):
        build_index(corpus, corpus, progress=False)
    with pytest.raises(UserError, match=r"is no index.*paw retriever index"):
        open_index(tmp_path)
    (output / "impacts.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match="damaged"):
        open_index(output)
    (output / "index.json").write_text('{"format": 99}')
    with pytest.raises(UserError, match="build the index again"):
        open_index(output)


def test_cached_index_is_keyed_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAW_CACHE", str(tmp_path / "cache"))
    corpus = write_corpus(tmp_path / "corpus.jsonl", FOUR)
    assert ids(cached_index(corpus).search(["bird"], 3)[0]) == ["2"]
    (built,) = (tmp_path / "cache" / "retrieval").glob("bm25-*/index.json")
    stamp = built.stat().st_mtime_ns
    cached_index(corpus)
    assert built.stat().st_mtime_ns == stamp  # not built again
    write_corpus(corpus, FOUR[:2])
    assert cached_index(corpus).search(["bird"], 3) == [[]]
