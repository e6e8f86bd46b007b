"""The search for learning rates: a trial is a mark, the rate that was taken is ringed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from peftlab.plots.axes import level_lines, ticks_below
from peftlab.plots.drawing import colour, drawing, mark, path, put, spoken, tell
from peftlab.plots.scales import Scale, fitted
from peftlab.records.record import Tried


@dataclass(frozen=True)
class Searched:
    """A method's trials, and the rate that was taken."""

    label: str
    number: int | None
    trials: Sequence[Tried]
    rate: float

    @property
    def known(self) -> list[tuple[float, float, Tried]]:
        """Trials with a loss by rising rate: rate, loss, trial."""
        known = [(one.rate, one.loss, one) for one in self.trials if one.loss is not None]
        return sorted(known, key=lambda one: one[:2])


def search_plot(searches: Sequence[Searched], width: float = 900, height: float = 340) -> Element:
    """Lowest validation loss of each trial against its rate; one search at least has a loss."""
    svg = drawing(width, height, "Validation loss by learning rate", "search-plot curve-plot")
    points = [(rate, loss) for one in searches for rate, loss, _ in one.known]
    losses = [loss for _, loss in points]
    across = fitted([rate for rate, _ in points], 52, width - 16, logarithmic=True)
    apart = min(losses) > 0 and max(losses) >= 4 * min(losses)
    up = fitted(losses, height - 46, 34, logarithmic=apart)
    _frame(svg, across, up, width, height)
    for one in sorted(searches, key=lambda one: one.number is not None):
        if one.known:
            _line(svg, one, across, up)
    return svg


def _frame(svg: Element, across: Scale, up: Scale, width: float, height: float) -> None:
    axes = put(svg, "g", class_="axes", aria_hidden="true")
    bottom, left, right = height - 46, 48.0, width - 10
    level_lines(axes, up, left, right)
    ticks_below(axes, across, across.ticks(6 if width > 600 else 4), bottom)
    put(axes, "line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom)
    name = "Lowest validation loss of a trial" + (" (logarithmic)" if up.logarithmic else "")
    put(axes, "text", name, class_="name", x=8.0, y=16.0)
    place = {"x": f"{right:g}", "y": f"{height - 6:g}"}
    put(axes, "text", "learning rate (logarithmic) →", class_="name", text_anchor="end", **place)


def _line(svg: Element, one: Searched, across: Scale, up: Scale) -> None:
    tip = f"{one.label}\nrate {one.rate:.2g} taken out of {len(one.trials)} trials"
    group = spoken(svg, tip, f"curve {colour(one.number)}", method=one.label)
    places = [(across(rate), up(loss)) for rate, loss, _ in one.known]
    if len(places) > 1:
        put(group, "path", class_="target", d=path(places))
        put(group, "path", class_="stroke thin", d=path(places))
    for (x, y), (rate, loss, trial) in zip(places, one.known, strict=True):
        taken = rate == one.rate
        if taken:
            put(group, "circle", class_="ring", cx=x, cy=y, r=9.5)
        dot = mark(group, one.number, x, y, 4.2)
        ended = "" if trial.status == "finished" else f", {trial.status}"
        tell(
            dot,
            f"{one.label}\nrate {rate:.2g}: {loss:.3f} after {trial.steps:,} steps{ended}"
            + ("\nthe rate that was taken" if taken else ""),
        )
