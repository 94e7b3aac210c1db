"""Questions, tokenizer and untrained weights for the small search-QA recipe.

    python recipes/search_qa_small_data.py DATA runs/search_qa_small_data

DATA holds the real `train.jsonl`, `eval_nq.jsonl` and `corpus.jsonl` (any compression). Writes, all
from the seed 0 and the same every time:

 - `corpus.*`, `eval_nq.*`: links to the real files;
 - `cloze.jsonl`, questions made from the corpus: a name, date or number of a sentence is left out,
   the rest is put behind its question word, in lower case and with words dropped;
 - `train.jsonl` and `warm_nq.jsonl`: one-hop (NQ) questions of the real training set whose answer
   stands in the first 25 words of the passage that BM25 finds first, split in half by parity;
   `heldout.jsonl`: those of eval_nq;
 - `warm.jsonl`: cloze and `warm_nq`, each of the latter eight times, for the warm start;
 - `start/`: a model with fresh weights and a byte-level BPE of the corpus in which a capital is a
   mark of its own, so that "smoke gets in your eyes" shares its tokens with the title.

Passages that are evidence for a question of eval_nq make no cloze question.
"""

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from paw.envs.retrieval import cached_index
from paw.envs.retrieval.base import Passage, Retriever
from paw.envs.retrieval.store import read_corpus
from paw.envs.search_qa.questions import Question, first_file, read_split
from paw.envs.search_qa.scoring import contains_answer, normalize_answer
from paw.model.small import create_policy_model
from paw.text.tokenizer import SPECIAL, wrap_tokenizer

WORDS = 25
"""`env.max_document_words` of the recipes."""
REPEATS = 8
MARK = "\u21e7"
TAGS = (
    "<search>", "</search>", "<answer>", "</answer>", '<information>Doc 1(Title: "',
    "</information>",
)  # fmt: skip

MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
YEAR = r"(?:1[5-9]|20)\d\d"
DATE = re.compile(rf"(?:\d{{1,2}} )?{MONTH}(?: \d{{1,2}},)? {YEAR}|\b{YEAR}\b")
NUMBER = re.compile(r"\b(\d[\d,.]*\d|\d|two|three|four|five|six|seven|eight|nine|ten|twelve)\b")
NAME = re.compile(r"[A-Z][\w'’]+(?:[ -](?:(?:of|the|de|van|von|and the) )?[A-Z][\w'’]*\.?)*(?<!\.)")
SENTENCE = re.compile(r"(?<=[a-z\d)\"”][.!?]) +(?=[A-Z\"“])")
WHERE = ("in", "at", "from", "near", "of", "to")
COMMON = frozenset(
    {"The", "A", "An", "In", "It", "He", "She", "They", "His", "Her", "Its", "This", "These",
     "After", "On", "At", "As", "During", "For", "When", "While", "Although", "However", "By",
     "From", "With", "Their", "There", "Some", "Both", "Each", "One", "Two", "Three", "Many",
     "Most", "Since", "Before", "Following", "Under"}
)  # fmt: skip
"""Capitalised by the beginning of a sentence alone."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--cloze", type=int, default=80_000)
    parser.add_argument("--vocabulary", type=int, default=3_000)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args()
    out: Path = options.output
    out.mkdir(parents=True)
    for stem in ("corpus", "eval_nq"):
        file = first_file(options.data, [stem])
        if file is None:
            parser.error(f"no {stem}.jsonl in {options.data}")
        (out / file.name).symlink_to(file.resolve())
    corpus = first_file(out, ["corpus"])
    assert corpus is not None
    retriever = cached_index(corpus)
    heldout = list(read_split(options.data, "nq"))
    train = [q for q in read_split(options.data, "train") if q.data_set == "nq"]
    easy = [q for q in train if surface(q, retriever)]
    warm, rl = easy[::2], easy[1::2]
    write(out / "warm_nq.jsonl", (row(q) for q in warm))
    write(out / "train.jsonl", (row(q) for q in rl))
    write(out / "heldout.jsonl", (row(q) for q in heldout if surface(q, retriever)))

    evidence = {i for q in heldout for i in q.supporting_ids}
    passages = [p for _, p in read_corpus(corpus)]
    cloze = list(cloze_questions(passages, evidence, retriever, options.cloze))
    write(out / "cloze.jsonl", cloze)
    real = [row(q, f"-{n}", surface(q, retriever)) for q in warm for n in range(REPEATS)]
    write(out / "warm.jsonl", [*cloze, *real])
    print(f"{len(cloze)} cloze, {len(warm)} warm, {len(rl)} train questions")

    texts = [f'{p.title}") {shown(p)}' for p in passages]
    texts += [r["question"] for r in cloze]
    tokenizer = make_tokenizer(texts, options.vocabulary)
    model: Any = create_policy_model(
        vocab_size=len(tokenizer),
        hidden_size=options.hidden_size,
        num_layers=options.layers,
        num_heads=4,
        num_kv_heads=4,
        intermediate_size=8 * options.hidden_size // 3,
        max_positions=1024,
        seed=0,
    )
    model.save_pretrained(out / "start")
    tokenizer.save_pretrained(out / "start")
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")


def row(question: Question, suffix: str = "", answer: str | None = None) -> dict[str, Any]:
    """A question as a line of a file; `answer` goes before the gold answers."""
    return {
        "id": question.id + suffix,
        "data_source": "nq",
        "question": question.text,
        "golden_answers": [*([answer] if answer else []), *question.golden_answers],
        "supporting_ids": list(question.supporting_ids),
    }


def shown(passage: Passage) -> str:
    return " ".join(passage.text.split()[:WORDS])


def surface(question: Question, retriever: Retriever) -> str | None:
    """The gold answer that stands in the passage found first, in lower case as it stands there.

    Exact match ignores case, and an answer without marks of capitals is easier to copy.
    """
    found = retriever.search([question.text], 1)[0]
    if not found:
        return None
    text = shown(found[0])
    for gold in sorted(question.golden_answers, key=len, reverse=True):
        if contains_answer(text, [normalize_answer(gold)]):
            at = text.lower().find(gold.lower())
            return gold.lower() if at >= 0 else normalize_answer(gold)
    return None


# ---------------------------------------------------------------------------------------- cloze


def cloze_questions(
    passages: Sequence[Passage], without: set[str], retriever: Retriever, count: int
) -> Iterator[dict[str, Any]]:
    """`count` cloze questions whose own passage is what BM25 finds first.

    Kinds are drawn as in NQ: half of the answers are names of people, a quarter dates.
    """
    rng = random.Random(0)
    first_names = people(passages)
    made = 0
    while True:
        for number in rng.sample(range(len(passages)), len(passages)):
            passage = passages[number]
            if passage.id in without:
                continue
            made_one = cloze(passage, first_names, rng)
            if made_one is None:
                continue
            question, answer = made_one
            found = retriever.search([question], 1)[0]
            if not found or found[0].id != passage.id:
                continue
            yield {
                "id": f"cloze-{made}",
                "data_source": "cloze",
                "question": question,
                "golden_answers": [answer],
                "supporting_ids": [passage.id],
            }
            made += 1
            if made == count:
                return


def people(passages: Sequence[Passage]) -> frozenset[str]:
    """First names: first words of at least two titles whose passage has "(born" or "(1900 –"."""
    born = re.compile(rf"\((?:born|[^)]*{YEAR} ?[–-])")
    counts = Counter(
        p.title.split()[0]
        for p in passages
        if 2 <= len(p.title.split()) <= 4 and born.search(p.text[:120])
    )
    return frozenset(name for name, n in counts.items() if n >= 2 and name[0].isupper()) - COMMON


def cloze(
    passage: Passage, first_names: frozenset[str], rng: random.Random
) -> tuple[str, str] | None:
    """(question, answer in lower case) from one sentence of what is shown of a passage."""
    sentences = [s for s in SENTENCE.split(shown(passage)) if len(s.split()) >= 5]
    if not sentences:
        return None
    sentence = rng.choice(sentences)
    spans = candidates(sentence, first_names)
    if not spans:
        return None
    weight = {"who": 4.0, "when": 3.0, "where": 2.0, "what": 0.4, "how many": 0.7}
    start, end, kind = rng.choices(spans, [weight[kind] for _, _, kind in spans])[0]
    answer = sentence[start:end].lower().strip(" .,'")
    before = clean_words(sentence[:start])
    after = clean_words(sentence[end:])
    if kind in ("when", "where") and before and before[-1] in ("in", "on", "at", "from", "near"):
        before.pop()
    if kind == "who" and before and before[-1] == "by" and rng.random() < 0.7:
        before.pop()
    room = rng.randint(4, 9)
    near = before[-rng.randint(2, room) :]
    rest = after[: max(1, room - len(near))]
    order = [near, rest] if rng.random() < 0.5 else [rest, near]
    drop = rng.choice((0.0, 0.15, 0.3))
    words = [w for part in order for w in part if rng.random() >= drop]
    title = clean_words(re.sub(r"\(.*?\)", "", passage.title))
    known = set(words)
    if normalize_answer(answer) not in normalize_answer(passage.title):
        missing = [w for w in title if w not in known]
        if missing and rng.random() < 0.85:
            at = rng.choice((0, len(words)))
            words[at:at] = title if len(missing) == len(title) else missing
    wh = kind
    if kind == "when" and rng.random() < 0.3:
        wh = "what year"
    if kind == "what":
        wh = rng.choice(("what", "what", "which", "what is"))
    if kind == "when":
        wh += rng.choice(("", " did", " was", " is"))
    if kind == "where":
        wh += rng.choice(("", " is", " was", " did"))
    if contains_answer(" ".join(words), [normalize_answer(answer)]) or len(words) < 3:
        return None
    if not normalize_answer(answer):
        return None
    return f"{wh} {' '.join(words)}?", answer


def candidates(sentence: str, first_names: frozenset[str]) -> list[tuple[int, int, str]]:
    """(start, end, question word) of every name, date and number of a sentence."""
    spans = [(m.start(), m.end(), "when") for m in DATE.finditer(sentence)]

    def free(start: int, end: int) -> bool:
        return all(end <= s or start >= e for s, e, _ in spans)

    for m in NAME.finditer(sentence):
        start, end = m.span()
        first = m.group().split()[0]
        if first in COMMON:
            start += len(first) + 1
        if start >= end or not free(start, end) or len(sentence[start:end].split()) > 5:
            continue
        previous = sentence[:start].split()[-1:] or [""]
        if (first in first_names and " " in sentence[start:end]) or previous[0] == "by":
            kind = "who"
        elif previous[0] in WHERE:
            kind = "where"
        else:
            kind = "what"
        spans.append((start, end, kind))
    for m in NUMBER.finditer(sentence):
        if free(*m.span()) and sentence[m.end() :].strip()[:1].isalpha():
            spans.append((*m.span(), "how many"))
    return spans


def clean_words(text: str) -> list[str]:
    """Words in lower case without punctuation at their ends."""
    words = (w.strip("\"'.,;:()[]“”–-!?…") for w in text.lower().split())
    return [w for w in words if w]


# ------------------------------------------------------------------------------------ tokenizer


def make_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE; a capital is a mark and its small letter, each text begins with a space.

    What it decodes has that space in front; commands are stripped by the environment.
    """
    capitals = [chr(c) for c in range(ord("A"), ord("Z") + 1)]
    marks = [(f" {c}", f"{MARK} {c.lower()}") for c in capitals]
    marks += [(c, f"{MARK}{c.lower()}") for c in capitals]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(" "), *(normalizers.Replace(a, b) for a, b in marks)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(MARK, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteLevel(), *(decoders.Replace(b, a) for a, b in marks)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in TAGS])
    return wrap_tokenizer(tokenizer)


if __name__ == "__main__":
    main()
