"""A `vllm serve` on other GPUs: what breaks on the way is tried again, what is wrong is a line."""

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_engine import END_IDS, LENGTH, VOCAB, FakeEngine, change, make_policy, requests
from fake_server import (
    GENERATE,
    FakeServer,
    choice,
    cut,
    failing,
    first_token,
    late,
    reset,
    silent,
    truncated,
)
from safetensors.torch import load_file

from paw.cli import main
from paw.config.read import resolve
from paw.errors import RunFailure, UserError
from paw.model.policy import Policy
from paw.rollout import vllm_client, vllm_server
from paw.rollout.engine import EngineSampler
from paw.rollout.ranks import ALONE, Ranks
from paw.rollout.vllm_server import server_sampler, write_weights
from paw.runs.layout import resolve_model


@pytest.fixture
def policy() -> Policy:
    return make_policy()


@pytest.fixture
def server(policy, monkeypatch) -> Iterator[FakeServer]:
    monkeypatch.setattr(vllm_client, "PAUSES", (0.01, 0.01, 0.01))
    made = FakeServer(policy)
    with torch.no_grad():
        for p in made.own.parameters():
            p.zero_()  # it was started with other weights
    yield made
    made.close()


def sampler_of(
    url: str, policy: Policy, place: Path, ranks: Ranks = ALONE, *flags: str
) -> EngineSampler:
    keys = ["--rollout.max_prompt_tokens", "44", "--rollout.max_response_tokens", "20"]
    more = ["--rollout.sampler", "vllm", "--rollout.vllm_server", url]
    return server_sampler(resolve([], [*keys, *more, *flags]), policy, END_IDS, ranks, place)


HAND_OVER = ["/update_weight_version", "/collective_rpc", "/reset_prefix_cache"]


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_actions_are_those_of_an_engine_in_this_process(policy, server, tmp_path, temperature):
    """Seeds, limits, end tokens and rows that are no token travel, and the weights."""
    change(policy, 0.1)
    inside = EngineSampler(FakeEngine(policy, END_IDS), policy, END_IDS, LENGTH)
    outside = sampler_of(server.url + "/", policy, tmp_path)
    ours, theirs = (
        one.sample(requests(16), temperature=temperature, max_tokens=8) for one in (inside, outside)
    )
    assert [a.token_ids for a in theirs] == [a.token_ids for a in ours]
    assert {a.finished for a in theirs} == {True, False}
    for a, b in zip(ours, theirs, strict=True):
        assert b.logprobs == pytest.approx(a.logprobs, abs=1e-4)
    assert server.told == [GENERATE, *HAND_OVER, *[GENERATE] * (8 + 16)]
    assert [len(files) for files in server.folders] == [1] and not list(tmp_path.iterdir())
    before = server.label
    change(policy, 0.01)
    outside.load(policy, 1)
    assert server.label != before and not list(tmp_path.iterdir())
    for name, tensor in policy.model.state_dict().items():
        assert torch.equal(server.own.model.state_dict()[name], tensor)


def test_weights_in_files_of_limited_size(policy, tmp_path, monkeypatch):
    """Tied ones once; a tensor that is larger than the limit stands alone."""
    monkeypatch.setattr(vllm_server, "FILE_BYTES", 10_000)
    state = policy.model.state_dict()
    assert state["lm_head.weight"].data_ptr() == state["model.embed_tokens.weight"].data_ptr()
    write_weights(state.items(), tmp_path / "weights")
    found: dict[str, torch.Tensor] = {}
    for file in (tmp_path / "weights").iterdir():
        part = load_file(file)
        assert len(part) == 1 or sum(x.nbytes for x in part.values()) <= 10_000
        assert file.stat().st_mode & 0o777 == 0o644 and not part.keys() & found.keys()
        found |= part
    assert found.keys() == state.keys() - {"lm_head.weight"}
    assert all(torch.equal(found[name], state[name]) for name in found)
    assert len(list((tmp_path / "weights").iterdir())) > 3


FAULTS = {
    "500": (failing(500), "HTTP 500: no\\\\nluck"),
    "503": (failing(503), "HTTP 503"),
    "429": (failing(429), "HTTP 429"),
    "reset": (reset, "[Cc]onnection reset"),
    "silent": (silent, "without response"),
    "cut": (cut, "the answer was cut"),
    "late": (late, "timed out"),
}


