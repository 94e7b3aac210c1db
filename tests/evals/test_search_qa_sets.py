"""The seven evaluation sets of search_qa in one evaluation: `--split all`."""

import json
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint

from paw.cli import main
from paw.envs.search_qa import DATA_SETS, SearchQA
from paw.errors import UserError


def question(number: int, *golds: str, **more: object) -> dict:
    text = f"Question {number}?"
    return {"id": f"q{number}", "question": text, "golden_answers": list(golds), **more}


SETS = {
    "nq": [question(0, "Paris"), question(1, "Rome"), question(2, "Oslo"), question(3, "Bern")],
    "bamboogle": [question(0, "Paris", data_source="other")],
    "musique": [question(0, "Paris in France"), question(1, "Paris")],
}


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PAW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEARCH_QA_DATA", raising=False)
    data = tmp_path / "data"
    data.mkdir()
    write(data / "corpus.jsonl", [{"id": "0", "title": "Paris", "text": "Paris is in France."}])
    for name, rows in SETS.items():
        write(data / f"eval_{name}.jsonl", rows)
    return data


def test_a_question_of_each_set_in_turn_under_its_own_id(folder: Path):
    """Sets in the protocol's order; the shorter ones run out."""
    source = SearchQA("all", data_dir=folder)
    assert [t.id for t in source] == [
        "nq/nq/q0", "musique/musique/q0", "bamboogle/other/q0",
        "nq/nq/q1", "musique/musique/q1", "nq/nq/q2", "nq/nq/q3",
    ]  # fmt: skip
    assert {t.kind for t in source} == set(SETS)
    for name in SETS:
        alone = SearchQA(name, data_dir=folder)
        assert [t.id for t in alone] == [t.id for t in source if t.kind == name]
        assert source.question(alone[0]) == alone.question(alone[0])


def test_facts_name_what_is_there_and_what_is_missing(folder: Path):
    facts = SearchQA("all", data_dir=folder).facts()
    assert facts["data_sets"] == {"nq": 4, "musique": 2, "bamboogle": 1}
    assert facts["missing_data_sets"] == ["triviaqa", "popqa", "hotpotqa", "2wikimultihopqa"]
    assert (facts["retriever"], facts["num_passages"], facts["top_k"]) == ("bm25", 1, 3)
    assert json.loads(json.dumps(facts)) == facts
    assert "missing_data_sets" not in SearchQA("nq", data_dir=folder).facts()


def test_facts_tell_questions_and_corpora_apart(folder: Path):
    before = SearchQA("nq", data_dir=folder).facts()
    assert SearchQA("nq", data_dir=folder, top_k=5).facts() == before | {"top_k": 5}
    write(folder / "eval_nq.jsonl", [*SETS["nq"][:3], question(3, "Basel")])
    other = SearchQA("nq", data_dir=folder).facts()
    assert {k for k in before if before[k] != other[k]} == {"tasks_sha256"}
    write(folder / "corpus.jsonl", [{"id": "0", "title": "Rome", "text": "Rome is in Italy."}])
    third = SearchQA("nq", data_dir=folder).facts()
    assert {k for k in other if other[k] != third[k]} == {"corpus_sha256"}


def test_sets_of_a_common_file(folder: Path):
    """A set's own file comes before its rows of the common one; other sets' rows are left."""
    rows = [
        question(i, "Paris", data_source=source)
        for i, source in enumerate(["searchR1_popqa", "nq", "my_own", "searchR1_popqa"])
    ]
    write(folder / "test.jsonl", rows)
    assert SearchQA("all", data_dir=folder).facts()["data_sets"] == {
        "nq": 4, "popqa": 2, "musique": 2, "bamboogle": 1,
    }  # fmt: skip


def test_no_set_at_all(folder: Path):
    for name in SETS:
        (folder / f"eval_{name}.jsonl").unlink()
    with pytest.raises(UserError, match="no questions of any evaluation set") as caught:
        SearchQA("all", data_dir=folder)
    assert all(name in str(caught.value) for name in DATA_SETS)


