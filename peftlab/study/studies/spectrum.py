"""How few directions the learnt change ΔW has.

Hu et al. 2021, arXiv:2106.09685, section 7.2 and 7.3 (ΔW concentrates in its top singular vectors).
First panel: singular values of ΔW. Second: quality when all matrices of full fine-tuning's ΔW are
cut to rank r after training (norms and biases stay), against LoRA that was trained at rank r.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from peftlab.comparison.processes import Say
from peftlab.methods import parse_one
from peftlab.study import words
from peftlab.study.base import (
    Axis,
    Context,
    Made,
    Panel,
    Point,
    Setting,
    Study,
    Variant,
)
from peftlab.study.common import FULL, levels, place, ranks
from peftlab.study.measure import Subject
from peftlab.study.words import LOSS
from peftlab.tasks import Task
from peftlab.verdict.numbers import percent

if TYPE_CHECKING:
    import torch

    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation

_RANKS = (1, 4, 16, 64)
LORA, CUT = "LoRA trained at this rank", "full fine-tuning, cut to this rank"
_SHOWN = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_HALF, _MOST = 0.5, 0.9


class Spectrum(Study):
    """Singular values of learnt changes, and quality after cutting."""

    name: ClassVar = "spectrum"
    title: ClassVar = "How few directions does the learnt change have?"
    source: ClassVar = "Hu et al. 2021, section 7"
    axis: ClassVar = Axis("rank")
    takes: ClassVar = frozenset({"values"})
    measures: ClassVar = "peftlab.study.studies.spectrum:measure"

    def variants(self, setting: Setting, task: Task) -> list[Variant]:
        return levels(task) + [
            Variant(
                series=LORA,
                method=parse_one(f"lora:rank={rank},alpha={2 * rank},targets=all-linear"),
                x=rank,
            )
            for rank in ranks(setting, _RANKS)
        ]

    def asks(self, setting: Setting, made: Made) -> dict[str, Any]:
        method = made.variant.method.name
        return {
            "spectrum": method != "hard_prompt",
            "cut": ranks(setting, _RANKS) if method == "full" else [],
        }

    def panels(self, context: Context) -> list[Panel]:
        full = next(made for made in context.made if made.variant.series == FULL)
        panels = [_spectra(context)]
        for panel in super().panels(context):
            points = (*panel.points, *_cut_points(full, panel))
            both = replace(panel, points=points)
            panels.append(replace(both, words=tuple(self.words(both))))
        return panels

    def words(self, panel: Panel) -> list[str]:
        told = [words.climb(panel, name, place("rank")) for name in panel.series()]
        return [*told, words.against(panel, FULL)]


def _cut_points(full: Made, panel: Panel) -> list[Point]:
    """Quality of what is left of full fine-tuning, by rank; no intervals were computed for it."""
    ranks = list(dict.fromkeys(rank for one in full.measured for rank in one["cut"]))
    points = []
    for rank in ranks:
        values = [one["cut"][rank][panel.metric] for one in full.measured]
        point = Point(CUT, float(rank), "", "full", fmean(values), None, None, tuple(values))
        points.append(point)
    return points


def _spectra(context: Context) -> Panel:
    """Means over matrices and seeds, of full fine-tuning, of the highest rank of LoRA, of W."""
    chosen_runs: dict[str, Made] = {}
    for made in context.made:
        if made.measured and "singular" in made.measured[0]:
            name = made.variant.series if made.variant.series == FULL else LORA
            chosen_runs[name] = made  # of LoRA the last, which has the highest rank
    points = []
    for name, made in chosen_runs.items():
        series = f"ΔW of {name}" if name == FULL else f"ΔW of LoRA, rank {made.variant.x:.0f}"
        points += _points(series, [one["singular"] for one in made.measured])
    full = chosen_runs[FULL]
    points += _points("the base's W", [one["base"] for one in full.measured])
    return Panel(
        task=context.task.name,
        metric="",
        quantity="singular values as shares of the largest",
        higher_is_better=None,
        axis=Axis("number of the singular value"),
        connected=True,
        points=tuple(points),
        words=(_said(context.task.name, full.measured),),
    )


def _points(series: str, values: list[list[float]]) -> list[Point]:
    shown = [number for number in _SHOWN if number <= len(values[0])]
    return [
        Point(
            series,
            float(number),
            "",
            series,
            fmean(own := [one[number - 1] for one in values]),
            None,
            None,
            tuple(own),
        )
        for number in shown
    ]


def _said(task: str, measured: tuple[dict[str, Any], ...]) -> str:
    energy = [fmean(column) for column in zip(*(one["energy"] for one in measured), strict=True)]
    half = 1 + next(i for i, share in enumerate(energy) if share >= _HALF)
    most = 1 + next(i for i, share in enumerate(energy) if share >= _MOST)
    return (
        f"On {task}, in the mean over the blocks' matrices, the first {half} of {len(energy)} "
        f"directions of full fine-tuning's ΔW hold {percent(energy[half - 1])} of its squared "
        f"norm, the first {most} {percent(energy[most - 1])}."
    )


def measure(_: Say, subject: Subject) -> dict[str, Any]:
    """Singular values of a run's ΔW, and what its task is worth after cutting it to each rank.

    Returns `singular` and `base` (shares of the largest), `energy` (cumulated shares of the squared
    norm), means over the blocks' matrices; `cut`: by rank, every metric.
    """
    from peftlab.frozen.weight_changes import changed_weights

    asked = subject.asked
    if not asked["spectrum"]:
        return {}
    model, adaptation = subject.open()
    weights = changed_weights(model, adaptation.edits(model))
    changes = {
        name: weight - model.gather(name).float()
        for name, weight in weights.items()
        if weight.ndim == 2 and model.shape.block_of(name) is not None
    }
    singular = _mean_spectrum(list(changes.values()))
    base = _mean_spectrum([model.gather(name).float() for name in changes])
    cut = {str(rank): _scores(model, adaptation, rank, subject) for rank in asked["cut"]}
    return {**singular, "base": base["singular"], "cut": cut}


def _mean_spectrum(matrices: list[torch.Tensor]) -> dict[str, list[float]]:
    import torch

    values = [torch.linalg.svdvals(matrix) for matrix in matrices if matrix.norm() > 0]
    length = min(len(one) for one in values)
    shares = torch.stack([one[:length] / one[0] for one in values]).mean(0)
    squares = torch.stack([(one**2).cumsum(0)[:length] / (one**2).sum() for one in values]).mean(0)
    return {"singular": shares.tolist(), "energy": squares.tolist()}


def _scores(
    model: FrozenLM, adaptation: Adaptation, rank: int, subject: Subject
) -> dict[str, float]:
    from peftlab.evaluation import AdaptedLM, evaluate, split_loss

    tensors = {
        name: _cut(model.gather(name).float(), weight, rank)
        for name, weight in adaptation.state.tensors.items()
    }
    less = replace(adaptation, state=replace(adaptation.state, tensors=tensors))
    adapted, limit = AdaptedLM(model, less), subject.max_length
    evaluated = evaluate(adapted, subject.task, seed=subject.seed, max_length=limit)
    lost = split_loss(adapted, subject.task, "test", max_length=limit)
    return {**evaluated.scores.corpus, LOSS: lost.loss}


def _cut(base: torch.Tensor, weight: torch.Tensor, rank: int) -> torch.Tensor:
    """The base's weight with the change's best approximation of that rank (Eckart & Young)."""
    import torch

    if weight.ndim != 2:
        return weight
    left, values, right = torch.linalg.svd(weight - base, full_matrices=False)
    return base + (left[:, :rank] * values[:rank]) @ right[:rank]


STUDY = Spectrum()
