"""One question: searches and an answer, in the protocol of Search-R1 (arXiv 2503.09516)."""

import re
from dataclasses import dataclass
from typing import Any

from paw.envs.base import Episode, Observation, StepResult
from paw.envs.retrieval.base import Passage, Retriever
from paw.envs.search_qa.questions import Question
from paw.envs.search_qa.scoring import exact_match, f1_score, substring_match
from paw.types import Task

COMMANDS = ("<search><query></search>", "<answer><text></answer>")
"""With slots, in the form of `Observation.commands`."""
NO_RESULTS = "<information>No results.</information>"
INVALID = (
    "My previous action is invalid. To search, I should put the query between <search> and "
    "</search>. To answer, I should put the answer between <answer> and </answer>. "
    "Let me try again."
)
PROTOCOL_TAG = re.compile(r"<(?=/?(?:search|answer|information|think)>)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a search."""

    top_k: int
    """Passages per search."""
    max_query_chars: int
    """Longer queries are cut before they go to the retriever."""
    max_document_words: int | None
    """Longer passages are cut in the observation; None shows them whole."""


def parse_command(command: str) -> tuple[str, str] | None:
    """("search" or "answer", stripped content) of the first complete block; None without one.

    Equals the first match of `<(search|answer)>(.*?)</\\1>`, in linear time: the regular expression
    is quadratic in unclosed tags.
    """
    blocks: list[tuple[int, str, str]] = []
    for verb in ("search", "answer"):
        opening, closing = f"<{verb}>", f"</{verb}>"
        start = command.find(opening)
        end = command.find(closing, start + len(opening)) if start >= 0 else -1
        if end >= 0:
            blocks.append((start, verb, command[start + len(opening) : end].strip()))
    return min(blocks)[1:] if blocks else None


def format_passages(passages: list[Passage], max_document_words: int | None = None) -> str:
    """The `<information>` block of a search: `Doc i(Title: "…") text`, one line each.

    Protocol tags inside a passage lose their `<` to `&lt;`: only the environment writes blocks.
    """
    if not passages:
        return NO_RESULTS
    lines = []
    for number, passage in enumerate(passages, start=1):
        text = passage.text
        if max_document_words is not None and len(words := text.split()) > max_document_words:
            text = " ".join(words[:max_document_words]) + " …"
        title = f'(Title: "{passage.title}")' if passage.title else ":"
        lines.append(PROTOCOL_TAG.sub("&lt;", f"Doc {number}{title} {text}"))
    return "<information>" + "\n".join(lines) + "</information>"


class SearchQAEnvironment(Episode):
    """One episode. An answer ends it; `info` of the answer holds the scores."""

    max_return = 1.0

    def __init__(
        self, task: Task, question: Question, retriever: Retriever, limits: Limits
    ) -> None:
        super().__init__(task)
        self._question = question
        self._retriever = retriever
        self._limits = limits

    def start(self) -> Observation:
        """The question."""
        return Observation(self._question.text, COMMANDS)

    def play(self, command: str) -> StepResult:
        """Run the first complete `<search>` or `<answer>` block of `command`.

        `info["score"]` is the answer's F1, 0 before there is one.

        Raises:
            RetrievalError: the retriever is out of order; the episode is lost.
        """
        parsed = parse_command(command)
        if parsed is None:
            return StepResult(Observation(INVALID, COMMANDS), valid=False, info={"score": 0.0})
        verb, content = parsed
        content = content.encode("utf-8", "replace").decode()  # lone surrogates
        return self._search(content) if verb == "search" else self._answer(content)

    def _search(self, query: str) -> StepResult:
        query = query[: self._limits.max_query_chars]
        passages = self._retriever.search([query], self._limits.top_k)[0] if query.strip() else []
        text = format_passages(passages, self._limits.max_document_words)
        found = [passage.id for passage in passages]
        info = {"score": 0.0, "query": query, "passage_ids": found}
        return StepResult(Observation(text, COMMANDS), info=info)

    def _answer(self, prediction: str) -> StepResult:
        golds = self._question.golden_answers
        correct = exact_match(prediction, golds)
        f1 = f1_score(prediction, golds)
        info: dict[str, Any] = {
            "score": f1,
            "f1": f1,
            "exact_match": float(correct),
            "substring_match": float(substring_match(prediction, golds)),
            "prediction": prediction,
        }
        return StepResult(
            Observation(""), reward=float(correct), terminated=True, success=correct, info=info
        )
