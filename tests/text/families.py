"""Tokenizers and chat templates of the families that people load, in small.

`chat_templates/` holds those of the published models, cut to what user and assistant turns take;
the tokenizers split texts as the models' do, with merges learned from a few lines.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).parent / "chat_templates"
CORPUS = """You see a mug 1, and a mug 2.
 Nothing happens.\n\nYou arrive at drawer 12. On the drawer 12, you see nothing.\n
\n\n-= Welcome to TextWorld, ALFRED! =-\n\nYour task is to: put a mug in the fridge.
  (two blanks)   three   and a tab\there.\n\n\n
<|user|>\nHi\n<|assistant|>\n[INST] Hi [/INST] Hello. Look! "Look", he said: 'look'.\n
user\nassistant\nsystem\nmodel\n\n<think>\nWhere is it?\n</think>\n\n<action>go to it</action>\n
The observation:  [Back to Search] [Page 1 (Total results: 50)].  Price: $12.99\n
User: what?\n\nAssistant: that.\n\nUser: go.\n
"""
"""With what the templates write as text, so that merges reach over the edges of turns."""
GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2, Llama 3 and their descendants cut texts: signs carry the line breaks behind them."""


@dataclass(frozen=True)
class Family:
    """A tokenizer's kind, its chat template and its tokens."""

    kind: str
    """`gpt4`, `gpt2`: bytes; `prefix`: with a blank before each text. From SentencePiece: `legacy`
    (a normalizer puts ▁ before each text), `first`, `always` (the pre-tokenizer does), `gemma`
    (nothing does), `unigram`."""
    template: str
    eos: str
    special: tuple[str, ...]
    plain: tuple[str, ...] = ()
    """Added tokens that are not special."""
    bos: str | None = None
    rstrip: bool = False
    """Special tokens take the white space behind them (Phi-3)."""


IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOOLS = ("<tool_call>", "</tool_call>")
THINK = ("<think>", "</think>")
L3 = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
SP = ("<unk>", "<s>", "</s>")
INST = ("[INST]", "[/INST]")
GEMMA = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
BLANKS = ("\n\n", "\n\n\n", "▁▁", "▁▁▁", "<table>")
PHI3 = ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>")
ROLES = ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>")
BEGIN, END = DEEPSEEK = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
TURNS = ("<｜User｜>", "<｜Assistant｜>", *THINK)
TEXT_END = ("<|endoftext|>",)

FAMILIES = {
    "qwen2.5": Family("gpt4", "qwen2.5", "<|im_end|>", IM, TOOLS),
    "qwen3": Family("gpt4", "qwen3", "<|im_end|>", IM, (*TOOLS, *THINK)),
    "smollm2": Family("gpt2", "smollm2", "<|im_end|>", IM, bos="<|im_start|>"),
    "llama-3": Family("gpt4", "llama3", "<|eot_id|>", L3, bos="<|begin_of_text|>"),
    "llama-2": Family("legacy", "llama2", "</s>", SP, bos="<s>"),
    "mistral-v0.1": Family("legacy", "mistral_v0.1", "</s>", SP, bos="<s>"),
    "mistral-v0.1 as first published": Family(
        "legacy", "mistral_v0.1_first", "</s>", SP, bos="<s>"
    ),
    "mistral-v0.1 metaspace": Family("first", "mistral_v0.1", "</s>", SP, bos="<s>"),
    "mistral-v0.3": Family("legacy", "mistral_v0.3", "</s>", (*SP, *INST), bos="<s>"),
    "mistral-v0.3 metaspace": Family("first", "mistral_v0.3", "</s>", (*SP, *INST), bos="<s>"),
    "mistral-nemo": Family("gpt4", "mistral_nemo", "</s>", (*SP, *INST), bos="<s>"),
    "zephyr": Family("legacy", "zephyr", "</s>", SP, bos="<s>"),
    "zephyr metaspace": Family("first", "zephyr", "</s>", SP, bos="<s>"),
    "tinyllama metaspace": Family("always", "zephyr", "</s>", SP, bos="<s>"),
    "gemma": Family("gemma", "gemma", "<eos>", GEMMA, BLANKS, bos="<bos>"),
    "phi-3": Family("legacy", "phi3", "<|endoftext|>", (*SP, *PHI3), bos="<s>", rstrip=True),
    "phi-4": Family("gpt4", "phi4", "<|im_end|>", (*IM, "<|im_sep|>")),
    "olmo": Family("gpt2", "olmo", "<|endoftext|>", TEXT_END, bos="<|endoftext|>"),
    "olmo-2": Family("gpt4", "olmo", "<|endoftext|>", TEXT_END, bos="<|endoftext|>"),
    "granite": Family("gpt2", "granite", "<|end_of_text|>", ROLES),
    "vicuna": Family("legacy", "vicuna", "</s>", SP, bos="<s>"),
    "blank first": Family("prefix", "qwen2.5", "<|im_end|>", IM),
    "blank first, header of text": Family("prefix", "olmo", "<|endoftext|>", TEXT_END),
    "unigram": Family("unigram", "zephyr", "</s>", SP, bos="<s>"),
    "chatml on mistral": Family("legacy", "chatml", "<|im_end|>", SP, IM, bos="<s>"),
    "deepseek-r1 as first published": Family(
        "gpt4", "deepseek_r1_first", END, DEEPSEEK, TURNS, bos=BEGIN
    ),
    "deepseek-r1": Family("gpt4", "deepseek_r1", END, DEEPSEEK, TURNS, bos=BEGIN),
    "qwen3-thinking": Family("gpt4", "qwen3_thinking", "<|im_end|>", IM, (*TOOLS, *THINK)),
}
OPENS_THINKING = ("deepseek-r1", "qwen3-thinking")
"""Their prompts end inside a think block, which earlier turns do not have."""
DROPS_THINKING = ("qwen3", "deepseek-r1 as first published")
"""Their templates take the reasoning out of earlier responses."""
GROWING = [name for name in FAMILIES if name not in OPENS_THINKING]


