"""Chat templates of Qwen2.5, Qwen3 and Llama-3.2: the pieces must make up the whole."""

import pytest
from tests.text.templates import LLAMA, QWEN3, QWEN25, REVERSED, chat_tokenizer

from paw.envs.household import Household
from paw.errors import UserError
from paw.text.dialogue import Serializer
from paw.text.turns import turn_format
from paw.types import Role, SampledAction, Task

TASK = Task("t", "kind", "put a mug in the fridge.")


def serializer(tokenizer, context="append", response_format="command", **options):
    settings = {"history_turns": 2, "max_prompt_tokens": 4000, "max_observation_tokens": 512}
    return Serializer(
        tokenizer, Household.style, context=context, response_format=response_format,
        **(settings | options),
    )  # fmt: skip


def act(s, text):
    return SampledAction((*s.encode(text), s.format.end_of_turn), (), None, finished=True)


def test_pieces_of_qwen25():
    tokenizer = chat_tokenizer(QWEN25)
    pieces = turn_format(tokenizer)
    decode = tokenizer.decode
    assert decode(pieces.opening) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    )
    assert decode(pieces.to_policy) == "<|im_end|>\n<|im_start|>assistant\n"
    assert decode([pieces.end_of_turn]) == "<|im_end|>"
    assert decode(pieces.to_user) == "\n<|im_start|>user\n"
    assert decode(list(pieces.header_ids)) == "<|im_start|>"


def test_pieces_of_llama():
    tokenizer = chat_tokenizer(LLAMA)
    pieces = turn_format(tokenizer)
    decode = tokenizer.decode
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    assert decode([pieces.end_of_turn]) == "<|eot_id|>"
    assert decode(pieces.to_user) == header.format("user")
    assert decode(pieces.to_policy) == "<|eot_id|>" + header.format("assistant")
    assert decode(pieces.opening).startswith("<|begin_of_text|>")
    assert decode(sorted(pieces.header_ids)) == "<|start_header_id|><|end_header_id|>"


def test_a_template_that_asks_for_the_day_gets_the_same_one_every_day():
    dated = LLAMA.replace("26 Jul 2024", "' + strftime_now('%d %b %Y') + '")
    assert "strftime_now" in dated
    tokenizer = chat_tokenizer(dated)
    opening = tokenizer.decode(turn_format(tokenizer).opening)
    assert "Today Date: 26 Jul 2024\n\n" in opening


def test_a_response_is_read_as_it_was_sampled():
    """Not tidied, where a tokenizer's settings ask for that: a shop has such buttons."""
    tokenizer = chat_tokenizer(QWEN25)
    s = serializer(tokenizer)
    tokenizer.clean_up_tokenization_spaces = True
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    text = "click[women 's , 8 . 5]"
    assert tokenizer.decode(s.encode(text)) != text
    assert s.response(act(s, text)) == text


@pytest.mark.parametrize("template", [QWEN25, QWEN3, LLAMA])
def test_growing_conversation_is_the_rendered_conversation(template):
    """Ids built turn by turn decode to what the template renders for the whole conversation."""
    tokenizer = chat_tokenizer(template)
    s = serializer(tokenizer)
    texts = ["You see a mug 1.", "You pick up the mug 1.", "Nothing happens."]
    answers = ["take mug 1", "dance"]
    dialogue = s.dialogue(TASK)
    for text, answer in zip(texts, answers, strict=False):
        dialogue.observe(text, ())
        dialogue.prompt()
        dialogue.act(act(s, answer), answer)
    dialogue.observe(texts[-1], ())
    prompt = dialogue.prompt()
    messages = []
    for i, text in enumerate(texts):
        messages.append({"role": "user", "content": text})
        messages += [{"role": "assistant", "content": a} for a in answers[i : i + 1]]
    whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(prompt.token_ids) == whole
    kept = prompt.context_ids
    observed = [i for i, r in zip(kept, prompt.context_roles, strict=True) if r == Role.OBSERVATION]
    assert tokenizer.decode(observed) == "Nothing happens."


def test_control_tokens_in_environment_text_stay_text():
    s = serializer(chat_tokenizer(QWEN25))
    ids = s.encode("a <|im_end|> b")
    assert s.format.end_of_turn not in ids
    assert s.tokenizer.decode(ids) == "a <|im_end|> b"


def test_cut_action_gets_its_turn_closed():
    """An action without an end-of-turn token is closed by scaffold, a finished one is not."""
    s = serializer(chat_tokenizer(QWEN25))
    cut = SampledAction(s.encode("go to"), (), None, finished=False)
    assert s.to_user(cut) == (s.format.end_of_turn, *s.format.to_user)
    assert s.to_user(act(s, "go to")) == s.format.to_user


def test_template_that_opens_the_thinking_itself_is_refused():
    """As those of models that always think: rows of several turns would hold it once only."""
    tokenizer = chat_tokenizer(
        QWEN3.replace("assistant\\n' }}{%- endif %}", "assistant\\n<think>' }}{%- endif %}")
    )
    with pytest.raises(UserError, match="opens <think> itself fits"):
        turn_format(tokenizer)


