import json
import threading
import time
from email.utils import formatdate

import pytest
from fake_endpoint import FakeEndpoint, answer

from paw.errors import UserError
from paw.evals.endpoint import Endpoint, EndpointError, Stopped, _retry_after

HELLO = [{"role": "user", "content": "hello"}]


def client(fake, **changes):
    options = {"key": "sk-secret", "timeout": 5.0, "tries": 4, "backoff": 0.01} | changes
    return Endpoint(fake.base, "small", **options)


def test_request_and_reply():
    with FakeEndpoint(lambda body: "hi") as fake:
        reply = client(fake, temperature=0.4, max_tokens=7).chat(HELLO, seed=3)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("hi", 10, 5)
    assert fake.bodies == [
        {
            "model": "small", "messages": HELLO, "temperature": 0.4, "max_tokens": 7, "seed": 3,
        }
    ]  # fmt: skip
    assert fake.headers[0]["Authorization"] == "Bearer sk-secret"


def test_no_key_sends_no_header():
    with FakeEndpoint() as fake:
        client(fake, key=None).chat(HELLO, 0)
    assert "Authorization" not in fake.headers[0]


@pytest.mark.parametrize(
    "fault", [500, 503, 408, "cut", "drop", "json", "list", "empty", "no message", b"\xff"]
)
def test_passing_faults_are_tried_again(fault):
    with FakeEndpoint(lambda body: "at last", faults=[None, fault, fault]) as fake:
        endpoint = client(fake)
        endpoint.chat(HELLO, 0)
        assert endpoint.chat(HELLO, 0).text == "at last"
    assert len(fake.bodies) == 4
    assert endpoint.num_retries == 2


def test_time_out_is_tried_again():
    with FakeEndpoint(faults=["hang"]) as fake:
        assert client(fake, timeout=0.2).chat(HELLO, 0).text == "ok"
    assert len(fake.bodies) == 2


def test_tries_are_bounded_and_the_reason_told():
    failing = pytest.raises(EndpointError, match="HTTP 500 after 4 tries")
    with FakeEndpoint(faults=[500] * 9) as fake, failing:
        client(fake).chat(HELLO, 0)
    assert len(fake.bodies) == 4


def test_waits_grow_with_jitter():
    """backoff 0.1: waits in [0.05, 0.1], [0.1, 0.2], [0.2, 0.4] seconds."""
    with FakeEndpoint(faults=[500] * 3) as fake:
        client(fake, backoff=0.1).chat(HELLO, 0)
    waits = [b - a for a, b in zip(fake.times, fake.times[1:], strict=False)]
    assert all(wait >= least for wait, least in zip(waits, (0.05, 0.1, 0.2), strict=True))


def test_retry_after_is_honoured_by_every_thread():
    with FakeEndpoint(faults=[("429", 0.4)]) as fake:
        endpoint = client(fake)
        first = threading.Thread(target=endpoint.chat, args=(HELLO, 0))
        first.start()
        while not endpoint.num_retries:
            time.sleep(0.005)
        endpoint.chat(HELLO, 1)
        first.join()
    assert [body["seed"] for body in fake.bodies].count(0) == 2
    assert all(moment - fake.times[0] >= 0.39 for moment in fake.times[1:])


def test_retry_after_forms():
    assert _retry_after("1.5") == 1.5
    assert _retry_after(formatdate(time.time() + 100, usegmt=True)) == pytest.approx(100, abs=3)
    assert _retry_after(formatdate(0)) == 0.0
    assert [_retry_after(x) for x in (None, "soon", "nan", "inf")] == [None] * 4


