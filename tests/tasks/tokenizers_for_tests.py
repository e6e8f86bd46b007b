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


def byte_level(trim_offsets: bool = True, bos: bool = False, chat: bool = False) -> Any:
    """GPT-2's kind; with `bos`, one that puts a BOS before a text by itself (Llama 3's kind)."""
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
        wrapped.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        wrapped.chat_template = CHAT
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
