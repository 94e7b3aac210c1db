"""`paw doctor`: what this machine has, what is missing, and the one command that mends it.

Every check stands by itself and may fail without the others; nothing is downloaded or changed.
Packages are imported where they are looked at, so that a missing one is a line and no traceback.
"""

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from paw.commands.arguments import Declare
from paw.envs.verify import WITH_DATA, Line, format_lines, passed, verifier

if TYPE_CHECKING:
    from packaging.requirements import Requirement

HELP = "what is installed, what is missing, and how to mend it"
DISTRIBUTION = "paw-rl"
OLDEST_PYTHON = (3, 11)
EXTRAS = {
    "plot": "the curves of the quickstart",
    "compare": "paw compare: statistics and plots",
    "lora": "model.lora_rank and model.adapter",
    "gguf": "model.path = FILE.gguf",
    "search": "Parquet files of search_qa",
    "trl": "paw.integrations.trl: TRL's trainer",
    "vllm": "rollout.sampler = vllm",
    "openenv": "paw serve-env, and env.name = openenv:URL",
    "gymnasium": "env.name = gymnasium:ID",
    "track": "run.track",
    "dev": "the project's own tests and checks",
}
"""What each extra of the package is for; of another installation's others nothing here uses any."""
TAGGER = ("spacy", "en_core_web_sm")
"""spaCy and its model, which is not on the package index and so in no extra."""
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of /proc/cpuinfo, x86 and ARM, of which a processor with bf16 products has one."""
GIB = 2**30
LITTLE_DISK = 5 * GIB
LITTLE_SHARED_MEMORY = GIB


def add(declare: Declare) -> None:
    """Declare the command."""
    declare("doctor", run, HELP)


def run(known: argparse.Namespace, keys: list[str]) -> int:
    """Print every check; 1 where one fails."""
    lines = doctor()
    print(format_lines(lines))
    return 0 if passed(lines) else 1


def doctor() -> list[Line]:
    """Every check, in the order in which one would mend things. Never raises."""
    return [line for check in CHECKS for line in _guarded(check)]


def _guarded(check: Callable[[], Iterator[Line]]) -> list[Line]:
    lines: list[Line] = []
    try:
        lines.extend(check())
    # A broken installation may raise anything, and telling of it is what this command is for.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        name = check.__name__.removeprefix("check_").replace("_", " ")
        lines.append(Line("FAIL", name, f"{type(error).__name__}: {reason}", _reinstall()))
    return lines


def check_python() -> Iterator[Line]:
    """Version and place of the interpreter."""
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield Line("FAIL", "python", found, "use Python 3.11 or newer")
    else:
        yield Line("ok", "python", found)


def check_packages() -> Iterator[Line]:
    """Required packages against their lowest versions, and against the set tested together."""
    from packaging.version import Version

    tested = _constraints()
    differing = []
    for requirement in _requirements(None):
        name, have = requirement.name, _version(requirement.name)
        install = f"pip install '{requirement}'"
        if have is None:
            yield Line("FAIL", name, f"not installed; {requirement} is needed", install)
        elif not requirement.specifier.contains(have, prereleases=True):
            yield Line("FAIL", name, f"{have}; {requirement} is needed", install)
        elif name in tested and Version(have).public != Version(tested[name]).public:
            differing.append(f"{name} {have} (tested: {tested[name]})")
    if differing:
        mend = "only if something is wrong: pip install -c constraints.txt -e ."
        yield Line("ok", "packages", f"not the set tested together: {', '.join(differing)}", mend)
    else:
        yield Line("ok", "packages", f"{DISTRIBUTION} {_version(DISTRIBUTION)} and what it needs")


def check_torch() -> Iterator[Line]:
    """Build and threads; bf16 products of the processor."""
    import torch

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    yield Line(
        "ok",
        "torch",
        f"{torch.__version__} ({built} build), {torch.get_num_threads()} threads of "
        f"{os.cpu_count()} cores",
    )
    flags = processor_flags()
    if flags & BF16_FLAGS:
        yield Line("ok", "bf16", f"in the processor: {', '.join(sorted(flags & BF16_FLAGS))}")
    elif flags and not torch.cuda.is_available():
        yield Line(
            "warn",
            "bf16",
            "this processor has no bf16 instructions: a product in bf16 was measured 50 times "
            "slower than in fp32",
            'on the CPU keep model.compute_dtype = "same" and model.dtype = "float32"',
        )


def check_gpu() -> Iterator[Line]:
    """GPUs and their memory."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            found = f"{torch.cuda.get_device_name(index)}: {free / GIB:.0f} of {total / GIB:.0f}"
            status = "ok" if free > total / 2 else "warn"
            mend = "" if status == "ok" else "another process holds most of it: see nvidia-smi"
            yield Line(status, f"gpu {index}", f"{found} GiB free", mend)
        return
    if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
        mend = "pip install --force-reinstall torch (a CUDA build), or mend the driver: nvidia-smi"
        yield Line("warn", "gpu", "a GPU driver is installed, but torch finds no GPU", mend)
    else:
        yield Line("--", "gpu", "none; small policies train on the CPU")


