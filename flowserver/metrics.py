"""What this process counts and measures, in a registry of its own: an application's, not the process's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from flowserver.outbound_pool import Usage

PREFIX = "flowserver"
LOOK = 0.25
"""Seconds between two looks how late the event loop is."""

_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LONG = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

_Kind = TypeVar("_Kind", Counter, Gauge, Histogram)


class Metrics:
    """One attribute per metric; docs/operations.md says what each means. Any thread may count."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        count, gauge, measure = self._count, self._gauge, self._measure

        self.runs_started = count("runs_started", "Runs whose execution began in this process.")
        self.runs_finished = count("runs_finished", "Runs that this process gave a final status.", "status")
        self.runs_asked = count("runs_asked", "How often a run stopped here to wait for answers.")
        self.runs_executing = gauge("runs_executing", "Runs that this process executes now.")
        self.recoveries = count("recoveries", "Runs taken up here after another execution of them broke off.")
        self.leases_lost = count("leases_lost", "Executions that ended because the run was lost.")

        self.events_written = count("events_written", "Events of executions here that were committed.")
        self.event_lag = measure(
            "event_lag_seconds", "From the first event of a batch being told to its commit.", _SHORT
        )
        self.journal_batch = measure("journal_batch_events", "Events written in one commit.", _SIZES)

        self.step = measure("step_seconds", "Attempts of steps.", _LONG, "type", "outcome")
        self._steps: dict[tuple[str, str], Histogram] = {}
        self.model_call = measure("model_call_seconds", "Calls of chat models.", _LONG, "outcome")
        self.model_tokens = count("model_tokens", "Tokens of chat models.", "direction")

        self.http_request = measure(
            "http_request_seconds",
            "From a request to the start of its answer.",
            _SHORT,
            "route",
            "method",
            "status",
        )
        self.event_streams = gauge("event_streams", "Streams of events that clients have open.")
        self.loop_lag = measure("event_loop_lag_seconds", "How late the event loop does what is due.", _SHORT)
        self.loop_stalls = count(
            "event_loop_stalls",
            "How often the event loop stood still, by the function that it was in.",
            "where",
        )
        self.loop_stalled = count("event_loop_stalled_seconds", "How long the event loop stood still in all.")
        self._show_zeros()

    def claimed(self, epoch: int, attempt: int) -> None:
        """A run is executed here from now on."""
        if epoch == 1:
            self.runs_started.inc()
        if attempt > 1:
            self.recoveries.inc()

    def committed(self, events: int, since: float) -> None:
        """A batch of events is in the database, told since that time of `time.monotonic`."""
        self.event_lag.observe(time.monotonic() - since)
        self.events_written.inc(events)
        self.journal_batch.observe(events)

    def step_ended(self, type: str, outcome: str, seconds: float) -> None:
        """An attempt of a step of this node type is over."""
        step = self._steps.get((type, outcome))
        if step is None:  # to look a label up takes as long as to count
            step = self._steps[type, outcome] = self.step.labels(type, outcome)
        step.observe(seconds)

    def pool(self, stats: Callable[[], Mapping[str, int]]) -> None:
        """Show the numbers of the connection pool, as psycopg_pool counts them."""
        self.registry.register(_Pool(stats))

    def outbound(self, usage: Callable[[], Mapping[str, Usage]]) -> None:
        """Show how many outgoing connections there are, by the hosts that they go to."""
        self.registry.register(_Outbound(usage))

    @asynccontextmanager
    async def watching_the_loop(self) -> AsyncIterator[None]:
        """Measure how late the event loop is, meanwhile."""
        watching = asyncio.create_task(self._watch_the_loop())
        try:
            yield
        finally:
            watching.cancel()

    async def _watch_the_loop(self) -> None:
        while True:
            due = time.monotonic() + LOOK
            await asyncio.sleep(LOOK)
            self.loop_lag.observe(max(time.monotonic() - due, 0.0))

    def _show_zeros(self) -> None:
        """What has not happened yet is 0, not absent: a rate needs a first value."""
        for status in ("succeeded", "failed", "cancelled"):
            self.runs_finished.labels(status)
        for outcome in ("succeeded", "failed"):
            self.model_call.labels(outcome)
        for direction in ("input", "output"):
            self.model_tokens.labels(direction)

    def _count(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, namespace=PREFIX, registry=self.registry)

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(name, about, namespace=PREFIX, registry=self.registry)

    def _measure(self, name: str, about: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, about, labels, namespace=PREFIX, registry=self.registry, buckets=buckets)


class _Pool(Collector):
    """The connection pool's own numbers, read when somebody asks."""

    GAUGES: Mapping[str, tuple[str, str, float]] = {
        "pool_size": ("connections", "Connections of the pool.", 1),
        "pool_available": ("connections_idle", "Connections of the pool that nobody uses.", 1),
        "pool_max": ("connections_max", "Connections that the pool may have.", 1),
        "requests_waiting": ("waiting", "Who waits for a connection now.", 1),
    }
    COUNTERS: Mapping[str, tuple[str, str, float]] = {
        "requests_num": ("requests", "Connections asked for.", 1),
        "requests_queued": ("waits", "Connections that had to be waited for.", 1),
        "requests_wait_ms": ("wait_seconds", "Time spent waiting for connections.", 0.001),
        "requests_errors": ("errors", "Connections that could not be had in time.", 1),
        "connections_errors": ("connect_errors", "Attempts to connect that failed.", 1),
        "connections_lost": ("connections_lost", "Connections that were found broken.", 1),
    }

    def __init__(self, stats: Callable[[], Mapping[str, int]]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        for key, (name, about, unit) in self.GAUGES.items():
            yield GaugeMetricFamily(f"{PREFIX}_pool_{name}", about, stats.get(key, 0) * unit)
        for key, (name, about, unit) in self.COUNTERS.items():
            yield CounterMetricFamily(f"{PREFIX}_pool_{name}", about, stats.get(key, 0) * unit)


class _Outbound(Collector):
    """The outgoing connections, counted when somebody asks."""

    GAUGES: Mapping[str, tuple[str, Callable[[Usage], int]]] = {
        "in_use": ("Outgoing connections that a request uses.", lambda usage: usage.in_use),
        "idle": ("Outgoing connections that are kept for the next request.", lambda usage: usage.idle),
        "max": ("Outgoing connections that there may be.", lambda usage: usage.size),
    }

    def __init__(self, usage: Callable[[], Mapping[str, Usage]]) -> None:
        self._usage = usage

    def collect(self) -> Iterator[Metric]:
        usage = self._usage()
        for name, (about, number) in self.GAUGES.items():
            family = GaugeMetricFamily(f"{PREFIX}_outbound_connections_{name}", about, labels=["hosts"])
            for hosts, each in usage.items():
                family.add_metric([hosts], number(each))
            yield family
