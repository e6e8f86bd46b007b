"""Samples of a task's splits, the same for everyone who reads them.

A split has one order by lot, a function of its size alone; a sample is the first so many of it, in
the split's own order. So a smaller sample lies within a larger one, and two runs with samples of
different sizes have the smaller one in common.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from dataclasses import replace

from peftlab.tasks.example import Example
from peftlab.tasks.rows import Pairs, take, with_pairs
from peftlab.tasks.task import Task

_SEED = 0


def sampled(
    task: Task,
    *,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
) -> Task:
    """The task with so many pairs of train and validation, and examples of test; None: all.

    Its rows' fingerprint stays that of the whole, since they are drawn from it by number.
    """
    places = drawn(len(task.test), test)
    if len(places) < len(task.test):
        number = {place: i for i, place in enumerate(places)}
        subsets = {
            name: tuple(number[i] for i in own if i in number) for name, own in task.subsets.items()
        }
        task = replace(task, test=take(task.test, places), subsets=subsets)
    learnt, steering = pairs_of(task.train, train), pairs_of(task.validation, validation)
    if learnt is task.train and steering is task.validation:
        return task
    return replace(task, train=learnt, validation=steering)


def pairs_of(rows: Sequence[Example], count: int | None) -> Sequence[Example]:
    """The examples of a sample of (example, target) pairs, with these targets alone."""
    whole = len(Pairs(rows))
    if count is None or count >= whole:
        return rows
    return with_pairs(rows, drawn(whole, count))


def drawn(size: int, count: int | None) -> list[int]:
    """Which of `size` rows a sample of `count` holds, ascending."""
    if count is None or count >= size:
        return list(range(size))
    order = array("Q", range(size))  # shuffled as a list is, in a quarter of its memory
    random.Random(_SEED).shuffle(order)
    return sorted(order[:count])
