"""What an adaptation has learnt, by site: nearest tokens, gates, how far it moved each block."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from math import sqrt

import torch

from peftlab.edits import Edits, KeysValues
from peftlab.errors import InputError
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.weight_changes import changed_weights
from peftlab.methods.adaptation import Adaptation


@dataclass(frozen=True)
class Findings:
    """Each field is empty where the adaptation leaves that site alone.

    Attributes:
        text: the template's text and instruction, where they are the adaptation's own.
        nearest: for every pseudo token, the nearest real tokens with their cosine similarity.
        gates: by block, the gates of attention [H] as they are applied.
        prefix: by block, the mean norm of the prefix's keys and values over that of real tokens'.
        changed: by block ("outside" for embeddings, final norm and head), the Frobenius norm of the
            change over the norm of the weights that it changes.
        bottlenecks: by block, the norm of up·down of each bottleneck.
    """

    text: dict[str, str] = field(default_factory=dict)
    nearest: list[list[tuple[str, float]]] = field(default_factory=list)
    gates: dict[int, list[float]] = field(default_factory=dict)
    prefix: dict[int, dict[str, float]] = field(default_factory=dict)
    changed: dict[str, float] = field(default_factory=dict)
    bottlenecks: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def inspect(model: FrozenLM, adaptation: Adaptation, neighbours: int = 5) -> Findings:
    """Look at every site that the adaptation edits.

    Raises:
        InputError: the adaptation is for another base.
    """
    edits = adaptation.edits(model)
    if edits.experts:
        raise InputError("a mixture is several adaptations: look at each of its parts")
    return Findings(
        text=_text(edits, adaptation),
        nearest=_nearest(model, edits, neighbours),
        gates={
            block: kv.gate.flatten().tolist()
            for block, several in sorted(edits.attention.items())
            for kv in several
            if kv.gate is not None
        },
        prefix=_prefix(model, edits),
        changed=_changed(model, edits),
        bottlenecks={
            f"{block}.{which}": float((edit.scale * edit.up @ edit.down).norm())
            for (block, which), edit in sorted(edits.sublayer.items())
        },
    )


def _text(edits: Edits, adaptation: Adaptation) -> dict[str, str]:
    own = edits.template or adaptation.template
    if own == adaptation.template:
        return {}
    return {"template": own.text, "instruction": own.instruction}


def _nearest(model: FrozenLM, edits: Edits, count: int) -> list[list[tuple[str, float]]]:
    if edits.embeddings is None:
        return []
    table = torch.nn.functional.normalize(model.embed(torch.arange(model.shape.vocab)), dim=-1)
    vectors = torch.nn.functional.normalize(edits.embeddings.float(), dim=-1)
    best = (vectors @ table.T).topk(count, dim=-1)
    return [
        [(model.tokenizer.decode([i]), round(s, 4)) for i, s in zip(ids, scores, strict=True)]
        for ids, scores in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _prefix(model: FrozenLM, edits: Edits) -> dict[int, dict[str, float]]:
    plain = {
        block: kv
        for block, several in sorted(edits.attention.items())
        for kv in several
        if kv.gate is None
    }
    if not plain:
        return {}
    length = next(iter(plain.values())).keys.shape[-2]
    real = model.keys_values(Edits(), list(range(min(length, model.shape.vocab))))

    def share(own: KeysValues, other: KeysValues, part: str) -> float:
        norms = [getattr(kv, part).float().norm(dim=-1).mean() for kv in (own, other)]
        return float(norms[0] / norms[1])

    return {
        block: {part: share(kv, real[block], part) for part in ("keys", "values")}
        for block, kv in plain.items()
    }


def _changed(model: FrozenLM, edits: Edits) -> dict[str, float]:
    """Norms of ΔW over norms of W, joined over everything that is changed in a block."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, tensor in changed_weights(model, edits).items():
        if name not in model.shape.parameters:  # a bias that the base lacks
            continue
        block, weight = model.shape.block_of(name), model.gather(name).float()
        place = sums["outside" if block is None else str(block)]
        place[0] += float((tensor.float() - weight).square().sum())
        place[1] += float(weight.square().sum())
    return {
        place: sqrt(change / whole) if whole else 0.0 for place, (change, whole) in sums.items()
    }
