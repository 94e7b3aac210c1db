"""Load a policy's tokenizer, or make a small one whose every text round-trips."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from paw.errors import UserError, first_line

PAD, OBSERVATION, ACTION, END = "<|pad|>", "<|observation|>", "<|action|>", "<|end|>"
SPECIAL = [PAD, OBSERVATION, ACTION, END]
"""Special tokens of the plain format."""
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '"
    + ACTION
    + "' + message['content'] + '"
    + END
    + "' }}"
    "{% else %}{{ '" + OBSERVATION + "' + message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '" + ACTION + "' }}{% endif %}"
)
"""Chat template of the small policies: an episode is <|observation|>…<|action|>…<|end|>…"""

CODE = r" ?(?=[^\W_]*\d)(?=[^\W_]*[^\W\d_])[^\W_]{8,}"
WORD = re.compile(CODE + r"| ?[^\W\d_]+| ?\d+|[^\w\s]|\s")
"""A code of letters and digits (a shop's product number), a word, a number, a sign, white space."""


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of an HF directory, a GGUF file or a hub name.

    A directory that says it holds a generic fast tokenizer is read as one: AutoTokenizer would
    choose by the model's type instead and silently change how text is split.

    Raises:
        UserError: no tokenizer there, or one that does not give back what it was given.
    """
    place = Path(path)
    own = place / "tokenizer_config.json"
    generic = False
    try:
        if own.is_file():
            name = json.loads(own.read_text(encoding="utf-8")).get("tokenizer_class", "")
            generic = name in ("PreTrainedTokenizerFast", "TokenizersBackend")
        loader = PreTrainedTokenizerFast if generic else AutoTokenizer
        if place.suffix.lower() == ".gguf":
            tokenizer = loader.from_pretrained(str(place.parent), gguf_file=place.name)
        else:
            tokenizer = loader.from_pretrained(str(path))
    except Exception as error:  # the name of what tokenizers raises at a file of another kind
        raise UserError(
            f"model.path = {str(path)!r}: no tokenizer to load there: {first_line(error)}"
        ) from None
    probe = "Nothing happens. You see a mug 12."
    back = tokenizer.decode(tokenizer(probe, add_special_tokens=False)["input_ids"])
    if back.strip() != probe:
        raise UserError(f"model.path = {str(path)!r}: its tokenizer turns {probe!r} into {back!r}")
    return tokenizer


def make_tokenizer(
    texts: Iterable[str], phrases: Sequence[str] = (), min_count: int = 3, max_words: int = 4000
) -> PreTrainedTokenizerFast:
    """A word tokenizer over a byte alphabet: frequent words are one token, all else is bytes.

    Words carry their leading space, numbers and long codes of letters and digits are words, and
    every text round-trips.

    Args:
        texts: what the policy will read and write.
        phrases: texts of several words that become one token each.
        min_count: occurrences from which a word gets a token.
        max_words: at most this many words, most frequent first.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        for phrase in phrases:
            text = text.replace(phrase, "\0")
        counts.update(WORD.findall(text))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(sorted(alphabet))}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    words = [w for w, n in sorted(counts.items(), key=lambda x: (-x[1], x[0])) if n >= min_count]
    words = [w for w in words if len(w.encode()) > 1 and "\0" not in w][:max_words]
    tokenizer.add_tokens([AddedToken(w, normalized=False) for w in [*phrases, *sorted(words)]])
    return wrap_tokenizer(tokenizer)


def wrap_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer that knows the `SPECIAL` tokens, with the plain format's chat template."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        chat_template=PLAIN_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
