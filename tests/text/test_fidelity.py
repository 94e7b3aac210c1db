"""A conversation made turn by turn has the tokens of `apply_chat_template` on the whole of it."""

from functools import cache
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.text.families import (
    DROPS_THINKING,
    FAMILIES,
    GROWING,
    OPENS_THINKING,
    family_tokenizer,
)
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from paw.errors import UserError
from paw.style import Style
from paw.text.dialogue import Serializer
from paw.text.prompts import Span
from paw.text.tokenizer import SPECIAL, make_tokenizer, wrap_tokenizer
from paw.text.turns import render, render_ids, turn_format
from paw.types import Role, SampledAction, Task

TASK = Task("t", "kind", "put a mug in the fridge.")
COMMANDS = ("look", "go to shelf 1")
ANSWERS = ("go to shelf 1", "look")
PIECES = [
    " ", "  ", "\n", "\n\n", "\r\n", "\t", "a", "mug 1", " mug", ".", ", ", "(", "[", "]", "'s",
    '"', "-=", "😀", "é", "e\u0301", "日本", "\u00a0", "\u3000", "\u200b", "12", "1234", "<",
    "|user|", "▁", "user", "USER:", "INST", "\x00", "\u2028", "{{", "<0x0A>", "</think", "Hi",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


def serializer(tokenizer, context="append", response_format="command", **options) -> Serializer:
    settings = {"history_turns": 2, "max_prompt_tokens": 4000, "max_observation_tokens": 512}
    return Serializer(
        tokenizer, Style(), context=context, response_format=response_format, **(settings | options)
    )


@cache
def of(name, context="append", response_format="command") -> Serializer:
    return serializer(family_tokenizer(name), context, response_format)


def play(s, texts, answers=ANSWERS, commands=()):
    """The prompts of an episode."""
    dialogue = s.dialogue(TASK)
    prompts = []
    for i, text in enumerate(texts):
        dialogue.observe(text, commands)
        prompts.append(dialogue.prompt())
        if i < len(answers):
            action = SampledAction(s.format.response(answers[i]), (), None, finished=True)
            dialogue.act(action, answers[i])
    return prompts


def said(texts, answers=ANSWERS):
    """user, policy, user, …"""
    turns = [part for pair in zip(texts, answers, strict=False) for part in pair]
    return [*turns, *texts[len(answers) :]]


def observed(prompt):
    """The tokens of the observation."""
    pairs = zip(prompt.context_ids, prompt.context_roles, strict=True)
    return tuple(i for i, role in pairs if role == Role.OBSERVATION)


def blanks_aside(text):
    """What every tokenizer gives back; "<0x0A>" is to some of them the byte that it names."""
    plain = normalize("NFC", text).replace("▁", " ").replace("<0x0A>", "")
    return "".join(plain.split())


@pytest.mark.parametrize("name", GROWING)
@settings(max_examples=8)
@given(texts=st.tuples(TEXTS, TEXTS, TEXTS))
def test_three_turns_are_those_of_the_template(name, texts):
    s = of(name)
    prompts = play(s, texts)
    assert list(prompts[0].token_ids) == render_ids(s.tokenizer, texts[:1])
    assert list(prompts[2].token_ids) == render_ids(s.tokenizer, said(texts))
    for text, prompt in zip(texts[1:], prompts[1:], strict=True):
        # As a target behind the action, the same tokens behind the same header.
        assert observed(prompt) == s.target(text)[0] == s.encode(text)
        ids = prompt.context_ids
        header = s.header(text) or s.format.to_user
        if observed(prompt):
            assert ids[: len(header) + len(observed(prompt))] == (*header, *observed(prompt))
        assert blanks_aside(text) in blanks_aside(s.tokenizer.decode(observed(prompt)))


@pytest.mark.parametrize("name", GROWING)
def test_tags_and_admissible_commands(name):
    """A turn of two parts is one text to the tokenizer: the observation may end inside a token."""
    s = of(name, "append", "tags") if name not in DROPS_THINKING else None
    if s is None:
        return
    texts = ("You see a mug 1.", "\nNothing happens.", "A room. ")
    answers = ("<think>Hm.</think>\n<action>look</action>", "<think></think><action>go</action>")
    prompts = play(s, texts, answers, COMMANDS)
    listed = "\nYour admissible commands are: ['look', 'go to shelf 1']."
    first = f"{s.style.introduction}\nYour task is: {TASK.instruction}\n{s.style.rule}\n"
    first += f"Your current observation is: {texts[0]}"
    shown = [first + listed, texts[1] + listed, texts[2] + listed]
    assert list(prompts[2].token_ids) == render_ids(s.tokenizer, said(shown, answers))
    for text, prompt in zip(texts[1:], prompts[1:], strict=True):
        assert observed(prompt) == s.target(text, COMMANDS)[0]
        assert text.strip() in s.tokenizer.decode(observed(prompt))


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=8)
@given(text=TEXTS)
def test_window_prompts_are_those_of_the_template(name, text):
    s = of(name, "window", "tags")
    (prompt,) = play(s, (text,))
    shown = f"{s.style.introduction}\nYour task is: {TASK.instruction}\n"
    shown += f"Your current observation is: {text}\n{s.style.rule}"
    assert list(prompt.token_ids) == render_ids(s.tokenizer, (shown,))
    assert prompt.context_ids == prompt.token_ids


