"""The registry of metrics: what exists, which way is better, in which unit, and how to build it.

A metric turns a corpus into one row of numbers per example (its *sufficient statistics*) and rows
into the corpus number. Both the reported score and a bootstrap over examples go through the same
`aggregate`, so they cannot disagree.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module
from importlib.metadata import entry_points
from inspect import signature
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from peftlab.errors import nearest
from peftlab.metrics.errors import (
    MetricOptionError,
    MetricPluginError,
    MetricUnavailableError,
    MetricWarning,
    UnknownMetricError,
)

Rows = npt.NDArray[np.float64]
"""Sufficient statistics, [examples, width of the metric]."""

PLUGIN_GROUP = "peftlab.metrics"


class Metric(Protocol):
    """Something that scores predictions against references."""

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """Rows of sufficient statistics, one per example, in order.

        What depends on the whole corpus (NIST's information weights, CIDEr's document
        frequencies) is taken from the corpus given here and stays fixed when rows are resampled.
        """

    def aggregate(self, rows: Rows) -> float:
        """The corpus number of these rows; of one row, that example's own score."""


@dataclass(frozen=True)
class MetricSpec:
    """One entry of the registry.

    factory: a callable or "module:attribute", imported at first use, so that listing metrics loads
        no scorer; it is called with `settings` and the options that the user gives. None where the
        name is ours and a plug-in brings the code.
    title: what people call it; by default made of the name.
    digits: decimals that are shown.
    extra: the optional dependency group that it needs (pip install 'peftlab[extra]').
    loads_checkpoint: making it loads a model, so nothing does so before there is text to score.
    of_one_example: what a corpus of one example always scores, where that is a constant.
    of_choices: rows come from the likelihoods of options (`peftlab.choosing`), never from texts.
    """

    name: str
    description: str
    factory: str | Callable[..., Metric] | None = None
    scale: str = "0–1"
    higher_is_better: bool = True
    settings: tuple[tuple[str, object], ...] = ()
    extra: str | None = None
    title: str = ""
    digits: int = 3
    loads_checkpoint: bool = False
    of_one_example: str | None = None
    of_choices: bool = False

    def __post_init__(self) -> None:
        if not self.title:
            object.__setattr__(self, "title", self.name.replace("_", " "))

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest score that `scale` speaks of; infinite where it names none."""
        low = re.match(r"(−?\d+)–", self.scale) or re.search(r"from (\d+)$", self.scale)
        high = re.fullmatch(r"(?:−?\d+–|up to )(\d+)", self.scale)
        return (
            float(low[1].replace("−", "-")) if low else -math.inf,
            float(high[1]) if high else math.inf,
        )

    def build(self, **options: object) -> Metric:
        """Make the metric.

        Raises:
            MetricOptionError: an option that this metric does not have.
            MetricUnavailableError: the packages of its extra are not installed.
        """
        return self._bound(options)()

    def check(self, **options: object) -> None:
        """Raise what `build` would, without loading a checkpoint."""
        make = self._bound(options)
        if not self.loads_checkpoint:
            make()

    def _bound(self, options: Mapping[str, object]) -> Callable[[], Metric]:
        make = self._load()
        arguments = {**dict(self.settings), **options}
        try:
            signature(make).bind(**arguments)
        except TypeError as error:
            raise MetricOptionError(
                f"metric {self.name!r} does not take the options {sorted(options)}: {error}"
            ) from error
        return partial(make, **arguments)

    def _load(self) -> Callable[..., Metric]:
        if self.factory is None:
            raise MetricPluginError(
                f"metric {self.name!r} comes with a package of its own, which is not installed; run"
                f" pip install 'peftlab[{self.extra}]'"
            )
        if not isinstance(self.factory, str):
            return self.factory
        module, _, attribute = self.factory.partition(":")
        try:
            return cast(Callable[..., Metric], getattr(import_module(module), attribute))
        except ModuleNotFoundError as error:
            if self.extra is None:
                raise
            raise MetricUnavailableError(
                f"metric {self.name!r} needs the package {error.name!r}, which is not installed;"
                f" run pip install 'peftlab[{self.extra}]'"
            ) from error


_REGISTRY: dict[str, MetricSpec] = {}


def register(spec: MetricSpec) -> MetricSpec:
    """Add a metric, or the code of one that is known without; a name that is taken is an error."""
    known = _REGISTRY.get(spec.name)
    if known is not None and known.factory is None:
        spec = replace(known, factory=spec.factory, settings=spec.settings)
    elif known is not None:
        raise ValueError(f"a metric named {spec.name!r} is already registered")
    _REGISTRY[spec.name] = spec
    return spec


def registered(name: str) -> MetricSpec:
    """An entry that was registered before; `metric_spec` finds all."""
    return _REGISTRY[name]


@cache
def _load_all() -> None:
    """Fill the registry: our own table first, then plug-ins by entry point."""
    import_module("peftlab.metrics.catalogue")
    for entry in entry_points(group=PLUGIN_GROUP):
        try:
            register(cast(MetricSpec, entry.load()))
        except Exception as error:  # a stranger's code: it may raise anything
            warnings.warn(
                f"the plug-in {entry.value!r} does not load, so the metric {entry.name!r} is"
                f" missing: {type(error).__name__}: {error}",
                MetricWarning,
                stacklevel=2,
            )


def metric_specs() -> tuple[MetricSpec, ...]:
    """All known metrics, in the order in which they were registered."""
    _load_all()
    return tuple(_REGISTRY.values())


def metric_spec(name: str) -> MetricSpec:
    """The entry of that name (options after a colon are ignored).

    Raises:
        UnknownMetricError: no metric has that name; says the nearest one.
    """
    _load_all()
    bare = name.partition(":")[0]
    if bare not in _REGISTRY:
        raise UnknownMetricError(
            f"Unknown metric {bare!r}.{nearest(bare, _REGISTRY)} Known: {', '.join(_REGISTRY)}."
        )
    return _REGISTRY[bare]


def build_metric(name: str) -> Metric:
    """The metric of a name such as "bleu" or "bertscore:model=roberta-large:layer=17"."""
    return metric_spec(name).build(**_options(name))


def check_metric(name: str) -> None:
    """Raise what would keep this metric from scoring: name, options, packages, tables.

    Checkpoints of models are not loaded, so one that is missing is found when there is text.
    """
    metric_spec(name).check(**_options(name))


def metric_title(name: str) -> str:
    """What people call a metric: "rouge1:tokenizer=unicode" → "ROUGE-1 (tokenizer=unicode)".

    A name that is not known (of a plug-in that was there once) is its own title.
    """
    bare, _, options = name.partition(":")
    try:
        title = metric_spec(bare).title
    except UnknownMetricError:
        return name
    return f"{title} ({options.replace(':', ' ')})" if options else title


def split_names(text: str) -> list[str]:
    """Cut "bleu,nist,bertscore:model=a" into names; blanks around them are dropped."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _options(name: str) -> dict[str, object]:
    """Options of "name:key=value:key=value"; a value may hold colons (a URL, a drive letter)."""
    parts: Iterable[str] = re.split(r":(?=\w+=)", name)[1:]
    pairs = (part.partition("=") for part in parts)
    options: dict[str, object] = {key: _literal(value) for key, _, value in pairs}
    if not options and ":" in name:
        raise MetricOptionError(
            f"cannot read the options of {name!r}: expected name:key=value[:key=value …]"
        )
    return options


def _literal(text: str) -> object:
    """An integer, a float, a truth value, or the text itself."""
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