def test_what_passes_is_tried_again(policy, server, tmp_path, monkeypatch):
    """The same responses as without; what does not pass is one line with the first reason."""
    sampler = sampler_of(server.url, policy, tmp_path)
    expected = sampler.sample(requests(), temperature=1.0, max_tokens=6)
    for fault, line in FAULTS.values():
        if fault is late:  # the others may answer as slowly as the machine does
            monkeypatch.setattr(vllm_client, "ANSWER_SECONDS", 1.0)
        server.faults = [fault] * 3
        assert sampler.sample(requests(), temperature=1.0, max_tokens=6) == expected
        server.faults = [fault, *[failing(502)] * 3]
        wanted = f"{server.url}{GENERATE}: .*{line}.* \\(4 tries\\)"
        with pytest.raises(RunFailure, match=wanted) as error:
            sampler.sample(requests(1), temperature=1.0, max_tokens=6)
        assert "\n" not in str(error.value)


def test_a_server_that_has_gone_is_one_line(policy, server, tmp_path):
    sampler = sampler_of(server.url, policy, tmp_path)
    sampler.load(policy, 0)
    server.close()
    for call in (
        lambda: sampler.sample(requests(), temperature=1.0, max_tokens=6),
        lambda: sampler.load(policy, 1),
    ):
        with pytest.raises(RunFailure, match=f"{server.url}/.*: [Cc]onnection refused"):
            call()
    assert not list(tmp_path.iterdir())


def answering(text: str) -> Any:
    return lambda handler, status, body: truncated(handler, 200, text.encode() * 2)


WRONG = {
    "truncated": (truncated, "200: not what vLLM answers"),
    "html": (answering("<html>"), "200: not what vLLM answers"),
    "no choices": (answering("{}"), "200: not what vLLM answers"),
    "bad request": (failing(400), "400: no"),
    "forbidden": (failing(401), "401: no"),
}


def test_what_is_not_of_the_protocol_is_one_line_at_once(policy, server, tmp_path):
    sampler = sampler_of(server.url, policy, tmp_path)
    sampler.load(policy, 0)
    for fault, line in WRONG.values():
        server.faults = [fault]
        with pytest.raises(RunFailure, match=f"{server.url}{GENERATE}: HTTP {line}") as error:
            sampler.sample(requests(1), temperature=1.0, max_tokens=6)
        assert "\n" not in str(error.value)


BROKEN = {
    "another prompt": (lambda a: a | {"prompt_token_ids": [5]}, "a response to another prompt"),
    "no prompt": (lambda a: {"choices": a["choices"]}, "not what vLLM answers"),
    "none": (lambda a: a | {"choices": []}, "gives 0 answers to one"),
    "two": (lambda a: a | {"choices": a["choices"] * 2}, "gives 2 answers to one"),
    "empty": (choice(token_ids=[]), "a response without a token"),
    "text": (choice(token_ids=["5"]), "not what vLLM answers"),
    "a fraction": (choice(token_ids=[5.5]), "not what vLLM answers"),
    "null": (choice(token_ids=None), "not what vLLM answers"),
    "beyond the vocabulary": (choice(token_ids=[VOCAB] * 6), f"token {VOCAB}, which is none"),
    "huge": (choice(token_ids=[10**30]), f"token {10**30}, which is none"),
    "nan": (first_token(logprob=float("nan")), "not what vLLM answers"),
    "null number": (first_token(logprob=None), "None as the log-prob"),
    "vLLM's word for none": (first_token(logprob=-9999.0), "None as the log-prob"),
    "a probability": (first_token(logprob=0.3), "0.3 as the log-prob"),
    "of another token": (first_token(token_id=59), "None as the log-prob"),
    "no numbers": (choice(logprobs=None), "0 log-probs for"),
    "no list": (choice(logprobs={}), "0 log-probs for"),
    "fewer": (choice(logprobs={"content": []}), "0 log-probs for"),
    "other weights": (choice(weight_versions=[{"version": "x"}]), "other weights than were"),
    "unknown weights": (choice(weight_versions=None), "other weights than were handed over"),
    "cut": (
        choice(token_ids=[5], logprobs={"content": [{"token_id": 5, "logprob": -1}]}),
        "a response cut after 1 of 6",
    ),
}


def test_a_broken_response_ends_the_run(policy, server, tmp_path):
    sampler = sampler_of(server.url, policy, tmp_path)
    sampler.load(policy, 0)
    for broken, line in BROKEN.values():
        server.change = broken
        with pytest.raises(RunFailure, match=line) as error:
            sampler.sample(requests(1), temperature=1.0, max_tokens=6)
        assert "\n" not in str(error.value)