def check_extras() -> Iterator[Line]:
    """Optional packages, and the command that installs them."""
    for extra in metadata(DISTRIBUTION).get_all("Provides-Extra") or ():
        purpose = EXTRAS.get(extra)
        if not purpose:
            yield Line("--", f"[{extra}]", "no part of this version uses it")
            continue
        requirements = _requirements(extra)
        if not requirements:
            mend = f"pip install '{DISTRIBUTION}[{extra}]' (in a checkout: pip install -e .)"
            found = f"{purpose}: this installation names no package for it; it is an older one"
            yield Line("--", f"[{extra}]", found, mend)
            continue
        there, missing = [], []
        for requirement in requirements:
            name, have = requirement.name, _version(requirement.name)
            if name == DISTRIBUTION:  # an extra of extras, which have their own lines
                continue
            if have is None:
                missing.append(f"{name} not installed")
            elif not requirement.specifier.contains(have, prereleases=True):
                missing.append(f"{name} {have} is not {requirement.specifier}")
            else:
                there.append(f"{name} {have}")
        if missing:
            install = f"pip install '{DISTRIBUTION}[{extra}]'"
            yield Line("--", f"[{extra}]", f"{purpose}: {', '.join(missing)}", install)
        else:
            yield Line("ok", f"[{extra}]", f"{purpose}: {', '.join(there)}")


def check_tagger() -> Iterator[Line]:
    """The original's tagger of WebShop's titles."""
    purpose = 'env.tagger = "spacy" of webshop'
    if missing := [name for name in TAGGER if _version(name) is None]:
        install = "pip install spacy && python -m spacy download en_core_web_sm"
        yield Line("--", "spacy", f"{purpose}: {', '.join(missing)} not installed", install)
    else:
        shown = ", ".join(f"{name} {_version(name)}" for name in TAGGER)
        yield Line("ok", "spacy", f"{purpose}: {shown}")


def check_shipped_policy() -> Iterator[Line]:
    """The policy of the package loads and its tokenizer gives back what it is given."""
    from paw.model.policy import Policy
    from paw.runs.console import quiet
    from paw.runs.layout import resolve_model
    from paw.text.tokenizer import load_tokenizer

    quiet()
    path = resolve_model("household")
    tokenizer, policy = load_tokenizer(path), Policy.load(path)
    count = sum(p.numel() for p in policy.model.parameters())
    found = f"household: {count / 1e6:.2f} M parameters, {len(tokenizer)} tokens"
    yield Line("ok", "policy", found)


def check_data() -> Iterator[Line]:
    """Folders of benchmark data: what is there by name."""
    for name in WITH_DATA:
        own = verifier(name)
        folder = own.folder_of(None)
        variable = f"{name.upper()}_DATA"
        how = f"`paw data {name}` says how to get the data"
        if folder is None:
            yield Line("--", name, f"${variable} is not set", how)
        elif folder.is_dir():
            yield from own.inventory(folder)
        elif os.environ.get(variable):
            found = f"${variable} = {folder}: no such folder"
            yield Line("warn", name, found, f"export {variable}=DIR; {how}")
        else:
            yield Line("--", name, f"${variable} is not set, and there is no {folder}", how)


def check_disk() -> Iterator[Line]:
    """Free space where runs are written, and whether anything can be written there."""
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    found = f"{free / GIB:.0f} GiB free in {here}"
    try:
        with tempfile.TemporaryFile(dir=here):
            pass
    except OSError as error:
        mend = "run from a folder of your own, or name one with --run.directory"
        yield Line("warn", "disk", f"{here} cannot be written: {error.strerror}", mend)
        return
    if free < LITTLE_DISK:
        mend = "a checkpoint takes up to 12 bytes a parameter: make room, or --run.directory"
        yield Line("warn", "disk", found, mend)
    else:
        yield Line("ok", "disk", found)


def check_memory() -> Iterator[Line]:
    """Memory of the machine, and the shared memory that engines with many processes use."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield Line("ok", "memory", f"{total / GIB:.0f} GiB")
    shared = Path("/dev/shm")
    if not shared.is_dir():
        return
    free = shutil.disk_usage(shared).free
    found = f"{free / GIB:.1f} GiB free in {shared}"
    if free < LITTLE_SHARED_MEMORY:
        mend = "vLLM and several GPUs need more: docker run --shm-size=8g, or --ipc=host"
        yield Line("warn", "shared", found, mend)
    else:
        yield Line("ok", "shared", found)


CHECKS = (
    check_python,
    check_packages,
    check_torch,
    check_gpu,
    check_extras,
    check_tagger,
    check_shipped_policy,
    check_data,
    check_disk,
    check_memory,
)


def _requirements(extra: str | None) -> "list[Requirement]":
    """What the installed package asks for: always, or with `extra`."""
    from packaging.requirements import Requirement

    found = []
    for text in requires(DISTRIBUTION) or ():
        requirement = Requirement(text)
        marker, requirement.marker = requirement.marker, None
        optional = marker is not None and "extra" in str(marker)
        if optional == (extra is not None) and (
            marker is None or marker.evaluate({"extra": extra or ""})
        ):
            found.append(requirement)
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _constraints() -> dict[str, str]:
    """`constraints.txt` of the checkout that the package is run from, if it is one."""
    file = Path(__file__).parents[3] / "constraints.txt"
    if not file.is_file():
        return {}
    pairs = (line.partition("==") for line in file.read_text(encoding="utf-8").splitlines())
    return {name.strip(): number.strip() for name, equals, number in pairs if equals}


def processor_flags() -> set[str]:
    """Flags of the first processor; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    rows = (line.partition(":") for line in text.splitlines())
    found = (value.split() for name, _, value in rows if name.strip() in ("flags", "Features"))
    return set(next(found, ()))


def _reinstall() -> str:
    return f"pip install --force-reinstall {DISTRIBUTION}"
