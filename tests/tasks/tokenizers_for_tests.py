"""Tiny tokenizers of the kinds that real models bring, trained on a few sentences."""

from __future__ import annotations

import json
from typing import Any, Literal

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

TEXT = [
    "name : Blue Spice | area : city centre | food : English and Thai",
    "Blue Spice is a coffee shop in the city centre; it serves English food.",
    "Summary: the cat sat on the mat, 3.5 times! Output: a cat.",
    "Describe this. Put these facts into words.\n\nUser and assistant",
] * 4

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# In the form of SmolLM2's, with a system prompt of its own.
SMOL = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\n"
    "You are a cat.<|im_end|>\n{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Llama 3's: a date, a system prompt, and messages without the white space round them.
LLAMA = (
    "{{ bos_token }}{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% else %}{% set date_string = 'none' %}"
    "{% endif %}{% endif %}{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] | trim %}{% set messages = messages[1:] %}{% else %}"
    "{% set system = 'You are a cat.' %}{% endif %}<|start_header_id|>system<|end_header_id|>\n\n"
    "Today Date: {{ date_string }}\n\n{{ system }}<|eot_id|>{% for m in messages %}"
    "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n"
    "{% endif %}"
)
# SmolLM3's way to the date.
CLOCK = CHAT.replace("{% for", "{{ 'Today: ' + strftime_now('%d %B %Y') + '\n' }}{% for", 1)
# Qwen3's: the last reply has an empty block of thoughts, and so has its opening where they are off.
_OFF = "{% if enable_thinking is defined and enable_thinking is false %}"
QWEN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}"
    "<|im_start|>assistant\n" + _OFF + "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# Gemma's: no system.
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "<|im_start|>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}"
    "<|im_start|>model\n{% endif %}"
)
CHATS = {
    "ChatML": CHAT, "SmolLM2": SMOL, "Llama 3": LLAMA, "clock": CLOCK, "Qwen3": QWEN, "Gemma": GEMMA
}  # fmt: skip


def byte_level(trim_offsets: bool = True, bos: bool = False, chat: bool | str = False) -> Any:
    """GPT-2's kind; with `bos`, one that puts a BOS before a text by itself (Llama 3's kind).

    chat: with a chat template, or this one.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|begin|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    offsets = processors.ByteLevel(trim_offsets=trim_offsets)
    begin = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 1)])
    tokenizer.post_processor = processors.Sequence([offsets, begin]) if bos else offsets
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        bos_token="<|begin|>" if bos else None,
    )
    if chat:
        marks = ["<|im_start|>", "<|im_end|>"]
        if isinstance(chat, str):
            marks += ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
        wrapped.add_special_tokens({"additional_special_tokens": marks})
        wrapped.chat_template = CHAT if chat is True else chat
    return wrapped


def sentencepiece(scheme: Literal["first", "always", "normalizer"]) -> Any:
    """Llama 2's and Mistral's kind: a dummy space first, byte fallback, a BOS of its own."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    vocab: dict[str, int] = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for token in (*(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]):
        vocab.setdefault(token, len(vocab))
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>")
    )
    if scheme == "normalizer":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def lower_case_words() -> Any:
    """A tokenizer that changes the text before it looks at it: lower case, no accents."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        TEXT,
        trainers.WordPieceTrainer(
            vocab_size=300, special_tokens=["[UNK]", "[EOS]"], show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="[EOS]", unk_token="[UNK]")


def unigram() -> Any:
    """T5's and XGLM's kind: pieces by likelihood, white space collapsed and put before words."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.train_from_iterator(
        TEXT,
        trainers.UnigramTrainer(
            vocab_size=150,
            special_tokens=["<unk>", "</s>"],
            unk_token="<unk>",
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


KINDS = {
    "byte level": byte_level,
    "byte level, whole offsets": lambda: byte_level(trim_offsets=False),
    "byte level with BOS": lambda: byte_level(bos=True),
    "sentencepiece, first": lambda: sentencepiece("first"),
    "sentencepiece, always": lambda: sentencepiece("always"),
    "sentencepiece, normalizer": lambda: sentencepiece("normalizer"),
    "unigram": unigram,
    "lower-case words": lower_case_words,
}
