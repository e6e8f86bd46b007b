"""From records to one self-contained page, and the figures as files beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from peftlab.files import make_folder, write_bytes, write_text
from peftlab.plots import png
from peftlab.plots.drawing import file_of
from peftlab.records.figures import BYTES, SECONDS
from peftlab.records.reading import StoredRuns
from peftlab.records.record import Record
from peftlab.report.page.examples import KINDS, examples
from peftlab.report.page.facts import facts
from peftlab.report.page.figures import Figures, figures, phase_means
from peftlab.report.page.frame import file_text, filled
from peftlab.report.page.leaderboard import leaderboard, pairs, roles
from peftlab.report.page.phase_plot import PHASE_NAMES, PHASES
from peftlab.report.page.runs import Judged, MethodRuns, judged
from peftlab.report.predictions import PREDICTED, Predicted, predictions_of, words
from peftlab.verdict.entries import COSTS

NAME = "report.html"
PLOTS = "plots"
_FIRST = 4  # sentences that are seen at once


def write(out: Path, stored: StoredRuns) -> Path:
    """Write `report.html` and `plots/*.svg` into a folder; returns the page's path.

    With the extra `png`, each plot is a PNG too.

    Raises:
        InputError: no run is usable.
    """
    page, drawn = _page(out, stored)
    write_text(out / NAME, page)
    make_folder(out / PLOTS)
    for name, figure in drawn.files().items():
        title = figure.get("aria-label", name)
        drawn_file = file_of(figure, file_text("plots.css"), title)
        write_text(out / PLOTS / f"{name}.svg", drawn_file)
        if png.available():
            write_bytes(out / PLOTS / f"{name}.png", png.of_svg(drawn_file))
    return out / NAME


def render(out: Path, stored: StoredRuns) -> str:
    """The page as text.

    Raises:
        InputError: no run is usable.
    """
    return _page(out, stored)[0]


def _page(out: Path, stored: StoredRuns) -> tuple[str, Figures]:
    runs = judged(stored)
    drawn, lines = figures(runs, runs.problems), pairs(runs.verdict)
    values = {
        "head": _heading(runs),
        "verdict": _verdict(runs),
        "table": leaderboard(runs),
        "pairs": lines,
        "tested": len({name for line in lines for name in (line.first, line.second)}),
        "figures": drawn,
        "phases": _phase_table(drawn.phases),
        "phase_names": PHASE_NAMES,
        "predictions": _predictions(drawn.phases, runs.records),
        "examples": examples(runs),
        "kinds": KINDS,
        "facts": facts(out, runs),
        "problems": runs.problems,
        "runs": len(runs.records),
    }
    return filled("page.html", values), drawn


def _heading(runs: Judged) -> dict[str, Any]:
    first = runs.records[0]
    seeds = sorted({record.seed for record in runs.records})
    return {
        "task": Path(first.task.name).name,
        "model": Path(first.model.name).name,
        "parameters": f"{first.model.parameters:,}",
        "methods": len(runs.methods),
        "test_rows": f"{first.task.test_rows:,}",
        "skipped": f"{first.skipped:,}" if first.skipped else "",
        "train_rows": f"{first.task.train_rows:,}",
        "seeds": len(seeds),
        "metric": runs.quality.title,
    }


def _verdict(runs: Judged) -> dict[str, Any]:
    """Sentences with the methods' names marked, a card for each that stands out, the caution."""
    outcome = runs.verdict
    caution = outcome.caution if outcome else None
    labels = [method.label for method in runs.methods]
    sentences = [_named(text, labels) for text in runs.sentences if text != caution]
    by_label = {method.label: method for method in runs.methods}
    return {
        "lead": sentences[0] if outcome else None,
        "first": sentences[1 : 1 + _FIRST] if outcome else sentences,
        "more": sentences[1 + _FIRST :] if outcome else [],
        "caution": caution,
        "cards": [
            _card(by_label[label], what, runs.quality.unit.said)
            for label, what in roles(outcome).items()
        ],
    }


def _card(method: MethodRuns, what: Sequence[str], score: Callable[[float], str]) -> dict[str, Any]:
    shown = ("trainable_parameters", "peak_memory", "training_seconds", "latency")
    known = [(name, method.costs.get(name)) for name in shown]
    one = method.interval
    return {
        "label": method.label,
        "number": method.number,
        "roles": what,
        "score": score(method.quality) if method.quality is not None else "–",
        "interval": f"{one.confidence:.0%} interval {score(one.low)} – {score(one.high)}"
        if one
        else "",
        "costs": [
            (COSTS[name].called, COSTS[name].unit.said(value) if value else "none")
            for name, value in known
            if value is not None
        ],
    }


def _named(text: str, labels: Sequence[str]) -> Markup:
    """The sentence, escaped, with every method's name marked as one."""
    ordered = sorted(labels, key=len, reverse=True)
    names = "|".join(re.escape(label) for label in ordered)
    parts = re.split(rf"(?<![\w+=:,])({names})(?![\w+=:]|,\w)", text)
    marked = [
        Markup('<b class="method">{}</b>').format(part) if i % 2 else escape(part)
        for i, part in enumerate(parts)
    ]
    return Markup("").join(marked)


def _phase_table(methods: Sequence[MethodRuns]) -> dict[str, Any]:
    """The two figures' numbers, as text and to sort by, without phases that nobody measured."""
    heads, columns = [], []
    for what, unit in (("time", SECONDS), ("memory", BYTES)):
        means = [phase_means(method, unit) for method in methods]
        for i, name in enumerate(PHASES):
            values = [own[i] for own in means]
            if any(value is not None for value in values):
                heads.append(f"{what}, {name}")
                columns.append([("–" if v is None else unit.said(v), v) for v in values])
    rows = [(method.label, [column[i] for column in columns]) for i, method in enumerate(methods)]
    return {"heads": heads, "rows": rows}


def _predictions(methods: Sequence[MethodRuns], records: Sequence[Record]) -> dict[str, Any] | None:
    """Predictions beside measurements: of some methods as a table, in sentences of all records."""
    kinds = predictions_of([record for method in methods for record in method.records])
    if not kinds:
        return None
    names = ("{}, predicted", "{}, measured", "error")
    heads = [name.format(PREDICTED[key].predicted) for key in kinds for name in names]
    rows: dict[str, list[tuple[str, float | None]]] = {method.label: [] for method in methods}
    for key, predictions in kinds.items():
        show, own = PREDICTED[key].unit.said, {one.label: one for one in predictions}
        for label, cells in rows.items():
            cells += _compared(own[label], show) if label in own else [("–", None)] * len(names)
    return {"heads": heads, "rows": list(rows.items()), "words": words(records)}


def _compared(one: Predicted, show: Callable[[float], str]) -> list[tuple[str, float | None]]:
    error = f"{100 * one.error:+.1f} %".replace("-", "−")
    return [
        (show(one.predicted), one.predicted),
        (show(one.measured), one.measured),
        (error, one.error),
    ]
