"""Tiny runs for tests: a policy of a few thousand parameters, and a process that forks runs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paw.envs import make
from paw.model.small import create_policy_model
from paw.text.tokenizer import make_tokenizer

VARYING = ("time/", "memory/")
"""Metrics that may differ between equal runs: seconds and bytes."""

SETTINGS = {
    "run.updates": 6,
    "run.checkpoint_every": 2,
    "rollout.groups": 2,
    "rollout.group_size": 2,
    "rollout.max_turns": 3,
    "rollout.response_format": "command",
    "rollout.max_prompt_tokens": 400,
    "rollout.max_response_tokens": 4,
    "rollout.workers": 0,
    "paw.weight": "constant",  # what is learned must not hang on a lucky win
    "optimizer.learning_rate": 1e-2,
    "eval.episodes": 2,
}


def make_policy(
    directory: Path,
    card: str = '[env]\nname = "household"\n',
    max_positions: int = 512,
    seed: int = 0,
) -> Path:
    """An HF directory with an untrained policy of one layer and a card."""
    source = make("household", split="train")
    texts = []
    for index in range(3):
        environment = source.open(source[index])
        observation = environment.reset()
        texts += [observation.text, *observation.commands]
        environment.close()
    tokenizer = make_tokenizer(texts)
    model = create_policy_model(
        vocab_size=len(tokenizer), hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=1,
        intermediate_size=32, max_positions=max_positions, seed=seed,
    )  # fmt: skip
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "paw.toml").write_text(card)
    return directory


def flags(policy: Path | str, run: Path | str | None = None, **changed: object) -> list[str]:
    """Flags of a tiny run; `changed` has `__` for the dot: `rollout__context="append"`."""
    settings = SETTINGS | {"model.path": policy}
    if run is not None:
        settings["run.directory"] = run
    settings |= {key.replace("__", "."): value for key, value in changed.items()}
    found = []
    for key, value in settings.items():
        if value is not None:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            found += [f"--{key}", text]
    return found


def metrics(run: Path) -> list[dict]:
    """The rows of metrics.jsonl without what may vary."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(VARYING)} for row in rows]


def final_state(run: Path, update: int = 6) -> dict[str, bytes]:
    """Every byte of a checkpoint by file name: weights, tokenizer, card, optimizer."""
    folder = run / "checkpoints" / f"update-{update:06d}"
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def same_run(one: Path, other: Path, update: int = 6) -> None:
    """Assert that two runs ended with the same bytes, metrics and trajectories."""
    assert metrics(one) == metrics(other)
    first, second = final_state(one, update), final_state(other, update)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    files = sorted(p.name for p in (one / "trajectories").iterdir())
    assert files == sorted(p.name for p in (other / "trajectories").iterdir())
    for name in files:
        assert (one / "trajectories" / name).read_bytes() == (
            other / "trajectories" / name
        ).read_bytes()


@dataclass
class Finished:
    """How a forked command ended."""

    code: int
    """Exit status; minus the signal's number if one ended it."""
    out: str
    err: str
    events: int
    """Times that it opened, renamed or removed something in the directory `watch`, if it ended."""


class Forked:
    """A `paw` command that runs."""

    def __init__(self, server: "ForkServer", pid: int, out: Path, err: Path):
        self.server, self.pid, self.out, self.err = server, pid, out, err

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        os.kill(self.pid, number)  # the server reaps only when asked: the pid stays ours

    def wait(self) -> Finished:
        """Wait for its end."""
        code = self.server.ask({"wait": self.pid})
        file = self.out.with_suffix(".events")
        events = int(file.read_text()) if file.exists() else 0
        return Finished(code, self.out.read_text(), self.err.read_text(), events)


class ForkServer:
    """One process with torch imported that forks a `paw` command in milliseconds."""

    def __init__(self, folder: Path):
        self.folder, self.number = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,  # where tiny_envs lies
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )

    def ask(self, request: dict) -> int:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, arguments: list[str], **limits: Any) -> Forked:
        """Start `paw ARGUMENTS`.

        `cwd`, `env` and `stdin` (a text) as of a shell. `file_bytes`: no file may grow beyond it
        (RLIMIT_FSIZE). `watch`, a directory, with `signal` and `at`: it sends itself the signal
        before it opens, renames or removes something in that directory for the `at`-th time, which
        is a moment of its own progress, not of the clock.
        """
        self.number += 1
        out, err = (self.folder / f"{self.number}.{name}" for name in ("out", "err"))
        request = {"arguments": arguments, "out": str(out), "err": str(err), **limits}
        return Forked(self, self.ask(request), out, err)

    def run(self, arguments: list[str], **limits: Any) -> Finished:
        """Run `paw ARGUMENTS` to its end."""
        return self.start(arguments, **limits).wait()

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def fork_server(folder: Path) -> Iterator[ForkServer]:
    server = ForkServer(folder)
    try:
        yield server
    finally:
        server.close()


SERVER = """
import contextlib, gc, json, os, resource, signal, sys
import torch, torch.profiler, transformers, transformers.models.qwen2.modeling_qwen2
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
import paw.cli, paw.train.loop, paw.imitate.loop, paw.evals.evaluation
from paw.runs import facts
with contextlib.suppress(ImportError):
    import peft
torch.set_num_threads(1)
# What each command would do again, in half its time: compile a thousand patterns, draw the games of
# a split, ask git and the packages for versions.
get_checkpoint_conversion_mapping("qwen2")
list(paw.envs.make("household", split="valid"))
facts.commit()
for package in facts.PACKAGES:
    facts.installed(package)
gc.freeze()  # what is collected in a child was memory shared with this process
running = set()
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}
count = 0
def watch(request):
    own = os.getpid()  # its workers inherit the hook
    def hook(event, arguments):
        global count
        if event in EVENTS and str(arguments[0]).startswith(request["watch"]):
            if os.getpid() == own:
                count += 1
                if count == request.get("at"):
                    os.kill(own, request["signal"])
    sys.addaudithook(hook)
for line in sys.stdin:
    request = json.loads(line)
    if "wait" in request:
        status = os.waitpid(request["wait"], 0)[1]
        running.discard(request["wait"])
        print(os.waitstatus_to_exitcode(status), flush=True)
        continue
    pid = os.fork()
    if pid:
        running.add(pid)
        print(pid, flush=True)
        continue
    for name, fd in (("out", 1), ("err", 2)):
        file = os.open(request[name], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(file, fd)
    with open(request["out"] + ".stdin", "w") as file:
        file.write(request.get("stdin", ""))
    os.dup2(os.open(request["out"] + ".stdin", os.O_RDONLY), 0)
    os.environ.update(request.get("env", {}))
    if "cwd" in request:
        os.chdir(request["cwd"])
        sys.path[0] = request["cwd"]
    if "file_bytes" in request:
        sys.dont_write_bytecode = True  # modules' would be cut, and stay
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"],) * 2)
    if "watch" in request:
        watch(request)
    sys.argv = ["paw", *request["arguments"]]
    code = 99
    try:
        code = paw.cli.main(request["arguments"])
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        import traceback
        traceback.print_exc()
        code = 1
    if "watch" in request:
        with open(request["out"].removesuffix("out") + "events", "w") as file:
            file.write(str(count))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
for pid in running:  # a test that failed has not waited for its command
    os.kill(pid, signal.SIGKILL)
"""
