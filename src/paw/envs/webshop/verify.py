"""`paw data webshop`: are the official product files there, whole and complete?"""

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path

from paw.envs.download import Remote
from paw.envs.verify import Line, Progress
from paw.envs.webshop import files
from paw.envs.webshop.catalog import Sources, parse_products
from paw.envs.webshop.product import HumanInstruction
from paw.errors import UserError

OFFICIAL = {
    "1000": {"products": 1_000, "synthetic goals": 6_910, "human goals": 13},
    "full": {"human goals": 12_087},
}
"""What the official files give, as far as it is published or was counted."""

SUFFIX = {"1000": "_1000", "full": ""}

LICENCE = "WebShop, MIT licence (c) 2023 Princeton NLP"


def _drive(name: str, key: str, size: int, sha256: str) -> Remote:
    url = f"https://drive.google.com/uc?id={key}"
    return Remote(name, url, size, sha256, by_hand=f"gdown {key} -O {name}")


FILES = (
    _drive(
        "items_shuffle_1000.json", "1EgHdxQ_YxqIQlvvq5iKlCrkEKR6-j0Ib", 4_467_013,
        "30a4765c3a327af72d9a9a95a6b2486d516f0fa1d3ecd83681901ce82a21b269",
    ),
    _drive(
        "items_ins_v2_1000.json", "1IduG0xl544V_A_jv3tHXC0kyFi7PnyBu", 147_099,
        "f88a36314a397b53b3d9c3fa5878e5f7b26d35019a51ec83fbedeca61a948f6f",
    ),
    _drive(
        "items_human_ins.json", "14Kb5SPBk_jfdLZ_CDBNitW98QLDlKR5O", 5_137_548,
        "cf78667548a71786e1d9049c24b802e48e1084ad4bb021cae56ce1f6d96954a3",
    ),
    _drive(
        "items_shuffle.json", "1A2whVgOO0euk5O13n2iYDM0bQRkkRduB", 5_479_720_229,
        "2ef591d65df3af89e972ab72468eb82cbf124d876552d9f3678667edd620a6c8",
    ),
    _drive(
        "items_ins_v2.json", "1s2j6NgHljiZzQNL3veZaAiyW_qDEgBNi", 186_295_270,
        "1d36af476bdb8f82a5da62bd8acdabe54cd8de2fa84010d37da5c4890feb447e",
    ),
)  # fmt: skip
"""Sizes and hashes as several public set-ups of WebShop record them; that of items_ins_v2_1000.json
was computed from a copy."""

SOURCES = """\
WebShop (Yao et al., NeurIPS 2022), MIT licence. The release files of princeton-nlp/WebShop, as its
setup.sh fetches them (`pip install gdown`, then `gdown ID -O NAME`):
    1,000 products (enough to start)   items_shuffle_1000.json  1EgHdxQ_YxqIQlvvq5iKlCrkEKR6-j0Ib
                                       items_ins_v2_1000.json   1IduG0xl544V_A_jv3tHXC0kyFi7PnyBu
    all products (the paper)           items_shuffle.json       1A2whVgOO0euk5O13n2iYDM0bQRkkRduB
                                       items_ins_v2.json        1s2j6NgHljiZzQNL3veZaAiyW_qDEgBNi
    instructions that people wrote     items_human_ins.json     14Kb5SPBk_jfdLZ_CDBNitW98QLDlKR5O
Layout: all in one folder DIR, plain or packed as .gz or .zst.
Then: export WEBSHOP_DATA=DIR, or env.data_dir = "DIR"."""

_MEND = "`paw data webshop` lists the official files"


def folder_of(named: str | None) -> Path | None:
    """The folder `named`, else $WEBSHOP_DATA."""
    chosen = named or os.environ.get("WEBSHOP_DATA")
    return Path(chosen).expanduser() if chosen else None


def inventory(folder: Path) -> list[Line]:
    """Which product sets are there, by name."""
    found = []
    for name in SUFFIX:
        try:
            sources = Sources.find(folder, name)
        except UserError:
            continue
        human = "" if sources.human else " without human instructions"
        found.append(f"{name} products{human}")
    if not found:
        return [Line("--", "webshop", f"no items_shuffle[_1000].json in {folder}", _MEND)]
    return [Line("ok", "webshop", f"{folder}: {', '.join(found)}")]


def verify(folder: Path, splits: Sequence[str], progress: Progress) -> list[Line]:
    """Read every product set that is there.

    Raises:
        UserError: `splits` is not empty; WebShop's splits are parts of the goals, not files.
    """
    if splits:
        raise UserError("data: webshop's splits are parts of its goals, not files: drop --split")
    lines = []
    for name, suffix in SUFFIX.items():
        if files.find(folder, f"items_shuffle{suffix}.json") is not None:
            lines += _product_set(folder, name, progress)
    if not lines:
        found = f"no items_shuffle_1000.json or items_shuffle.json in {folder}"
        return [Line("FAIL", "products", found, _MEND)]
    return lines


def _product_set(folder: Path, name: str, progress: Progress) -> list[Line]:
    """The lines of one product set; nothing of it stays in memory but the asins."""
    official = OFFICIAL[name]
    try:
        sources = Sources.find(folder, name)
        asins: set[str] = set()
        num_goals = 0
        expected = official.get("products", 0)
        for product in progress(parse_products(sources), expected, f"webshop {name} products"):
            asins.add(product.asin)
            if product.instruction is not None:
                num_goals += prod(len(values) for values in product.options.values())
    except UserError as error:
        return [Line("FAIL", f"{name} products", str(error), _MEND)]
    lines = [
        _count(name, "products", len(asins), sources.products),
        _count(name, "synthetic goals", num_goals, sources.annotations),
    ]
    if sources.human is None:
        found = "no items_human_ins.json: not for env.goals = human"
        return [*lines, Line("--", f"{name} human goals", found)]
    try:
        written = files.read_json(sources.human, dict[str, list[HumanInstruction]])
    except UserError as error:
        return [*lines, Line("FAIL", f"{name} human goals", str(error), _MEND)]
    num_human = sum(
        bool(i.instruction_attributes) for a, found in written.items() if a in asins for i in found
    )
    return [*lines, _count(name, "human goals", num_human, sources.human)]


def _count(name: str, what: str, number: int, file: Path) -> Line:
    official = OFFICIAL[name].get(what)
    if official is None:
        return Line("ok" if number else "FAIL", f"{name} {what}", f"{number:,}  ({file.name})")
    found = f"{number:,} of {official:,}  ({file.name})"
    if number == official:
        return Line("ok", f"{name} {what}", found)
    return Line("FAIL" if number < official else "warn", f"{name} {what}", found, _MEND)
