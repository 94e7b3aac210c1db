"""Log-probs of spans of any role, and which tokens are the most probable."""

import pytest
import torch
from tiny_models import build

from paw.model.head import token_scores
from paw.model.packing import pack
from paw.model.policy import Policy
from paw.model.spans import SpanRow, score_spans

ROWS = [
    SpanRow((3, 1, 4, 1, 5, 9, 2, 6), [(1, 3), (5, 8)]),
    SpanRow((5, 3, 5), []),
    SpanRow((8, 9, 7, 9, 3), [(2, 3)]),
]


def test_top_by_hand():
    """Hidden state 1, vocabulary of three with logits (0, 2, 2): tokens 1 and 2 are equally
    probable, each with e^2 / (1 + 2 e^2), and so both are on top; token 0 is not."""
    hidden, weight = torch.ones(3, 1), torch.tensor([[0.0], [2.0], [2.0]])
    logprobs, _, is_top = token_scores(hidden, weight, torch.tensor([0, 1, 2]))
    top = 2 - torch.log(1 + 2 * torch.tensor(2.0).exp())
    torch.testing.assert_close(logprobs, torch.stack([top - 2, top, top]))
    assert is_top.tolist() == [False, True, True]


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_top_is_the_argmax_in_any_chunks_and_never_an_unknown_token(chunk):
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 4, generator=generator) for n in (30, 7))
    logits = hidden @ weight.T
    unknown = torch.tensor([2, 5])
    logits[:, unknown] = -torch.inf
    targets = torch.tensor([0, 1, 3, 4, 6] * 6)
    is_top = token_scores(hidden, weight, targets, chunk=chunk, unknown=unknown)[2]
    assert is_top.tolist() == (logits.argmax(-1) == targets).tolist()
    assert 0 < is_top.sum() < 30


def test_spans_are_scored_where_they_stand():
    """As the model's own logits say, whatever shares the pass with the row."""
    model = build("qwen2")
    plain = [
        model(torch.tensor([row.token_ids]), use_cache=False).logits[0].log_softmax(-1).detach()
        for row in ROWS
    ]
    policy = Policy(model)
    for max_tokens in (1, 8, 100):
        found = list(score_spans(policy, ROWS, max_tokens, share=False))
        assert [len(row) for row in found] == [2, 0, 1]
        for row, logprobs, scores in zip(ROWS, plain, found, strict=True):
            for (start, stop), score in zip(row.spans, scores, strict=True):
                before = logprobs[start - 1 : stop - 1]
                ids = torch.tensor(row.token_ids[start:stop])
                expected = before.gather(1, ids[:, None]).squeeze(1)
                torch.testing.assert_close(
                    torch.tensor(score.logprobs), expected, rtol=0, atol=1e-5
                )
                assert score.is_top == (before.argmax(-1) == ids).tolist()
                entropy = -(before.exp() * before).sum(-1)
                torch.testing.assert_close(
                    torch.tensor(score.entropies), entropy, rtol=0, atol=1e-5
                )


def test_a_pass_is_asked_for_only_when_its_scores_are():
    policy = Policy(build("qwen2"))
    scores = score_spans(policy, iter(ROWS), 8, share=False)
    assert policy.passes.forwards == 0
    next(scores)
    assert policy.passes.forwards == 1
    assert len(list(scores)) == 2 and policy.passes.forwards == 2  # 8 | 3 + 5 tokens


def test_shared_beginnings_change_nothing_but_rounding():
    prefix = tuple(range(1, 30))
    rows = [SpanRow((*prefix, *tail), [(29, 29 + len(tail))]) for tail in ((5, 6), (5, 7, 8), (9,))]
    policy = Policy(build("llama"))
    alone, shared = (list(score_spans(policy, rows, 1000, share=s)) for s in (False, True))
    for (one,), (other,) in zip(alone, shared, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_the_first_token_of_a_row_has_no_logprob():
    policy = Policy(build("qwen2"))
    with pytest.raises(ValueError, match="first token"):
        list(score_spans(policy, [SpanRow((1, 2), [(0, 2)])], 10, share=False))


def test_scores_are_those_that_are_learned_from():
    """`scores` and `logprobs` are one computation, bit for bit."""
    policy = Policy(build("qwen3"))
    packed, positions = pack([ROWS[0].token_ids], "cpu"), torch.tensor([1, 6])
    for one, other in zip(
        policy.logprobs(packed, positions), policy.scores(packed, positions), strict=False
    ):
        assert torch.equal(one, other)
