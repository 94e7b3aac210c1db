"""Question files of search-QA: forms, data sets, bad rows."""

from pathlib import Path
from typing import Any

import pytest
from search_qa_small import QUESTIONS, Broken, write_rows

from paw import envs
from paw.envs.search_qa import SearchQA
from paw.envs.search_qa.questions import data_set_name, read_questions
from paw.errors import UserError


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("nq", "nq"),
        ("hotpotqa/hotpot_qa", "hotpotqa"),
        ("searchR1_nq", "nq"),
        ("searchR1_2wikimultihopqa", "2wikimultihopqa"),
        ("hotpot_qa", "hotpotqa"),
        ("HotpotQA", "hotpotqa"),
        ("trivia_qa/rc.nocontext", "triviaqa"),
        ("2wiki", "2wikimultihopqa"),
        ("2WikiMQA", "2wikimultihopqa"),
        ("2wiki_multihop_qa", "2wikimultihopqa"),
        ("natural_questions", "nq"),
        ("nq_open", "nq"),
        ("nqopen", "nq"),
        ("My own set", "My own set"),
        ("trivia", "trivia"),
    ],
)
def test_names_of_data_sets(source: str, name: str) -> None:
    assert data_set_name(source) == name


FORMS: dict[str, dict[str, Any]] = {
    "flashrag": {"id": "t_0", "question": "Q?", "golden_answers": ["Ans"], "metadata": {}},
    "string": {"id": "t_0", "question": "Q", "golden_answers": "Ans"},
    "search-r1": {
        "id": "t_0",
        "question": " Q ",
        "data_source": "own",
        "reward_model": {"style": "rule", "ground_truth": {"target": ["Ans", "*"]}},
        "extra_info": {"index": 5, "split": "test"},
    },
    "prompt only": {
        "data_source": "own",
        "prompt": [{"role": "user", "content": "Rules. Question: what? No. Question: Q?\n"}],
        "reward_model": {"ground_truth": {"target": ["Ans"]}},
        "extra_info": {"index": "t_0"},
    },
    "verl-agent": {
        "id": "t_0",
        "env_kwargs": {"ground_truth": {"target": ["Ans"]}},
        "extra_info": {"question": "Q"},
    },
    "plain": {"id": "t_0", "question": "Q", "ground_truth": "Ans"},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_question_rows(tmp_path: Path, form: str) -> None:
    (question,) = read_questions(write_rows(tmp_path / "own.jsonl", [FORMS[form]]))
    assert (question.id, question.data_set) == ("t_0", "own")
    assert (question.text, question.golden_answers) == ("Q?", ("Ans",))


def test_parquet_questions(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        path.write_bytes(b"PAR1....PAR1")
        with pytest.raises(UserError, match=r"pip install 'paw-rl\[search\]'"):
            list(read_questions(path))
        return
    rows = [FORMS["search-r1"], FORMS["search-r1"] | {"id": "t_1", "data_source": "nq"}]
    pq.write_table(pa.Table.from_pylist(rows), path)
    first, second = read_questions(path)
    assert (first.id, first.data_set, first.golden_answers) == ("t_0", "own", ("Ans",))
    assert (second.id, second.data_set) == ("t_1", "nq")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="damaged Parquet file"):
        list(read_questions(path))


BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "no question": ({"id": "x", "golden_answers": ["Ans"]}, "no question"),
    "empty question": ({"question": "  ", "golden_answers": ["Ans"]}, "no question"),
    "no answers": ({"question": "Q"}, "no gold answers"),
    "numbers": ({"question": "Q", "golden_answers": [1]}, "no gold answers"),
    "empty list": ({"question": "Q", "golden_answers": []}, "no gold answers"),
    "supports": (
        {"question": "Q", "golden_answers": ["Ans"], "supporting_ids": "7"},
        "must be a list of passage ids",
    ),
    "twice": (QUESTIONS[0], "id 'q0' of hotpotqa stands in line 1 already"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_questions_name_file_and_line(tmp_path: Path, case: str) -> None:
    row, message = BAD_ROWS[case]
    path = write_rows(tmp_path / "questions.jsonl", [QUESTIONS[0], row])
    with pytest.raises(UserError, match=message) as caught:
        SearchQA(questions=path, retriever=Broken())
    assert str(caught.value).startswith(f"{path}, line 2: ")


def test_questions_that_exact_match_cannot_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"id": "x", "question": "Which vitamin", "golden_answers": ["*", "A"]}, QUESTIONS[0]]
    questions = read_questions(write_rows(tmp_path / "own.jsonl", rows))
    assert [question.id for question in questions] == ["q0"]
    assert "1 question(s) left out" in caplog.text


def test_all_names_the_sets_it_leaves_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {"id": "t", "question": "Q", "golden_answers": ["Ans"], "data_source": source}
        for source in ("hotpot_qa", "2wikimqa", "quiz", "nq")
    ]
    write_rows(tmp_path / "test.jsonl", rows)
    write_rows(tmp_path / "eval_pub.jsonl", rows[2:3])
    source = SearchQA("all", tmp_path, retriever=Broken())
    assert [task.kind for task in source] == ["nq", "hotpotqa", "2wikimultihopqa"]
    assert "left out of the evaluation sets: pub, quiz; known are nq, triviaqa" in caplog.text
    for split in ("hotpotqa", "hotpot_qa", "quiz"):
        assert len(SearchQA(split, tmp_path, retriever=Broken())) == 1


def test_splits_and_what_goes_wrong(qa_folder: Path, tmp_path: Path) -> None:
    assert [task.kind for task in envs.make("search_qa", data_dir=qa_folder)] == [
        "hotpotqa",
        "nq",
        "nq",
    ]
    assert SearchQA("nq", qa_folder)[0].id == "nq/nq/q1"
    flashrag = qa_folder / "musique"
    flashrag.mkdir()
    write_rows(flashrag / "dev.jsonl", [FORMS["flashrag"]])
    assert SearchQA("musique", qa_folder)[0].id == "musique/musique/t_0"
    write_rows(
        qa_folder / "test.jsonl",
        [FORMS["search-r1"], FORMS["search-r1"] | {"data_source": "popqa"}],
    )
    assert [task.kind for task in SearchQA("popqa", qa_folder)] == ["popqa"]

    with pytest.raises(UserError, match=r"no questions of split 'triviaqa'.*has no row of it"):
        SearchQA("triviaqa", qa_folder)
    with pytest.raises(UserError, match=r"set env.data_dir or SEARCH_QA_DATA"):
        SearchQA()
    with pytest.raises(UserError, match="is no folder"):
        SearchQA(data_dir=qa_folder / "nowhere")
    with pytest.raises(UserError, match=r"env.top_k: a whole number"):
        SearchQA(data_dir=qa_folder, top_k=0)
    with pytest.raises(UserError, match="no task 'x'"):
        SearchQA(data_dir=qa_folder).open(envs.Task("x", "x", "x"))
    (qa_folder / "corpus.jsonl").unlink()
    with pytest.raises(UserError, match=r"no corpus.jsonl in .*; name env.corpus"):
        SearchQA(data_dir=qa_folder)
