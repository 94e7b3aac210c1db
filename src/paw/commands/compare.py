"""`paw compare`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paw.commands.arguments import Declare, complain, layers, telling, whole
from paw.errors import UserError
from paw.visible import visible

if TYPE_CHECKING:
    from paw.config.tree import Config

HELP = "does it help? arms x seeds, paired: table, intervals, plots"
EXAMPLES = """\
examples:
  paw compare --output cmp                     PaW and the baseline, household
  paw compare recipe.toml --arms baseline,paw,echo --seeds 10 --jobs 2 --output cmp
  paw compare recipe.toml --arms baseline,mine --arm-file mine.toml --output cmp
  paw compare --list-arms

Every arm changes a few keys of one configuration (paw/compare/arms.toml).
The runs of a seed share the start, the tasks, and the seeds of environments
and sampling, and are evaluated on the same episodes: --eval.episodes
(default: every task of the split once), --eval.every. Any --table.key value
may follow. The same command goes on after Ctrl-C or a kill; more --seeds or
other --arms run what is missing. Writes compare.json, compare.md, seeds.csv
and plots into the output directory.
"""


def add(declare: Declare) -> None:
    """Declare the command."""
    compare = declare("compare", run, HELP, EXAMPLES, ("--",))
    compare.add_argument("configs", nargs="*", metavar="CONFIG.toml", help="overlaid left to right")
    compare.add_argument("--arms", default="baseline,paw", help="default: %(default)s")
    compare.add_argument(
        "--arm-file", action="append", default=[], metavar="FILE.toml", help="arms of your own"
    )
    compare.add_argument("--list-arms", action="store_true", help="say what arms there are")
    compare.add_argument(
        "--seeds", type=whole(1, 10_000), default=6, metavar="N",
        help="run.seed and the N - 1 after it (default: 6, the fewest that allow a verdict on an "
        "arm; two or three arms take 7, six 8)",
    )  # fmt: skip
    compare.add_argument("--output", metavar="DIR", help="where everything is written")
    compare.add_argument(
        "--jobs", type=whole(1, 1024), default=1, metavar="J",
        help="runs at a time; where there are GPUs they take turns (default: 1)",
    )  # fmt: skip
    compare.add_argument("--baseline", metavar="ARM", help="default: `baseline`, or the first arm")
    compare.add_argument("--level", type=float, metavar="S", help="success to be reached, 0 to 1")
    compare.add_argument("--retry", action="store_true", help="try failed runs again")


def run(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.compare.arms import choose_arms, read_arms

    there = read_arms(known.arm_file)
    if known.list_arms:
        width = max(map(len, there))
        print("\n".join(f"{arm.name:{width}}  {arm.about}" for arm in there.values()))
        return 0
    if not known.output:
        raise UserError("compare: --output DIR is needed")
    arms = choose_arms(there, [name.strip() for name in known.arms.split(",") if name.strip()])
    baseline = _baseline(known.baseline, [arm.name for arm in arms])
    resolved = {arm.name: layers(known.configs, keys, on_top=arm.layer) for arm in arms}
    if any(r.given("run.directory") for r in resolved.values()):
        raise UserError("compare: --run.directory: each run has its own below --output")
    from paw.compare.jobs import run_plan
    from paw.compare.plan import make_plan
    from paw.compare.results import read_result
    from paw.compare.tell import make_story, write_story
    from paw.evals.paired import need_scipy
    from paw.runs.console import Bar, quiet

    need_scipy()
    quiet()
    output = Path(known.output)
    output.mkdir(parents=True, exist_ok=True)
    first = resolved[arms[0].name].config.run.seed
    plan = make_plan(arms, resolved, range(first, first + known.seeds), output, known.jobs)
    if known.retry:
        for planned in plan:
            planned.failure.unlink(missing_ok=True)
    stopped, killed = False, {}
    with Bar(sum(p.config.run.updates for p in plan), "update") as bar:
        telling(resolved[arms[0].name], bar.say)(_header(plan, output))
        try:
            devices = _devices(plan[0].config)
            killed = run_plan(plan, known.jobs, devices, lambda n: bar(n, {}), bar.say)
        except KeyboardInterrupt:
            stopped = True
    results = [read_result(p, output, killed.get(p.directory)) for p in plan]
    story = make_story(arms, baseline, results, _about(plan[0].config), known.level)
    write_story(story, output)
    _show(story, output)
    if stopped:
        return complain(f"stopped; the same command goes on in {output}", 130)
    return 0 if all(r.status == "finished" for r in results) else 1


def _baseline(wanted: str | None, arms: list[str]) -> str:
    from paw.compare.arms import BASELINE

    if wanted is not None and wanted not in arms:
        raise UserError(f"--baseline {wanted}: it is not among --arms")
    return wanted or (BASELINE if BASELINE in arms else arms[0])


def _devices(config: "Config") -> list[str]:
    """CUDA devices that runs take in turns, of those that this process may see; none on a CPU, or
    where one is named."""
    import os

    import torch

    from paw.model.load import device_of

    if config.model.device not in ("auto", "cuda") or device_of("auto") == "cpu":
        return []
    count = torch.cuda.device_count()
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in seen.split(",")][:count] if seen else [*map(str, range(count))]


def _header(plan: Any, output: Path) -> str:
    counts = {s: sum(p.status == s for p in plan) for s in ("finished", "failed", "missing")}
    config = plan[0].config
    arms, seeds = dict.fromkeys(p.arm for p in plan), dict.fromkeys(p.seed for p in plan)
    return (
        f"arms       {', '.join(arms)}\n"
        f"seeds      {min(seeds)} to {max(seeds)}\n"
        f"runs       {len(plan)} of {config.run.updates} updates; {counts['finished']} finished, "
        f"{counts['failed']} failed\n"
        f"panel      {config.eval.episodes:,} episodes of {config.env.name}, every "
        f"{config.eval.every} updates, temperature {config.eval.temperature:g}\n"
        f"directory  {output}"
    )


def _about(config: "Config") -> dict[str, Any]:
    from paw import __version__

    return {
        "version": __version__,
        "environment": config.env.name,
        "model": config.model.path,
        "algorithm": config.algorithm.name,
        "context": config.rollout.context,
        "updates": config.run.updates,
        "episodes_an_update": config.rollout.groups * config.rollout.group_size,
        "panel": config.eval.episodes,
        "panel_temperature": config.eval.temperature,
    }


def _show(story: Any, output: Path) -> None:
    from paw.compare.plots import draw
    from paw.compare.tell import as_terminal

    print(visible(as_terminal(story)))
    for file in draw(story, output):
        print(f"plot       {file}")
    print(f"results    {output / 'compare.md'}, compare.json, seeds.csv")
