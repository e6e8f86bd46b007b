"""Sentences on what methods cost and how their runs went: overfitting, context, time, failures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from peftlab.units import amount, duration, loss
from peftlab.verdict.entries import COSTS, Entry, Failure
from peftlab.verdict.numbers import counted, listed, percent, several

OVERFIT = 0.2  # validation loss above training loss by more than this share of it


def cost_sentences(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Of the finished methods' measurements."""
    return (
        *_overfitting(entries),
        *_forgetting(entries),
        *_context(entries),
        *_epochs(entries),
        *_searches(entries),
        *company_sentences(entries),
    )


def company_sentences(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Which times say nothing of the methods, since others used the machine meanwhile."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in dict.fromkeys(name for entry in entries for name in entry.others):
        whose = tuple(entry.name for entry in entries if name in entry.others)
        groups.setdefault(whose, []).append(COSTS[name].called)
    if not groups:
        return ()
    most = max(share for entry in entries for share in entry.others.values())
    parts = [f"{listed(costs)} of {several(whose)}" for whose, costs in groups.items()]
    return (
        f"Other programs had up to {percent(most)} of the cores meanwhile, so nothing is judged by"
        f" {'; '.join(parts)} (≈).",
    )


def failure_sentences(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Of every run that did not finish, and what that leaves."""
    return tuple(_failure(entry, failure) for entry in entries for failure in entry.failures)


def _overfitting(entries: Sequence[Entry]) -> list[str]:
    """Who overfits: validation loss against training loss, of methods that train something."""
    gaps: list[tuple[float, Entry, float, float]] = []
    for entry in entries:
        train, validation = entry.losses.get("train"), entry.losses.get("validation")
        if train and validation is not None and entry.cost("trainable_parameters") != 0:
            gaps.append((validation / train - 1, entry, train, validation))
    gaps.sort(key=lambda gap: -gap[0])
    sentences = [
        f"{entry.name} overfits: its loss is {loss(train)} on training text and"
        f" {loss(validation)} on validation text, {percent(gap)} more."
        for gap, entry, train, validation in gaps
        if gap > OVERFIT
    ]
    if sentences or not gaps:
        return sentences
    _, entry, train, validation = gaps[0]
    return [
        f"No method overfits by more than {percent(OVERFIT)}: validation loss is furthest from"
        f" training loss for {entry.name} ({loss(validation)} against {loss(train)})."
    ]


def _forgetting(entries: Sequence[Entry]) -> list[str]:
    """What adaptations do to text that belongs to no task."""
    known = [(entry.general, entry.name) for entry in entries if entry.general is not None]
    if not known:
        return []
    before = loss(known[0][0][0])
    text = f"The loss of general text is {before} with the bare base and, with an adaptation, {{}}"
    return _range([(after, name) for (_, after), name in known], loss, text)


def _context(entries: Sequence[Entry]) -> list[str]:
    return _range(
        [(entry.cost("context_tokens"), entry.name) for entry in entries],
        amount,
        "Beside the source, a request takes {} context tokens",
    )


def _epochs(entries: Sequence[Entry]) -> list[str]:
    trained = [e for e in entries if e.cost("trainable_parameters") != 0]
    values = [(entry.seconds_per_epoch, entry.name) for entry in trained]
    return _range(values, duration, "An epoch of training takes {}")


def _searches(entries: Sequence[Entry]) -> list[str]:
    values = [(entry.search_seconds, entry.name) for entry in entries]
    told = "The search for a learning rate, part of the training time above, takes {}"
    return _range(values, duration, told)


def _range(
    values: Sequence[tuple[float | None, str]], show: Callable[[float], str], text: str
) -> list[str]:
    """From the least, with whom, to the most, with whom; one number where all have the same."""
    known = [(value, name) for value, name in values if value is not None]
    if not known:
        return []
    groups: dict[str, list[str]] = {}
    for value, name in sorted(known, key=lambda pair: pair[0]):
        groups.setdefault(show(value), []).append(name)
    least, *_, most = [*groups.items()] * 2
    if len(groups) == 1:
        whom = "" if len(known) == 1 else ", whatever the method"
        return [f"{text.format(least[0])}{whom}."]
    ends = [f"{number} ({several(names)})" for number, names in (least, most)]
    return [text.format(f"from {ends[0]} to {ends[1]}") + "."]


def _failure(entry: Entry, failure: Failure) -> str:
    if failure.step is None:
        text = f"{entry.name} failed with seed {failure.seed}: {failure.reason.rstrip('.')}"
    else:
        text = (
            f"{entry.name} diverged at step {failure.step:,} with seed {failure.seed}"
            f" ({failure.reason.rstrip('.')})"
        )
    if entry.runs is None:
        return f"{text}; it is not compared."
    left = counted(entry.runs.seeds, "finished seed")
    return f"{text}; its figures are of {left}, which may flatter it."
