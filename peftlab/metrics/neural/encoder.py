"""Texts to contextual token embeddings with any encoder of transformers, from hub or folder."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from peftlab.metrics.errors import MetricUnavailableError

if TYPE_CHECKING:
    import torch

_BATCH = 32
_SPACED = ("Roberta", "GPT2")


@dataclass(frozen=True)
class Embedded:
    """One text: its token ids, [T], and hidden states, [layers + 1, T, width]."""

    ids: list[int]
    states: torch.Tensor


class TextEncoder:
    """A pretrained encoder with its tokenizer.

    Args:
        model: hub id or folder.
        device: where it runs; the accelerator if there is one, else the processor.

    Raises:
        MetricUnavailableError: the checkpoint cannot be loaded.
    """

    def __init__(self, model: str, device: str | None = None) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer, self.model = load_pretrained(model, AutoTokenizer, AutoModel)
        self.model.to(self.device)

    def limit(self) -> int:
        """Tokens that the model takes at most.

        A tokenizer without a length of its own says 10³⁰, which no tokenizer takes as a length, so
        the model's positions bound it; RoBERTa's start behind its padding id.
        """
        config = self.model.config
        positions = (
            getattr(config, "max_position_embeddings", None) or self.tokenizer.model_max_length
        )
        if "roberta" in config.model_type:
            positions -= config.pad_token_id + 1
        return int(min(positions, self.tokenizer.model_max_length))

    def ids(self, text: str) -> list[int]:
        """Token ids with the model's special tokens, cut to the model's length."""
        text = text.strip()
        if text and type(self.tokenizer).__name__.startswith(_SPACED):
            text = f" {text}"
        numbers = self.tokenizer(text, truncation=True, max_length=self.limit())["input_ids"]
        return [int(number) for number in numbers]

    def embed(self, texts: Sequence[str]) -> list[Embedded]:
        """Hidden states of all layers, text by text, without padding."""
        rows = [self.ids(text) for text in texts]
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        embedded: dict[int, Embedded] = {}
        for batch in batched_rows(order, _BATCH):
            states = self._states([rows[row] for row in batch])
            for row, of_text in zip(batch, states, strict=True):
                embedded[row] = Embedded(rows[row], of_text)
        return [embedded[row] for row in range(len(rows))]

    def _states(self, rows: list[list[int]]) -> list[torch.Tensor]:
        import torch

        longest = max(map(len, rows))
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        with torch.inference_mode():
            out = self.model(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                output_hidden_states=True,
            )
        states = (
            torch.stack(out.hidden_states, dim=1).float().cpu()
        )  # [texts, layers + 1, T, width]
        return [of_text[:, : len(row)] for of_text, row in zip(states, rows, strict=True)]


def load_pretrained(name: str, tokenizer_class: Any, model_class: Any, **settings: Any) -> Any:
    """(tokenizer, model in evaluation mode) of a checkpoint."""
    try:
        tokenizer = tokenizer_class.from_pretrained(name)
        model = model_class.from_pretrained(name, **settings)
    except (OSError, ValueError, ImportError) as error:
        raise MetricUnavailableError(
            f"cannot load the checkpoint {name!r}: {error}; give a hub id that can be fetched, or a"
            " local folder with config, weights and tokenizer"
        ) from error
    return tokenizer, model.eval()


def batched_rows(rows: Sequence[int], size: int) -> Iterable[Sequence[int]]:
    """Consecutive slices of at most `size` rows."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


def inverse_frequencies(texts: Iterable[Sequence[int]]) -> Mapping[int, float]:
    """log((N + 1) / (n + 1)) of each token id that n of N texts have."""
    sets = [set(ids) for ids in texts]
    counts = Counter(chain.from_iterable(sets))
    return {number: math.log((len(sets) + 1) / (n + 1)) for number, n in counts.items()}
