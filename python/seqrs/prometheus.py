"""Metrics of batchers and pools of streams for Prometheus, through its package prometheus_client.

>>> seqrs.prometheus.register(batcher, "classify")         # into prometheus_client.REGISTRY
>>> seqrs.prometheus.register(pool, "speech")              # another of the same registry
>>> text = prometheus_client.generate_latest().decode()    # what /metrics answers
>>> 'seqrs_batcher_requests_total{outcome="done",source="classify"}' in text
True

Nothing is counted here: when Prometheus scrapes, `stats()` is read and written as counters, gauges
and histograms, with the buckets that the numbers have. So it costs nothing between scrapes, and
what is scraped belongs together.

Each process has its own numbers. A forked worker registers after the fork, and is best scraped at a
port of its own; where workers share a port, whichever answers tells its own numbers, and
`labels={"worker": str(os.getpid())}` keeps them apart. The multiprocess mode of prometheus_client
(PROMETHEUS_MULTIPROC_DIR) adds up only what its own classes write into files: a registry with its
MultiProcessCollector has none of these metrics.

It needs the package: `pip install 'seqrs[prometheus]'`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from .options import shown, text

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

__all__ = ["Collector", "register"]


class Source(Protocol):
    """What metrics are read from: a `Batcher`, a `StreamPool`."""

    def stats(self) -> dict[str, Any]:
        """Numbers by name."""


class _Family(NamedTuple):
    """Metrics of one name."""

    #: counter, gauge or histogram.
    kind: str
    name: str
    documentation: str
    #: Keys of the dict. Those of a counter with a label have its value besides.
    keys: Mapping[str, str]
    #: The label that tells the keys apart, where there are several.
    label: str = ""
    #: For a histogram of {2**k: how many}: what a unit of the keys is, and the key of the sum.
    unit: float = 1.0
    sum_of: str = ""


def _one(kind: str, name: str, documentation: str, key: str, **options: Any) -> _Family:
    return _Family(kind, name, documentation, {key: ""}, **options)


#: What `Batcher.stats` tells.
_BATCHER = (
    _one("counter", "seqrs_batcher_submitted", "Requests that were taken.", "submitted"),
    _Family(
        "counter",
        "seqrs_batcher_requests",
        "Requests that are over, by how they ended, and those that were refused.",
        {key: key for key in ("done", "failed", "cancelled", "expired", "refused")},
        label="outcome",
    ),
    _one("gauge", "seqrs_batcher_waiting", "Requests that wait.", "waiting"),
    _one("gauge", "seqrs_batcher_running", "Requests that are being computed.", "running"),
    _one("counter", "seqrs_batcher_batches", "Batches that were computed.", "batches"),
    _one("histogram", "seqrs_batcher_batch_size", "Requests of a batch.", "batch_sizes"),
    _one(
        "histogram",
        "seqrs_batcher_queue_seconds",
        "From being asked to the beginning of the computation.",
        "queue_seconds",
    ),
    _one(
        "histogram",
        "seqrs_batcher_latency_seconds",
        "From being asked to the answer.",
        "latency_seconds",
    ),
    _one(
        "gauge",
        "seqrs_batcher_padding_share",
        "Share of the places of all batches that are past the length of a request.",
        "padding_share",
    ),
    _one(
        "gauge",
        "seqrs_batcher_padding_cost",
        "Share of the time that batches lose to unequal lengths, estimated.",
        "padding_cost",
    ),
)

#: What `StreamPool.stats` tells.
_POOL = (
    _one("gauge", "seqrs_pool_open", "Streams that are open.", "open"),
    _one("gauge", "seqrs_pool_capacity", "Streams that may be open.", "capacity"),
    _one("gauge", "seqrs_pool_stepping", "Streams that are being stepped.", "stepping"),
    _Family(
        "counter",
        "seqrs_pool_streams",
        "Streams by what happened to them.",
        {key: key for key in ("opened", "closed", "evicted", "refused")},
        label="event",
    ),
    _Family(
        "counter",
        "seqrs_pool_steps",
        "Calls of step by how they ended.",
        {"steps": "done", "failed_steps": "failed"},
        label="outcome",
    ),
    _one(
        "counter",
        "seqrs_pool_stream_steps",
        "Steps that succeeded, counted for each stream.",
        "stream_steps",
    ),
    _one(
        "histogram",
        "seqrs_pool_batch_size",
        "Streams of a step that succeeded.",
        "batch_sizes",
        sum_of="stream_steps",
    ),
    _one(
        "histogram",
        "seqrs_pool_step_seconds",
        "How long a step took that succeeded.",
        "microseconds",
        unit=1e-6,
        sum_of="seconds",
    ),
    _one("gauge", "seqrs_pool_bytes", "Memory of the pool.", "bytes"),
)

#: Bounds of a histogram of {2**k: how many}: its last key, 2**19, has all that is larger too.
_POWERS = [2**k for k in range(19)]


def _client() -> Any:
    """The package, which only those have who asked for it."""
    try:
        import prometheus_client.core
        import prometheus_client.utils
    except ModuleNotFoundError as error:
        message = "prometheus_client: expected the package (pip install 'seqrs[prometheus]')"
        raise ModuleNotFoundError(f"{message}, got none", name=error.name) from error
    return prometheus_client


class Collector:
    """Reads batchers and pools whenever its registry is collected.

    A registry takes one collector of these names, so several sources are added to one. `register`
    does both.

    Args:
        source: a `Batcher` or a `StreamPool`, or whatever has their `stats()`.
        name: the value of the label `source`, which tells the sources of a collector apart.
        labels: more labels, such as {"worker": "3"}; the same for all sources.

    Raises:
        ModuleNotFoundError: the package prometheus_client is not installed.
        TypeError: the source has no `stats()`; a label is not text.
        ValueError: a label is one that the metrics have themselves.
    """

    def __init__(
        self, source: Source, name: str = "default", *, labels: Mapping[str, str] | None = None
    ) -> None:
        _client()
        if labels is not None and not isinstance(labels, Mapping):
            raise TypeError(f"labels: expected names and values, got {shown(labels)}")
        given = (labels or {}).items()
        self._labels = {text("labels", key): text(key, value) for key, value in given}
        if taken := self._labels.keys() & {"source", "outcome", "event", "le"}:
            raise ValueError(f"labels: {shown(sorted(taken)[0])} is one that the metrics have")
        self._sources: dict[str, Source] = {}
        # Sources come and go while another thread collects.
        self._changing = threading.Lock()
        self.add(source, name)

    def add(self, source: Source, name: str) -> None:
        """Reads this one too.

        Raises:
            TypeError: it has no `stats()`.
            ValueError: another one has the name.
        """
        if not callable(getattr(source, "stats", None)):
            raise TypeError(f"source: expected a Batcher or StreamPool, got {shown(source)}")
        name = text("name", name)
        with self._changing:
            if name in self._sources:
                raise ValueError(f"name: expected one that no other source has, got {name!r}")
            self._sources = {**self._sources, name: source}

    def remove(self, name: str) -> None:
        """Reads it no more, and lets go of it.

        Raises:
            ValueError: no source has the name.
        """
        with self._changing:
            if name not in self._sources:
                raise ValueError(f"name: expected that of a source, got {shown(name)}")
            self._sources = {each: s for each, s in self._sources.items() if each != name}

    def collect(self) -> Iterator[Metric]:
        """The metrics of now; registries call it."""
        found = [(name, source.stats()) for name, source in self._sources.items()]
        for families, mine in ((_BATCHER, "batches"), (_POOL, "stream_steps")):
            told = [(name, stats) for name, stats in found if mine in stats]
            if told:
                yield from (self._metric(family, told) for family in families)

    def describe(self) -> Iterator[Metric]:
        """The names of all metrics, so that a registry refuses others of the same names."""
        return (self._metric(family, []) for family in _BATCHER + _POOL)

    def _metric(self, family: _Family, told: Sequence[tuple[str, dict[str, Any]]]) -> Any:
        core = _client().core
        classes = {
            "counter": core.CounterMetricFamily,
            "gauge": core.GaugeMetricFamily,
            "histogram": core.HistogramMetricFamily,
        }
        names = [*([family.label] if family.label else []), "source", *self._labels]
        metric: Any = classes[family.kind](family.name, family.documentation, labels=names)
        for source, stats in told:
            for key, value in family.keys.items():
                labels = [*([value] if family.label else []), source, *self._labels.values()]
                if family.kind == "histogram":
                    metric.add_metric(labels, *_histogram(family, stats[key], stats))
                else:
                    metric.add_metric(labels, stats[key])
        return metric


def register(
    source: Source,
    name: str = "default",
    *,
    registry: CollectorRegistry | None = None,
    labels: Mapping[str, str] | None = None,
) -> Collector:
    """Adds a batcher or a pool to a registry, once in each process and after it was forked.

    Args:
        source, name, labels: as for `Collector`.
        registry: a `prometheus_client.CollectorRegistry`. None: `prometheus_client.REGISTRY`.

    Returns:
        The registry's collector: the first call makes it, those that follow add to it.

    Raises:
        ModuleNotFoundError, TypeError: as for `Collector`.
        ValueError: another source of the registry has the name; the labels are not those of the
            first call; or the registry has metrics of these names that others registered.
    """
    if registry is None:
        registry = _client().REGISTRY
    with _REGISTERING:
        collector = _OF_REGISTRIES.get(registry)
        if collector is None:
            collector = Collector(source, name, labels=labels)
            registry.register(collector)
            _OF_REGISTRIES[registry] = collector
            return collector
    if labels is not None and dict(labels) != collector._labels:
        raise ValueError(f"labels: expected {collector._labels}, as before, got {shown(labels)}")
    collector.add(source, name)
    return collector


_REGISTERING = threading.Lock()
_OF_REGISTRIES: WeakKeyDictionary[CollectorRegistry, Collector] = WeakKeyDictionary()


def _histogram(
    family: _Family, told: Mapping[Any, Any], stats: Mapping[str, Any]
) -> tuple[list[tuple[str, float]], float]:
    """Buckets, each with all that is up to its bound, and the sum."""
    if "bounds" in told:
        bounds, each, total = list(told["bounds"]), list(told["counts"]), told["sum"]
    else:
        bounds = [bound * family.unit for bound in _POWERS]
        each = [0] * (len(bounds) + 1)
        for size, count in told.items():
            # The first power that is not below it.
            each[min((size - 1).bit_length(), len(bounds))] += count
        exact = sum(size * count for size, count in told.items())
        total = stats[family.sum_of] if family.sum_of else exact
    written = _client().utils.floatToGoString
    buckets, below = [], 0
    for bound, count in zip([*bounds, float("inf")], each, strict=True):
        below += count
        buckets.append((written(bound), below))
    return buckets, total
