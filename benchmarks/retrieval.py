"""What the embedded BM25 costs: build time, size, memory, queries a second.

    python benchmarks/retrieval.py CORPUS QUESTIONS [--index DIR] [--top-k 3]

Memory is resident memory; the index is memory-mapped, so the pages that queries touch count as
resident but are shared between processes and can be dropped at any time (`anonymous` leaves them
out).
"""

import argparse
import tempfile
import time
from pathlib import Path

from paw.envs.retrieval import Retriever, build_index, open_index
from paw.envs.search_qa.questions import read_questions


def memory(field: str) -> float:
    """MiB of `VmRSS`, `VmHWM` or `RssAnon` of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def speed(retriever: Retriever, queries: list[str], top_k: int, batch: int) -> float:
    """Queries a second of processor time, which other work on the machine does not change."""
    started = time.process_time()
    for start in range(0, len(queries), batch):
        retriever.search(queries[start : start + batch], top_k)
    return len(queries) / (time.process_time() - started)


def main() -> None:
    """Measure and print one line each."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--index", type=Path, help="keep the index here")
    parser.add_argument("--top-k", type=int, default=3)
    arguments = parser.parse_args()

    queries = [question.text for question in read_questions(arguments.questions)]
    with tempfile.TemporaryDirectory() as scratch:
        directory = arguments.index or Path(scratch) / "index"
        before = memory("VmRSS")
        started, processor = time.perf_counter(), time.process_time()
        facts = build_index(arguments.corpus, directory, progress=False)
        seconds, processor = time.perf_counter() - started, time.process_time() - processor
        size = sum(file.stat().st_size for file in directory.iterdir())
        print(
            f"build    {seconds:.1f} s ({processor:.1f} s of processor) for "
            f"{facts['num_passages']:,} passages, {facts['num_postings']:,} postings"
        )
        print(f"size     {size / 2**20:.1f} MiB on disk")
        print(f"memory   {before:.0f} MiB before, peak of the build {memory('VmHWM'):.0f} MiB")
        retriever = open_index(directory)
        cold = speed(retriever, queries[:100], arguments.top_k, 1)
        first = memory("RssAnon")
        one = speed(retriever, queries, arguments.top_k, 1)
        for _ in range(3):
            speed(retriever, queries, arguments.top_k, 64)
        print(
            f"memory   {memory('VmRSS'):.0f} MiB after {4 * len(queries) + 100:,} queries; "
            f"anonymous {first:.0f} MiB after 100 queries, {memory('RssAnon'):.0f} MiB now"
        )
        many = speed(retriever, queries, arguments.top_k, 64)
        print(
            f"queries  {cold:.0f}/s first 100, {one:.0f}/s one by one, "
            f"{many:.0f}/s in batches of 64"
        )


if __name__ == "__main__":
    main()
