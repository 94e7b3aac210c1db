"""Tokens as the texts that a person reads one behind the other."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a part of a character is decoded to."""


class TokenTexts:
    """The text of each token of a sequence; joined they are the whole.

    A token that ends in the middle of a character is empty, and the one that completes it has the
    character.

    Args:
        tokenizer: of the tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._before = tokenizer("a", add_special_tokens=False)["input_ids"]
        """What stands before a token while it is decoded: some lose their space at the start."""
        self._skipped = len(self._decode(self._before))
        self._known: dict[int, str] = {}

    def __call__(self, ids: Sequence[int]) -> tuple[str, ...]:
        """[n] texts of n tokens."""
        texts = [self._one(i) for i in ids]
        start = 0
        while start < len(texts):
            end = start
            while end < len(texts) and BROKEN in texts[end]:
                end += 1
            if end > start:
                texts[start:end] = self._together(ids[start:end])
            start = max(end, start) + 1
        return tuple(texts)

    def _one(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = self._behind([token])
        return self._known[token]

    def _together(self, ids: Sequence[int]) -> list[str]:
        """Tokens that make up characters only together."""
        texts, done = [], ""
        for count in range(1, len(ids) + 1):
            whole = self._behind(ids[:count])
            complete = count == len(ids) or not whole.endswith(BROKEN)
            texts.append(whole[len(done) :] if complete else "")
            done = whole if complete else done
        return texts

    def _behind(self, ids: Sequence[int]) -> str:
        return self._decode([*self._before, *ids])[self._skipped :]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(
            self._tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )
