"""Dense retrieval: sentence embeddings and their exact inner product. Needs torch; imported lazily.

The form of E5 (Wang et al., arXiv 2212.03533), which Search-R1 uses: a prefix for queries and one
for passages, mean over the token vectors, unit length. Vectors are kept in half precision and
compared in single precision; equal scores are ranked by id.
"""

import itertools
import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers

from paw.envs.retrieval.base import Passage
from paw.envs.retrieval.files import clean
from paw.envs.retrieval.store import PassageStore, PassageWriter
from paw.errors import UserError, first_line

Pooling = Literal["mean", "cls"]
E5_PREFIXES = ("query: ", "passage: ")
ENCODE_CHUNK = 4096
SCORE_BLOCK = 1 << 16
QUERY_BLOCK = 256
MAX_QUERY_CHARS = 4096


def best_device() -> torch.device:
    """The first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Encoder:
    """Texts to unit vectors, with the model of a local directory.

    Raises:
        UserError: no such directory, or no encoder model in it.
    """

    def __init__(
        self,
        path: str | Path,
        pooling: Pooling = "mean",
        max_tokens: int = 256,
        device: torch.device | None = None,
    ) -> None:
        if not Path(path).is_dir():
            raise UserError(f"encoder {path}: no such directory; name a local model directory")
        if pooling not in ("mean", "cls"):
            raise UserError(f"pooling {pooling!r}: mean or cls is wanted")
        self.pooling, self.max_tokens = pooling, max_tokens
        self.device = device or best_device()
        dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(path), local_files_only=True
            )
            model = transformers.AutoModel.from_pretrained(
                str(path), local_files_only=True, dtype=dtype
            )
        except (OSError, ValueError) as error:
            raise UserError(f"encoder {path}: {first_line(error)}") from error
        self._model = model.to(self.device).eval()

    @torch.inference_mode()
    def encode(self, texts: list[str], batch_size: int = 64) -> np.ndarray:
        """[len(texts), D] float32, rows of unit length."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        rows: list[np.ndarray] = []
        for start in range(0, len(order), batch_size):
            batch = [texts[i] for i in order[start : start + batch_size]]
            inputs = self._tokenizer(
                batch,
                padding=True,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            ).to(self.device)
            hidden = self._model(**inputs).last_hidden_state.float()
            if self.pooling == "cls":
                pooled = hidden[:, 0]
            else:
                mask = inputs["attention_mask"][..., None].float()
                pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
            rows.append(torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy())
        vectors = np.concatenate(rows)
        result = np.empty_like(vectors)
        result[order] = vectors
        return result


