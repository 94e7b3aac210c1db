import pytest
import torch
from tiny_models import FAMILIES, build
from transformers import PreTrainedModel


@pytest.fixture(params=FAMILIES)
def model(request) -> PreTrainedModel:
    return build(request.param)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Bit-equality is promised for one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