@pytest.mark.parametrize("name", GROWING)
@settings(max_examples=8)
@given(texts=st.tuples(TEXTS, TEXTS, TEXTS))
def test_windows_of_commands_are_those_of_the_template(name, texts):
    s = of(name, "window")
    assert list(play(s, texts)[2].token_ids) == render_ids(s.tokenizer, said(texts))
    short = of(name, "window")
    short.history_turns = 0
    assert list(play(short, texts)[1].token_ids) == render_ids(
        s.tokenizer, (f"{texts[0]}\n{texts[1]}",)
    )
    short.history_turns = 2


def test_a_line_break_that_is_one_token_with_the_headers():
    """Worked: the header "user" "\\n" and the text "\\nNo." are "user" "\\n\\n" "No" "."."""
    s = of("qwen2.5")
    names = s.tokenizer.convert_ids_to_tokens
    prompt = play(s, ("a", "\nNo."))[1]
    begin = len(s.format.to_user) - 1
    assert names(prompt.context_ids[:begin]) == ["Ċ", "<|im_start|>", "user"]
    assert names(observed(prompt)) == ["ĊĊ", "N", "o", "."]
    assert prompt.context_roles[:begin] == (Role.SCAFFOLD,) * begin
    assert s.header("\nNo.") == prompt.context_ids[:begin]
    assert s.header("No.") == ()
    cut = SampledAction(s.encode("go"), (), None, finished=False)
    assert s.to_user(cut, s.header("\nNo.")) == (s.format.end_of_turn, *s.header("\nNo."))


def test_a_template_that_trims():
    """Worked: Llama 3 shows "\\n a mug.\\n" as "a mug.", so that is what was observed."""
    s = of("llama-3")
    prompt = play(s, ("x", "\n a mug.\n"))[1]
    assert s.tokenizer.decode(observed(prompt)) == "a mug."
    assert observed(prompt) == s.encode("a mug.")
    assert s.target(" \n")[0] == ()
    spans = [Span("  a ", Role.OBSERVATION), Span(" \n")]
    turn = s.format.turn(False, spans)
    assert s.tokenizer.decode(turn.ids) == "a"
    assert turn.roles == (Role.OBSERVATION,)


@pytest.mark.parametrize("name", GROWING)
def test_responses_that_begin_with_bytes_are_those_of_the_template(name):
    """A unigram's line break and "ü" are bytes of one unknown piece, whose tokens all say that they
    stand for both."""
    s, answers = of(name), ("ünder 日本", "(go)")
    texts = ("A room.", "Nothing.", "x")
    assert list(play(s, texts, answers)[2].token_ids) == render_ids(
        s.tokenizer, said(texts, answers)
    )


