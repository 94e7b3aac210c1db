import subprocess
import sys

import pytest
import torch

import paw.objective as P


def test_import_pulls_in_nothing_but_torch():
    # What torch itself imports differs by version: compare with a bare `import torch`.
    code = """
import sys, torch
before = {name.partition(".")[0] for name in sys.modules}
import paw.objective
after = {name.partition(".")[0] for name in sys.modules}
print(sorted(after - before - sys.stdlib_module_names))
print(sorted(name for name in sys.modules if name.split(".")[0] == "paw"
             and not name.startswith("paw.objective")))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["['paw']", "['paw']"]


def test_every_public_function_is_exported_and_documented():
    assert P.__all__ == sorted(P.__all__)
    for name in P.__all__:
        doc = getattr(P, name).__doc__
        for section in ("Args:", "Returns:", "Reference:"):
            assert section in doc, f"{name}: no {section}"
    public = {n for n, f in vars(P).items() if callable(f) and not n.startswith("_")}
    assert public == set(P.__all__)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_results_lie_on_the_device_of_the_inputs():
    cuda = torch.device("cuda")
    group, returns = torch.tensor([0, 0, 1], device=cuda), torch.tensor([1.0, 0, 1], device=cuda)
    mask, turn = group == 0, torch.zeros_like(group)
    lambdas = P.group_weights(returns, group, 1.0)
    trajectory = torch.arange(3, device=cuda)
    results = [
        lambdas,
        P.select_top_fraction(returns, mask, 0.5),
        P.transition_weights(mask, group, lambdas),
        P.leave_one_out_advantages(returns, group),
        P.gigpo_advantages(returns, returns, trajectory, turn, group, turn, 0.95, 1.0, True),
        *P.generalized_advantages(returns, returns, trajectory, turn, 0.9, 0.9),
        P.segment_mean(returns, group, 2),
        P.token_entropy(returns),
        P.clipped_mae(-returns, 0.2),
        P.clipped_surrogate(returns, returns, returns, 0.2, 0.2),
        P.value_loss(returns, returns, returns, 0.2),
        P.weighted_sum(returns, returns),
    ]
    assert all(result.device.type == "cuda" for result in results)