def test_weights_that_were_not_read_end_the_run(policy, server, tmp_path):
    sampler = sampler_of(server.url, policy, tmp_path)
    server.reads = False
    with pytest.raises(RunFailure, match="at the start the sampler's log-probs differ"):
        sampler.load(policy, 0)
    server.reads = True
    sampler.load(policy, 0)
    change(policy, 1e-3)
    server.reads = False
    with pytest.raises(RunFailure, match="still computes with the weights of update 0"):
        sampler.load(policy, 1)


HANDED = {
    "/collective_rpc": (500, '{"error": {"message": "no such\\nfolder"}}', "does the server see"),
    "/update_weight_version": (404, '{"detail": "Not Found"}', "HTTP 404: Not Found"),
    "/reset_prefix_cache": (200, '{"success": false}', "its prefix cache is in use"),
}


@pytest.mark.parametrize("path", HANDED)
def test_a_hand_over_that_fails_is_one_line(policy, server, tmp_path, path):
    sampler = sampler_of(server.url, policy, tmp_path)
    status, text, line = HANDED[path]
    server.instead[path] = status, text
    with pytest.raises(RunFailure, match=line) as error:
        sampler.load(policy, 0)
    assert server.url in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(policy, server, tmp_path):
    with pytest.raises(RunFailure, match=r"cannot write the weights for http.*No such file"):
        sampler_of(server.url, policy, tmp_path / "absent").load(policy, 0)


def test_rows_with_other_numbers_end_the_run(policy, server, tmp_path):
    sampler = sampler_of(server.url, policy, tmp_path)
    honest = server.answer

    def another(path: str, content: Any) -> tuple[int, str]:
        if path == GENERATE:
            content["token_ids"] = [5, *content["token_ids"][1:]]
        return honest(path, content)

    server.answer = another
    with pytest.raises(RunFailure, match="answers for another row than the one asked"):
        sampler.load(policy, 0)


def test_another_run_on_the_same_server_ends_the_first(policy, server, tmp_path):
    """Its weights would be taken for one's own. So would those of a server that starts anew."""
    one = sampler_of(server.url, policy, tmp_path)
    one.sample(requests(), temperature=1.0, max_tokens=6)
    other = make_policy()
    change(other, 0.1)
    sampler_of(server.url, other, tmp_path).load(other, 0)
    with pytest.raises(RunFailure, match=f"{server.url} computes with other weights"):
        one.sample(requests(), temperature=1.0, max_tokens=6)


START = {
    "version": ({"version": "0.33.1"}, "vLLM 0.33.1 was not tried: 0.32 is"),
    "no version": ({"version": None}, "/version: HTTP 200: not what vLLM answers"),
    "length": ({"model": {"max_model_len": 63}}, "start it with --max-model-len 64"),
    "dtype": ({"model": {"dtype": "torch.bfloat16"}}, "start it with --dtype float32"),
    "log-probs": ({"model": {"logprobs_mode": "processed_logprobs"}}, "mode raw_logprobs"),
    "pieces": ({"scheduler": {"enable_chunked_prefill": True}}, "--no-enable-chunked-prefill"),
    "no vLLM": ({"instead": {"/version": (404, "")}}, "what answers there is no vLLM"),
    "no development": (
        {"instead": {"/server_info": (404, '{"detail": "Not Found"}')}},
        "start it with VLLM_SERVER_DEV_MODE=1",
    ),
    "no tokens": ({"instead": {GENERATE: (403, "{}")}}, "start it with --tokens-only"),
    "no tokens at all": ({"instead": {GENERATE: (404, "{}")}}, "start it with --tokens-only"),
    "broken": ({"instead": {GENERATE: (500, "no luck")}}, "no answer: HTTP 500: no luck"),
    "any token": ({"instead": {GENERATE: (200, "{}")}}, "it takes tokens that are none"),
    "a key": ({"instead": {"/version": (401, "no key")}}, "/version: HTTP 401: no key"),
}


@pytest.mark.parametrize(("changes", "line"), START.values(), ids=START)
def test_a_server_that_does_not_fit_is_refused_at_the_start(
    policy, server, tmp_path, changes, line
):
    for name, value in changes.items():
        found = getattr(server, name)
        setattr(server, name, found | value if isinstance(found, dict) else value)
    with pytest.raises(UserError, match=f"rollout.vllm_server = '{server.url}': .*{line}"):
        sampler_of(server.url, policy, tmp_path)
    assert not set(server.told) & set(HAND_OVER)


