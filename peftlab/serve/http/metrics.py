"""Numbers for Prometheus, in a registry of the server's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from peftlab.serve.engine import Engine
from peftlab.serve.limits import Stats
from peftlab.serve.request import Reply

if TYPE_CHECKING:
    from peftlab.serve.library import Listed

_OTHERS = "_others"
_FAST = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SLOW = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 300)
_INERTIA = 0.9  # of the mean time that a reply takes


class Metrics:
    """What is counted at each reply, and what is read off the engine when somebody asks.

    Args:
        labels: adapters with series of their own; the others are counted together.

    Attributes:
        usual_seconds: that a reply takes once it runs, a running mean.
    """

    def __init__(self, engine: Engine, labels: int) -> None:
        self.registry = CollectorRegistry()
        self.usual_seconds = 1.0
        self._labels, self._own = labels, set[str]()
        ProcessCollector(registry=self.registry)
        self.registry.register(_OfEngine(engine, self._label))
        self._tokens = self._counter("tokens_total", "Tokens produced.")
        self._prompts = self._counter("prompt_tokens_total", "Tokens of prompts.")
        self._waited = self._histogram("waiting_seconds", "Until a request ran.", _SLOW)
        self._first = self._histogram(
            "first_token_seconds", "Until the first token, waiting included.", _SLOW
        )
        self._each = self._histogram("token_seconds", "From one token to the next.", _FAST)
        self._whole = self._histogram("reply_seconds", "Until the end of a reply.", _SLOW)
        self._answers = Counter(
            "peftlab_http_requests_total", "Answers.", ("path", "method", "status"),
            registry=self.registry,
        )  # fmt: skip

    def _counter(self, name: str, words: str) -> Counter:
        return Counter(f"peftlab_adapter_{name}", words, ("adapter",), registry=self.registry)

    def _histogram(self, name: str, words: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"peftlab_{name}", words, ("adapter",), registry=self.registry, buckets=buckets
        )

    def _label(self, adapter: str) -> str:
        if adapter not in self._own and len(self._own) >= self._labels:
            return _OTHERS
        self._own.add(adapter)
        return adapter

    def finished(self, adapter: str, reply: Reply) -> None:
        """Count a whole reply."""
        label = self._label(adapter)
        self._tokens.labels(label).inc(len(reply.tokens))
        self._prompts.labels(label).inc(reply.prompt_tokens)
        self._waited.labels(label).observe(reply.waited)
        self._whole.labels(label).observe(reply.seconds)
        ran = reply.seconds - reply.waited
        self.usual_seconds = _INERTIA * self.usual_seconds + (1 - _INERTIA) * ran
        if reply.first is not None:
            self._first.labels(label).observe(reply.first)
            if len(reply.tokens) > 1:
                between = (reply.seconds - reply.first) / (len(reply.tokens) - 1)
                self._each.labels(label).observe(between)

    def answered(self, path: str, method: str, status: int) -> None:
        """Count an answer over HTTP."""
        self._answers.labels(path, method, str(status)).inc()


class _OfEngine(Collector):
    """The engine's own numbers, as they are now."""

    def __init__(self, engine: Engine, label: object) -> None:
        self._engine, self._label = engine, label

    def describe(self) -> list[Metric]:
        """Nothing, so that registering asks nothing of the engine."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        stats = self._engine.stats()
        yield from _gauges(stats, self._engine.library.adapters())
        yield from _totals(stats)
        ended = CounterMetricFamily(
            "peftlab_requests", "Requests that have ended.", labels=("adapter", "how")
        )
        sums: dict[tuple[str, str], int] = {}
        for (adapter, how), count in stats.finished.items():
            key = (self._label(adapter), how)  # type: ignore[operator]
            sums[key] = sums.get(key, 0) + count
        for key, count in sums.items():
            ended.add_metric(key, count)
        yield ended


def _gauges(stats: Stats, adapters: list[Listed]) -> Iterator[Metric]:
    loaded = [it.size for it in adapters if it.size is not None]
    values = {
        "queue": ("Requests that wait.", stats.waiting),
        "batch_rows": ("Rows of the running batch.", stats.running),
        "batch_slots": ("Most rows of the batch.", stats.slots),
        "cache_bytes": ("Memory of keys and values.", stats.cache_bytes),
        "prompt_cache_bytes": ("Memory of what is kept of prompts.", stats.reused.bytes),
        "adapters_known": ("Adapters that can be asked for.", len(adapters)),
        "adapters_loaded": ("Adapters in memory.", len(loaded)),
        "adapters_bytes": ("Memory of adapters.", sum(loaded)),
    }
    if torch.cuda.is_available():
        taken = torch.cuda.memory_allocated()
        values["device_bytes"] = ("Memory that tensors take on the accelerator.", taken)
    for name, (words, value) in values.items():
        yield GaugeMetricFamily(f"peftlab_{name}", words, value)


def _totals(stats: Stats) -> Iterator[Metric]:
    reused = stats.reused
    for name, words, value in (
        ("steps", "Steps of the batch.", stats.steps),
        ("tokens", "Tokens produced.", stats.tokens),
        ("prompt_tokens", "Prompt tokens read, without prepared starts.", stats.prompt_tokens),
        ("prompt_cache_queries", "Prompts that were looked up.", reused.queries),
        ("prompt_cache_hits", "Prompts whose start was known.", reused.hits),
        ("prompt_cache_tokens", "Prompt tokens known, and not read again.", reused.tokens),
    ):
        yield CounterMetricFamily(f"peftlab_{name}", words, value)
