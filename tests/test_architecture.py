"""The rooms of the package: who may import whom, how long things are, what a start loads."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import paw

ROOT = Path(paw.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}

LEVEL = {
    "__init__": 0, "types": 0, "errors": 0, "style": 0, "utf8": 0, "visible": 0, "objective": 0,
    "config": 1, "envs": 1, "text": 1, "model": 1,
    "rollout": 2, "runs": 2, "evals": 3, "train": 4, "imitate": 5,
    "compare": 6, "report": 6, "integrations": 6, "commands": 7, "cli": 8, "__main__": 9,
}  # fmt: skip
"""A room imports from lower ones, and from itself."""

LOOP, LOOP_LINES = "train/loop.py", 300
MAIN_PATH = (
    LOOP,
    "train/score.py",
    "train/judge.py",
    "train/serialise.py",
    "train/learner.py",
)
"""Score, judge, serialise, learn and the loop that calls them: read in one sitting."""
MAIN_PATH_LINES = 900
FEW_PARAMETERS = ("train/", "rollout/collect.py")
"""Where functions take values, at most five by position, and no bag of settings."""
MAX_PARAMETERS = 5


def room(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def modules(node: ast.AST) -> Iterator[str]:
    """Full names that an import statement may load: `from a import b` is a and a.b."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative import"
        yield node.module or ""
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(file: Path, *, at_start_only: bool = False) -> set[str]:
    """Modules that a file imports; with `at_start_only` not those inside functions."""
    found: set[str] = set()
    queue: list[ast.AST] = [TREES[file]]
    while queue:
        node = queue.pop()
        found |= set(modules(node))
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if not (at_start_only and (inside or is_for_types(child))):
                queue.append(child)
    return found


def file_of(module: str) -> Path | None:
    """The package's file that a module's name means."""
    place = ROOT.parent / module.replace(".", "/")
    return next((f for f in (place.with_suffix(".py"), place / "__init__.py") if f in TREES), None)


