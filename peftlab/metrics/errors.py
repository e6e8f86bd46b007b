"""Errors of the metrics."""

from __future__ import annotations

from peftlab.errors import InputError, PeftlabError


class MetricError(PeftlabError):
    """A metric cannot be computed."""


class UnknownMetricError(MetricError, InputError):
    """No metric has the name that was asked for."""


class MetricOptionError(MetricError, InputError):
    """An option that the metric does not have, or that cannot be read."""


class MetricInputError(MetricError, InputError):
    """Predictions or references that no metric can score."""


class MetricUnavailableError(MetricError, InputError):
    """Something that the metric needs (a package, a checkpoint, a table) is not installed."""


class MetricPluginError(MetricUnavailableError):
    """The name is known, and the plug-in that brings its code is not installed."""


class MetricWarning(UserWarning):
    """A number, or the lack of one, that means less than it seems to."""
