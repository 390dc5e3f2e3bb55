"""One execution of a run as metrics, traces and the log see it: what its journal and steps tell, measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flowserver.events import FINAL
from flowserver.logs import run_id
from flowserver.metrics import Metrics
from flowserver.model_calls import ModelCalls, calls, step_span
from graphs.runtime import Place, Reporter
from nodes.contract import NodeType

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from flowserver.tracing import Traces

caller: ContextVar[Mapping[str, str]] = ContextVar("caller", default=MappingProxyType({}))
"""The headers of the HTTP request that started what runs here which tell its trace."""

_STATUS = {type: status for status, type in FINAL.items()}


@dataclass(slots=True)
class _Acting:
    """A step that has started and not yet ended."""

    type: str
    began: float
    span: Span | None


class Observation:
    """What is seen of one execution."""

    def __init__(self, metrics: Metrics, traces: Traces | None, span: Span | None) -> None:
        self._metrics = metrics
        self._traces = traces
        self._span = span
        self._acting: dict[str, _Acting] = {}
        self._calls = ModelCalls(metrics, traces)
        self.outcome = "left"
        """`succeeded`, `failed`, `cancelled` or `waiting` once that is in the database; `lost` to another
        process; `left` to whoever claims the run next."""
        self._error: str | None = None

    def committed(self, events: Sequence[tuple[str, Mapping[str, Any]]], since: float) -> None:
        """The journal has written `events`, of which the first has waited `since` then."""
        self._metrics.committed(len(events), since)
        type, data = events[-1]  # nothing comes after what ends an execution
        if type == "run.waiting":
            self.outcome = "waiting"
            self._metrics.runs_asked.inc()
        elif type in _STATUS:
            self.outcome = _STATUS[type]
            self._error = (data.get("error") or {}).get("code")
            self._metrics.runs_finished.labels(self.outcome).inc()

    def lost(self) -> None:
        """Another process may have the run."""
        if self.outcome == "left":
            self.outcome = "lost"

    def started(self, place: Place, node_type: NodeType) -> None:
        if not node_type.is_step:  # a provider is made in no time, inside the step that uses it
            return
        span = None
        if self._traces is not None and self._span is not None:
            span = self._traces.step(self._around(place), place, node_type.name)
        self._acting[place.key] = _Acting(node_type.name, time.monotonic(), span)
        # A step that runs other steps calls no models itself; one without an effect calls none at all.
        talks = node_type.effect and node_type.calls is None and node_type.body is None
        calls.set(self._calls if talks else None)
        step_span.set(span if talks else None)

    def ended(self, place: Place, outcome: str, code: str | None = None) -> None:
        if (acting := self._acting.pop(place.key, None)) is None:
            return
        calls.set(None)
        step_span.set(None)
        self._metrics.step_ended(acting.type, outcome, time.monotonic() - acting.began)
        if self._traces is not None and acting.span is not None:
            self._traces.end(acting.span, "flowserver.step.status", outcome, code)

    def close(self) -> None:
        """The execution is over; steps that have not ended wait for an answer, or were broken off."""
        self._calls.close()
        if self.outcome == "lost":
            self._metrics.leases_lost.inc()
        if self._traces is None or self._span is None:
            return
        for acting in reversed(self._acting.values()):
            if acting.span is not None:
                self._traces.end(acting.span, "flowserver.step.status", self.outcome)
        self._traces.end(self._span, "flowserver.run.status", self.outcome, self._error)

    def _around(self, place: Place) -> Span | None:
        """The span of the step that `place` is within, or that of the run."""
        for depth in reversed(range(len(place.within))):
            _, step, _ = place.within[depth]
            around = self._acting.get(Place(step, place.within[:depth]).key)
            if around is not None and around.span is not None:
                return around.span
        return self._span


@contextmanager
def observed(
    metrics: Metrics, traces: Traces | None, run: UUID, attributes: Mapping[str, str | int | None]
) -> Iterator[Observation]:
    """Observe the execution of `run` that happens inside; `attributes` are its span's."""
    span = None if traces is None else traces.run(run, attributes, caller.get())
    observation = Observation(metrics, traces, span)
    token = run_id.set(run)
    metrics.runs_executing.inc()
    try:
        yield observation
    finally:
        metrics.runs_executing.dec()
        observation.close()
        run_id.reset(token)


class Observed:
    """A reporter that lets an observation know what it passes on to another one."""

    def __init__(self, inner: Reporter, observation: Observation) -> None:
        self._inner = inner
        self._observation = observation

    def of_task(self, task: str | None) -> Observed:
        return Observed(self._inner.of_task(task), self._observation)

    def started(self, place: Place, node_type: NodeType) -> None:
        self._inner.started(place, node_type)
        self._observation.started(place, node_type)

    def text(self, place: Place, text: str) -> None:
        self._inner.text(place, text)

    def happened(self, place: Place, event: str, data: Mapping[str, Any]) -> None:
        self._inner.happened(place, event, data)

    def finished(
        self, place: Place, node_type: NodeType, outputs: Any, ms: int, usage: Mapping[str, int]
    ) -> None:
        self._inner.finished(place, node_type, outputs, ms, usage)
        self._observation.ended(place, "succeeded")

    def skipped(self, place: Place, because: Mapping[str, Any]) -> None:
        self._inner.skipped(place, because)

    def failed(
        self, place: Place, error: Mapping[str, Any], *, will_retry: bool = False, goes_on: bool = False
    ) -> None:
        self._inner.failed(place, error, will_retry=will_retry, goes_on=goes_on)
        self._observation.ended(place, "failed", error.get("code"))

    def item(
        self,
        place: Place,
        index: int,
        status: str,
        error: Mapping[str, Any] | None,
        *,
        goes_on: bool = False,
    ) -> None:
        self._inner.item(place, index, status, error, goes_on=goes_on)

    async def written(self) -> None:
        await self._inner.written()
