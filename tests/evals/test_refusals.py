"""Parameters that endpoints refuse, in the words of many servers, and what is no such refusal."""

import json

import pytest
from fake_endpoint import FakeEndpoint, answer

from paw.errors import UserError
from paw.evals.endpoint import Endpoint, EndpointError
from paw.evals.refusals import refuses
from paw.evals.replies import read_reply

HELLO = [{"role": "user", "content": "hello"}]


def said(message, **more):
    return json.dumps({"error": {"message": message, **more}})


O_SERIES = said(
    "Unsupported parameter: 'temperature' is not supported with this model.",
    type="invalid_request_error", param="temperature", code="unsupported_parameter",
)  # fmt: skip
GPT_5 = said(
    "Unsupported value: 'temperature' does not support 0.4 with this model. Only the default (1) "
    "value is supported.",
    type="invalid_request_error", param="temperature", code="unsupported_value",
)  # fmt: skip
VLLM = (
    "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not "
    "permitted', 'input': 5}]"
)
REFUSED = [
    ("temperature", O_SERIES),
    ("temperature", GPT_5),
    ("temperature", said("no such thing here", param="temperature", code="unsupported_parameter")),
    ("temperature", said("'temperature' does not support 0.4 with this model. Only the default (1) "
                         "value is supported.")),
    ("temperature", said("`temperature` may only be set to 1 when thinking is enabled.")),
    ("temperature", said("`temperature` is deprecated for this model.")),
    ("temperature", said("invalid temperature: only 1 is allowed for this model")),
    ("temperature", said("litellm.UnsupportedParamsError: O-series models don't support "
                         "temperature=0.4. Only temperature=1 is supported. To drop unsupported "
                         "openai params from the call, set `litellm.drop_params = True`")),
    ("temperature", said("Model o1 does not support parameter temperature.")),
    ("temperature", said("Provider returned error", metadata={"raw": O_SERIES})),
    ("temperature", said("The model only supports temperature=1")),
    ("temperature", said("temperature=0.4 isn't supported; only 1.0")),
    ("temperature", said("Invalid parameter: temperature")),
    ("temperature", said("temperature is fixed at 1 for this model")),
    ("temperature", said("temperature is no longer supported")),
    ("temperature", said("temperature cannot be overridden for this model")),
    ("temperature", said("This model only accepts the default temperature")),
    ("temperature", said("Please remove temperature from the request")),
    ("temperature", said("temperature is incompatible with thinking")),
    ("seed", said("1 validation error for Request\nseed\n  Extra inputs are not permitted "
                  "[type=extra_forbidden, input_value=5, input_type=int]")),
    ("seed", said("seed is not implemented")),
    ("max_tokens", said("This model requires max_completion_tokens rather than max_tokens")),
    ("seed", said("Unrecognized request argument supplied: seed", param=None, code=None)),
    ("seed", json.dumps({"object": "error", "message": VLLM, "code": 400, "param": None})),
    ("seed", '{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra '
             'inputs are not permitted", "input": 5}]}'),
    ("seed", '{"detail": [{"type": "value_error.extra", "loc": ["body", "seed"], "msg": "extra '
             'fields not permitted"}]}'),
    ("seed", json.dumps([{"error": {"code": 400, "message": 'Invalid JSON payload received. '
                                    'Unknown name "seed": Cannot find field.'}}])),
    ("seed", said("Unsupported param: seed")),
    ("seed", said("property 'seed' is unsupported")),
    ("seed", said("openai does not support parameters: ['seed'], for model=x")),
    ("seed", said("Malformed input request: extraneous key [seed] is not permitted")),
    ("seed", "Failed to deserialize the JSON body: unknown field `seed`, expected one of `model`"),
    ("seed", said("JAX does not support per-request seed.")),
    ("seed", said("create() got an unexpected keyword argument 'seed'")),
    ("max_tokens", said("Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                        "'max_completion_tokens' instead.", param="max_tokens",
                        code="unsupported_parameter")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), REFUSED)
def test_a_refused_parameter_is_named(name, text):
    assert [n for n in ("temperature", "max_tokens", "seed") if refuses(text, n)] == [name]


