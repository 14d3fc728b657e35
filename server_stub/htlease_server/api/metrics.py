"""What `/metrics` says, in the text format of Prometheus; it names no workflow and no host.

Everything is read off counters when somebody scrapes: the server's own, and those that the store
keeps for each workflow.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from htlease.rules.state import HELD, Status
from htlease.version import VERSION
from htlease_server.counters import Histogram, RequestCounters
from htlease_server.engine.commit.store_writer import StoreWriter
from htlease_server.http.server import HttpServer

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4.encode()


class Metrics(Collector):
    """The numbers of one server, and of its process."""

    def __init__(
        self, store_writer: StoreWriter, requests: RequestCounters, http_server: HttpServer
    ) -> None:
        self._store_writer = store_writer
        self._requests = requests
        self._http_server = http_server
        self._totals: Mapping[str, int] | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self, totals: Mapping[str, int] | None) -> bytes:
        """Return all numbers as they are now.

        `totals` are the store's subjobs by status, or None when it does not say.
        """
        self._totals = totals
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every family; called by the registry."""
        yield self._build()
        yield from self._answers()
        yield from self._refusing()
        yield from self._writing()
        yield from self._subjobs()

    def _build(self) -> Metric:
        build = GaugeMetricFamily(
            "htlease_build_info",
            "Always 1; says what runs here.",
            labels=("version", "python"),
        )
        build.add_metric((VERSION, platform.python_version()), 1)
        return build

    def _answers(self) -> Iterator[Metric]:
        answers = CounterMetricFamily(
            "htlease_requests",
            "Requests answered, by call and by `ok` or the code of the refusal.",
            labels=("call", "code"),
        )
        for (call, code), count in sorted(self._requests.answers.copy().items()):
            answers.add_metric((call, code), count)
        yield answers
        seconds = HistogramMetricFamily(
            "htlease_request_duration_seconds",
            "From a request's head to its answer, waiting for the writer and the disk included.",
            labels=("call",),
        )
        for call, histogram in sorted(self._requests.seconds.copy().items()):
            seconds.add_metric((call,), *_buckets(histogram))
        yield seconds

    def _refusing(self) -> Iterator[Metric]:
        http_server = self._http_server
        causes = {**self._requests.busy, **self._store_writer.refused}
        answers = self._requests.answers.copy().items()
        told = sum(count for (_, code), count in answers if code == "overloaded")
        causes["other"] = told - sum(causes.values())
        # These have no whole request that could be counted as answered.
        causes |= {"connections": http_server.rejected, "memory": http_server.refused_for_memory}
        refusals = CounterMetricFamily(
            "htlease_overloaded",
            "Refusals with 503 by what there was too much of; `other` is the store above all.",
            labels=("cause",),
        )
        for cause, count in causes.items():
            refusals.add_metric((cause,), count)
        yield refusals
        yield GaugeMetricFamily(
            "htlease_connections", "Connections that are open.", len(http_server.connections)
        )
        yield GaugeMetricFamily(
            "htlease_connections_max", "Connections that may be open.", http_server.connections_max
        )
        yield CounterMetricFamily(
            "htlease_connections_evicted", "Idle ones closed to make room.", http_server.evicted
        )

    def _writing(self) -> Iterator[Metric]:
        store_writer, commits = self._store_writer, self._store_writer.commits
        for name, says, histogram in (
            ("htlease_commit_duration_seconds", "Making one batch durable.", commits.seconds),
            ("htlease_commit_requests", "Requests in one batch.", commits.requests),
        ):
            family = HistogramMetricFamily(name, says, labels=())
            family.add_metric((), *_buckets(histogram))
            yield family
        yield CounterMetricFamily(
            "htlease_commit_failures", "Batches that the store refused.", commits.failed
        )
        for name, says, value in (
            ("htlease_queued_requests", "Requests waiting for the writer.", store_writer.queued),
            (
                "htlease_cached_subjobs",
                "Subjobs in the writer's memory.",
                len(store_writer.states.cache),
            ),
            (
                "htlease_unflushed_renewals",
                "Renewals answered and not on the disk yet.",
                len(store_writer.states.unflushed),
            ),
            (
                "htlease_store_failing",
                "1 while the store takes no writes.",
                int(store_writer.failure is not None),
            ),
            (
                "htlease_store_last_write_timestamp_seconds",
                "When a batch was last made durable; an idle server writes every few seconds.",
                commits.written_at,
            ),
        ):
            yield GaugeMetricFamily(name, says, value)

    def _subjobs(self) -> Iterator[Metric]:
        if self._totals is None:
            return
        subjobs = GaugeMetricFamily(
            "htlease_subjobs",
            "Subjobs in the store, by stored status; a lapsed lease counts until it is taken.",
            labels=("status",),
        )
        for status in Status:
            if status is not Status.LAPSED:
                subjobs.add_metric((status.value,), self._totals.get(status.value, 0))
        yield subjobs
        held = sum(self._totals.get(status.value, 0) for status in HELD)
        yield GaugeMetricFamily(
            "htlease_held_leases", "Leases that nobody gave up, lapsed ones included.", held
        )


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Return the cumulated buckets and the sum, as a family takes them."""
    counts = itertools.accumulate(histogram.counts.copy())
    names = [*map(str, histogram.bounds), "+Inf"]
    return list(zip(names, map(float, counts), strict=True)), histogram.total
