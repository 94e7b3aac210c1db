"""`paw doctor`: a line for everything, each with its mend; never a traceback."""

import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest

from paw.cli import main
from paw.commands import doctor
from paw.envs.verify import Line


def lines(check) -> dict[str, Line]:
    return {line.what: line for line in check()}


def test_this_installation_is_sound(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for what in ("python", "packages", "torch", "policy", "alfworld", "disk", "memory"):
        assert f"  {what} " in out
    for extra in ("search", "plot", "lora", "track"):
        assert f"[{extra}]" in out


def test_a_check_that_raises_is_a_line():
    def check_all_models():
        yield Line("ok", "first", "fine")
        raise RuntimeError("libcudart.so\nnot found")

    first, second = doctor._guarded(check_all_models)
    assert first.status == "ok"
    assert (second.status, second.what) == ("FAIL", "all models")
    assert second.found == "RuntimeError: libcudart.so not found"
    assert second.mend.startswith("pip install")


def test_requirements_of_the_package_and_of_an_extra():
    assert {"torch", "numpy"} <= {r.name for r in doctor._requirements(None)}
    assert [r.name for r in doctor._requirements("lora")] == ["peft"]


def test_every_extra_says_what_it_is_for():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert list(doctor.EXTRAS) == list(project["optional-dependencies"])


def test_what_is_not_installed_names_its_command():
    found = lines(doctor.check_extras)
    for what, line in found.items():
        if what.strip("[]") not in doctor.EXTRAS:
            assert line == Line("--", what, "no part of this version uses it")
            continue
        assert (line.status == "ok") == (not line.mend)
        assert line.status == "ok" or line.mend.startswith(f"pip install 'paw-rl{what}'")
    for extra, package in (("plot", "matplotlib"), ("lora", "peft")):
        installed = importlib.util.find_spec(package) is not None
        assert (found[f"[{extra}]"].status == "ok") == installed


def installation(folder: Path, **packages: str) -> None:
    """The metadata of paw-rl, with some extras, and of `packages` with these versions."""
    requirements = {
        "paw-rl": ("0.1.0", ["lora", "search", "dev", "track", "verl"], [
            "peft>=0.17; extra == 'lora'",
            "pyarrow>=15; extra == 'search'",
            "paw-rl[lora]; extra == 'dev'",
            "pytest>=8.2; extra == 'dev'",
        ])
    }  # fmt: skip
    requirements |= {name: (version, [], []) for name, version in packages.items()}
    for name, (version, extras, required) in requirements.items():
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        rows = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        rows += [f"Provides-Extra: {extra}" for extra in extras]
        rows += [f"Requires-Dist: {requirement}" for requirement in required]
        (info / "METADATA").write_text("\n".join(rows) + "\n")


def test_an_installation_without_spacy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What the extra declares is there; what no extra brings, the tagger, is a line of its own."""
    installation(tmp_path, peft="0.18", pyarrow="12.0", pytest="9.0")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    found = lines(doctor.check_extras) | lines(doctor.check_tagger)
    assert found["[lora]"] == Line("ok", "[lora]", "model.lora_rank and model.adapter: peft 0.18")
    assert found["[search]"].found.endswith("pyarrow 12.0 is not >=15")
    assert found["[search]"].mend == "pip install 'paw-rl[search]'"
    assert found["[dev]"].found.endswith(": pytest 9.0")
    assert found["[track]"].status == "--" and "names no package" in found["[track]"].found
    assert found["[verl]"] == Line("--", "[verl]", "no part of this version uses it")
    assert (found["spacy"].status, found["spacy"].found) == (
        "--",
        'env.tagger = "spacy" of webshop: spacy, en_core_web_sm not installed',
    )
    assert found["spacy"].mend.startswith("pip install spacy && ")


def test_spacy_without_and_with_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    installation(tmp_path, spacy="3.8.0")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert lines(doctor.check_tagger)["spacy"].found.endswith(": en_core_web_sm not installed")
    with_model = tmp_path / "with_model"
    with_model.mkdir()
    installation(with_model, spacy="3.8.0", en_core_web_sm="3.8.0")
    monkeypatch.setattr(sys, "path", [str(with_model)])
    line = lines(doctor.check_tagger)["spacy"]
    assert line.status == "ok" and line.found.endswith(": spacy 3.8.0, en_core_web_sm 3.8.0")


def test_data_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("SEARCH_QA_DATA", str(tmp_path))
    monkeypatch.delenv("WEBSHOP_DATA", raising=False)
    (tmp_path / "train.jsonl").write_text("")
    found = lines(doctor.check_data)
    assert found["alfworld"].status == "warn" and "no such folder" in found["alfworld"].found
    assert found["webshop"].status == "--" and "paw data webshop" in found["webshop"].mend
    assert found["search_qa"].status == "warn" and "train; no corpus" in found["search_qa"].found


def test_disk_of_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path) in lines(doctor.check_disk)["disk"].found
    monkeypatch.setattr(doctor, "LITTLE_DISK", 2**80)
    assert lines(doctor.check_disk)["disk"].status == "warn"
    assert list(tmp_path.iterdir()) == []


def test_processor_without_bf16_is_warned_of():
    """Where /proc/cpuinfo tells the flags, the line agrees with them."""
    flags = doctor.processor_flags()
    line = lines(doctor.check_torch).get("bf16")
    if line is not None and line.status == "warn":
        assert flags and not flags & doctor.BF16_FLAGS and "compute_dtype" in line.mend
    elif line is not None:
        assert flags & doctor.BF16_FLAGS
