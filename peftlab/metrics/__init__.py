"""Metrics that reproduce the published numbers; see docs/metrics.md.

`score(names, predictions, references)` gives corpus numbers, per-example numbers and the rows that
a bootstrap resamples. Importing this loads no scorer and no torch.
"""

from peftlab.metrics.errors import (
    MetricError,
    MetricInputError,
    MetricOptionError,
    MetricPluginError,
    MetricUnavailableError,
    MetricWarning,
    UnknownMetricError,
)
from peftlab.metrics.registry import (
    Metric,
    MetricSpec,
    Rows,
    build_metric,
    check_metric,
    metric_spec,
    metric_specs,
    metric_title,
    register,
    split_names,
)
from peftlab.metrics.scoring import Scores, aggregate, main_metric, score

__all__ = [
    "Metric",
    "MetricError",
    "MetricInputError",
    "MetricOptionError",
    "MetricPluginError",
    "MetricSpec",
    "MetricUnavailableError",
    "MetricWarning",
    "Rows",
    "Scores",
    "UnknownMetricError",
    "aggregate",
    "build_metric",
    "check_metric",
    "main_metric",
    "metric_spec",
    "metric_specs",
    "metric_title",
    "register",
    "score",
    "split_names",
]
