"""What a record holds and people look at: each figure stands here once.

Tables, page, verdict, csv, LaTeX, trackers, predictions and studies are made from `FIGURES` and
from the registry of metrics: a new cost is one entry here, a new metric one there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from statistics import fmean

from peftlab.errors import InputError, nearest
from peftlab.measure import company
from peftlab.metrics import UnknownMetricError, metric_spec, metric_title
from peftlab.records.record import Record
from peftlab.units import amount, duration, loss, size

Show = Callable[[float], str]


@dataclass(frozen=True)
class Unit:
    """How numbers of a kind are written.

    said: in a sentence, with a unit. cell: in a table, alike for a whole column. tick: at an axis.
    own: in a table where each number may have a unit of its own; as `cell` where that is None.
    """

    said: Show
    cell: Show
    tick: Show
    own: Show | None = None

    @property
    def loose(self) -> Unit:
        """The same, with numbers in units of their own in tables."""
        return replace(self, cell=self.own or self.cell)


def short(value: float) -> str:
    """A number on an axis: 500, 20k, 1.5M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"


def _share(value: float) -> str:
    """In percent, small ones with the digits that tell them apart."""
    return f"{value:.3g}%" if value else "0%"


COUNT = Unit(amount, "{:,.0f}".format, short)
BYTES = Unit(size, lambda value: f"{value / 2**20:,.0f} MiB", size, own=size)
SECONDS = Unit(duration, _seconds, duration)
MOMENTS = Unit(duration, lambda value: f"{value * 1000:.1f} ms", duration)
LOSS = Unit(loss, "{:.3f}".format, "{:g}".format)
CHANGE = Unit("{:+.3f}".format, "{:+.3f}".format, "{:g}".format)
PERCENT = Unit(_share, _share, "{:g}%".format)


def _always(_: Sequence[Record]) -> bool:
    return True


