"""Files that are there whole or not at all."""

from pathlib import Path

import pytest
from safetensors import SafetensorError

from paw.errors import UserError
from paw.runs.files import check_writable, new_directory, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_write_atomically_keeps_the_old_file_on_failure(tmp_path: Path):
    file = tmp_path / "file"
    write_atomically(file, b"old")
    with pytest.raises(TypeError):
        write_atomically(file, "not bytes")  # pyright: ignore
    assert file.read_bytes() == b"old"
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "directory", b"x")
    assert not (tmp_path / "directory.tmp").exists()


def test_check_writable(tmp_path: Path):
    check_writable(tmp_path / "new" / "file")
    assert list((tmp_path / "new").iterdir()) == []
    for path in (Path("/proc/x"), Path("/dev/null/x"), tmp_path):
        with pytest.raises(UserError, match="cannot write"):
            check_writable(path)


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (SafetensorError("I/O error: refused (os error 28)"), "No space left on device"),
        (Exception("refused (os error 30)"), "Read-only file system"),
    ],
)
def test_directory_that_cannot_be_written(tmp_path: Path, error: Exception, part: str):
    final = tmp_path / "final"
    final.mkdir()
    (final / "old").write_text("old")
    with pytest.raises(UserError, match=part), new_directory(final) as directory:
        (directory / "new").write_text("new")
        raise error
    assert names(tmp_path) == ["final"]
    assert names(final) == ["old"]


def test_bugs_while_writing_stay_bugs(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), new_directory(tmp_path / "final"):
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_new_directory_replaces_whole(tmp_path: Path):
    final = tmp_path / "final"
    for name in ("one", "two"):
        with new_directory(final) as directory:
            (directory / name).write_text(name)
        assert names(final) == [name]
    assert names(tmp_path) == ["final"]
