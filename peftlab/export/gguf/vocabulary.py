"""A byte-level BPE tokenizer of transformers in llama.cpp's words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from peftlab.errors import InputError
from peftlab.tasks.tokens import traits

if TYPE_CHECKING:
    from gguf import GGUFWriter

    from peftlab.frozen.model import FrozenLM

# What several models of one way of splitting are called by: the first one that llama.cpp knew.
_FIRST = ("llama-bpe", "tekken", "qwen2", "qwen35", "gpt-4o")


_WHOLE_WORDS = ("llama-bpe", "tekken")  # words that are tokens are taken before any merge


def add_vocabulary(writer: GGUFWriter, model: FrozenLM) -> None:
    """Tokens, merges, special tokens, the chat template.

    Raises:
        InputError: it is none of byte-level BPE, or splits text in a way that llama.cpp has no name
            for.
    """
    from gguf import TokenType

    tokenizer: Any = model.tokenizer
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    if told["model"]["type"] != "BPE" or told["model"].get("byte_fallback"):
        raise _not_written(model, "its tokenizer is no byte-level BPE")
    normalizer = told["normalizer"]
    if normalizer is not None and normalizer["type"] != "NFC":
        raise _not_written(model, f"its tokenizer rewrites text ({normalizer['type']})")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_split(told, model))
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    added = {one["id"]: one["special"] for one in told["added_tokens"]}
    kinds = {None: TokenType.NORMAL, True: TokenType.CONTROL, False: TokenType.USER_DEFINED}
    if max(by_id) >= model.shape.vocab:
        raise _not_written(model, "its tokenizer has tokens that it has no embeddings for")
    numbers = range(model.shape.vocab)
    writer.add_token_list([by_id.get(number, f"[PAD{number}]") for number in numbers])
    writer.add_token_types(
        [kinds[added.get(n)] if n in by_id else TokenType.UNUSED for n in numbers]
    )
    merges = told["model"]["merges"]
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    for name in ("bos", "eos", "pad"):
        if (number := getattr(tokenizer, f"{name}_token_id")) is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(bool(traits(tokenizer).bos))
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _split(told: Any, model: FrozenLM) -> str:
    """The name of the way in which text is split into words."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    first = told["pre_tokenizer"] or {"type": "none"}
    steps = first.get("pretokenizers", [first])
    kinds = [step["type"] for step in steps]
    if steps[-1].get("add_prefix_space"):
        raise _not_written(model, "its tokenizer puts a space before every text")
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = steps[0]["pattern"].get("Regex")
        for name in _FIRST:
            whole_words = bool(told["model"].get("ignore_merges")) == (name in _WHOLE_WORDS)
            if GGUF_PRE_TOKENIZER_SPLITS.get(name) == pattern and whole_words:
                return name
    raise _not_written(model, f"llama.cpp's name for how it splits text is not known ({kinds})")


def _not_written(model: FrozenLM, why: str) -> InputError:
    return InputError(
        f"{model.name} cannot be written as GGUF from its folder: {why}; take the base as a GGUF "
        "file, or --to merged and llama.cpp's convert_hf_to_gguf.py"
    )
