"""Merged models: an adaptation's changes become part of the weights, and plain engines serve it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.export import plain
from peftlab.export.instead import AS_LORA
from peftlab.files import together, write_json
from peftlab.frozen.packing import Row, pack
from peftlab.frozen.weight_changes import as_edits, changed_weights

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation

_ROWS, _TOKENS = 4, 24  # of random tokens, on which merged and unmerged logits are compared


@dataclass(frozen=True)
class Merged:
    """A merged model's folder, and how far it is from the unmerged model on random tokens.

    Differences are the largest of any logit, as shares of the largest logit.

    Attributes:
        fp32: merged weights in the base's precision. bf16: the merged weights rounded to bf16.
        bf16_apart: the base's same weights rounded to bf16 with the adaptation kept apart.
        choices: share of positions whose most likely token differs between the latter two.
        defaults: what of the base's `generation_config.json`, which the export keeps, makes replies
            of engines that read it other than those of peftlab.
    """

    folder: Path
    fp32: float
    bf16: float
    bf16_apart: float
    choices: float
    defaults: Mapping[str, Any] = field(default_factory=dict)


def merged(adaptation: Adaptation, model: FrozenLM, folder: Path | str) -> Merged:
    """Write the merged model as a transformers checkpoint, tokenizer included.

    Raises:
        InputError: an adaptation that cannot be part of the weights (prompts, prefixes, bottleneck
            adapters), or biases that the family has no place for.
    """
    folder, edits = Path(folder), adaptation.edits(model)
    weights, config = _weights(adaptation, edits, model)
    ends = (edits.template or adaptation.template).end_ids(model.tokenizer)
    defaults = plain.changed_replies(model.model.generation_config, ends)
    result = replace(_compared(model, edits, weights, folder), defaults=defaults)
    made = plain.plain_model(model, weights, config)
    with together(folder) as place:
        plain.save_plain(made, model.tokenizer, place)
        numbers = {k: v for k, v in asdict(result).items() if k not in ("folder", "defaults")}
        described = {
            "template": _template(edits, adaptation),
            "differences": numbers,
            "generation_defaults": defaults,
        }
        write_json(place / "peftlab.json", plain.about("merged", described))
    return result


def merged_plainly(adaptation: Adaptation, model: FrozenLM) -> PreTrainedModel:
    """A plain model of the merged weights.

    Raises:
        InputError: see `merged`.
    """
    weights, config = _weights(adaptation, adaptation.edits(model), model)
    return plain.plain_model(model, weights, config)


def _weights(
    adaptation: Adaptation, edits: Edits, model: FrozenLM
) -> tuple[dict[str, torch.Tensor], PretrainedConfig]:
    """The changed parameters, and the base's configuration with a place for each."""
    refuse_unmergeable(adaptation, edits)
    weights, config = changed_weights(model, edits), plain.plain_config(model)
    if missing := plain.with_biases(config, set(weights) - set(model.shape.parameters)):
        raise InputError(
            f"{adaptation.method.name} gives a bias to {len(missing)} linears of {model.name} that "
            f"{model.shape.family} has no place for (the first is {min(missing)}). Keep peftlab's "
            "own format, or train lora, which merges everywhere."
        )
    return weights, config


def _template(edits: Edits, adaptation: Adaptation) -> dict[str, object]:
    return (edits.template or adaptation.template).to_dict()


def refuse_unmergeable(adaptation: Adaptation, edits: Edits) -> None:
    """Refuse what is no change of weights.

    Raises:
        InputError: with the reason and the nearest alternative.
    """
    name = adaptation.method.name
    if edits.begin == "cue":
        raise InputError(
            f"{name} begins at the cue, and merged weights would change the source before it too; "
            f"peftlab's own server serves it, and {AS_LORA}."
        )
    sites = {
        "its experts read each row for themselves; peftlab's own server serves it": edits.experts,
        "its vectors are inputs; the embedding-rows or vllm export serves them": edits.embeddings,
        "its keys and values are no weights; peftlab's own server and PEFT serve it": (
            edits.attention
        ),
        "a network with a non-linearity is no weight; peftlab's own server serves it": (
            edits.sublayer
        ),
    }
    for reason, site in sites.items():
        if site is not None and len(site):
            raise InputError(f"{name} cannot be merged into the weights: {reason}; {AS_LORA}.")
    if not edits.linear and not edits.weights:
        raise InputError(f"{name} changes no weights: the base serves it, with its text.")


def _compared(
    model: FrozenLM, edits: Edits, weights: dict[str, torch.Tensor], folder: Path
) -> Merged:
    """Run merged weights through the weights site, exact and rounded."""
    own = {n: model.gather(n) for n in weights if n in model.shape.parameters}
    apart = {**{n: w for n, w in own.items() if n not in edits.weights}, **edits.weights}
    unmerged = _logits(model, edits)
    rounded = _logits(model, as_edits(model, _rounded(weights)))
    rounded_apart = _logits(model, replace(edits, weights=_rounded(apart)))
    differ = rounded.argmax(-1) != rounded_apart.argmax(-1)
    return Merged(
        folder,
        fp32=_gap(_logits(model, as_edits(model, weights)), unmerged),
        bf16=_gap(rounded, unmerged),
        bf16_apart=_gap(rounded_apart, unmerged),
        choices=float(differ.float().mean()),
    )


def _rounded(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight.bfloat16().float() for name, weight in weights.items()}


@torch.no_grad()
def _logits(model: FrozenLM, edits: Edits) -> torch.Tensor:
    batch = pack([Row(ids, 0, 0) for ids in probes(model)], [edits], device=model.device)
    return model(batch).float()


def probes(model: FrozenLM) -> Sequence[list[int]]:
    """Rows of random tokens, always the same ones."""
    rng = torch.Generator().manual_seed(0)
    length = min(_TOKENS, model.shape.context - 1)
    return torch.randint(model.shape.vocab, (_ROWS, length), generator=rng).tolist()  # type: ignore[no-any-return]


def _gap(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())