@pytest.mark.parametrize(
    "template",
    [
        REVERSED,
        QWEN25.replace("messages %}", "messages[-9:] %}"),  # forgets the first of many turns
        QWEN25.replace("message.content", "message.content[:999]"),  # cuts long texts
    ],
)
def test_template_that_depends_on_other_turns_or_lengths_is_refused(template):
    assert template != QWEN25
    with pytest.raises(UserError, match="chat template: a turn's text"):
        turn_format(chat_tokenizer(template))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for x %}", "expected token 'in'"),
        ("{% for m in messages %}{{ m.content + 1 }}{% endfor %}", "concatenate str"),
        ("{{ 1 / 0 }}", "division by zero"),
        ({"rag": "{{ 1 }}", "tool_use": "{{ 2 }}"}, "multiple chat templates with no default"),
    ],
)
def test_template_that_breaks_is_one_line(template, reason):
    tokenizer = chat_tokenizer(None)
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=f"chat template: it cannot be rendered: .*{reason}") as e:
        turn_format(tokenizer)
    assert "\n" not in str(e.value)


def test_model_without_template_gets_the_plain_format():
    tokenizer = chat_tokenizer(None)
    s = serializer(tokenizer)
    dialogue = s.dialogue(TASK)
    dialogue.observe("You see a mug 1.", ())
    dialogue.prompt()
    dialogue.act(act(s, "look"), "look")
    dialogue.observe("Nothing happens.", ())
    text = tokenizer.decode(dialogue.prompt().token_ids)
    end = tokenizer.eos_token
    assert text == f"You see a mug 1.\nAction:look{end}\nObservation: Nothing happens.\nAction:"


def test_observation_stands_right_behind_its_header():
    """In `append` the admissible commands follow the observation and are context, not target."""
    s = serializer(chat_tokenizer(QWEN25), response_format="tags")
    dialogue = s.dialogue(TASK)
    dialogue.observe("You see a mug 1.", ("look",))
    dialogue.prompt()
    dialogue.act(act(s, "<think></think><action>look</action>"), "look")
    dialogue.observe("Nothing happens.", ("look", "go"))
    prompt = dialogue.prompt()
    header = len(s.format.to_user)
    target = s.encode("Nothing happens.")
    assert prompt.context_ids[:header] == s.format.to_user
    assert prompt.context_ids[header : header + len(target)] == target
    roles = prompt.context_roles
    assert roles[:header] == (Role.SCAFFOLD,) * header
    assert roles[header : header + len(target)] == (Role.OBSERVATION,) * len(target)
    assert roles.count(Role.OBSERVATION) == len(target)


def test_window_tells_the_last_turns_only():
    s = serializer(chat_tokenizer(QWEN25), context="window", response_format="tags")
    dialogue = s.dialogue(TASK)
    for i in range(4):
        dialogue.observe(f"room {i}.", ("look",))
        dialogue.prompt()
        dialogue.act(act(s, f"go {i}"), f"go {i}")
    dialogue.observe("room 4.", ("look",))
    text = s.tokenizer.decode(dialogue.prompt().token_ids)
    assert "room 1" not in text
    assert "[Observation 3: 'room 2.', Command 3: 'go 2']" in text
    assert "[Observation 4: 'room 3.', Command 4: 'go 3']" in text
    assert "step 5" in text and "current observation is: room 4." in text


def test_window_of_commands_is_the_conversation_without_its_middle():
    s = serializer(chat_tokenizer(QWEN25), context="window")
    dialogue = s.dialogue(TASK)
    for i in range(4):
        dialogue.observe(f"room {i}.", ())
        dialogue.prompt()
        dialogue.act(act(s, f"go {i}"), f"go {i}")
    dialogue.observe("room 4.", ())
    prompt = dialogue.prompt()
    between = "<|im_end|>\n<|im_start|>{}\n"
    user, policy = between.format("user"), between.format("assistant")
    expected = "room 0." + policy + "go 2" + user + "room 3." + policy + "go 3" + user + "room 4."
    text = s.tokenizer.decode(prompt.token_ids)
    assert text.endswith("<|im_start|>user\n" + expected + policy)
    assert prompt.context_ids == prompt.token_ids
    assert Role.OBSERVATION not in prompt.context_roles


def test_long_prompt_is_cut_in_the_middle_and_counted():
    s = serializer(chat_tokenizer(QWEN25), max_prompt_tokens=120)
    dialogue = s.dialogue(TASK)
    text = " ".join(str(i) for i in range(200))
    dialogue.observe(text, ())
    prompt = dialogue.prompt()
    assert len(prompt.token_ids) == 120
    whole = len(s.format.opening) + len(s.encode(text)) + len(s.format.to_policy)
    assert prompt.num_cut_tokens == whole - 120
    shown = s.tokenizer.decode(prompt.token_ids)
    assert "user\n0 1" in shown and "199<|im_end|>" in shown


def test_prompt_limit_below_the_template_is_refused():
    with pytest.raises(UserError, match="max_prompt_tokens = 10"):
        serializer(chat_tokenizer(QWEN25), max_prompt_tokens=10)


def test_long_target_is_cut_at_its_end_and_counted():
    s = serializer(chat_tokenizer(QWEN25), max_observation_tokens=3)
    ids, num_cut = s.target("one two three")
    assert ids == s.encode("one two three")[:3]
    assert num_cut == len(s.encode("one two three")) - 3
