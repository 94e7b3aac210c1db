"""`paw data`: where a benchmark's data come from, and are they whole?"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from paw.commands.arguments import Declare
from paw.errors import UserError

if TYPE_CHECKING:
    from paw.envs.verify import Verifier

HELP = "where a benchmark's data come from; --download: get them; --check: are they whole?"


def add(declare: Declare) -> None:
    """Declare the command."""
    data = declare("data", run, HELP)
    data.add_argument("env", metavar="ENV", help="alfworld, webshop or search_qa")
    data.add_argument(
        "--check", nargs="?", const="", metavar="DIR",
        help="read all of DIR (default: the environment's own variable)",
    )  # fmt: skip
    data.add_argument(
        "--download", metavar="DIR", help="fetch the official files into DIR; goes on where it was"
    )
    data.add_argument("--split", action="append", default=[], help="only this one; may be repeated")


def run(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.envs.verify import format_lines, passed, verifier

    own = verifier(known.env)
    if known.download is not None:
        if known.check is not None or known.split:
            raise UserError("data: --download goes without --check and --split; check afterwards")
        return download(known.env, own, Path(known.download).expanduser())
    if known.check is None:
        print(own.SOURCES)
        return 0
    folder = own.folder_of(known.check or None)
    if folder is None:
        raise UserError(f"data: name the folder: paw data {known.env} --check DIR")
    if not folder.is_dir():
        raise UserError(f"data: {folder} is no folder; paw data {known.env} says how to fill one")
    lines = own.verify(folder, known.split, _bar)
    print(format_lines(lines))
    return 0 if passed(lines) else 1


def download(name: str, own: "Verifier", folder: Path) -> int:
    """Say what will be fetched, from where and under which licence; then fetch it."""
    from paw.envs.download import fetch, is_here, remote_size

    missing = [remote for remote in own.FILES if not is_here(remote, folder)]
    wanted = {remote: remote_size(remote) for remote in missing if not remote.by_hand}
    for remote in own.FILES:
        state = "fetch" if remote in wanted else "by hand" if remote in missing else "there"
        size = wanted.get(remote, remote.size)
        print(f"{state:8} {remote.name:24} {_size(size):>9}  {remote.url}")
    print(f"licence  {own.LICENCE}")
    if wanted:
        sizes = [size for size in wanted.values() if size is not None]
        unknown = len(wanted) - len(sizes)
        more = f" and {unknown} of unknown size" if unknown else ""
        print(f"in all   {_size(sum(sizes))}{more}, into {folder}", flush=True)
    for remote in wanted:
        with _ByteBar() as bar:
            digest = fetch(remote, folder, bar)
        held = "as on record" if remote.sha256 else "recorded, none was on record"
        print(f"done     {remote.name}: SHA-256 {digest[:16]}… ({held})")
    by_hand = [remote for remote in missing if remote.by_hand]
    if by_hand:
        print(
            "Google Drive hands these out to a browser or to gdown (pip install gdown), some to "
            f"signed-in users alone. In {folder}:"
        )
        print("\n".join(f"    {remote.by_hand}" for remote in by_hand))
        print(f"Then, for their hashes: paw data {name} --download {folder}")
    else:
        print(f"next     paw data {name} --check {folder}; export {name.upper()}_DATA={folder}")
    return 1 if by_hand else 0


def _size(count: int | None) -> str:
    if count is None:
        return "?"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


class _ByteBar:
    """A bar of one file's bytes on a terminal; gone when it is done."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, name: str, have: int, total: int | None) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(
                desc=name, total=total, initial=have, unit="B", unit_scale=True, leave=False,
                mininterval=1.0, disable=None,
            )  # fmt: skip
        self._bar.update(have - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _bar(things: Iterable[Any], count: int, what: str) -> Iterable[Any]:
    """A progress bar on a terminal; gone when it is done."""
    from tqdm import tqdm

    return tqdm(things, what, count or None, leave=False, mininterval=1.0, disable=None)
