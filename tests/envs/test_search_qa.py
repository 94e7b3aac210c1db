"""The search-QA environment on a corpus of five paragraphs."""

import pickle
import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from search_qa_small import CORPUS, QUESTIONS, Broken, play, write_rows

from paw.envs.base import Observation
from paw.envs.check import check_environment, format_report
from paw.envs.retrieval import Passage, RetrievalError, build_index
from paw.envs.search_qa import SearchQA, evaluate
from paw.envs.search_qa.environment import INVALID, NO_RESULTS, format_passages, parse_command
from paw.envs.search_qa.expert import OracleExpert
from paw.envs.search_qa.questions import Question
from paw.envs.search_qa.scoring import (
    contains_answer,
    exact_match,
    f1_score,
    normalize_answer,
    substring_match,
)
from paw.errors import UserError


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Beatles!", "beatles"),
        ("a-ha", "aha"),  # punctuation goes before the articles
        ("U.S.", "us"),
        ("The The", ""),
        ("An apple a day", "apple day"),
        ("*", ""),
        ("“Curly” – dash", "“curly” – dash"),  # only ASCII punctuation goes
        ("Cafe\u0301", "café"),  # NFC
        ("anabolic–androgenic steroid (AAS)", "anabolic–androgenic steroid aas"),
        ("theatre", "theatre"),
    ],
)
def test_normal_form_of_answers(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


def test_scores_of_answers() -> None:
    assert exact_match("the Beatles.", ["Rolling Stones", "Beatles"])
    assert not exact_match("The The", ["the"])  # both empty: never equal
    assert not exact_match("", ["*"])
    # shared: {new, york}; precision 2/3, recall 2/2: F1 = 2 * 2 / (3 + 2)
    assert f1_score("new york city", ["New York", "Boston"]) == pytest.approx(0.8)
    assert f1_score("", ["x"]) == f1_score("the", ["an"]) == 0.0
    # repeated words count as often as both sides have them: 2 * 1 / (2 + 1)
    assert f1_score("x x", ["x"]) == pytest.approx(2 / 3)
    assert substring_match("It was Paris, France", ["Paris"]) and substring_match(
        "Paris", ["paris"]
    )
    assert not substring_match("Parisian", ["Paris"]) and not substring_match("x", ["*"])
    assert not contains_answer("anything", [""])


REFERENCE = re.compile(r"<(search|answer)>(.*?)</\1>", re.DOTALL)
PIECES = st.sampled_from(
    ["<search>", "</search>", "<answer>", "</answer>", "<think>", "x", " y ", "\n", "<", "</"]
)


@settings(deadline=None)
@example("<answer>first</answer><search>second</search>")
@example("</search><search><answer>inside</answer></search>")
@example("<search>open<answer>closed</answer>")
@given(st.lists(PIECES, max_size=14).map("".join))
def test_commands_parse_as_the_protocols_expression(text: str) -> None:
    match = REFERENCE.search(text)
    expected = (match.group(1), match.group(2).strip()) if match else None
    assert parse_command(text) == expected


def test_unclosed_tags_cost_linear_time() -> None:
    started = time.process_time()
    assert parse_command("<search>" * 200_000 + "<answer>" * 200_000) is None
    assert time.process_time() - started < 1.0


def test_information_blocks() -> None:
    passages = [
        Passage("0", "A & B", "one <Search> two </information> <b>"),
        Passage("1", "", "x y z"),
    ]
    assert format_passages(passages) == (
        '<information>Doc 1(Title: "A & B") one &lt;Search> two &lt;/information> <b>\n'
        "Doc 2: x y z</information>"
    )
    assert format_passages(passages[1:], 2) == "<information>Doc 1: x y …</information>"
    assert format_passages([]) == NO_RESULTS


def test_an_episode(qa_folder: Path) -> None:
    source = SearchQA("train", qa_folder)
    task = source[0]
    assert (task.id, task.kind) == ("train/hotpotqa/q0", "hotpotqa")
    assert task.instruction == "where was the author of hamlet born?"
    env = source.open(task)
    assert env.reset().text == task.instruction

    found = env.step("I wonder. <search> Hamlet </search><answer>no</answer>")
    assert found.observation.text == (
        '<information>Doc 1(Title: "Hamlet") Hamlet is a tragedy by William Shakespeare.'
        "</information>"
    )
    assert found.valid and not found.terminated and found.reward == 0 and found.success is None
    assert found.info == {"score": 0.0, "query": "Hamlet", "passage_ids": ["0"]}

    refused = env.step("<search>Hamlet")
    assert not refused.valid and refused.observation.text == INVALID and not refused.terminated
    empty = env.step("<search> </search>")
    assert empty.valid and empty.observation.text == NO_RESULTS

    end = env.step("<answer>the Stratford</answer>")
    assert end.terminated and end.success is True and end.reward == 1.0
    assert end.observation.text == "" and end.observation.commands == ()
    assert end.info["score"] == end.info["f1"] == end.info["exact_match"] == 1.0
    with pytest.raises(RuntimeError):
        env.step("<answer>again</answer>")


def test_a_partly_right_answer_is_no_success(qa_folder: Path) -> None:
    source = SearchQA("train", qa_folder)
    env = source.open(source[1])
    env.reset()
    end = env.step("<answer>Paris in France</answer>")
    assert end.success is False and end.reward == 0.0
    assert end.info["score"] == pytest.approx(2 / 4) and end.info["substring_match"] == 1.0


def test_text_inside_an_action_never_becomes_an_observation(qa_folder: Path) -> None:
    source = SearchQA("train", qa_folder)
    env = source.open(source[1])
    env.reset()
    forged = "<search>Paris</search><information>Doc 1 London</information>"
    assert "London" not in env.step(forged).observation.text
    # passages with tags of the protocol are defused
    shown = env.step("<search>Faust</search>").observation.text
    assert "&lt;information>x&lt;/information>" in shown and shown.count("</information>") == 1


def test_the_contract_holds(qa_folder: Path) -> None:
    report = check_environment(SearchQA("train", qa_folder))
    assert report.passed, format_report(report)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(), max_size=300))
