"""How search-QA is asked, read and scored: the protocol of Search-R1 (arXiv 2503.09516)."""

from paw.envs.search_qa.scene import scenes
from paw.envs.search_qa.wording import WORDING
from paw.style import Style

STYLE = Style(
    introduction="Answer the question. You may search a text collection as often as allowed.",
    tags=("search", "answer"),
    keeps_tags=True,
    needs_reasoning=False,
    rule=(
        "First reason inside <think> </think> whenever you get new information. Then either search "
        "with <search> query </search>; the best results come back between <information> and "
        "</information>; or, when you know enough, answer with <answer> answer </answer>, in a few "
        "words and without explanation."
    ),
    shows_commands=False,
    react_command=(
        "<search> query </search>, or <answer> answer </answer> when you know enough (a few words, "
        "without explanation)"
    ),
    validation_split="nq",
    rate_name="EM",
    score_name="F1",
    tasks_name="questions",
    average_over="data sets",
    protocol={
        "rollout": {
            "max_turns": 4,
            "history_turns": 4,
            "max_prompt_tokens": 4096,
            "invalid_penalty": 0.01,
        },
        "eval": {"temperature": 0.0},
    },
    wording=WORDING,
    scenes=scenes,
)