def test_a_daily_limit_is_not_waited_for():
    failing = pytest.raises(EndpointError, match="28800 s")
    with FakeEndpoint(faults=[("429", 28800)]) as fake, failing:
        client(fake).chat(HELLO, 0)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (401, "read from THE_KEY, which is set, but not accepted"),
        (403, "THE_KEY"),
        (404, "is 'small' served?"),
        (402, "no credit"),
        ((429, b'{"error": {"code": "insufficient_quota"}}'), "no credit"),
        ((400, b'{"error": {"message": "maximum context length is 4096"}}'), "--agent plain"),
        ((400, b'{"error": {"message": "temperature must be 1"}}'), "temperature must be 1"),
        ((307, {"Location": "http://elsewhere/v1"}), "http://elsewhere/v1"),
        ((302, {"Location": "http://127.0.0.1:9/v1"}), "redirects to http://127.0.0.1:9/v1"),
    ],
)
def test_refusals_are_one_line_at_once(fault, said):
    with FakeEndpoint(faults=[fault]) as fake, pytest.raises(UserError) as caught:
        client(fake, key_name="THE_KEY").chat(HELLO, 0)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(fake.bodies) == 1


def test_the_key_is_never_shown():
    refusal = (401, b'{"error": {"message": "bad key sk-secret"}}')
    with FakeEndpoint(faults=[refusal]) as fake, pytest.raises(UserError) as caught:
        client(fake).chat(HELLO, 0)
    assert "bad key ***" in str(caught.value)
    assert "sk-secret" not in str(caught.value)


def test_parameters_that_a_model_does_not_know():
    """o-series: `max_completion_tokens`; strict servers: no `seed`. Asked once, then known."""
    renamed = b'{"error": {"message": "Unsupported: max_tokens. Use max_completion_tokens"}}'
    extra = b'{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}'
    with FakeEndpoint(faults=[(400, renamed), (422, extra)]) as fake:
        endpoint = client(fake, max_tokens=9)
        endpoint.chat(HELLO, 0)
        endpoint.chat(HELLO, 0)
    assert len(fake.bodies) == 4
    assert fake.bodies[-1] == {
        "model": "small", "messages": HELLO, "temperature": 0.0, "max_completion_tokens": 9,
    }  # fmt: skip


def test_an_address_where_nothing_answers():
    with FakeEndpoint() as fake:
        pass
    with pytest.raises(UserError, match=r"cannot reach http://127\.0\.0\.1.*connection refused"):
        client(fake).chat(HELLO, 0)


@pytest.mark.parametrize(
    "base",
    [
        "127.0.0.1:8000", "ftp://host/v1", "http://", "http://host:port/v1", "http://h/v1?key=1",
        "http://user:sk-secret@host/v1", "http://host/a b", "http://höst/v1",
    ],
)  # fmt: skip
def test_bad_addresses(base):
    with pytest.raises(UserError, match="--api-base") as caught:
        Endpoint(base, "small")
    assert "sk-secret" not in str(caught.value)


def test_bad_key():
    with pytest.raises(UserError, match="OPENAI_API_KEY") as caught:
        Endpoint("http://host/v1", "small", key="sk-\nsecret")
    assert "secret" not in str(caught.value)


def test_content_in_all_its_forms():
    bodies = [
        answer("x", reasoning_content="because"),
        answer("", usage=None),
        json.dumps({"choices": [{"message": {"content": None}}]}).encode(),
        json.dumps(
            {"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}}]}
        ).encode(),
        answer("\ud800"),
    ]
    with FakeEndpoint(faults=bodies) as fake:
        endpoint = client(fake)
        replies = [endpoint.chat(HELLO, 0) for _ in bodies]
    assert [r.text for r in replies] == ["x", "", "", "ab", "?"]
    assert replies[0].reasoning == "because"
    assert [r.counted for r in replies] == [True, False, False, False, True]


def test_stop_ends_a_wait():
    with FakeEndpoint(faults=[("429", 60)]) as fake:
        endpoint = client(fake)
        threading.Timer(0.1, endpoint.stop).start()
        start = time.monotonic()
        with pytest.raises(Stopped):
            endpoint.chat(HELLO, 0)
    assert time.monotonic() - start < 5