@pytest.mark.parametrize(
    "text",
    [
        said("temperature must be between 0 and 2", param="temperature", code="invalid_value"),
        said("Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 3",
             param="temperature", code="decimal_above_max_value"),
        said("temperature must be 1"),
        said("temperature must be 1.5 at most"),
        said("temperature: Input should be less than or equal to 1"),
        said("temperature must be a number"),
        said("Invalid value for temperature: 5"),
        said("max_tokens is too large: 99999. This model supports at most 4096 completion tokens"),
        said("max_tokens: this model only supports up to 4096 tokens"),
        said("'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum "
             "context length is 256 tokens"),
        said("This model does not support image input"),
        said("Unknown model: small"),
        "",
    ],
)  # fmt: skip
def test_other_refusals_stay_refusals(text):
    assert [n for n in ("temperature", "max_tokens", "seed") if refuses(text, n)] == []
    with FakeEndpoint(faults=[(400, text.encode())]) as fake, pytest.raises(UserError):
        Endpoint(fake.base, "small").chat(HELLO, 0)
    assert len(fake.bodies) == 1


@pytest.mark.parametrize("status", [200, 400, 422, 500])
def test_what_is_refused_is_left_out_and_said_once(status):
    heard = []
    with FakeEndpoint(faults=[(status, GPT_5.encode())]) as fake:
        endpoint = Endpoint(fake.base, "small", temperature=0.4, say=heard.append, backoff=0.01)
        replies = [endpoint.chat(HELLO, 5), endpoint.chat(HELLO, 6)]
    assert ["temperature" in body for body in fake.bodies] == [True, False, False]
    assert fake.bodies[1] == {"model": "small", "messages": HELLO, "max_tokens": 512, "seed": 5}
    assert [reply.left_out for reply in replies] == [("temperature",)] * 2
    assert len(heard) == 1 and "its own default counts, not 0.4" in heard[0]


def test_one_refusal_may_name_two():
    heard = []
    text = said("Unsupported parameters: temperature, seed").encode()
    with FakeEndpoint(faults=[(400, text)]) as fake:
        reply = Endpoint(fake.base, "small", say=heard.append).chat(HELLO, 5)
    assert len(fake.bodies) == 2 and len(heard) == 2
    assert reply.left_out == ("temperature", "seed")


def test_a_limit_that_neither_name_gives_is_left_out():
    texts = [said(f"Unknown parameter: {name}") for name in ("max_tokens", "max_completion_tokens")]
    heard = []
    with FakeEndpoint(faults=[(400, text.encode()) for text in texts]) as fake:
        reply = Endpoint(fake.base, "small", say=heard.append).chat(HELLO, 5)
    assert reply.left_out == ("max_tokens",) and len(heard) == 1
    assert fake.bodies[-1] == {"model": "small", "messages": HELLO, "temperature": 0.0, "seed": 5}


def test_a_filtered_prompt_loses_its_episode_alone():
    text = said("The response was filtered due to the prompt", code="content_filter").encode()
    failing = pytest.raises(EndpointError, match="content filter refused the prompt")
    with FakeEndpoint(faults=[(400, text)]) as fake, failing:
        Endpoint(fake.base, "small").chat(HELLO, 0)


def choice(message, reason="stop"):
    return json.dumps({"choices": [{"message": message, "finish_reason": reason}]}).encode()


@pytest.mark.parametrize(
    ("body", "text", "reasoning", "cut", "filtered"),
    [
        (choice({"content": "x"}), "x", "", False, False),
        (choice({"content": None}, "length"), "", "", True, False),
        (choice({"content": "half", "reasoning_content": "r"}, "max_tokens"), "half", "r", True,
         False),
        (choice({"content": None}, "content_filter"), "", "", False, True),
        (choice({"content": None, "refusal": "I cannot"}), "I cannot", "", False, True),
        (choice({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]},
                             {"type": "text", "text": "a"}, "b"]}), "ab", "t", False, False),
        (choice({"content": [{"type": "reasoning", "text": "t"}, {"type": "text", "text": "a"}]}),
         "a", "t", False, False),
        (choice({"content": {"type": "text", "text": "a"}}), "a", "", False, False),
        (choice({"content": [{"type": "refusal", "refusal": "no"}]}), "no", "", False, False),
        (choice({"content": [{"type": "text", "text": "t", "thought": True},
                             {"type": "text", "text": "a"}]}), "a", "t", False, False),
        (choice({"content": "a", "thinking": "t"}, "max_output_tokens"), "a", "t", True, False),
        (choice({"content": "a", "thinking": True}, "model_context_window_exceeded"), "a", "", True,
         False),
        (choice({"content": "a"}, "eos"), "a", "", False, False),
        (answer("x", reasoning="because"), "x", "because", False, False),
    ],
)  # fmt: skip
def test_how_a_response_ended(body, text, reasoning, cut, filtered):
    reply = read_reply(body)
    assert (reply.text, reply.reasoning, reply.cut, reply.filtered) == (
        text, reasoning, cut, filtered,
    )  # fmt: skip
