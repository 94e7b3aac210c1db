"""Makes `priors.json`, the explorer's table: `python -m paw.envs.alfworld.priors [DATA_DIR]`."""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from paw.envs.alfworld.game import Game
from paw.envs.alfworld.source import Alfworld


def count_priors(games: Iterable[Game]) -> dict[str, dict[str, float]]:
    """Kind of object -> kind of receptacle -> mean number of such objects in one such receptacle.

    Over the initial states of `games`; absent pairs are 0.
    """
    objects: defaultdict[str, Counter[str]] = defaultdict(Counter)
    receptacles: Counter[str] = Counter()
    for game in games:
        for receptacle, contents in zip(game.receptacles, game.contents, strict=True):
            place = receptacle.rpartition(" ")[0]
            receptacles[place] += 1
            for o in contents:
                objects[game.objects[o].rpartition(" ")[0]][place] += 1
    return {
        kind: {place: float(f"{n / receptacles[place]:.3g}") for place, n in sorted(at.items())}
        for kind, at in sorted(objects.items())
    }


def main() -> None:
    source = Alfworld("train", data_dir=sys.argv[1] if sys.argv[1:] else None)
    priors = count_priors(source.game(task.id) for task in source)
    path = Path(__file__).with_name("priors.json")
    path.write_text(json.dumps(priors, separators=(",", ":")) + "\n", "utf-8")
    print(f"{path}: {path.stat().st_size} bytes from {len(source)} games")


if __name__ == "__main__":
    main()