def evaluate(folder: Path, fake: FakeEndpoint, capsys, *more: str) -> tuple[str, dict]:
    output = folder / "result.json"
    command = [
        "eval", "--env", "search_qa", "--split", "all", "--data-dir", str(folder),
        "--api-base", fake.base, "--api-model", "small", "--rollout.workers", "0",
        "--api-tries", "1", "-o", str(output), *more,
    ]  # fmt: skip
    assert main(command) == 0
    return capsys.readouterr().out, json.loads(output.read_text())


def lines(out: str) -> dict[str, list[str]]:
    """Rows of the table by the words before the two spaces."""
    return {
        x.strip().partition("  ")[0]: x.strip().partition("  ")[2].split() for x in out.split("\n")
    }


def test_paw_eval_prints_every_set_and_their_average(folder: Path, capsys):
    """Always "Paris". nq 1 of 4, EM = F1 = 1/4; musique 1 of 2, F1 of "paris in france" =
    2 * 1 / (1 + 3) = 1/2, so (1/2 + 1) / 2 = 3/4; bamboogle 1 of 1. Average EM (1/4 + 1/2 + 1) / 3
    = 58.3 %, F1 (1/4 + 3/4 + 1) / 3 = 2/3; over questions EM 3/7 = 42.9 %."""
    with FakeEndpoint(lambda body: "<think>?</think><answer>Paris</answer>") as fake:
        out, result = evaluate(folder, fake, capsys)
    shown = lines(out)
    assert (shown["nq"][0], shown["nq"][3]) == ("25.0%", "0.250")
    assert (shown["musique"][0], shown["musique"][3]) == ("50.0%", "0.750")
    assert (shown["bamboogle"][0], shown["bamboogle"][3]) == ("100.0%", "1.000")
    assert shown["all questions"][0] == "42.9%"
    assert (shown["average of 3 data sets"][0], shown["average of 3 data sets"][3]) == (
        "58.3%", "0.667",
    )  # fmt: skip
    assert list(shown).index("nq") < list(shown).index("musique") < list(shown).index("bamboogle")
    assert "missing, no question file in the folder: triviaqa, popqa, hotpotqa, 2wiki" in out
    assert "EM" in out and "F1" in out and "failed" not in out
    assert "search_qa all: all 7 tasks, at most 4 turns, temperature 0, seed 0" in out
    assert result["macro_average"]["success_rate"] == pytest.approx(7 / 12)
    assert result["source"]["missing_data_sets"][0] == "triviaqa"


def test_an_episode_without_an_answer_scores_0(folder: Path, capsys):
    """Each set's question 0 is answered; nq's question 1 is searched for to the end, F1 0."""

    def policy(body: dict) -> str:
        answered = "Question 0?" in body["messages"][0]["content"]
        return "<answer>Paris</answer>" if answered else "<search>Paris</search>"

    with FakeEndpoint(policy) as fake:
        out, result = evaluate(folder, fake, capsys, "--episodes", "4")
    assert {k: v["score_mean"] for k, v in result["by_kind"].items()} == {
        "nq": 0.5, "musique": 0.5, "bamboogle": 1.0,
    }  # fmt: skip
    assert "the first 4 of 7 tasks" in out


def test_sets_that_were_not_played_are_named(folder: Path, capsys):
    with FakeEndpoint(lambda body: "<answer>Paris</answer>") as fake:
        out, _ = evaluate(folder, fake, capsys, "--episodes", "2")
    assert "average of 2 data sets" in out and "not played: bamboogle" in out


def test_only_an_episode_without_a_reply_is_called_failed(folder: Path, capsys):
    """Of 3 episodes the first gets no answer; the others are answered wrongly or rightly."""
    with FakeEndpoint(lambda body: "<answer>Paris</answer>", faults=[500]) as fake:
        out, result = evaluate(folder, fake, capsys, "--episodes", "3", "--concurrency", "1")
    assert "1 of 3 episodes failed and do not count:\n  1 x endpoint: HTTP 500" in out
    assert lines(out)["nq"][0] == "-" and result["num_failures"] == 1


def test_nothing_usable_is_no_success(folder: Path):
    with FakeEndpoint(faults=[500]) as fake:
        command = ["eval", "--env", "search_qa", "--env.split", "nq", "--env.data_dir", str(folder)]
        command += ["--api-base", fake.base, "--api-model", "m", "--rollout.workers", "0"]
        assert main([*command, "--episodes", "1", "--api-tries", "1"]) == 1