def _never(_: Sequence[Record]) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number of a run.

    Attributes:
        name: by which options, limits, experiments and `Record.predicted` call it.
        title: at the head of a column. label: in a sentence, after "the"; the title by default.
        read: its place in a record, or what computes it; a csv has a column more for the latter.
        lower: whether small numbers are the good ones.
        usual: whether a table of some records has it without being asked.
        extra: a table does without it where a terminal is too narrow.
        cost: makes it one that a verdict knows (limits); what follows the number in a sentence.
        axis: of these, one against which quality is drawn and fronts are found.
        of_training: of these, one that is 0 where nothing is trained.
        phase: whose share of time or memory it is, of those that the page draws.
        predicted: what it is called beside its prediction; empty where that is not shown.
        exact: its prediction is a formula, so no sentence says how far off it was.
        tracked: what trackers call it, where that is not `cost/NAME`.
        others: of a time, where a record says what share of the cores others used meanwhile.
    """

    name: str
    title: str
    unit: Unit
    read: str | Callable[[Record], float | None]
    label: str = ""
    lower: bool = True
    usual: Callable[[Sequence[Record]], bool] = _never
    extra: bool = False
    cost: str = ""
    axis: bool = True
    of_training: bool = False
    phase: str = ""
    predicted: str = ""
    exact: bool = False
    tracked: str = ""
    others: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """Its name in a sentence."""
        return self.label or self.title

    @property
    def tracker(self) -> str:
        """Its name in an experiment tracker."""
        return self.tracked or f"cost/{self.name}"

    def of(self, record: Record) -> float | None:
        """The number of a run; None where it was not measured."""
        return self.read(record) if callable(self.read) else _number(record, self.read)

    def shared(self, records: Sequence[Record]) -> float | None:
        """The largest share of the cores that others used while these numbers were measured.

        None where that was too little to matter, or is not known: see `measure.company`. A number
        that others made larger is not the method's, so it is shown with `≈`, and nothing is judged
        by it.
        """
        shares = [
            share
            for record in records
            if self.of(record)
            for place in self.others
            if (share := _number(record, place)) is not None and share > company.MOST
        ]
        return max(shares, default=None)

    def mark(self, records: Sequence[Record]) -> str:
        """What stands before the number of these records, see `shared`."""
        return "≈ " if self.shared(records) else ""

    def mean(self, records: Sequence[Record]) -> float | None:
        """The mean of what was measured."""
        known = [value for record in records if (value := self.of(record)) is not None]
        return fmean(known) if known else None

    def alone(self, records: Sequence[Record]) -> float | None:
        """The mean, unless others used the machine while it was measured."""
        return None if self.shared(records) else self.mean(records)

    def text(self, value: float) -> str:
        """As a cost in a sentence: "1.2 GiB of memory in training"."""
        return f"{self.unit.said(value)} {self.cost}"


def _number(record: Record, place: str) -> float | None:
    """What stands at a place like `seconds.train`."""
    value: object = record
    for part in place.split("."):
        value = getattr(value, part) if value is not None else None
    return value if isinstance(value, int | float) else None


def _measured(read: str) -> Callable[[Sequence[Record]], bool]:
    value = attrgetter(read)
    return lambda records: any(value(record) is not None for record in records)


def _other_formats(records: Sequence[Record]) -> bool:
    return any(record.model.dtype != "fp32" for record in records)


def _share_of_base(record: Record) -> float | None:
    trainable = record.parameters.trainable
    return None if trainable is None else 100 * trainable / record.parameters.base


def _training(record: Record) -> float | None:
    """By the clock, with what earlier runs of the comparison have spared it; or at the pace of
    steps that were taken again, which share nothing, where others had used the machine.
    """
    seconds = record.seconds
    if seconds.train_again is not None or seconds.train is None:
        return seconds.train_again
    return seconds.train + (seconds.train_spared or 0.0)


def _with_search(record: Record) -> float | None:
    """Of one run, and of the search that found its rate."""
    own = _training(record)
    return own if own is None or record.search is None else own + record.search.seconds


_STEP, _SEARCH, _LATENCY = ("others.step",), ("search.others",), ("others.latency",)

FIGURES = (
    Figure(name="trainable_parameters", title="trainable", unit=COUNT,
           read="parameters.trainable", label="trainable parameters", usual=_always,
           cost="trainable parameters", tracked="parameters/trainable"),
    Figure(name="stored_parameters", title="stored", unit=COUNT,
           read="parameters.stored", label="stored parameters", tracked="parameters/stored"),
    Figure(name="share_of_base", title="% of base", unit=PERCENT,
           read=_share_of_base, label="share of the base's parameters", usual=_always),
    Figure(name="train_loss", title="train loss", unit=LOSS,
           read="loss.train", tracked="train/final_loss"),
    Figure(name="validation_loss", title="validation loss", unit=LOSS,
           read="loss.validation", tracked="validation/final_loss"),
    Figure(name="test_loss", title="test loss", unit=LOSS,
           read="loss.test", usual=_always, tracked="test/loss"),
    Figure(name="adapter_bytes", title="adapter size", unit=BYTES,
           read="bytes", cost="on disk", predicted="adapter size", exact=True),
    Figure(name="base_bytes", title="base memory", unit=BYTES,
           read="model.bytes", label="memory of the base's weights", usual=_other_formats),
    Figure(name="peak_memory", title="peak memory", unit=BYTES,
           read="peak_memory.train", label="peak memory in training", usual=_always,
           cost="of memory in training", of_training=True, phase="train",
           predicted="peak memory", tracked="train/peak_bytes"),
    Figure(name="evaluate_memory", title="memory in evaluation", unit=BYTES,
           read="peak_memory.evaluate", phase="evaluate"),
    Figure(name="generate_memory", title="memory in generation", unit=BYTES,
           read="peak_memory.generate", phase="generate"),
    Figure(name="step_seconds", title="step time", unit=MOMENTS,
           read="seconds.step", label="time of a step", others=_STEP),
    Figure(name="train_seconds", title="train time", unit=SECONDS,
           read=_training, label="training time", usual=_always, phase="train",
           predicted="training time", tracked="train/seconds", others=_STEP),
    Figure(name="validation_seconds", title="validations", unit=SECONDS,
           read="seconds.validation", label="time of validations", others=("others.train",)),
    Figure(name="evaluate_seconds", title="evaluation time", unit=SECONDS,
           read="seconds.evaluate", phase="evaluate", others=("others.evaluate",)),
    Figure(name="generate_seconds", title="generation time", unit=SECONDS,
           read="seconds.generate", phase="generate", others=("others.generate",)),
    Figure(name="search_seconds", title="rate search", unit=SECONDS,
           read="search.seconds", label="search for a rate", usual=_measured("search"),
           phase="search", others=_SEARCH),
    Figure(name="training_seconds", title="train and search", unit=SECONDS,
           read=_with_search, label="training time", cost="of training", of_training=True,
           others=_STEP + _SEARCH),
    Figure(name="load_seconds", title="loading", unit=SECONDS,
           read="seconds.load", label="time to load the base", others=("others.load",)),
    Figure(name="run_seconds", title="whole run", unit=SECONDS,
           read="seconds.total", label="time of the whole run", predicted="whole run",
           others=("others.train", "others.generate")),
    Figure(name="forgetting", title="forgetting", unit=CHANGE,
           read=lambda record: record.general.forgotten if record.general else None,
           usual=_measured("general"), extra=True),
    Figure(name="first_token", title="first token", unit=MOMENTS,
           read="latency.first_token", label="time to the first token", others=_LATENCY),
    Figure(name="latency", title="per token", unit=MOMENTS,
           read="latency.token", label="serving latency", usual=_always, extra=True,
           cost="a token when serving", others=_LATENCY),
    Figure(name="context_tokens", title="prompt tokens", unit=COUNT,
           read="context_tokens", label="context tokens", usual=_always, extra=True,
           cost="context tokens a request", axis=False),
)  # fmt: skip
"""In the order of a table's columns; scores stand after the test loss."""

