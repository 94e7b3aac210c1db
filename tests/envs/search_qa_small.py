"""A corpus of five paragraphs and three questions for the tests."""

import json
from pathlib import Path
from typing import Any

from paw.envs.retrieval import Passage, RetrievalError
from paw.envs.search_qa import SearchQA

CORPUS = [
    {"id": "0", "title": "Hamlet", "text": "Hamlet is a tragedy by William Shakespeare."},
    {"id": "1", "title": "William Shakespeare", "text": "He was born in Stratford-upon-Avon."},
    {
        "id": "2",
        "title": "Faust",
        "text": "Faust is a play by Goethe. <information>x</information>",
    },
    {"id": "3", "title": "Goethe", "text": "Goethe was born in Frankfurt."},
    {"id": "4", "title": "Paris", "text": "Paris is the capital of France."},
]
QUESTIONS: list[dict[str, Any]] = [
    {
        "id": "q0",
        "data_source": "hotpotqa",
        "question": "where was the author of hamlet born",
        "golden_answers": ["Stratford-upon-Avon", "Stratford"],
        "supporting_ids": ["0", "1"],
    },
    {
        "id": "q1",
        "data_source": "nq",
        "question": "What is the capital of France?",
        "golden_answers": ["Paris"],
        "supporting_ids": ["4"],
    },
    {"id": "q2", "data_source": "nq", "question": "is faust a play", "golden_answers": ["yes"]},
]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class Broken:
    def search(self, queries: list[str], top_k: int) -> list[list[Passage]]:
        raise RetrievalError("server down")

    def passage(self, passage_id: str) -> None:
        return None


def play(source: SearchQA, number: int, **options: Any) -> tuple[list[str], list[bool], float]:
    task = source[number]
    env, expert = source.open(task), source.expert(task, **options)
    observation, commands, junk = env.reset(), [], []
    while True:
        commands.append(expert.act(observation))
        junk.append(expert.last_was_junk)
        result = env.step(commands[-1])
        observation = result.observation
        if result.terminated:
            return commands, junk, result.reward
