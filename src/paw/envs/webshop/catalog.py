"""The shop's stock: products, search index and what the goals are made of.

The 1,000 products of the official subset are read into memory in under a second. The full set is
read once, as a stream, into columns in a cache directory that are memory-mapped from then on. One
catalogue serves every session of a process.
"""

import functools
import hashlib
import os
import shutil
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray
from tqdm import tqdm

from paw.envs.webshop import files
from paw.envs.webshop.analysis import analyze
from paw.envs.webshop.bm25 import BLOCK, Builder, Index
from paw.envs.webshop.product import Annotation, Product, check, parse_product
from paw.errors import UserError

RESULTS = 50
"""Products that a search returns at most."""
MAX_QUERY_CHARS = 10_000
"""Longer queries are cut, so that none holds up the other sessions; Lucene refuses 1,025 terms."""
FORMAT = 1
"""Version of the columns on disk; another one is built anew."""

NUM_GOALS_NONE = -1

PER_PRODUCT = ("low", "high", "combinations", "order", "categories", "queries")
"""Columns with one element per product, as `asins`."""
COLUMNS = (
    *("asins", "ends", *PER_PRODUCT, "categories_labels", "queries_labels", "num_docs"),
    *("words", "word_starts", "starts", "denominators", "docs", "codes", "best"),
)
"""What stands in a cache directory as .npy files, beside `records.bin`."""


@dataclass(frozen=True)
class Sources:
    """The files of one product set."""

    products: Path
    annotations: Path
    human: Path | None

    @classmethod
    def find(cls, directory: Path, products: str) -> "Sources":
        """The files of the set `products`: "1000", "full", or "auto" for the first that is there.

        Raises:
            UserError: the directory or a file is missing.
        """
        suffixes = {"1000": ["_1000"], "full": [""], "auto": ["_1000", ""]}[products]
        if not directory.is_dir():
            raise UserError(f"env.data_dir: there is no directory {directory}")
        for suffix in suffixes:
            items = files.find(directory, f"items_shuffle{suffix}.json")
            if items is None:
                continue
            annotations = files.find(directory, f"items_ins_v2{suffix}.json")
            if annotations is None:
                raise UserError(f"{directory} has {items.name} but no items_ins_v2{suffix}.json")
            names = [f"items_human_ins{suffix}.json", "items_human_ins.json"]
            return cls(items, annotations, files.find(directory, *names))
        wanted = " or ".join(f"items_shuffle{suffix}.json" for suffix in suffixes)
        raise UserError(f"env.data_dir: {directory} holds no {wanted} (plain, .gz or .zst)")

    @property
    def on_disk(self) -> bool:
        """The full set does not belong into memory."""
        return not self.products.name.startswith("items_shuffle_1000")

    @property
    def fingerprint(self) -> str:
        """Changes with the product files and with the format of the columns."""
        parts = [FORMAT]
        for path in (self.products, self.annotations):
            status = path.stat()
            parts += [str(path.resolve()), status.st_size, status.st_mtime_ns]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def parse_products(sources: Sources) -> Iterator[Product]:
    """The products that the shop sells: the first of every asin of at most ten characters."""
    annotations = files.read_json(sources.annotations, dict[str, msgspec.Raw])
    decoder = msgspec.json.Decoder(Annotation)
    seen: set[str] = set()
    for number, raw in enumerate(files.stream(sources.products)):
        check(raw, number, sources.products)
        asin = raw["asin"]
        if asin == "nan" or len(asin) > 10 or asin in seen:
            continue
        seen.add(asin)
        with files.reading(sources.annotations):
            annotation = decoder.decode(annotations.get(asin, b"{}"))
        try:
            yield parse_product(raw, annotation)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{sources.products}: product {asin!r} is malformed ({error!r}); fetch it again"
            ) from error
    if not seen:
        raise UserError(f"{sources.products} holds no product; fetch it again")