@cache
def family_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a family; shared, so leave it as it is."""
    family = FAMILIES[name]
    core = _core(family.kind)
    special = [
        AddedToken(t, special=True, normalized=False, rstrip=family.rstrip and t in PHI3)
        for t in family.special
    ]
    core.add_special_tokens(special)
    core.add_tokens([AddedToken(t, special=False, normalized=False) for t in family.plain])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=family.bos,
        eos_token=family.eos,
        chat_template=(TEMPLATES / f"{family.template}.jinja").read_text(encoding="utf-8"),
        clean_up_tokenization_spaces=False,
        name_or_path=name,
    )


def _core(kind: str) -> Tokenizer:
    if kind not in ("gpt4", "gpt2", "prefix"):
        return _sentencepiece(kind)
    core = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=kind == "prefix", use_regex=kind != "gpt4")
    core.pre_tokenizer = level
    if kind == "gpt4":
        core.normalizer = normalizers.NFC()
        cut = pre_tokenizers.Split(Regex(GPT4), behavior="isolated")
        core.pre_tokenizer = pre_tokenizers.Sequence([cut, level])
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator([CORPUS] * 3, trainer)
    return core


def _sentencepiece(kind: str) -> Tokenizer:
    """As converted from SentencePiece: blanks are ▁, unknown characters are bytes."""
    pieces, merges = _pieces()
    head = GEMMA[:4] if kind == "gemma" else SP
    pieces = [*head, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    if kind == "gemma":
        pieces.append("\n")
    if kind == "unigram":
        scores = [(piece, -1.0 - i / 100) for i, piece in enumerate(pieces)]
        core = Tokenizer(models.Unigram(scores, 0, byte_fallback=True))
    else:
        vocab = {piece: i for i, piece in enumerate(pieces)}
        model = models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
        core = Tokenizer(model)
    blank = normalizers.Replace(" ", "▁")
    decode = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if kind == "gemma":
        core.normalizer = blank
        core.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        core.decoder = decoders.Sequence(decode)
        return core
    if kind == "legacy":
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), blank])
    else:
        scheme = "always" if kind == "unigram" else kind
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=kind != "first")
    core.decoder = decoders.Sequence([*decode, decoders.Strip(" ", 1, 0)])
    return core


@cache
def _pieces() -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces and merges over the corpus, runs of blanks among them and no line break."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="never"), pre_tokenizers.Split("\n", "isolated")]
    )
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False)
    learner.train_from_iterator([CORPUS] * 3, trainer)
    model = json.loads(learner.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    merges = [tuple(merge) for merge in model["merges"]]
    for blanks in ("▁▁", "▁▁▁▁"):
        half = blanks[: len(blanks) // 2]
        pieces, merges = [*pieces, blanks], [*merges, (half, half)]
    return [p for p in dict.fromkeys(pieces) if p != "\n"], list(dict.fromkeys(merges))
