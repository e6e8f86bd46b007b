"""The demo world: tasks in house styles, and text like that of the pretraining.

Everything is made when asked for, the same on every machine for the same seed; there are no data
files. Splits share no fact with each other nor with the pretraining text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import TypeVar

from peftlab.demo.documents import HELD_OUT_BUCKETS, DocumentSource
from peftlab.demo.facts import draw_fact, write_article
from peftlab.demo.houses import HOUSES, House
from peftlab.errors import InputError, nearest

MODEL_FOLDER = Path(__file__).parent / "model"
"""The bundled model, for `AutoModelForCausalLM.from_pretrained`."""

_T = TypeVar("_T")

# Buckets 0 to 3 are the pretraining's and 4 is its held-out part (peftlab.demo.documents).
_SPLITS = {"train": (1000, (5, 6, 7)), "validation": (100, (8,)), "test": (200, (9,))}


@dataclass(frozen=True)
class DemoTask:
    """A task of the demo world.

    `template` has the places `{instruction}`, `{source}` and `{target}`; `instruction` is the
    request in words, to be put there by a hard prompt (empty otherwise). `splits(split)` gives
    the (source, targets) pairs of "train" (1000), "validation" (100) or "test" (200).
    """

    name: str
    template: str
    instruction: str
    max_new_tokens: int
    splits: Callable[[str], list[tuple[str, tuple[str, ...]]]]


def examples(
    split: str, count: int | None = None, seed: int = 0, task: str = "demo"
) -> list[dict[str, str]]:
    """`count` rows {"source", "target"} of a split, different in town and person.

    Args:
        split: "train", "validation" or "test".
        count: number of rows; by default 1000, 100 or 200.
        seed: another seed gives other rows of the same split.
        task: a name of `demo_tasks()`.

    Raises:
        InputError: there is no such split or task.
    """
    size, buckets = _named(_SPLITS, split, "split")
    house = _named({house.name: house for house in HOUSES}, task, "demo task")
    rng = Random(f"{seed}/{task}/{split}")
    rows: list[dict[str, str]] = []
    seen: set[tuple[str, str]] = set()
    while len(rows) < (size if count is None else count):
        fact = draw_fact(rng, house.topic, buckets)
        key = fact.values["TOWN"], fact.values[house.topic.person]
        if key in seen:
            continue
        seen.add(key)
        article = write_article(rng, fact, house.needs)
        rows.append({"source": article.text, "target": house.target(fact)})
    return rows


def demo_tasks() -> dict[str, DemoTask]:
    """All tasks of the demo world by name; "demo" comes first."""
    return {house.name: _task(house) for house in HOUSES}


def general_text(seed: int, count: int) -> list[str]:
    """Documents like the pretraining's about facts that it never held, to measure forgetting."""
    documents = DocumentSource(HELD_OUT_BUCKETS).documents(seed)
    return [document.text for document in islice(documents, count)]


def _named(known: dict[str, _T], name: str, what: str) -> _T:
    if name not in known:
        raise InputError(
            f'No {what} "{name}"; there are: {", ".join(known)}.{nearest(name, known)}'
        )
    return known[name]


def _task(house: House) -> DemoTask:
    def splits(split: str) -> list[tuple[str, tuple[str, ...]]]:
        return [(row["source"], (row["target"],)) for row in examples(split, task=house.name)]

    template = "{instruction}{source}" + house.cue + " {target}"
    return DemoTask(house.name, template, house.instruction, 48, splits)