def _build(products: Iterable[Product], directory: Path | None) -> dict[str, NDArray[Any]]:
    """The columns of a catalogue, in memory or as .npy files below `directory`."""
    columns: dict[str, NDArray[Any]] = {}

    def allocate(name: str, dtype: DTypeLike, size: int) -> NDArray[Any]:
        if directory is None or size == 0:
            columns[name] = np.zeros(size, dtype)
            if directory is not None:
                np.save(directory / f"{name}.npy", columns[name])
        else:
            path = directory / f"{name}.npy"
            columns[name] = np.lib.format.open_memmap(path, "w+", dtype, (size,))
        return columns[name]

    spilled: list[Any] = []

    def spill() -> None:
        block = builder.block()
        if directory is not None:
            path = directory / f"block-{len(spilled)}.npz"
            np.savez(path, allow_pickle=False, **block)
            block = path
        spilled.append(block)

    def blocks() -> Iterator[Any]:
        return (block if directory is None else dict(np.load(block)) for block in spilled)

    builder = Builder()
    records = bytearray() if directory is None else (directory / "records.bin").open("wb")
    ends, asins = array("Q", [0]), []
    low, high, combinations = array("d"), array("d"), array("q")
    codes: dict[str, array[int]] = {"categories": array("I"), "queries": array("I")}
    labels: dict[str, dict[str, int]] = {"categories": {}, "queries": {}}
    quiet = True if directory is None else None  # None: silent where there is no terminal
    for product in tqdm(products, "webshop: reading products", disable=quiet, mininterval=2):
        try:
            record = msgspec.msgpack.encode(product)
        except UnicodeEncodeError:
            product = _without_surrogates(product)
            record = msgspec.msgpack.encode(product)
        records.extend(record) if isinstance(records, bytearray) else records.write(record)
        ends.append(ends[-1] + len(record))
        asins.append(product.asin.encode())
        low.append(product.prices[0])
        high.append(product.prices[1] if len(product.prices) > 1 else np.nan)
        count = prod(len(values) for values in product.options.values())
        combinations.append(NUM_GOALS_NONE if product.instruction is None else count)
        for kind, label in (("categories", product.category), ("queries", product.query)):
            codes[kind].append(labels[kind].setdefault(label, len(labels[kind])))
        builder.add(product.index_text)
        if builder.pending == BLOCK:
            spill()
    spill()
    if isinstance(records, bytearray):
        columns["records"] = np.frombuffer(bytes(records), np.uint8)
    else:
        records.close()
    with tqdm(total=len(asins), desc="webshop: indexing", disable=quiet, mininterval=2) as bar:
        builder.finish(blocks, allocate, bar.update)
    plain = {
        "ends": np.array(ends),
        "asins": np.array(asins),
        "low": np.array(low),
        "high": np.array(high),
        "combinations": np.array(combinations),
        "num_docs": np.array([np.count_nonzero(builder.lengths)]),
        "order": np.argsort(np.array(asins), kind="stable").astype(np.uint32),
    }
    for kind, column in codes.items():
        plain[kind] = np.array(column)
        plain[f"{kind}_labels"] = np.array([label.encode() for label in labels[kind]])
    for name, column in plain.items():
        allocate(name, column.dtype, len(column))[:] = column
    if directory is not None:
        for path in spilled:
            path.unlink()
    return columns