def test_sentencepiece_puts_no_blank_before_an_observation():
    """Worked: behind Zephyr's "<|user|>\\n" there is no ▁ in the whole; alone there would be."""
    s = of("zephyr metaspace")
    names = s.tokenizer.convert_ids_to_tokens
    assert names(s.tokenizer("Nothing", add_special_tokens=False)["input_ids"])[0] == "▁Nothing"
    assert names(observed(play(s, ("a", "Nothing"))[1])) == ["Nothing"]
    assert names(s.format.response("Nothing")) == ["Nothing", "</s>"]
    blank = of("mistral-v0.1 metaspace")  # the template writes "[INST] Nothing"
    assert names(observed(play(blank, ("a", "Nothing"))[1])) == ["▁Nothing"]
    assert names(blank.format.response("Nothing")) == ["▁Nothing", "</s>"]


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=8)
@given(st.data())
def test_no_control_token_comes_out_of_a_text(name, data):
    s = of(name, "window", "tags")
    names = [s.tokenizer.convert_ids_to_tokens(i) for i in s.format.encoder.control]
    pieces = st.sampled_from([*names, *PIECES, *(n[:3] for n in names), *(n[3:] for n in names)])
    text = data.draw(st.lists(pieces, max_size=5).map("".join))
    for first in (True, False):
        turn = s.turn(first, (Span(text),))
        assert s.format.encoder.control.isdisjoint(turn.ids)
        scaffold = (s.format.opening if first else s.format.to_user, s.format.to_policy)
        control = [[i for i in ids if i in s.format.encoder.control] for ids in scaffold]
        kept = [
            [i for i in ids if i in s.format.encoder.control] for ids in (turn.before, turn.after)
        ]
        assert kept == control  # all of the scaffold's stand
    thinking = {i for edge in s.format.edges.think_tags.values() for i in edge.ids}
    response = s.format.response(text)
    assert response[-1] == s.format.end_of_turn
    assert s.format.encoder.control.isdisjoint(set(response[:-1]) - thinking)


def chatml_of_added_tokens(tokens):
    tokenizer = make_tokenizer(
        ["go to shelf 1", "You see a mug"] * 3, phrases=["You see", ", and a"]
    )
    tokenizer.add_tokens(tokens)
    start, end = tokens
    tokenizer.chat_template = (
        f"{{% for m in messages %}}{start}{{{{m.role}}}}\n{{{{m.content}}}}{end}\n{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{start}assistant\n{{% endif %}}"
    )
    return tokenizer


@pytest.mark.parametrize("tokens", [["<|im_start|>", "<|im_end|>"], ["[[", "]]"], ["@@T", "T@@"]])
def test_added_tokens_that_are_not_special(tokens):
    s = serializer(chatml_of_added_tokens(tokens))
    start, end = s.tokenizer.convert_tokens_to_ids(tokens)
    assert s.format.end_of_turn == end
    assert s.format.header_ids == {start}
    text = f"{tokens[0]}user\nYou see{tokens[1]}"
    ids = s.encode(text)
    assert not {start, end} & set(ids)
    assert s.tokenizer.decode(ids) == text
    assert s.tokenizer.convert_tokens_to_ids("You see") in ids  # a phrase is no control token


def test_a_pretrained_vocabulary_that_holds_its_control_tokens():
    """A unigram model finds "</s>" among its pieces, and merges may make one: both are spelled."""
    for name, text in (("unigram", "</s>"), ("phi-3", "<|user|>"), ("mistral-v0.3", "[INST]")):
        s = of(name)
        token = s.tokenizer.convert_tokens_to_ids(text)
        assert token not in s.encode(f"a {text} b")
        assert s.tokenizer.decode(s.encode(f"a {text} b")).strip() == f"a {text} b"


@pytest.mark.parametrize("name", DROPS_THINKING)
def test_a_template_that_takes_reasoning_out_is_refused_where_conversations_grow(name):
    with pytest.raises(UserError, match=rf"tokenizer of '{name}'.*reasoning.*context = 'window'"):
        of(name, "append", "tags")


@pytest.mark.parametrize("name", OPENS_THINKING)
def test_a_prompt_that_ends_inside_a_think_block(name):
    """One turn a prompt, as the template has it; elsewhere refused. The response begins inside."""
    for context, response_format in (
        ("append", "tags"),
        ("append", "command"),
        ("window", "command"),
    ):
        with pytest.raises(UserError, match="opens <think> itself"):
            of(name, context, response_format)
    s = of(name, "window", "tags")
    assert s.tokenizer.decode(s.format.to_policy).endswith("<think>\n")
    assert s.parse("it is <action>no</action></think>\n<action>look</action>").command == "look"
    assert s.parse("<think>\nyes</think><action>look</action>").command == "look"
    assert not s.parse("it is <action>no</action>").well_formed
    written = s.format.response("<think></think><action>look</action>")
    names = s.tokenizer.convert_ids_to_tokens(written)
    assert names[0] == "</think>"
    assert s.tokenizer.decode(written[:-1]) == "</think><action>look</action>"


