"""Metrics for Prometheus: what `stats()` tells is what prometheus_client scrapes."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import pytest
import seqrs
from cases import in_child
from seqrs.prometheus import Collector, register

prometheus_client = pytest.importorskip("prometheus_client")
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

BATCHER: dict[str, Any] = {
    "submitted": 20,
    "done": 11,
    "failed": 2,
    "cancelled": 3,
    "expired": 1,
    "refused": 7,
    "waiting": 2,
    "running": 1,
    "batches": 6,
    "batch_sizes": {1: 3, 2: 1, 3: 1, 5: 1},
    "queue_seconds": {"bounds": [0.25, 0.5, 1.0], "counts": [4, 0, 2, 7], "sum": 12.5},
    "latency_seconds": {"bounds": [0.25, 0.5, 1.0], "counts": [1, 2, 3, 7], "sum": 25.0},
    "padding_share": 0.25,
    "padding_cost": 0.125,
}
POOL: dict[str, Any] = {
    "open": 5,
    "capacity": 8,
    "stepping": 2,
    "opened": 9,
    "closed": 3,
    "evicted": 1,
    "refused": 4,
    "steps": 7,
    "failed_steps": 2,
    "stream_steps": 600_030,
    "seconds": 1.5,
    "batch_sizes": {1: 2, 8: 4, 2**19: 1},
    "microseconds": {64: 5, 128: 1, 2**19: 1},
    "bytes": 4096,
}


class Told:
    """A source that tells what it is given."""

    def __init__(self, stats: dict[str, Any]) -> None:
        self.told = stats

    def stats(self) -> dict[str, Any]:
        return self.told


def scraped(registry: Any) -> dict[str, float]:
    """All samples of what /metrics would answer, by name and labels; the label `source` is left out
    where it has its default."""
    text = prometheus_client.generate_latest(registry).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sorted(sample.labels.items()))
            if labels.get("source") == "default":
                del labels["source"]
            words = ",".join(f"{name}={value}" for name, value in labels.items())
            key = sample.name + (f"{{{words}}}" if words else "")
            assert key not in found, key
            found[key] = sample.value
    return found


def of(*sources: Any) -> dict[str, float]:
    registry = prometheus_client.CollectorRegistry()
    for source in sources:
        register(source, registry=registry)
    return scraped(registry)


def single(found: dict[str, float]) -> dict[str, float]:
    """Those that are not of histograms."""
    parts = ("_bucket", "_count", "_sum")
    return {key: n for key, n in found.items() if not key.partition("{")[0].endswith(parts)}


def buckets(found: dict[str, float], name: str) -> dict[float, float]:
    start = f"{name}_bucket{{le="
    return {
        float(key[len(start) : -1]): value for key, value in found.items() if key.startswith(start)
    }


class TestBatcher:
    FOUND = of(Told(BATCHER))

    def test_counters_and_gauges(self) -> None:
        expected = {
            "seqrs_batcher_submitted_total": 20,
            "seqrs_batcher_requests_total{outcome=done}": 11,
            "seqrs_batcher_requests_total{outcome=failed}": 2,
            "seqrs_batcher_requests_total{outcome=cancelled}": 3,
            "seqrs_batcher_requests_total{outcome=expired}": 1,
            "seqrs_batcher_requests_total{outcome=refused}": 7,
            "seqrs_batcher_waiting": 2,
            "seqrs_batcher_running": 1,
            "seqrs_batcher_batches_total": 6,
            "seqrs_batcher_padding_share": 0.25,
            "seqrs_batcher_padding_cost": 0.125,
        }
        assert single(self.FOUND) == expected

    def test_histograms_of_times_have_the_bounds_that_the_numbers_have(self) -> None:
        infinity = float("inf")
        name = "seqrs_batcher_queue_seconds"
        assert buckets(self.FOUND, name) == {0.25: 4, 0.5: 4, 1.0: 6, infinity: 13}
        assert (self.FOUND[f"{name}_count"], self.FOUND[f"{name}_sum"]) == (13, 12.5)
        name = "seqrs_batcher_latency_seconds"
        assert buckets(self.FOUND, name) == {0.25: 1, 0.5: 3, 1.0: 6, infinity: 13}
        assert (self.FOUND[f"{name}_count"], self.FOUND[f"{name}_sum"]) == (13, 25.0)

    def test_sizes_of_batches_are_counted_up_to_powers_of_two(self) -> None:
        found = buckets(self.FOUND, "seqrs_batcher_batch_size")
        assert list(found) == [*(2.0**k for k in range(19)), float("inf")]
        assert [found[bound] for bound in (1, 2, 4, 8, 2**18, float("inf"))] == [3, 4, 5, 6, 6, 6]
        # 3 of one, and one each of two, three and five.
        assert self.FOUND["seqrs_batcher_batch_size_sum"] == 13


class TestPool:
    FOUND = of(Told(POOL))

    def test_counters_and_gauges(self) -> None:
        expected = {
            "seqrs_pool_open": 5,
            "seqrs_pool_capacity": 8,
            "seqrs_pool_stepping": 2,
            "seqrs_pool_streams_total{event=opened}": 9,
            "seqrs_pool_streams_total{event=closed}": 3,
            "seqrs_pool_streams_total{event=evicted}": 1,
            "seqrs_pool_streams_total{event=refused}": 4,
            "seqrs_pool_steps_total{outcome=done}": 7,
            "seqrs_pool_steps_total{outcome=failed}": 2,
            "seqrs_pool_stream_steps_total": 600_030,
            "seqrs_pool_bytes": 4096,
        }
        assert single(self.FOUND) == expected

    def test_the_last_key_has_what_is_larger_too(self) -> None:
        sizes = buckets(self.FOUND, "seqrs_pool_batch_size")
        bounds = (1, 2, 4, 8, 2**18, float("inf"))
        assert [sizes[bound] for bound in bounds] == [2, 2, 2, 6, 6, 7]
        assert self.FOUND["seqrs_pool_batch_size_count"] == POOL["steps"]
        assert self.FOUND["seqrs_pool_batch_size_sum"] == POOL["stream_steps"]

    def test_times_are_in_seconds(self) -> None:
        times = buckets(self.FOUND, "seqrs_pool_step_seconds")
        bounds = [2**k * 1e-6 for k in range(19)]
        assert list(times) == [*bounds, float("inf")]
        found = [times[bound] for bound in (bounds[5], bounds[6], bounds[7], bounds[18])]
        assert found == [0, 5, 6, 6]
        assert times[float("inf")] == self.FOUND["seqrs_pool_step_seconds_count"] == 7
        assert self.FOUND["seqrs_pool_step_seconds_sum"] == 1.5


class TestRealOnes:
    """What batchers and pools tell now is what the metrics are made of, all of it."""

    MODEL = seqrs.Sequential([seqrs.LSTM(3, 4), seqrs.Linear(4, 2)], seed=0)

    def test_a_batcher(self) -> None:
        registry = prometheus_client.CollectorRegistry()
        with seqrs.Batcher(self.MODEL) as batcher:
            register(batcher, registry=registry)
            assert batcher.stats().keys() == BATCHER.keys()
            for _ in range(5):
                batcher.predict(np.zeros((7, 3)))
            with pytest.raises(seqrs.ShapeError):
                batcher.predict(np.zeros((7, 4)))
            found = scraped(registry)
        assert found["seqrs_batcher_submitted_total"] == 6
        assert found["seqrs_batcher_requests_total{outcome=done}"] == 5
        assert found["seqrs_batcher_requests_total{outcome=failed}"] == 1
        assert found["seqrs_batcher_batch_size_sum"] == 5
        assert found["seqrs_batcher_latency_seconds_count"] == 5
        times = list(buckets(found, "seqrs_batcher_latency_seconds"))
        assert times == [*batcher.stats()["latency_seconds"]["bounds"], float("inf")]

    def test_a_pool(self) -> None:
        registry = prometheus_client.CollectorRegistry()
        pool = seqrs.StreamPool(self.MODEL, capacity=4)
        register(pool, registry=registry)
        assert pool.stats().keys() == POOL.keys()
        sids = [pool.open() for _ in range(3)]
        for _ in range(2):
            pool.step(sids, np.zeros((3, 3)))
        pool.close(sids[0])
        found = scraped(registry)
        assert found["seqrs_pool_open"] == 2
        assert found["seqrs_pool_stream_steps_total"] == found["seqrs_pool_batch_size_sum"] == 6
        assert buckets(found, "seqrs_pool_batch_size")[2.0] == 0
        assert buckets(found, "seqrs_pool_batch_size")[4.0] == 2
        assert found["seqrs_pool_step_seconds_sum"] == pool.stats()["seconds"] > 0

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_tells_its_own_numbers(self) -> None:
        with seqrs.Batcher(self.MODEL) as batcher:
            for _ in range(3):
                batcher.predict(np.zeros((7, 3)))

            def job() -> float:
                registry = prometheus_client.CollectorRegistry()
                register(batcher, registry=registry)
                batcher.predict(np.zeros((7, 3)))
                return scraped(registry)["seqrs_batcher_requests_total{outcome=done}"]

            assert in_child(job) == 1
            assert batcher.stats()["done"] == 3


class TestRegistering:
    @pytest.fixture
    def registry(self) -> Any:
        return prometheus_client.CollectorRegistry()

    def test_several_sources_are_told_apart_under_one_name(self, registry: Any) -> None:
        first = register(Told(BATCHER), "a", registry=registry)
        assert register(Told(BATCHER | {"waiting": 9}), "b", registry=registry) is first
        register(Told(POOL), "c", registry=registry)
        found = scraped(registry)
        assert found["seqrs_batcher_waiting{source=a}"] == 2
        assert found["seqrs_batcher_waiting{source=b}"] == 9
        assert found["seqrs_pool_open{source=c}"] == 5
        text = prometheus_client.generate_latest(registry).decode()
        assert text.count("# TYPE seqrs_batcher_waiting gauge") == 1

    def test_numbers_are_those_of_the_moment(self, registry: Any) -> None:
        source = Told(POOL)
        register(source, registry=registry)
        source.told = POOL | {"open": 6}
        assert scraped(registry)["seqrs_pool_open"] == 6

    def test_one_that_was_removed_is_not_read(self, registry: Any) -> None:
        collector = register(Told(POOL), "a", registry=registry)
        register(Told(POOL), "b", registry=registry)
        collector.remove("a")
        found = scraped(registry)
        assert "seqrs_pool_open{source=b}" in found
        assert "seqrs_pool_open{source=a}" not in found
        with pytest.raises(ValueError, match="that of a source, got 'a'"):
            collector.remove("a")
        register(Told(POOL), "a", registry=registry)
        assert "seqrs_pool_open{source=a}" in scraped(registry)

    def test_more_labels(self, registry: Any) -> None:
        labels = {"worker": "3"}
        register(Told(POOL), registry=registry, labels=labels)
        register(Told(BATCHER), "b", registry=registry)
        found = scraped(registry)
        assert found["seqrs_pool_open{worker=3}"] == 5
        assert found["seqrs_batcher_requests_total{outcome=done,source=b,worker=3}"] == 11
        with pytest.raises(ValueError, match=r"labels: expected .*'3'.*, as before, got .*'4'"):
            register(Told(POOL), "other", registry=registry, labels={"worker": "4"})

    def test_a_name_is_taken_once(self, registry: Any) -> None:
        register(Told(POOL), "a", registry=registry)
        with pytest.raises(ValueError, match="one that no other source has, got 'a'"):
            register(Told(BATCHER), "a", registry=registry)

    def test_a_registry_refuses_a_second_collector(self, registry: Any) -> None:
        register(Told(POOL), registry=registry)
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            registry.register(Collector(Told(POOL)))

    def test_registries_are_apart(self, registry: Any) -> None:
        other = prometheus_client.CollectorRegistry()
        assert register(Told(POOL), registry=registry) is not register(Told(POOL), registry=other)

    def test_one_collector_that_others_registered(self, registry: Any) -> None:
        registry.register(Collector(Told(BATCHER), "x"))
        assert scraped(registry)["seqrs_batcher_waiting{source=x}"] == 2

    @pytest.mark.parametrize(
        ("arguments", "options", "error", "message"),
        [
            ((object(),), {}, TypeError, "source: expected a Batcher or StreamPool"),
            ((Told(POOL), 3), {}, TypeError, "name: expected a string, got 3"),
            ((Told(POOL),), {"labels": {"worker": 3}}, TypeError, "worker: expected a string"),
            ((Told(POOL),), {"labels": {3: "a"}}, TypeError, "labels: expected a string, got 3"),
            ((Told(POOL),), {"labels": "worker"}, TypeError, "labels: expected names and values"),
            ((Told(POOL),), {"labels": {"source": "a"}}, ValueError, "labels: 'source' is one"),
            ((Told(POOL),), {"labels": {"le": "a"}}, ValueError, "labels: 'le' is one"),
        ],
    )
    def test_what_is_refused(
        self, arguments: Any, options: Any, error: type[Exception], message: str, registry: Any
    ) -> None:
        with pytest.raises(error, match=message):
            register(*arguments, **options, registry=registry)
        # And nothing was registered.
        assert scraped(registry) == {}
        register(Told(POOL), registry=registry)

    def test_without_the_package_the_message_says_how_to_get_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in [name for name in sys.modules if name.startswith("prometheus_client")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'seqrs\[prometheus\]'"):
            Collector(Told(POOL))
