"""`paw doctor`: a line for everything, each with its mend; never a traceback."""

import importlib.util
from pathlib import Path

import pytest

from paw.cli import main
from paw.envs.verify import Line
from paw.train import doctor


def lines(check) -> dict[str, Line]:
    return {line.what: line for line in check()}


def test_this_installation_is_sound(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for what in ("python", "packages", "torch", "policy", "alfworld", "disk", "memory"):
        assert f"  {what} " in out
    for extra in ("webshop", "search", "plot", "lora", "track"):
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


def test_what_is_not_installed_names_its_command():
    found = lines(doctor.check_extras)
    assert list(found) == [f"[{extra}]" for extra in doctor.EXTRAS]
    for line in found.values():
        assert (line.status == "ok") == (not line.mend)
        assert line.status == "ok" or line.mend.startswith("pip install ")
    for extra, package in (("plot", "matplotlib"),):
        installed = importlib.util.find_spec(package) is not None
        assert (found[f"[{extra}]"].status == "ok") == installed


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
    flags = doctor._processor_flags()
    line = lines(doctor.check_torch).get("bf16")
    if line is not None and line.status == "warn":
        assert flags and not flags & doctor.BF16_FLAGS and "compute_dtype" in line.mend
    elif line is not None:
        assert flags & doctor.BF16_FLAGS