def test_another_vocabulary_is_refused(policy, server, tmp_path):
    """Weights of another shape end vLLM, and so does a token beyond its vocabulary."""
    server.own.head.embedding.weight.data = torch.zeros(VOCAB + 4, 32)
    with pytest.raises(UserError, match=f"its model has {VOCAB + 4} tokens, the policy {VOCAB}"):
        sampler_of(server.url, policy, tmp_path)


def test_no_server_and_no_address_are_refused(policy, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UserError, match=f"'{url}': no answer: Connection refused; does `vllm"):
        sampler_of(url, policy, tmp_path)
    addresses = ("localhost:8000", "ftp://x", "http://", "http://x:y", "http://x y", "http://[x")
    for wrong in (*addresses, "http://me@x", "http://x?y", "http://x#y", "http://x:0"):
        with pytest.raises(UserError, match="an address such as http://HOST:8000"):
            sampler_of(wrong, policy, tmp_path)


def test_float64_is_refused(server, tmp_path):
    with pytest.raises(UserError, match="computes no float64"):
        sampler_of(server.url, Policy(make_policy().model.double()), tmp_path)


class TwoRanks(Ranks):
    """Two threads that share a run."""

    size = 2

    def __init__(self, rank: int, barrier: threading.Barrier, words: list[Any]) -> None:
        self.rank, self._barrier, self._words = rank, barrier, words

    def agreed(self, mine: Any) -> Any:
        if self.leads:
            self._words.append(mine)
        self._barrier.wait(10)
        return self._words[-1]

    def first(self) -> Any:
        return _Turn(self)

    def wait(self) -> None:
        self._barrier.wait(10)


class _Turn:
    def __init__(self, ranks: TwoRanks) -> None:
        self.ranks = ranks

    def __enter__(self) -> None:
        if not self.ranks.leads:
            self.ranks.wait()

    def __exit__(self, *error: Any) -> None:
        if self.ranks.leads:
            self.ranks.wait()


def test_ranks_hand_over_once_and_all_wait(policy, server, tmp_path):
    """What the others compare and draw comes after rank 0's hand-over."""
    barrier, words, found = threading.Barrier(2), [], {}

    def play(rank: int) -> None:
        ranks = TwoRanks(rank, barrier, words)
        sampler = sampler_of(server.url, policy if rank == 0 else other, tmp_path, ranks)
        sampler.load(sampler.policy, 0)
        found[rank] = sampler.sample(requests(), temperature=1.0, max_tokens=6)

    other = make_policy()
    threads = [threading.Thread(target=play, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [p for p in server.told if p in HAND_OVER] == HAND_OVER
    assert server.told[2:5] == HAND_OVER  # after each rank's look at the server
    assert [a.token_ids for a in found[0]] == [a.token_ids for a in found[1]]
    assert words == [server.label]


def test_a_whole_run(tmp_path: Path, monkeypatch, capsys):
    """Also one that goes on, with the server at another address; what a crash left is removed."""
    shape = Policy.load(resolve_model("household"))
    made = [FakeServer(shape, 4096), FakeServer(shape, 4096)]
    keys = [
        "--run.seed", "3", "--rollout.groups", "2", "--rollout.group_size", "2",
        "--rollout.max_turns", "2", "--rollout.workers", "0", "--rollout.sampler", "vllm",
        "--optimizer.learning_rate", "3e-4", "--run.checkpoint_every", "1",
        "--algorithm.old_logprobs", "score", "--run.directory", str(tmp_path / "run"),
    ]  # fmt: skip
    for updates, server in enumerate(made, start=1):
        more = ["--run.updates", str(updates), "--rollout.vllm_server", server.url]
        assert main(["train", *keys, *more]) == 0, capsys.readouterr().err
        assert len(server.folders) == 2  # at the start and after the update
        assert not list((tmp_path / "run").glob("*.tmp"))
        (tmp_path / "run" / "vllm-left.tmp").mkdir()
        server.close()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    for row in map(json.loads, lines):
        assert row["sampler/logprob_difference_max"] < 1e-4
    assert len(lines) == 2
    shutil.rmtree(tmp_path / "run")
    gone = ["--rollout.vllm_server", made[0].url]
    assert main(["train", *keys, *gone]) == 2
    error = capsys.readouterr().err
    assert f"rollout.vllm_server = '{made[0].url}': no answer" in error
    assert "Traceback" not in error and not (tmp_path / "run").exists()
