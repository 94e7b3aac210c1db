"""Speed and memory of WebShop on one core.

    python benchmarks/webshop.py --data-dir DIR        # the 1,000 products, against the original
    python benchmarks/webshop.py --products 100000     # a made-up catalogue of any size

Each part runs in a process of its own, so that memory is its own. Rates are per second of CPU
time, which a busy machine changes less than wall time; waiting for a disk is not in them. ORIGINAL
was measured once on one core with the original code (commit 64fa2a5, 1,000 products, pyserini
0.17, gym 0.24, Python 3.11) in wall time, and is not measured again here.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from paw.envs.base import TaskSource
    from paw.envs.webshop.catalog import Catalog

ORIGINAL = {
    "steps/s": (36, 45),
    "resets/s": (300, 300),
    "results pages/s": (28, 28),
    "start-up s": (2.7, 2.7),
    "RSS MB when ready": (197, 197),
    "RSS MB after a minute of steps": (485, 485),
}
"""From, to."""
TARGETS = {"steps/s": "at least 50 x", "start-up s": "< 1.5 s", "RSS MB when ready": "< 150 MB"}
WORDS_PER_PRODUCT = {"title": 18, "description": 75, "bullet": 18}
NUM_BULLETS = 5
QUERIES = 300


def memory() -> dict[str, float]:
    """Anonymous and peak resident memory of this process, MB."""
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return {
        key: round(int(fields[field].split()[0]) / 1024)
        for key, field in (("RSS MB, files left out", "RssAnon"), ("peak RSS MB", "VmHWM"))
    }


def report(**figures: float) -> None:
    print(json.dumps({key.replace("_", " "): round(value, 4) for key, value in figures.items()}))


def compare(label: str, value: float, key: str) -> None:
    """Print a figure beside the original's and how many times as good it is."""
    ends = sorted(value / x if key.endswith("/s") else x / value for x in ORIGINAL[key])
    times = " to ".join(dict.fromkeys(f"{x:.3g}" for x in ends))
    original = " to ".join(dict.fromkeys(map(str, ORIGINAL[key])))
    target = f"; target {TARGETS[key]}" if key in TARGETS else ""
    figure = f"{value:,.0f}" if value >= 10 else f"{value:.2f}"
    print(f"{label}: {figure} {key}; original {original}: {times} x as good{target}")


def start(data_dir: str) -> None:
    """Import, open, first search, in a fresh process."""
    begin, cpu = time.perf_counter(), time.process_time()
    import paw.envs

    source = paw.envs.make("webshop", split="test", data_dir=data_dir)
    env = source.open(source[0])
    env.reset()
    env.step("search[red shoes]")
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    compare(f"import, open, first search, CPU time ({seconds:.2f} s of wall)", cpu, "start-up s")
    compare("peak memory of a fresh process", memory()["peak RSS MB"], "RSS MB when ready")


def catalog_of(source: "TaskSource") -> "Catalog":
    """What the shop sells."""
    from paw.envs.webshop.source import WebShop

    assert isinstance(source, WebShop)
    return source._shop.catalog


def steps(data_dir: str) -> None:
    """Heuristic and random episodes, recorded first and then played again from cold caches."""
    import paw.envs
    from paw.envs.webshop import reward

    source = paw.envs.make("webshop", split="test", data_dir=data_dir)
    episodes = []
    for i, task in enumerate(source[:300]):
        noise = float(i % 2)
        env, expert = source.open(task), source.expert(task, seed=i, noise=noise)
        observation, commands = env.reset(), []
        for _ in range(15):
            commands.append(expert.act(observation))
            result = env.step(commands[-1])
            observation = result.observation
            if result.terminated:
                break
        episodes.append((task, commands))
    catalog = catalog_of(source)
    for label in ("cold", "warm", "warm, text_rich"):
        observation = "text_rich" if "rich" in label else "text"
        fresh = paw.envs.make("webshop", split="test", data_dir=data_dir, observation=observation)
        if label == "cold":
            catalog = catalog_of(fresh)
            for cache in (catalog.product, catalog._search, reward.alike, reward.rule_nouns):
                cache.cache_clear()
        begin, count = time.process_time(), 0
        for task, commands in episodes:
            env = fresh.open(task)
            env.reset()
            for command in commands:
                env.step(command)
                count += 1
        seconds = time.process_time() - begin
        compare(label, count / seconds, "steps/s")
    begin = time.process_time()
    for task, _ in episodes:
        source.open(task).reset()
    compare("open and reset", len(episodes) / (time.process_time() - begin), "resets/s")
    begin = time.process_time()
    queries = [task.instruction for task in source]
    catalog.search.__self__._search.cache_clear()
    for query in queries:
        env = source.open(source[0])
        env.reset()
        env.step(f"search[{query}]")
    rate = len(queries) / (time.process_time() - begin)
    compare(f"{len(queries)} new queries", rate, "results pages/s")
    print(json.dumps(memory()))


def long_run(data_dir: str) -> None:
    """Memory over 50,000 steps of half-random play."""
    import paw.envs

    source = paw.envs.make("webshop", split="all", data_dir=data_dir)
    chance, count = random.Random(0), 0
    for target in (10_000, 30_000, 50_000):
        while count < target:
            task = source[chance.randrange(len(source))]
            env, player = source.open(task), source.expert(task, seed=count, noise=0.5)
            observation = env.reset()
            for _ in range(15):
                result = env.step(player.act(observation))
                observation, count = result.observation, count + 1
                if result.terminated:
                    break
        print(f"after {count} steps: {json.dumps(memory())}")
    compare("peak memory", memory()["peak RSS MB"], "RSS MB after a minute of steps")


