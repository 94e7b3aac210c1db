"""Small pages of `paw report` with numbers that tests know."""

from collections.abc import Sequence

from paw.report.data import (
    Chunk,
    Episode,
    Episodes,
    Evaluation,
    Kind,
    Oddity,
    Page,
    Run,
    Task,
    Tokens,
    Turn,
)
from paw.report.page import packed_chunk, render
from paw.style import Block

RHO = 0.2


def html(page: Page, chunks: Sequence[Chunk]) -> str:
    """As `paw report` writes it."""
    return render(page, [packed_chunk(chunk) for chunk in chunks])


def tokens(text: str, **more: object) -> Tokens:
    """A token a word, with the space before it."""
    words = text.split(" ")
    pieces = (words[0], *(f" {word}" for word in words[1:]))
    return Tokens(text=pieces, id=tuple(100 + i for i in range(len(pieces))), **more)  # type: ignore[arg-type]


def turn(command: str = "look", seen: str = "a room", then: str | None = "a door", **more) -> Turn:
    values = {"commands": ("look", command), "valid": True, "reward": 0.0, "penalty": 0.0} | more
    return Turn(
        observation=seen, response=command, command=command, next_observation=then, **values
    )


def learned(command: str, then: str, logprobs: Sequence[float | None], **more) -> Turn:
    """A turn with all its tokens, selected, with weight 0.01 and a share of 25 %."""
    action = tokens(command)
    size = len(action.id)
    action = tokens(
        command, entropy=tuple(0.5 * i for i in range(size)), logprob=tuple([-0.5] * size)
    )
    context = tokens("you see a room", role=(3, 0, 2, 2))
    target = tokens(then, logprob=tuple(logprobs))
    values = {"selected": True, "weight": 0.01, "share": 0.25, "advantage": 1.25} | more
    return turn(command, then=then, context=context, action=action, target=target, **values)


def columns(rows: Sequence[dict]) -> Episodes:
    """Of rows that name what differs from a kept success of update 1."""
    plain = {
        "update": 1, "group": 0, "index": 0, "task": 0, "success": True, "return_": 10.0,
        "turns": 2, "valid": 1.0, "failure": None, "nll": 0.5, "advantage": 0.0, "chunk": 0,
        "place": 0, "why": "first",
    }  # fmt: skip
    full = [plain | row for row in rows]
    return Episodes(**{name: tuple(row[name] for row in full) for name in plain})


def run(**more) -> Run:
    values = {
        "name": "run-a", "path": "runs/run-a", "source": "run", "state": "finished",
        "env": "household", "facts": (("environment", "household"), ("algorithm", "grpo")),
        "probability_cap": RHO, "loss": "cmae", "updates": 2, "planned": 2, "odd": (),
        "metrics": {"update": (1, 2), "rollout/success_rate": (0.25, 0.5), "wm/nll": (1.5, None)},
        "evaluations": (), "tasks": (Task(id="t/0", kind="pick", instruction="put a cup away"),),
        "episodes": columns([]), "left_out": "",
    }  # fmt: skip
    return Run(**(values | more))


def page(*runs: Run, **more) -> Page:
    values = {
        "version": "0.1.0",
        "title": "a page",
        "metrics": {"rollout/success_rate": "share of trajectories that succeeded"},
    }
    return Page(runs=runs, **(values | more))


def episode(row: int, *turns: Turn, **more) -> Episode:
    values = {"score": None, "terminated": True, "prompt_limit": False, "group_weight": 0.5} | more
    return Episode(row=row, turns=turns, **values)


SCENE = (
    Block("facts", "Where", (("place", "fridge 1"), ("holding", "a mug"))),
    Block("passage", "Found", (("title", "🙂 the answer is Paris, France"),), ((0, 16, 21),)),
)


