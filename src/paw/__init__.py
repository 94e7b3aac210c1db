"""PaW: policy and world-model co-training for language agents (arXiv 2606.02388).

Importing `paw` imports nothing else; see `paw.objective` for the pure functions.
"""

__version__ = "0.1.0"