def build(
    passages: Iterable[tuple[int, Passage]],
    corpus: str | Path,
    directory: Path,
    encoder: str | Path,
    prefixes: tuple[str, str] | None = None,
    pooling: Pooling = "mean",
    max_tokens: int = 256,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Write the vectors of `passages` (line number, passage) into `directory`; returns the facts.

    Args:
        encoder: model directory.
        prefixes: for queries and passages; by default E5's where the directory's name has "e5" in
            it, else none.

    Raises:
        UserError: bad encoder or corpus.
    """
    model = Encoder(encoder, pooling, max_tokens)
    if prefixes is None:
        prefixes = E5_PREFIXES if "e5" in Path(encoder).resolve().name.lower() else ("", "")
    writer = PassageWriter(directory)
    raw = directory / "unsorted.bin"
    width = 0
    with raw.open("wb") as file:
        texts: list[str] = []

        def flush() -> int:
            vectors = model.encode(texts, batch_size).astype(np.float16)
            file.write(vectors.tobytes())
            texts.clear()
            return vectors.shape[1]

        for passage in writer.write(passages):
            texts.append(prefixes[1] + passage.contents)
            if len(texts) == ENCODE_CHUNK:
                width = flush()
        if texts:
            width = flush()
    rank = writer.finish(corpus)
    unsorted = np.memmap(raw, dtype=np.float16, mode="r", shape=(len(rank), width))
    vectors = np.lib.format.open_memmap(
        directory / "vectors.npy", mode="w+", dtype=np.float16, shape=unsorted.shape
    )
    order = np.argsort(rank)
    for start in range(0, len(order), SCORE_BLOCK):
        vectors[start : start + SCORE_BLOCK] = unsorted[order[start : start + SCORE_BLOCK]]
    vectors.flush()
    raw.unlink()
    return {
        "num_passages": len(rank),
        "encoder": str(Path(encoder).resolve()),
        "dimensions": width,
        "prefixes": list(prefixes),
        "pooling": pooling,
        "max_tokens": max_tokens,
    }


class Dense:
    """Searches an index directory written by `build`. Model and vectors load at the first search;
    on a GPU the vectors stay there."""

    merged = True
    """A server searches the requests that wait as one batch."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._facts = json.loads((self.directory / "index.json").read_text(encoding="utf-8"))
        self._store = PassageStore(directory)
        self._vectors = np.load(self.directory / "vectors.npy", mmap_mode="r")
        missing = {"encoder", "dimensions", "prefixes", "pooling", "max_tokens"} - set(self._facts)
        if missing:
            raise ValueError(f"index.json has no {', '.join(sorted(missing))}")
        if not Path(self._facts["encoder"]).is_dir():
            raise UserError(
                f"{directory}: its encoder {self._facts['encoder']} is not there; put it back or"
                " build the index again"
            )
        if self._vectors.shape != (len(self._store), self._facts["dimensions"]):
            raise ValueError(f"vectors of shape {self._vectors.shape}")
        self._encoder: Encoder | None = None
        self._blocks: list[torch.Tensor] | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["Dense"], tuple[Path]]:
        return Dense, (self.directory,)

    def __len__(self) -> int:
        return len(self._store)

    def passage(self, passage_id: str) -> Passage | None:
        """The passage of that id."""
        return self._store.find(passage_id)

    def search(self, queries: list[str], top_k: int) -> list[list[Passage]]:
        """The `top_k` nearest passages a query; nothing for a query of white space."""
        found: list[list[Passage]] = [[] for _ in queries]
        asked = [i for i, query in enumerate(queries) if query.strip()]
        if not asked:
            return found
        encoder = self._load()
        prefix = self._facts["prefixes"][0]
        texts = [prefix + clean(queries[i].strip()[:MAX_QUERY_CHARS]) for i in asked]
        valid = [text.encode("utf-8", "replace").decode() for text in texts]
        vectors = encoder.encode(valid)
        ranked = [
            best
            for start in range(0, len(vectors), QUERY_BLOCK)
            for best in self._rank(vectors[start : start + QUERY_BLOCK], top_k)
        ]
        for i, (places, scores) in zip(asked, ranked, strict=True):
            found[i] = [
                self._store.get(int(place), float(score))
                for place, score in zip(places, scores, strict=True)
            ]
        return found

    def _load(self) -> Encoder:
        with self._lock:
            if self._encoder is None:
                facts = self._facts
                self._encoder = Encoder(facts["encoder"], facts["pooling"], facts["max_tokens"])
                pieces = range(0, len(self._vectors), SCORE_BLOCK)
                blocks = [self._vectors[start : start + SCORE_BLOCK] for start in pieces]
                if self._encoder.device.type == "cuda":
                    self._blocks = [
                        torch.from_numpy(np.array(block)).to(self._encoder.device)
                        for block in blocks
                    ]
            return self._encoder

    def _rank(self, queries: np.ndarray, top_k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(places, scores) of the best passages of each query [Q, D]."""
        assert self._encoder is not None
        wanted = torch.from_numpy(queries).to(self._encoder.device)
        rows, places, scores = [], [], []
        for number, start in enumerate(range(0, len(self._vectors), SCORE_BLOCK)):
            if self._blocks is not None:
                block = self._blocks[number]
            else:
                block = torch.from_numpy(np.array(self._vectors[start : start + SCORE_BLOCK]))
            similarity = wanted @ block.float().T
            k = min(top_k, similarity.shape[1])
            # all that reach the k-th best score, so that equal scores are ranked by id below
            kept = similarity >= similarity.topk(k, dim=1).values[:, -1:]
            row, place = kept.nonzero(as_tuple=True)
            rows.append(row.cpu().numpy())
            places.append(place.cpu().numpy() + start)
            scores.append(similarity[row, place].cpu().numpy())
        row, place, score = (np.concatenate(parts) for parts in (rows, places, scores))
        order = np.lexsort((place, -score, row))
        row, place, score = row[order], place[order], score[order]
        ends = np.searchsorted(row, np.arange(len(queries) + 1))
        return [
            (place[a:b][:top_k], score[a:b][:top_k]) for a, b in itertools.pairwise(ends.tolist())
        ]