def _without_surrogates(product: Product) -> Product:
    """The product with lone surrogates, which no UTF-8 can hold, replaced by question marks."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return value.encode("utf-8", "replace").decode()
        if isinstance(value, list):
            return [clean(v) for v in value]
        if isinstance(value, dict):
            return {clean(k): clean(v) for k, v in value.items()}
        return value

    return Product(*(clean(getattr(product, name)) for name in Product.__struct_fields__))


class Catalog:
    """The products of one set; read-only, shared by all sessions of a process."""

    def __init__(self, columns: dict[str, NDArray[Any]], human: Path | None) -> None:
        self.columns, self.human = columns, human
        self.index = Index(columns, columns["asins"], int(columns["num_docs"][0]))
        self._decoder = msgspec.msgpack.Decoder(Product)
        self.product = functools.lru_cache(maxsize=2_000)(self._product)
        self._search = functools.lru_cache(maxsize=2_000)(self._rank)

    def __len__(self) -> int:
        return len(self.columns["asins"])

    def _product(self, number: int) -> Product:
        start, end = int(self.columns["ends"][number]), int(self.columns["ends"][number + 1])
        return self._decoder.decode(self.columns["records"][start:end].data)

    def number(self, asin: str) -> int | None:
        """The position of a product in the catalogue."""
        order, asins, key = self.columns["order"], self.columns["asins"], asin.encode()
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            if asins[order[middle]] < key:
                low = middle + 1
            else:
                high = middle
        found = low < len(order) and bool(asins[order[low]] == key)
        return int(order[low]) if found else None

    def search(self, query: str) -> Sequence[int]:
        """Positions of the products for a query, best first."""
        # A query that is longer than any instruction is not worth its place in the cache.
        return (self._search if len(query) < 2_000 else self._rank)(query)

    def _rank(self, query: str) -> Sequence[int]:
        terms = analyze(query[:MAX_QUERY_CHARS])
        return tuple(int(i) for i in self.index.search(terms, RESULTS)[0])

    def labelled(self, kind: str, label: str) -> NDArray[np.int64]:
        """Positions of all products of one of the "categories" or "queries"."""
        code = np.flatnonzero(self.columns[f"{kind}_labels"] == label.encode("utf-8", "replace"))
        return np.flatnonzero(np.isin(self.columns[kind], code))

    def draw_prices(self, uniform: Any) -> NDArray[np.float64]:
        """The price of every product: a range gives one number, drawn in the catalogue's order."""
        prices = np.array(self.columns["low"])
        high = self.columns["high"]
        for i in np.flatnonzero(~np.isnan(high)):
            prices[i] = uniform(float(prices[i]), float(high[i]))
        return prices


def cache_root() -> Path:
    """Where columns of large catalogues are kept unless `cache_dir` says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paw" / "webshop"


def _load(directory: Path) -> dict[str, NDArray[Any]]:
    """The columns that `_build` wrote.

    Raises:
        UserError: one is missing, cut, or of another length than its fellows.
    """
    try:
        columns = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in COLUMNS}
        columns["records"] = np.memmap(directory / "records.bin", np.uint8, "r")
        if any(column.ndim != 1 for column in columns.values()):
            raise ValueError("a column is not one-dimensional")
        sizes = {name: len(column) for name, column in columns.items()}
        for name, size in (
            *((name, sizes["asins"]) for name in PER_PRODUCT),
            ("ends", sizes["asins"] + 1),
            ("records", columns["ends"][-1:].sum()),
            ("starts", sizes["best"] + 1),
            ("word_starts", sizes["best"] + 1),
            ("words", columns["word_starts"][-1:].sum()),
            ("docs", columns["starts"][-1:].sum()),
            ("codes", sizes["docs"]),
            ("num_docs", 1),
        ):
            if sizes[name] != size:
                raise ValueError(f"{name} has {sizes[name]} elements, not {size}")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{directory}: the index of the products is damaged ({error}); delete this directory,"
            " the next run builds it again"
        ) from error
    # Plain views: slicing a memmap costs ten times as much.
    return {name: column.view(np.ndarray) for name, column in columns.items()}


@functools.cache
def _open(sources: Sources, cache: Path, fingerprint: str) -> Catalog:
    if not sources.on_disk:
        return Catalog(_build(parse_products(sources), None), sources.human)
    directory = cache / fingerprint
    if not directory.is_dir():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(dir=cache, prefix="building-"))
        except OSError as error:
            raise UserError(
                f"env.cache_dir: cannot write to {cache} ({error.strerror}); name another directory"
            ) from error
        try:
            _build(parse_products(sources), work)
            # Whoever else built the same columns meanwhile built the same bytes.
            if not directory.is_dir():
                work.rename(directory)
        except OSError as error:
            raise UserError(
                f"env.cache_dir: cannot write {directory} ({error.strerror}); name another"
                " directory"
            ) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return Catalog(_load(directory), sources.human)


def open_catalog(data_dir: Path, products: str, cache_dir: Path | None) -> Catalog:
    """The catalogue of a data directory; the same object for every caller of a process.

    Raises:
        UserError: a file is missing or damaged, or the cache directory cannot be written.
    """
    sources = Sources.find(data_dir, products)
    return _open(sources, cache_dir or cache_root(), sources.fingerprint)