def write_catalogue(directory: Path, num_products: int) -> None:
    """Products of made-up words with Zipf frequencies in the official format."""
    draw = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = np.array(["".join(draw.choice(letters, size=n)) for n in draw.integers(3, 10, 300_000)])
    weights = 1 / np.arange(10, len(words) + 10) ** 1.05
    cumulative = np.cumsum(weights / weights.sum())
    sizes = [WORDS_PER_PRODUCT["title"], WORDS_PER_PRODUCT["description"]]
    sizes += [WORDS_PER_PRODUCT["bullet"]] * NUM_BULLETS
    cuts = np.cumsum(sizes)[:-1].tolist()
    names = words.tolist()
    annotations: dict[str, dict[str, object]] = {}
    rows: list[list[int]] = []
    with (directory / "items_shuffle.json").open("w") as file:
        for number in range(num_products):
            if not rows:
                places = np.searchsorted(cumulative, draw.random((10_000, sum(sizes))))
                rows = np.minimum(places, len(words) - 1).tolist()
            row = [names[place] for place in rows.pop()]
            pieces = [row[start:end] for start, end in zip([0, *cuts], [*cuts, None], strict=True)]
            title, description, *bullets = map(" ".join, pieces)
            asin = f"B{number:09d}"
            product = {
                "asin": asin,
                "name": f"{title} x{number}",
                "full_description": description,
                "small_description": bullets,
                "pricing": f"${number % 200 + 5}.99",
                "images": [],
                "category": ["beauty", "fashion", "garden"][number % 3],
                "query": " ".join(row[:2]),
                "product_category": "A › B",
                "customization_options": "",
            }
            if number % 5 < 2:
                product["customization_options"] = {"Color": [{"value": word} for word in row[:6]]}
            annotations[asin] = {"attributes": row[:3]}
            if number % 100 == 0:
                annotations[asin] |= {"instruction": f"Find me {title}"}
                annotations[asin] |= {"instruction_attributes": row[:2]}
            file.write(("[" if number == 0 else ",\n") + json.dumps(product))
        file.write("]")
    (directory / "items_ins_v2.json").write_text(json.dumps(annotations))


def build(data_dir: str) -> None:
    """Read and index the catalogue, as its first user does."""
    import paw.envs

    begin, clock = time.process_time(), time.perf_counter()
    source = paw.envs.make("webshop", split="all", data_dir=data_dir, cache_dir=f"{data_dir}/index")
    seconds = time.process_time() - begin
    report(build_wall_s=time.perf_counter() - clock)
    size = sum(file.stat().st_size for file in Path(data_dir, "index").rglob("*.*"))
    items = Path(data_dir, "items_shuffle.json").stat().st_size
    report(build_cpu_s=seconds, products_per_s=len(catalog_of(source)) / seconds)
    report(product_file_MB=items / 1e6, index_MB=size / 1e6)
    print(json.dumps(memory()))


def query(data_dir: str) -> None:
    """Open the built catalogue and search it: titles, instructions, few words."""
    import paw.envs

    begin = time.process_time()
    source = paw.envs.make("webshop", split="all", data_dir=data_dir, cache_dir=f"{data_dir}/index")
    report(open_cpu_s=time.process_time() - begin, goals=len(source))
    print(json.dumps(memory()))
    catalog = catalog_of(source)
    chance = random.Random(0)
    some = [catalog.product(chance.randrange(len(catalog))) for _ in range(QUERIES)]
    kinds = {
        "titles (19 words)": [p.title for p in some],
        "8 words of the text": [" ".join(chance.sample(p.index_text.split(), 8)) for p in some],
        "2 words of the text": [" ".join(chance.sample(p.index_text.split(), 2)) for p in some],
    }
    for label, queries in kinds.items():
        for text in queries[:20]:
            catalog.search(text)
        begin = time.process_time()
        for text in queries[20:]:
            catalog.search(text)
        rate = (len(queries) - 20) / (time.process_time() - begin)
        print(f"{label}: {rate:.0f} queries/s")
    print(json.dumps(memory()))


PARTS = {"start": start, "steps": steps, "long": long_run, "build": build, "query": query}


def run(part: str, data_dir: str) -> None:
    print(f"-- {part}", flush=True)
    subprocess.run([sys.executable, __file__, "--part", part, "--data-dir", data_dir], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data-dir", default=os.environ.get("WEBSHOP_DATA"))
    parser.add_argument("--products", type=int, help="size of a made-up catalogue")
    parser.add_argument("--long", action="store_true", help="also 50,000 steps, for memory")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        PARTS[arguments.part](arguments.data_dir)
    elif arguments.products:
        with tempfile.TemporaryDirectory() as directory:
            begin = time.perf_counter()
            write_catalogue(Path(directory), arguments.products)
            report(writing_the_catalogue_s=time.perf_counter() - begin)
            run("build", directory)
            run("query", directory)
    elif arguments.data_dir:
        for part in ("start", "steps", *(["long"] if arguments.long else [])):
            run(part, arguments.data_dir)
    else:
        parser.error("name --data-dir or --products")


if __name__ == "__main__":
    main()
