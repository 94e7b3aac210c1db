"""An expert that knows the gold answer and searches for its evidence first: for demonstrations."""

from random import Random

from paw.envs.base import Observation
from paw.envs.retrieval import analysis
from paw.envs.search_qa.questions import Question
from paw.envs.search_qa.scoring import contains_answer, normalize_answer

YES_NO = frozenset({"yes", "no"})


def key_words(text: str) -> list[str]:
    """The words of `text` that a search takes into account, as written."""
    return [word for word in text.split() if analysis.terms(word)]


class OracleExpert:
    """Searches the question, then the titles of its evidence, and answers once the answer was read.

    With probability `noise` a query is reduced to some of its key words; with probability `junk` a
    turn is spent on a malformed command, so that demonstrations show the refusal and how to go on.
    The last of `max_turns` turns is always the answer.
    """

    last_was_junk: bool = False
    """Whether the last command was junk; imitation must not learn such a command."""

    def __init__(
        self,
        question: Question,
        titles: list[str],
        seed: int = 0,
        noise: float = 0.0,
        junk: float = 0.0,
        max_turns: int = 4,
    ) -> None:
        self._rng = Random(f"search_qa expert/{question.data_set}/{question.id}/{seed}")
        self._golds = question.golden_answers
        self._queries = [question.text, *(titles or [" ".join(key_words(question.text))])]
        self._noise = noise
        self._junk = junk
        self._turns_left = max_turns
        self._read = ""

    def act(self, observation: Observation) -> str:
        """The next command, given the answer to the last one."""
        if observation.text.startswith("<information>"):
            self._read += " " + observation.text
        self._turns_left -= 1
        last = self._turns_left <= 0
        self.last_was_junk = not last and self._rng.random() < self._junk
        if self.last_was_junk:
            return self._malformed()
        answer = self._known_answer()
        if answer is None and not last and self._queries:
            return f"<search>{self._next_query()}</search>"
        return f"<answer>{answer or self._golds[0]}</answer>"

    def _known_answer(self) -> str | None:
        """A gold answer that was read; yes and no are never read."""
        for gold in self._golds:
            wanted = normalize_answer(gold)
            if wanted not in YES_NO and contains_answer(self._read, [wanted]):
                return gold
        return None

    def _next_query(self) -> str:
        query = self._queries.pop(0)
        words = key_words(query)
        if len(words) > 1 and self._rng.random() < self._noise:
            kept = self._rng.randint(1, len(words) - 1)
            places = sorted(self._rng.sample(range(len(words)), kept))
            query = " ".join(words[place] for place in places)
        return query

    def _malformed(self) -> str:
        query = self._queries[0] if self._queries else "more"
        return self._rng.choice(
            [
                f"<search>{query}",
                f"search: {query}",
                f"<answer>{query}",
                f"<query>{query}</query>",
                "",
            ]
        )
