import tracemalloc

from tests.text.templates import QWEN25, chat_tokenizer

from paw.style import Style
from paw.text.cache import ByteCache
from paw.text.dialogue import CACHE_BYTES, Serializer


def test_what_was_used_longest_ago_makes_room():
    """Values of 4 bytes in a cache of 10: two fit; one of 11 fits never."""
    made = []

    def make(key):
        made.append(key)
        return key

    cache = ByteCache(make, lambda key, value: 11 if value == "big" else 4, limit=10)
    for key in ("a", "b", "a", "c", "a", "b", "big", "a", "big"):
        assert cache(key) == key
        assert cache.num_bytes <= 10
    # b made room for c, c for b; a was used again each time.
    assert made == ["a", "b", "c", "b", "big", "big"]


def test_many_long_texts_take_no_more_than_the_limit():
    """What is counted is not less than what is taken."""
    s = Serializer(
        chat_tokenizer(QWEN25), Style(), context="append", response_format="command",
        history_turns=2, max_prompt_tokens=99, max_observation_tokens=99,
    )  # fmt: skip
    tracemalloc.start()
    for i in range(40):
        s.encode(f"{i} you see a mug. " * 350)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken <= s._turn.num_bytes <= CACHE_BYTES
