"""What `paw report` costs: a run of 150 updates x 128 episodes, made of the episodes of a real one.

    python benchmarks/report.py RUN [--updates 150] [--episodes 128]

RUN is a run directory with trajectories. Prints processor time and size of the page against those
of only reading the same files, and, where playwright and a chromium are there, how long it takes
to open (median of five).
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import msgspec

from paw.report.gather import gather, material
from paw.report.page import render
from paw.runs import read
from paw.runs.records import write_trajectories


def make_run(source: Path, target: Path, updates: int, episodes: int) -> None:
    """Metrics and episodes of `source`, repeated."""
    for name in ("config.toml", "environment.json"):
        shutil.copy(source / name, target / name)
    if (source / "checkpoints").is_dir():
        (target / "checkpoints").symlink_to((source / "checkpoints").resolve())
    (target / "trajectories").mkdir()
    rows = cycle(read.metrics(source))
    records = cycle([r for f in read.trajectory_files(source) for r in read.trajectories(f)])
    with open(target / "metrics.jsonl", "w", encoding="utf-8") as metrics:
        for update in range(1, updates + 1):
            metrics.write(json.dumps(next(rows) | {"update": update}) + "\n")
            played = [
                msgspec.structs.replace(record, update=update, group=i // 8, index=i % 8)
                for i, record in enumerate(islice(records, episodes))
            ]
            file = target / "trajectories" / f"update-{update:06d}.jsonl.zst"
            write_trajectories(file, played, played[0].env)


def opening(page: Path) -> float | None:
    """Milliseconds until the page is loaded; None without a browser."""
    browser = os.environ.get("PAW_CHROMIUM") or shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if browser is None:
        return None
    with sync_playwright() as playwright:
        tab = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page()
        times = []
        for _ in range(5):
            tab.goto(page.as_uri())
            times.append(tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--episodes", type=int, default=128)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paw-report-") as folder:
        run = Path(folder) / "run"
        run.mkdir()
        make_run(options.run, run, options.updates, options.episodes)
        files = read.trajectory_files(run)
        started = time.process_time()
        for file in files:
            read.trajectories(file)
        reading = time.process_time() - started
        started = time.process_time()
        page, packed = gather(material([run]))
        text = render(page, packed).encode()
        making = time.process_time() - started
        file = Path(folder) / "report.html"
        file.write_bytes(text)
        took = opening(file)
        kept = sum(chunk >= 0 for chunk in page.runs[0].episodes.chunk)
        size = sum(f.stat().st_size for f in files)
        print(f"episodes   {options.updates * options.episodes:,}, {kept:,} kept whole")
        print(f"files      {size / 1e6:.1f} MB, read in {reading:.1f} s")
        print(
            f"page       {len(text) / 1e6:.1f} MB, made in {making:.1f} s: {making / reading:.2f} x"
        )
        print("opening    " + ("no browser here" if took is None else f"{took:.0f} ms"))


if __name__ == "__main__":
    main()
