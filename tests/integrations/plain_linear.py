"""For `vllm serve --worker-extension-cls plain_linear.PlainLinear` on a CPU, where weights that are
packed for oneDNN would be dropped by a hand-over, without a word."""

from importlib import import_module
from typing import Any

_operations: Any = import_module("vllm._custom_ops")
_operations._supports_onednn = False


class PlainLinear:
    """Adds nothing: to be imported is enough."""