def usual() -> tuple[Page, list[Chunk]]:
    """Two runs of one task and another; 8 episodes, 6 of them kept."""
    tasks = (
        Task(id="t/0", kind="pick", instruction="put a cup away"),
        Task(id="t/1", kind="heat", instruction="heat an egg"),
    )
    first = [
        {"place": 0, "nll": 0.75, "advantage": 1.25},
        {"index": 1, "place": 1, "success": False, "return_": 0.0, "turns": 3, "valid": 0.5,
         "nll": 2.5},
        {"index": 2, "chunk": -1, "why": "", "success": False, "return_": 0.0, "turns": 9},
        {"update": 2, "task": 1, "chunk": 1, "return_": 7.5, "nll": None, "turns": 1},
        {"update": 2, "task": 1, "index": 1, "chunk": 1, "place": 1, "success": False,
         "return_": 0.0, "turns": 0, "valid": None, "failure": "the worker died", "why": "failed"},
        {"update": 2, "group": 1, "chunk": -1, "why": "", "return_": 5.0, "turns": 7},
    ]  # fmt: skip
    second = [{"chunk": 2, "turns": 2}, {"index": 1, "chunk": 2, "place": 1, "turns": 1}]
    shown = (
        learned("go to shelf", "you see a\n cup here", (-0.1, -3.0, None, -2.0, -0.5)),
        turn("take cup", "you see a\n cup here", None, reward=10.0, scene=SCENE),
    )
    other = (
        learned("go to fridge", "nothing happens now", (-2.5, -0.2, -4.0), weight=0.0),
        turn("open fridge", "nothing happens now", "it is shut", valid=False, penalty=-0.1),
        turn("wait", "it is shut", None),
    )
    chunks = [
        Chunk(run=0, episodes=(episode(0, *shown), episode(1, *other, terminated=False))),
        Chunk(run=0, episodes=(episode(3, turn("sing a zither song")), episode(4))),
        Chunk(run=1, episodes=(episode(0, *shown), episode(1, shown[1]))),
    ]
    kinds = (
        Kind(kind="", success=0.5, low=0.3, high=0.7, episodes=20),
        Kind(kind="pick", success=0.25, low=0.1, high=0.5, episodes=10),
    )
    evaluations = tuple(
        Evaluation(update=update, split="valid", temperature=0.4, kinds=kinds, failures={"died": 2})
        for update in (0, 2)
    )
    odd = Oddity(text="success rose from 25 % to 50 %", first=2, last=2, metric="policy/kl")
    metrics = {
        "update": (1, 2), "rollout/success_rate": (0.25, 0.5), "wm/nll": (1.5, None),
        "policy/kl": (0.001, 0.002), "time/diagnose": (None, None), "tokens/sampled": (100, 200),
    }  # fmt: skip
    one = run(
        tasks=tasks, episodes=columns(first), evaluations=evaluations, odd=(odd,),
        metrics=metrics, left_out="2 of 6 episodes were left out: kept are the first, the failed",
    )  # fmt: skip
    two = run(name="run-b", tasks=tasks, episodes=columns(second), state="unfinished", planned=9)
    return page(one, two), chunks


def comparison() -> tuple[Page, list[Chunk]]:
    """Two arms, seven seeds, of which one failed."""
    runs, entries = [], []
    for arm, lift in (("baseline", 0.0), ("paw", 0.1)):
        for seed in range(6):
            rate = 0.3 + lift + 0.01 * seed
            runs.append(run(name=f"{arm}/seed-{seed}", arm=arm, seed=seed, metrics={
                "update": (1, 2), "rollout/success_rate": (0.2, rate)}))  # fmt: skip
            entries.append({"arm": arm, "seed": seed, "status": "finished", "reason": None,
                            "final": rate, "late_window": rate, "area": rate,
                            "curve": [[0, 0.2], [2, rate]]})  # fmt: skip
    entries.append({"arm": "paw", "seed": 6, "status": "failed", "reason": "loss was not finite",
                    "final": None, "late_window": None, "area": None, "curve": []})  # fmt: skip
    differences = [
        {"arm": "paw", "baseline": "baseline", "metric": metric, "num_pairs": 6,
         "seeds": list(range(6)), "differences": [0.1] * 6, "mean_difference": 0.1,
         "interval": [0.05, 0.15], "level": 0.95, "p_value": 0.03125, "holm_p_value": 0.0625,
         "verdict": "no difference shown", "pairs_needed": 8}
        for metric in ("final", "late_window", "area")
    ]  # fmt: skip
    data = {"baseline": "baseline", "runs": entries, "comparisons": differences}
    return page(*runs, comparison=data), []
