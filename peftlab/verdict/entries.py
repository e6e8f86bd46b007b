"""What a verdict is given: one entry a method, and the checks that all are of one comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from peftlab.errors import InputError, nearest
from peftlab.records.figures import FIGURES
from peftlab.verdict.components import Runs


class MixedRecordsError(InputError):
    """Records of different tasks, models or budgets, which nothing can compare."""


COSTS = {figure.name: figure for figure in FIGURES if figure.cost}
"""By the names that `Entry.costs` and limits use; less is better."""

FRONTS = tuple(name for name, figure in COSTS.items() if figure.axis)


@dataclass(frozen=True)
class Failure:
    """A run that did not finish. step: where it diverged; None when it failed otherwise."""

    seed: int
    reason: str
    step: int | None = None


@dataclass(frozen=True)
class Entry:
    """One method of a comparison, all its seeds together.

    Args:
        name: as it shall be called.
        runs: scores of the finished runs; None when there is none.
        costs: by the names of `COSTS`, means over the finished runs; None where not measured.
        others: by the same names, the share of the cores that others had while it was measured, of
            what for that reason is None among the costs.
        losses: "train", "validation", "test": means per target token.
        loss_errors: their standard errors over rows, where they are known; of one run.
        general: loss of general text, of the bare base and with the adaptation on.
        seconds_per_epoch: of training.
        search_seconds: of the search for the rate, which training_seconds among the costs include.
        failures: the runs that did not finish.
        conditions: what must be the same for all entries: task, split, model, budget, decoding …
    """

    name: str
    runs: Runs | None
    costs: Mapping[str, float | None] = field(default_factory=dict)
    others: Mapping[str, float] = field(default_factory=dict)
    losses: Mapping[str, float | None] = field(default_factory=dict)
    loss_errors: Mapping[str, float | None] = field(default_factory=dict)
    general: tuple[float, float] | None = None
    seconds_per_epoch: float | None = None
    search_seconds: float | None = None
    failures: Sequence[Failure] = ()
    conditions: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for cost, value in self.costs.items():
            if cost not in COSTS:
                raise InputError(_unknown("cost", cost))
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(
                    f"{self.name}: {cost} is {value}; expected a finite number of at least 0, or"
                    " None where it was not measured"
                )

    def cost(self, name: str) -> float | None:
        """One of `costs`; what nobody trains costs nothing in training."""
        value = self.costs.get(name)
        untrained = self.costs.get("trainable_parameters") == 0
        if value is None and untrained and name not in self.others and COSTS[name].of_training:
            return 0.0
        return value


def check_conditions(entries: Sequence[Entry]) -> None:
    """Refuse what cannot be compared.

    Raises:
        InputError: no entry, or a name twice.
        MixedRecordsError: conditions differ; says which, with the values.
    """
    if not entries:
        raise InputError("There is nothing to compare: no run was found.")
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name!r} is there twice; put all seeds of a method into one entry.")
    keys = list(dict.fromkeys(key for entry in entries for key in entry.conditions))
    differing = [text for key in keys if (text := _difference(key, entries))]
    if differing:
        raise MixedRecordsError(
            f"These records cannot be compared: {'; '.join(differing)}. Compare runs of one task,"
            " one model and one budget."
        )


def check_limits(limits: Mapping[str, float]) -> None:
    """Refuse limits on things that are not measured, or that are no numbers.

    Raises:
        InputError: says which, and the nearest known name.
    """
    for name, value in limits.items():
        if name not in COSTS:
            raise InputError(_unknown("limit", name))
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"the limit {name} is {value}; expected a number of at least 0")


def _unknown(what: str, name: str) -> str:
    return f"Unknown {what} {name!r}.{nearest(name, COSTS)} Known: {', '.join(COSTS)}."


def _difference(key: str, entries: Sequence[Entry]) -> str:
    """ "task is 'a' (lora, full) and 'b' (bitfit)", or nothing when all agree."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        groups.setdefault(repr(entry.conditions.get(key, "not given")), []).append(entry.name)
    if len(groups) < 2:
        return ""
    return f"{key} is " + " and ".join(
        f"{value} ({', '.join(names)})" for value, names in groups.items()
    )