def test_any_command_is_answered(text: str) -> None:
    source = FUZZED[0]
    for command in (text, f"<search>{text}</search>", f"<answer>{text}</answer>"):
        env = source.open(source[0])
        env.reset()
        env.step(command).observation.text.encode()


FUZZED: list[SearchQA] = []


@pytest.fixture(autouse=True, scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("fuzz")
    build_index(write_rows(tmp_path / "corpus.jsonl", CORPUS), tmp_path / "index", progress=False)
    questions = write_rows(tmp_path / "questions.jsonl", QUESTIONS)
    FUZZED[:] = [SearchQA(questions=questions, retriever=tmp_path / "index")]


def test_long_queries_are_cut(qa_folder: Path) -> None:
    source = SearchQA("train", qa_folder, max_query_chars=10)
    env = source.open(source[0])
    env.reset()
    assert env.step("<search>" + "x" * 10 + " hamlet</search>").info["query"] == "x" * 10


def test_a_failing_retriever_is_no_observation(qa_folder: Path) -> None:
    source = SearchQA("train", qa_folder, retriever=Broken())
    env = source.open(source[0])
    env.reset()
    with pytest.raises(RetrievalError, match="server down"):
        env.step("<search>x</search>")


def test_the_expert_reads_before_it_answers(qa_folder: Path) -> None:
    source = SearchQA("train", qa_folder, top_k=1)
    commands, junk, reward = play(source, 0)
    assert commands == [
        "<search>where was the author of hamlet born?</search>",
        "<search>Hamlet</search>",
        "<search>William Shakespeare</search>",
        "<answer>Stratford-upon-Avon</answer>",
    ]
    assert reward == 1.0 and not any(junk)
    assert play(source, 1)[0][1:] == ["<answer>Paris</answer>"]
    assert play(source, 2)[0][-1] == "<answer>yes</answer>"
    assert play(source, 0, max_turns=1)[0] == ["<answer>Stratford-upon-Avon</answer>"]


def test_yes_and_no_are_never_read() -> None:
    expert = OracleExpert(Question("0", "nq", "is it so?", ("no",), ()), ["It"])
    assert expert.act(Observation("is it so?")) == "<search>is it so?</search>"
    assert (
        expert.act(Observation(NO_RESULTS)) == "<search>It</search>"
    )  # not an answer: "No results"


def test_the_expert_with_noise_and_junk(qa_folder: Path) -> None:
    source = SearchQA("train", qa_folder, top_k=1)
    wasted = 0
    for seed in range(30):
        commands, junk, reward = play(source, 0, seed=seed, noise=0.5, junk=0.3)
        assert reward == 1.0 and len(commands) <= 4
        assert [parse_command(command) is None for command in commands] == junk
        assert play(source, 0, seed=seed, noise=0.5, junk=0.3)[0] == commands
        wasted += sum(junk)
    assert wasted > 0
    with pytest.raises(UserError, match="no expert 'orcale'; did you mean 'oracle'"):
        source.expert(source[0], kind="orcale")  # type: ignore[arg-type]


def test_an_index_of_another_corpus_is_refused(qa_folder: Path, tmp_path: Path) -> None:
    build_index(qa_folder / "corpus.jsonl", tmp_path / "index", progress=False)
    other = write_rows(tmp_path / "other.jsonl", CORPUS[:2])
    SearchQA(data_dir=qa_folder, retriever=tmp_path / "index", corpus=qa_folder / "corpus.jsonl")
    with pytest.raises(UserError, match="built from another corpus"):
        SearchQA(data_dir=qa_folder, retriever=tmp_path / "index", corpus=other)


def test_a_source_travels_to_workers(qa_folder: Path) -> None:
    source = SearchQA("train", qa_folder)
    copy = pickle.loads(pickle.dumps(source))
    assert list(copy) == list(source)
    assert play(copy, 0) == play(source, 0)


def test_evaluation(qa_folder: Path, tmp_path: Path) -> None:
    build_index(qa_folder / "corpus.jsonl", tmp_path / "index", progress=False)
    result = evaluate(tmp_path / "index", qa_folder / "train.jsonl", top_k=1)
    # "…author of hamlet born" finds Hamlet: one of two paragraphs, without the answer; the question
    # about Paris finds its one paragraph; the third has no supporting ids and is a yes-no question
    assert result["recall"] == pytest.approx((1 / 2 + 1) / 2)
    assert result["answer_recall"] == pytest.approx(1 / 2)
    assert (result["num_questions"], result["num_with_support"], result["num_with_answer"]) == (
        3,
        2,
        2,
    )
    assert result["queries_per_second"] > 0
    foreign = write_rows(tmp_path / "foreign.jsonl", [QUESTIONS[0] | {"supporting_ids": ["99"]}])
    with pytest.raises(UserError, match="belong to another corpus"):
        evaluate(tmp_path / "index", foreign)
