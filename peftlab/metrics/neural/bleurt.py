"""BLEURT (Sellam et al. 2020): a regression on a BERT that reads the reference and the prediction.

Checkpoints on the hub come in two layouts, and both load with today's transformers:

- ordinary `BertForSequenceClassification` ones (Elron/bleurt-base-512, …);
- those of model type "bleurt" (lucadiliello/BLEURT-20, …), a type that transformers does not know.
  Without a narrower embedding it is BERT under another name, with one it is RemBERT; the weights
  are renamed while loading, and a weight that is not there is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftlab.metrics.errors import MetricUnavailableError
from peftlab.metrics.means import MeanOverExamples, column
from peftlab.metrics.neural.encoder import batched_rows, load_pretrained
from peftlab.metrics.registry import Rows

_BATCH = 32


class Bleurt(MeanOverExamples):
    """BLEURT.

    Args:
        model: hub id or folder of a BLEURT checkpoint.
        first_reference: score against the first reference only, as DART's script does; else the
            best reference counts, as in the WebNLG 2020 script.
        device: where the model runs.
    """

    def __init__(
        self,
        model: str = "lucadiliello/BLEURT-20",
        first_reference: bool = False,
        device: str | None = None,
    ) -> None:
        import torch

        self.first_reference = first_reference
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer, self.model = load_bleurt(model)
        self.model.to(self.device)

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """Score with the best reference, [examples, 1]."""
        kept = [targets[:1] if self.first_reference else targets for targets in references]
        pairs = [
            (target, text)
            for text, targets in zip(predictions, kept, strict=True)
            for target in targets
        ]
        scores = iter(self._scores(pairs))
        return column(max(next(scores) for _ in targets) for targets in kept)

    def _scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Regression output for each (reference, prediction)."""
        import torch

        scores: list[float] = []
        limit = min(self.tokenizer.model_max_length, self.model.config.max_position_embeddings)
        for rows in batched_rows(range(len(pairs)), _BATCH):
            firsts, seconds = zip(*(pairs[row] for row in rows), strict=True)
            inputs = self.tokenizer(
                list(firsts),
                list(seconds),
                padding=True,
                truncation="longest_first",
                max_length=limit,
                return_tensors="pt",
            ).to(self.device)
            with torch.inference_mode():
                scores += self.model(**inputs).logits.float().flatten().tolist()
        return scores


def load_bleurt(name: str) -> Any:
    """(tokenizer, model) of a BLEURT checkpoint of either layout.

    Raises:
        MetricUnavailableError: it cannot be loaded, or lacks weights.
    """
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        BertConfig,
        BertForSequenceClassification,
        PretrainedConfig,
        RemBertConfig,
        RemBertForSequenceClassification,
    )

    try:
        settings, _ = PretrainedConfig.get_config_dict(name)
    except OSError as error:
        raise MetricUnavailableError(
            f"cannot load the checkpoint {name!r}: {error}; give a hub id that can be fetched, or a"
            " local folder"
        ) from error
    if settings.get("model_type") != "bleurt":
        return load_pretrained(name, AutoTokenizer, AutoModelForSequenceClassification)
    settings = {key: value for key, value in settings.items() if key != "model_type"}
    width = settings.pop("embedding_size", None)
    if width is None:
        config: Any = BertConfig(**settings)
        model_class: Any = BertForSequenceClassification
        renamed = {r"^bleurt\.": "bert."}
    else:
        config = RemBertConfig(**settings, input_embedding_size=width)
        model_class = RemBertForSequenceClassification
        inner = "encoder.embedding_hidden_mapping_in."
        renamed = {
            r"^bleurt\.encoder\.embedding_projection\.": f"rembert.{inner}",
            r"^bleurt\.": "rembert.",
        }
    config.num_labels = 1
    tokenizer, (model, report) = _load_renamed(name, config, model_class, renamed)
    missing = sorted(report["missing_keys"])
    if missing:
        raise MetricUnavailableError(
            f"{name!r} is no BLEURT checkpoint in a known layout: it lacks {missing[:3]}"
        )
    return tokenizer, model.eval()


def _load_renamed(name: str, config: Any, model_class: Any, renamed: dict[str, str]) -> Any:
    from transformers import AutoTokenizer, DebertaV2Tokenizer

    try:
        model = model_class.from_pretrained(
            name, config=config, key_mapping=renamed, output_loading_info=True
        )
        kind = DebertaV2Tokenizer if model_class.__name__.startswith("RemBert") else AutoTokenizer
        return kind.from_pretrained(name), model
    except (OSError, ValueError, ImportError) as error:
        raise MetricUnavailableError(f"cannot load the checkpoint {name!r}: {error}") from error