def files_imported(file: Path) -> set[Path]:
    """Of the package, but for types; `from a import b` is a/b.py where there is one, else a."""
    found: set[Path | None] = set()
    queue: list[ast.AST] = [TREES[file]]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.Import):
            found |= {file_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found.add(file_of(f"{node.module}.{alias.name}") or file_of(node.module or ""))
        queue += [n for n in ast.iter_child_nodes(node) if not is_for_types(n)]
    return {f for f in found if f is not None and f != file}


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def packages(found: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in found}


def test_every_room_is_known():
    assert {room(f) for f in FILES} <= LEVEL.keys()


@pytest.mark.parametrize("file", FILES, ids=name)
def test_direction_of_imports(file: Path):
    own = room(file)
    for module in imports(file):
        parts = module.split(".")
        if parts[0] != "paw" or len(parts) == 1:
            continue
        other = parts[1] if parts[1] in LEVEL else "__init__"
        assert other == own or LEVEL[other] < LEVEL[own] or LEVEL[other] == 0, (
            f"{own} may not import {module}"
        )


def test_no_two_files_import_each_other_in_a_circle():
    """Inside functions too: such an import hides a circle, it does not open it."""
    graph = {name(file): {name(other) for other in files_imported(file)} for file in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_objective_needs_torch_and_the_standard_library_alone():
    for file in FILES:
        if room(file) == "objective":
            foreign = packages(imports(file)) - sys.stdlib_module_names
            own = {m for m in imports(file) if m.startswith("paw")}
            assert foreign <= {"torch", "paw"}, name(file)
            assert all(m.startswith("paw.objective") for m in own), name(file)


DENSE = "envs/retrieval/dense.py"
"""The one environment file with a model: the encoder of dense retrieval, loaded where asked for."""


def test_environments_know_no_torch():
    for file in FILES:
        if room(file) in ("envs", "types", "errors", "style") and name(file) != DENSE:
            found = imports(file, at_start_only=room(file) == "types")  # it names tensors as types
            assert not packages(found) & {"torch", "transformers"}, name(file)
            early = imports(file, at_start_only=True)
            assert not any(m.startswith("paw.envs.retrieval.dense") for m in early), name(file)


MAY_NAME_BENCHMARKS = {
    "config/tree.py": {"household"},  # the defaults of env.name and model.path
    "commands/doctor.py": {"household", "webshop"},  # the shipped policy and an extra
}


def test_only_environments_name_benchmarks():
    """What is particular to one stands in its folder: `TaskSource.style`. Docstrings may name."""
    benchmarks = {"household", "alfworld", "webshop", "search_qa"}
    for file in FILES:
        if room(file) != "envs":
            used = {n.value for n in ast.walk(TREES[file]) if isinstance(n, ast.Constant)}
            named = benchmarks & {value for value in used if isinstance(value, str)}
            assert named <= MAY_NAME_BENCHMARKS.get(name(file), set()), f"{name(file)}: {named}"


def test_only_text_makes_tokenizers():
    """Elsewhere `PreTrainedTokenizerBase` names a type, and no class makes a tokenizer."""
    for file in FILES:
        if room(file) == "text" or name(file) == DENSE:
            continue
        named = {
            n.id if isinstance(n, ast.Name) else n.attr
            for n in ast.walk(TREES[file])
            if isinstance(n, ast.Name | ast.Attribute)
        }
        classes = {n for n in named if "Tokenizer" in n and n != "PreTrainedTokenizerBase"}
        assert not classes, f"{name(file)} names {classes}"
        assert "tokenizers" not in packages(imports(file)), name(file)


def test_only_load_names_a_model_class():
    """Elsewhere a model is what `model/load.py` gives, and `PreTrainedTokenizerBase` is all that
    comes from transformers beside configurations and attention."""
    for file in FILES:
        if name(file) in ("model/load.py", DENSE):
            continue
        found = {m.rpartition(".")[2] for m in imports(file) if m.startswith("transformers.")}
        classes = {
            n for n in found if "AutoModel" in n or "ForCausalLM" in n or n.endswith("Model")
        }
        assert not classes, f"{name(file)} names {classes}"


def test_only_parallel_names_torch_distributed():
    for file in FILES:
        if name(file) != "train/parallel.py":
            loaded = {m for m in imports(file) if m.startswith("torch.distributed")}
            used = [
                n
                for n in ast.walk(TREES[file])
                if isinstance(n, ast.Attribute)
                and n.attr == "distributed"
                and ast.unparse(n) == "torch.distributed"
            ]
            assert not loaded and not used, name(file)


def test_files_and_functions_are_short():
    long = []
    for file in FILES:
        lines = file.read_text(encoding="utf-8").count("\n")
        if lines >= (LOOP_LINES if name(file) == LOOP else 400):
            long.append(f"{name(file)}: {lines} lines")
        for node in ast.walk(TREES[file]):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length >= 80:
                    long.append(f"{name(file)}: {node.name} has {length} lines")
    assert long == []


def test_the_main_path_is_read_in_one_sitting():
    lines = sum((ROOT / f).read_text(encoding="utf-8").count("\n") for f in MAIN_PATH)
    assert lines < MAIN_PATH_LINES


def test_functions_of_the_main_path_take_few_parameters():
    wide = set()
    for file in FILES:
        for node in ast.walk(TREES[file]) if name(file).startswith(FEW_PARAMETERS) else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                parameters = [p.arg for p in (*node.args.posonlyargs, *node.args.args)]
                if len(parameters) - (parameters[:1] == ["self"]) > MAX_PARAMETERS:
                    wide.add(f"{name(file)}: {node.name}")
    assert wide == set()


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True, timeout=120
    )


def loaded(code: str) -> set[str]:
    """Top-level packages in memory after `code`."""
    return set(python("-c", f"{code}\nimport sys\nprint(*sys.modules)").stdout.split())


def test_help_loads_no_model_library():
    """No torch, transformers or numpy: a mistake on the command line is answered at once."""
    shown = python("-X", "importtime", "-m", "paw.cli", "--help")
    assert "usage: paw" in shown.stdout
    seen = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "paw.cli" in seen or "argparse" in seen
    assert not {m.partition(".")[0] for m in seen} & {
        "torch",
        "transformers",
        "numpy",
        "matplotlib",
    }


def test_objective_alone_loads_neither_transformers_nor_the_rest_of_paw():
    found = loaded("import paw.objective")
    assert not {m.partition(".")[0] for m in found} & {"transformers", "tokenizers", "msgspec"}
    mine = {m for m in found if m.startswith("paw.") and not m.startswith("paw.objective")}
    assert mine <= {"paw.objective"}, mine