def test_think_tags_of_a_response_are_the_tokenizers_own():
    s = of("qwen3", "window", "tags")
    names = s.tokenizer.convert_ids_to_tokens(s.format.response("<think>a</think>b<|im_end|>"))
    assert names[:4] == ["<think>", "a", "</think>", "b"]
    assert names.count("<|im_end|>") == 1 and names[-1] == "<|im_end|>"
    assert "<think>" not in s.tokenizer.convert_ids_to_tokens(s.encode("<think>a</think>"))


IM = (
    "{{% for m in messages %}}<|im_start|>{}{{{{m.role}}}}\n{{{{{}}}}}<|im_end|>{{% endfor %}}"
    "<|im_start|>assistant\n"
)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (IM.format("", "m.content | replace('\n', ' ')"), "shows the text"),
        (IM.format("", "m.content | replace('(', ' (')"), "turn by turn.*chat_template.jinja"),
        (IM.format("{{loop.index}}", "m.content"), "begins with"),
        ("{% for m in messages %}{{m.role}}\n{{m.content}}\n{% endfor %}assistant\n", "control"),
    ],
)
def test_what_cannot_be_right_is_refused_by_name(template, message):
    tokenizer = family_tokenizer("smollm2")
    other = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|im_end|>", chat_template=template
    )
    with pytest.raises(UserError, match=message):
        serializer(other)


def test_a_tokenizer_that_loses_its_control_tokens_is_refused():
    """A normalizer that also changes what is searched for: the template's own tokens are lost."""
    core = PreTrainedTokenizerFast(
        tokenizer_object=family_tokenizer("zephyr").backend_tokenizer, eos_token="</s>"
    )
    core.chat_template = family_tokenizer("chatml on mistral").chat_template
    core.add_tokens([AddedToken(t, normalized=True) for t in ("<|im_start|>", "<|im_end|>")])
    with pytest.raises(UserError, match="tokens"):
        serializer(core)


def test_models_without_a_template():
    """The plain format is one text too: "▁" stands once, at its beginning."""
    core = PreTrainedTokenizerFast(
        tokenizer_object=family_tokenizer("zephyr metaspace").backend_tokenizer,
        bos_token="<s>",
        eos_token="</s>",
    )
    s = serializer(core)
    whole = "<s>Hi.\nAction:go to shelf 1</s>\nObservation: Hi\nAction:"
    expected = core(whole, add_special_tokens=False)["input_ids"]
    assert list(play(s, ("Hi.", "Hi"))[1].token_ids) == expected


def test_the_users_tokenizer_stays_as_it_is():
    tokenizer = family_tokenizer("phi-3")
    before = tokenizer.backend_tokenizer.to_str(), len(tokenizer)
    turn_format(tokenizer)
    assert (tokenizer.backend_tokenizer.to_str(), len(tokenizer)) == before
    assert "<|user|>" in render(tokenizer, ("a",))


@pytest.mark.parametrize(
    ("name", "no_text", "text"),
    [
        ("qwen2.5", ["<|im_end|>", "<tool_call>"], ["Ġmug", "a"]),
        ("qwen3", ["<think>", "<tool_call>"], ["Ġmug"]),
        ("gemma", ["<bos>", "<table>", "<0x41>"], ["\n\n", "▁mug", "\n"]),
        ("llama-2", ["<unk>", "</s>", "<0x41>"], ["▁mug"]),
        ("unigram", ["<unk>", "</s>"], ["▁mug"]),
    ],
)
def test_the_vocabulary_of_texts_has_no_control_tokens(name: str, no_text: list, text: list):
    tokenizer = family_tokenizer(name)
    found = set(turn_format(tokenizer, one_turn=True).encoder.vocabulary())
    assert found <= set(tokenizer.get_vocab().values())
    ids = tokenizer.get_vocab()
    assert not found & {ids[t] for t in no_text} and {ids[t] for t in text} <= found
    assert found >= set(serializer(tokenizer).encode("You see a mug 12, and a pen."))


def test_the_vocabulary_of_texts_has_words_of_their_own_and_nothing_unused():
    """`[PAD7]` as in GGUF files: in the vocabulary, and no merge leads to it."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "mu", "[PAD7]"]
    core = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges=[("m", "u")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    words = [", you see nothing.", "go to shelf 1", "<unused9>"]
    core.add_tokens([AddedToken(w, normalized=False) for w in words])
    padded = wrap_tokenizer(core)
    found = set(turn_format(padded).encoder.vocabulary())
    left_out = {t for t, i in padded.get_vocab().items() if i not in found}
    assert left_out == {*SPECIAL, "[PAD7]", "<unused9>"}
