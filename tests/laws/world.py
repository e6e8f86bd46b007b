"""A tiny task, a tokenizer and models for it: everything that the laws run on, made here."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from peftlab.frozen.model import FrozenLM
from peftlab.tasks import Example, Task, Template
from peftlab.tasks.task import Provenance, fingerprint
from tests import real_model
from tests.models import tiny

FAMILIES = ("gpt2", "llama", "gemma3_text")

_WORDS = [
    "red", "blue", "green", "tall", "small", "old", "new", "cat", "dog", "bird", "fish", "tree",
    "house", "river", "road", "hill", "sun", "moon", "rain", "runs", "sleeps", "sings", "falls",
    "grows", "turns", "opens", "shines", "near", "under", "over", "beside",
]  # fmt: skip


@lru_cache
def tokenizer() -> Any:
    """A byte-level BPE of 120 tokens, as many as the tiny models have, with pad, bos and eos."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=120, special_tokens=["<pad>", "<bos>", "<eos>"], show_progress=False
    )
    made.train_from_iterator([_sentence(seed, 12) + "\nsay it: " for seed in range(40)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )


def _sentence(seed: int, words: int) -> str:
    return " ".join(random.Random(seed).choices(_WORDS, k=words))


def _examples(first: int, count: int) -> list[Example]:
    return [
        Example(_sentence(seed, 4 + seed % 5), (_sentence(seed + 500, 1 + seed % 3),))
        for seed in range(first, first + count)
    ]


@lru_cache
def task() -> Task:
    """Text to text, on rows of 15 to 35 tokens."""
    train, validation, test = _examples(0, 20), _examples(100, 6), _examples(200, 6)
    return Task(
        name="tiny",
        template=Template("{source}\nsay it: {target}"),
        train=train,
        validation=validation,
        test=test,
        metrics=("rougeL",),
        max_new_tokens=6,
        source=Provenance("files", "tests", fingerprint(train, validation, test)),
        instruction="the cat sings under the old tree",
        labels=("red", "blue"),
    )


def slack(family: str) -> float:
    """How much more rounding there is than on a tiny model: ten times the blocks, larger logits."""
    return 30.0 if family == real_model.REAL else 1.0


def model(family: str, dtype: torch.dtype = torch.float32) -> FrozenLM:
    """A tiny frozen model with the tokenizer, shared by the laws: none of them may change it."""
    return _model(family, dtype)


@lru_cache
def _model(family: str, dtype: torch.dtype) -> FrozenLM:
    own = real_model.tokenizer() if family == real_model.REAL else tokenizer()
    return FrozenLM(tiny(family).to(dtype), own, family)
