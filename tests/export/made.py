"""Random adaptations of tiny models, and PEFT's logits and gradients to hold ours against."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file

from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import Row, pack
from peftlab.methods import parse_one
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.methods.base import State
from peftlab.tasks import Template
from tests.laws.world import model as frozen
from tests.laws.world import slack
from tests.models import tiny

ROWS = ([5, 17, 90, 33, 8], [64, 3, 7, 7, 101, 55, 20, 31, 44, 9, 12, 88], [77, 6, 118, 40, 41])
TEXT = Template("{source} {target}")


def random_state(spec: str, lm: FrozenLM, seed: int = 0) -> State:
    """The method's tensors, none of them at its starting value."""
    method = parse_one(spec)
    rng = torch.Generator().manual_seed(seed)
    state = method.materialise(method.init(lm, None, rng), lm)  # type: ignore[arg-type]
    moved = {
        n: t + 0.3 * t.std(correction=0).clamp(0.3) * torch.randn(t.shape, generator=rng)
        for n, t in state.tensors.items()
    }
    return State(moved, state.text)


def made(spec: str, family: str, seed: int = 0) -> Adaptation:
    """An adaptation of the family's tiny model with random values."""
    lm = frozen(family)
    return Adaptation(parse_one(spec), random_state(spec, lm, seed), TEXT, base_of(lm))


def pseudo(adaptation: Adaptation) -> list[int]:
    """The pseudo tokens that stand before a row."""
    template = adaptation.method.template(adaptation.template, adaptation.state)
    return [-(j + 1) for j in range(template.pseudo_tokens)]


def ours(adaptation: Adaptation, lm: FrozenLM) -> list[torch.Tensor]:
    """Our logits [T, V] of every row's own tokens."""
    lead = pseudo(adaptation)
    rows = [Row([*lead, *ids], 0, len(lead)) for ids in ROWS]
    with torch.no_grad():
        batch = pack(rows, [adaptation.edits(lm)])
        return batch.split_kept(lm(batch))


def theirs(model: Any) -> list[torch.Tensor]:
    """A transformers or PEFT model's logits [T, V] of every row's own tokens, a row at a time."""
    with torch.no_grad():
        return [model(torch.tensor([ids])).logits[0, -len(ids) :] for ids in ROWS]


def equal(family: str) -> float:
    """The gap below which two ways of computing the same differ by rounding alone."""
    return 1e-5 * slack(family)


def gap(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    """The largest difference, as a share of the largest logit."""
    pairs = zip(first, second, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


@contextmanager
def deprecations_of_peft() -> Iterator[None]:
    """PEFT still reads names that transformers 5 has deprecated; that is between the two."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def in_peft(folder: Path, family: str) -> Any:
    """PEFT's model of a saved adapter on a plain copy of the base."""
    with deprecations_of_peft():
        return peft.PeftModel.from_pretrained(tiny(family), folder).eval()


def training_in_peft(folder: Path, family: str) -> Any:
    """The same with gradients, which PEFT does not offer for loaded prompts."""
    config = peft.PeftConfig.from_pretrained(folder)
    config.inference_mode, config.base_model_name_or_path = False, None
    with deprecations_of_peft():
        model = peft.get_peft_model(tiny(family), config)
    tensors = load_file(folder / "adapter_model.safetensors")
    peft.set_peft_model_state_dict(model, tensors)
    return model.eval()
