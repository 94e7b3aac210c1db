"""Real questions and paragraphs: BM25 against a slow one from the formula, recall."""

import gzip
import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from paw.envs.check import check_environment, format_report
from paw.envs.retrieval import analysis, build_index, open_index
from paw.envs.search_qa import SearchQA, evaluate

pytestmark = pytest.mark.data


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "search_qa"


@pytest.fixture(scope="module")
def tiny(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    index = tmp_path_factory.mktemp("tiny") / "index"
    build_index(folder / "tiny_corpus.jsonl.gz", index, progress=False)
    return index


LUCENE_ENGLISH = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with"
)
STOP = frozenset(LUCENE_ENGLISH.split())


class SlowBM25:
    """Every document against every query term, over the raw text; dictionaries only."""

    def __init__(self, corpus: Iterable[dict[str, Any]]) -> None:
        self.ids: list[str] = []
        self.counts: list[Counter[str]] = []
        self.frequency: Counter[str] = Counter()
        self.stems: dict[str, str] = {}
        for row in corpus:
            self.ids.append(row["id"])
            self.counts.append(Counter(self.terms(row["title"] + "\n" + row["text"])))
            self.frequency.update(self.counts[-1].keys())
        self.lengths = [count.total() for count in self.counts]
        self.average = sum(self.lengths) / len(self.lengths)

    def terms(self, text: str) -> list[str]:
        words = [w for w in re.findall(r"[^\W_]+", text.lower()) if w not in STOP]
        for word in words:
            if word not in self.stems:
                self.stems[word] = analysis.stem(word)
        return [self.stems[word] for word in words]

    def search(self, query: str, top_k: int) -> list[tuple[str, float]]:
        total = len(self.ids)
        scored: list[tuple[float, int]] = []
        wanted = self.terms(query)
        for i, count in enumerate(self.counts):
            score = 0.0
            for term in wanted:
                if tf := count.get(term, 0):
                    df = self.frequency[term]
                    idf = math.log(1 + (total - df + 0.5) / (df + 0.5))
                    length = 1 - 0.4 + 0.4 * self.lengths[i] / self.average
                    score += idf * tf / (tf + 0.9 * length)
            if score > 0:
                scored.append((-score, int(self.ids[i])))
        return [(str(i), -score) for score, i in sorted(scored)[:top_k]]


def agreement(slow: SlowBM25, index: Path, queries: list[str]) -> float:
    """Share of queries with the same first three documents in the same order."""
    same = 0
    for query, found in zip(queries, open_index(index).search(queries, 3), strict=True):
        same += [passage.id for passage in found] == [i for i, _ in slow.search(query, 3)]
    return same / len(queries)


def test_agreement_with_the_formula_on_the_tiny_corpus(folder: Path, tiny: Path) -> None:
    slow = SlowBM25(rows(folder / "tiny_corpus.jsonl.gz"))
    queries = [row["question"] for row in rows(folder / "tiny_eval.jsonl.gz")]
    queries += [row["question"] for row in rows(folder / "tiny_train.jsonl.gz")]
    assert agreement(slow, tiny, queries) >= 0.99
    found = open_index(tiny).search(queries[:20], 10)
    for query, passages in zip(queries, found, strict=False):
        expected = [score for _, score in slow.search(query, 10)]
        assert [p.score for p in passages] == pytest.approx(expected, rel=1e-3)


def test_recall_on_the_tiny_corpus(folder: Path, tiny: Path) -> None:
    # measured once with an independent implementation: 60.5 % and 46.5 % of the gold paragraphs
    train = evaluate(tiny, folder / "tiny_train.jsonl.gz")
    held_out = evaluate(tiny, folder / "tiny_eval.jsonl.gz")
    assert train["recall"] == pytest.approx(0.605, abs=0.005)
    assert held_out["recall"] == pytest.approx(0.465, abs=0.005)
    assert (train["num_questions"], held_out["num_questions"]) == (200, 140)


def test_the_contract_and_the_expert_on_real_questions(folder: Path, tiny: Path) -> None:
    source = SearchQA(questions=folder / "tiny_eval.jsonl.gz", retriever=tiny)
    report = check_environment(source, num_tasks=4)
    assert report.passed, format_report(report)
    assert {task.kind for task in source} == {"nq", "hotpotqa", "musique", "bamboogle"}
    for task in source:
        env, expert = source.open(task), source.expert(task, noise=0.2, junk=0.1)
        result = env.step(expert.act(env.reset()))
        num_turns = 1
        while not result.terminated:
            result = env.step(expert.act(result.observation))
            num_turns += 1
        assert result.reward == 1.0 and num_turns <= 4


def test_all_question_files_load(folder: Path, tiny: Path) -> None:
    sizes = {"train": 3048, "nq": 700, "hotpotqa": 500, "musique": 976, "bamboogle": 125}
    for split, size in sizes.items():
        source = SearchQA(split, folder, retriever=tiny)
        assert len(source) == size and len({task.id for task in source}) == size
    multiplication = next(
        task for task in SearchQA("train", folder, retriever=tiny) if "_1451" in task.id
    )
    env = SearchQA("train", folder, retriever=tiny).open(multiplication)
    env.reset()
    assert env.step("<answer></answer>").success is False  # one of its gold answers is "*"


@pytest.mark.slow
def test_agreement_and_recall_on_the_full_corpus(folder: Path, tmp_path: Path) -> None:
    build_index(folder / "corpus.jsonl.gz", tmp_path / "index", progress=False)
    wanted = {"nq": 0.539, "hotpotqa": 0.664, "musique": 0.282, "bamboogle": 0.162}
    found = evaluate(tmp_path / "index", folder)["data_sets"]
    assert {name: row["recall"] for name, row in found.items()} == pytest.approx(wanted, abs=0.002)
    slow = SlowBM25(rows(folder / "corpus.jsonl.gz"))
    queries = [row["question"] for row in rows(folder / "eval_nq.jsonl.gz")[:30]]
    queries += [row["question"] for row in rows(folder / "eval_musique.jsonl.gz")[:30]]
    assert agreement(slow, tmp_path / "index", queries) >= 0.99