LAST_LOSS = "test_loss"


def named(name: str) -> Figure:
    """The figure of that name.

    Raises:
        InputError: there is none; names the nearest.
    """
    by_name = {figure.name: figure for figure in FIGURES}
    if name not in by_name:
        raise InputError(f"there is no figure {name!r}; known: {', '.join(by_name)}"
                         f".{nearest(name, by_name)}")  # fmt: skip
    return by_name[name]


def scored(metric: str, part: str | None = None) -> Figure:
    """A metric's figure, of the whole test split or of a part of it that the task names.

    A metric that is not known here (a plug-in's) keeps its name, with three digits.
    """
    try:
        spec = metric_spec(metric)
        digits, lower = spec.digits, not spec.higher_is_better
    except UnknownMetricError:
        digits, lower = 3, False
    title = metric_title(metric)

    def said(value: float) -> str:
        return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # no −0.000

    def read(record: Record) -> float | None:
        scores = record.scores if part is None else record.subsets.get(part, {})
        return scores.get(metric)

    return Figure(
        name=metric if part is None else f"{metric} {part}",
        title=title if part is None else f"{title} {part}",
        unit=Unit(said, f"{{:.{digits}f}}".format, f"{{:.{digits}f}}".format),
        read=read,
        lower=lower,
        usual=_always,
        extra=part is not None,
        tracked=f"test/{metric}" if part is None else f"test/{part}/{metric}",
    )


def figures(records: Sequence[Record]) -> list[Figure]:
    """All that these records may have, in the order of a table: scores after the losses."""
    metrics = list(dict.fromkeys(name for record in records for name in record.scores))
    parts = dict.fromkeys(part for record in records for part in record.subsets)
    scores = [scored(name) for name in metrics]
    scores += [scored(name, part) for part in parts for name in metrics]
    place = 1 + next(i for i, one in enumerate(FIGURES) if one.name == LAST_LOSS)
    return [*FIGURES[:place], *scores, *FIGURES[place:]]


def tracked(record: Record) -> dict[str, float | None]:
    """What trackers show of a finished run, by their names for it."""
    return {figure.tracker: figure.of(record) for figure in figures([record])}


def trained_in(record: Record) -> str:
    """How long a finished run has trained, as it ends: "12 s"."""
    figure = named("train_seconds")
    return f"{figure.mark([record])}{figure.of(record) or 0:.0f} s"


def outline(record: Record) -> str:
    """A finished run in a few words: "test loss 0.512, ROUGE-L 0.741"."""
    told = [named(LAST_LOSS), *(scored(metric) for metric in record.scores)]
    values = [(figure, figure.of(record)) for figure in told]
    return ", ".join(f"{one.title} {one.unit.cell(v)}" for one, v in values if v is not None)


def chosen(records: Sequence[Record], text: str = "usual") -> list[Figure]:
    """Columns of a table.

    Args:
        text: names with commas; `usual` among them stands for what a table has without being
            asked, `all` for whatever was measured.

    Raises:
        InputError: an unknown name; says the nearest.
    """
    known = {figure.name: figure for figure in figures(records)}
    groups = {
        "usual": [one for one in known.values() if one.usual(records)],
        "all": [one for one in known.values() if one.mean(records) is not None],
    }
    wanted: dict[str, Figure] = {}
    for name in (part.strip() for part in text.split(",")):
        if name not in known and name not in groups:
            raise InputError(
                f"there is no column {name!r}; there are {', '.join([*groups, *known])}."
                f"{nearest(name, [*groups, *known])}"
            )
        wanted |= {one.name: one for one in groups.get(name) or [known[name]]}
    order = list(known)
    return sorted(wanted.values(), key=lambda one: order.index(one.name))
