"""Predictions side by side: which examples are shown, and how each differs from its reference."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from statistics import fmean
from typing import Any, Literal

from peftlab.plots.drawing import swatch
from peftlab.records.reading import Prediction
from peftlab.report.page.runs import Judged

MOST_EXAMPLES = 40
MOST_METHODS = 16
LONGEST = 2_000  # characters of a text; what is cut is said
_ALIKE = 0.35  # what prediction and reference have in common at least, for word-by-word marks
MOST_CHARACTERS = 1_200_000  # characters of all texts together, so that the page stays under 5 MB

Kind = Literal["differ", "hard", "spread"]
KINDS: Mapping[Kind, str] = {
    "differ": "methods differ most",
    "hard": "hard for all",
    "spread": "spread over the test set",
}


@dataclass(frozen=True)
class Piece:
    """A stretch of text: "" as in the reference, "ins" only here, "del" only in the reference."""

    kind: Literal["", "ins", "del"]
    text: str


@dataclass(frozen=True)
class Answer:
    """What one method made of an example."""

    label: str
    swatch: str
    score: str
    pieces: Sequence[Piece]


@dataclass(frozen=True)
class Example:
    """A test example with everybody's answers. number: its place in the test set, from 1."""

    number: int
    kind: Kind
    why: str
    source: str
    references: Sequence[str]
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Examples:
    """The chosen ones, of how many; `labels` are the methods that are shown."""

    chosen: Sequence[Example]
    available: int
    labels: Sequence[str]
    methods: int
    seeds: bool


def examples(judged: Judged) -> Examples:
    """Those in which methods differ most, those that are hard for all, and some in between."""
    labels = [method.label for method in judged.finished][:MOST_METHODS]
    tables = {label: judged.predictions[label] for label in labels}
    count = min((len(rows) for rows in tables.values()), default=0)
    chosen: list[Example] = []
    left_over = MOST_CHARACTERS
    for index, kind in _choice(tables, judged.metric, judged.higher_is_better, count):
        example = _example(judged, tables, index, kind)
        left_over -= _length(example)
        if left_over < 0 and chosen:
            break
        chosen.append(example)
    seeds = any(len(method.runs) > 1 for method in judged.finished)
    return Examples(chosen, count, labels, len(judged.finished), seeds)


def _choice(
    tables: Mapping[str, Sequence[Prediction]], metric: str, higher: bool, count: int
) -> list[tuple[int, Kind]]:
    """Half where scores differ most, a quarter of the worst, a quarter evenly spread."""
    kinds: dict[int, Kind] = {}
    found_scores = [
        [rows[i].get("scores", {}).get(metric) for rows in tables.values()] for i in range(count)
    ]
    scores = [[value for value in row if value is not None] for row in found_scores]
    if scores and scores == found_scores:
        sign = 1 if higher else -1
        apart = sorted(range(count), key=lambda i: min(scores[i]) - max(scores[i]))
        worst = sorted(range(count), key=lambda i: sign * fmean(scores[i]))
        kinds |= dict.fromkeys(
            (i for i in apart[: MOST_EXAMPLES // 2] if _spread(scores[i])), "differ"
        )
        left = [i for i in worst if i not in kinds]
        kinds |= dict.fromkeys(left[: min(MOST_EXAMPLES // 4, count // 4)], "hard")
    wanted = min(MOST_EXAMPLES, count) - len(kinds)
    others = [i for i in range(count) if i not in kinds]
    kinds |= {others[i * len(others) // wanted]: "spread" for i in range(wanted)}
    return list(kinds.items())


def _spread(values: Sequence[float]) -> bool:
    return max(values) > min(values)


def _example(
    judged: Judged,
    tables: Mapping[str, Sequence[Prediction]],
    index: int,
    kind: Kind,
) -> Example:
    first = next(iter(tables.values()))[index]
    references = [_clipped(text) for text in first["references"]]
    numbers = {method.label: method.number for method in judged.methods}
    answers = []
    for label, rows in tables.items():
        value = rows[index].get("scores", {}).get(judged.metric)
        text = _clipped(rows[index]["prediction"])
        answers.append(
            Answer(
                label=label,
                swatch=swatch(numbers[label]),
                score="" if value is None else judged.quality.unit.said(value),
                pieces=compared(text, references),
            )
        )
    known: Any = first.get("options") or {}
    options = "".join(f"\n– {option}" for option in known)
    source = _clipped(first.get("source", "")) + options
    return Example(first["index"] + 1, kind, KINDS[kind], source, references, answers)


def _clipped(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]} … [{len(text) - LONGEST:,} more characters]"


def _length(example: Example) -> int:
    texts = [example.source, *example.references]
    pieces = [piece for answer in example.answers for piece in answer.pieces]
    return sum(map(len, texts)) + sum(len(piece.text) + 12 for piece in pieces)


def compared(prediction: str, references: Sequence[str]) -> list[Piece]:
    """The prediction in pieces, word by word against the reference that is closest to it.

    Without a reference, or with nothing predicted, there is nothing to mark; a prediction that has
    next to nothing of any reference is marked whole.
    """
    words = _words(prediction)
    if not words:
        return []
    if not references:
        return [Piece("", prediction)]
    compared_with = [_words(text) for text in references]
    matchers = [SequenceMatcher(None, one, words, autojunk=False) for one in compared_with]
    closest = max(range(len(matchers)), key=lambda i: matchers[i].ratio())
    if matchers[closest].ratio() < _ALIKE:
        return [Piece("ins", prediction)]
    return list(_merged(matchers[closest].get_opcodes(), compared_with[closest], words))


def _merged(
    steps: Sequence[tuple[str, int, int, int, int]], wanted: Sequence[str], got: Sequence[str]
) -> Iterator[Piece]:
    for tag, i, j, k, m in steps:
        if tag == "equal":
            yield Piece("", "".join(got[k:m]))
            continue
        if j > i:
            yield Piece("del", "".join(wanted[i:j]))
        if m > k:
            yield Piece("ins", "".join(got[k:m]))


def _words(text: str) -> list[str]:
    """Words, signs and spaces; together they are the text again."""
    return re.findall(r"\w+|\s+|[^\w\s]", text)
