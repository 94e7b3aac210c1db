"""Retrieval for search environments: BM25, dense, and servers in Search-R1's protocol.

build_index("corpus.jsonl", "index")          # once
open_index("index").search(["who wrote Hamlet?"], top_k=3)
serve("index", port=8000)                      # for other machines: RetrieverClient(url)
"""

from paw.envs.retrieval.base import Passage, RetrievalError, Retriever
from paw.envs.retrieval.client import RetrieverClient, open_retriever
from paw.envs.retrieval.index import build_index, cached_index, index_facts, open_index
from paw.envs.retrieval.server import RetrieverServer, open_server, serve

__all__ = [
    "Passage",
    "RetrievalError",
    "Retriever",
    "RetrieverClient",
    "RetrieverServer",
    "build_index",
    "cached_index",
    "index_facts",
    "open_index",
    "open_retriever",
    "open_server",
    "serve",
]
