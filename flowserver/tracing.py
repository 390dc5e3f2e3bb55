"""Spans of runs, steps and model calls, sent as OTLP over HTTP. Imported only where somebody wants them.

The names of what concerns model calls are those of OpenTelemetry's GenAI conventions, which are still in
development. No message, prompt, input or output is in a span.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any
from uuid import UUID

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from graphs.runtime import Place

PATIENCE = 5.0
"""Seconds that the other side may take, also while the process stops."""


class Traces:
    """Makes spans, and sends them in batches from a thread of its own."""

    def __init__(self, endpoint: str) -> None:
        ours = {
            "service.name": "flowserver",
            "service.version": version("flowserver"),
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        }
        self._ids = _Ids()
        self._provider = TracerProvider(
            resource=Resource(ours).merge(OTELResourceDetector().detect()),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces", timeout=PATIENCE)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("flowserver", ours["service.version"])

    async def close(self) -> None:
        """Send what is left."""
        await asyncio.to_thread(self._provider.shutdown)

    def run(self, run: UUID, attributes: Mapping[str, str | int | None], caller: Mapping[str, str]) -> Span:
        """A span in the trace of `caller`'s headers, else in the one that all executions of the run share."""
        self._ids.following = int.from_bytes(hashlib.sha256(run.bytes).digest()[:16])
        told = {f"flowserver.run.{name}": value for name, value in attributes.items() if value is not None}
        return self._tracer.start_span(
            "run",
            TraceContextTextMapPropagator().extract(caller, Context()),
            SpanKind.SERVER if caller else SpanKind.INTERNAL,
            {"flowserver.run.id": str(run), **told},
        )

    def step(self, around: Span | None, place: Place, type: str) -> Span:
        told: dict[str, AttributeValue] = {"flowserver.step.id": place.step, "flowserver.step.type": type}
        if place.within:
            told["flowserver.step.within"] = [
                f"{kind} {step} {number}" for kind, step, number in place.within
            ]
        return self._tracer.start_span(f"step {type}", _inside(around), attributes=told)

    def end(self, span: Span, key: str, status: str, code: str | None = None) -> None:
        """End the span of a run or a step; `code` says why it failed."""
        span.set_attribute(key, status)
        if status == "failed":
            span.set_attribute("error.type", code or "failed")
            span.set_status(Status(StatusCode.ERROR, code))
        span.end()

    def model_call(self, around: Span | None, params: Mapping[str, Any], request: Mapping[str, Any]) -> Span:
        """`params` are LangChain's `ls_…`, of all providers; `request` is what this provider is sent."""
        model = params.get("ls_model_name")
        told = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": params.get("ls_provider") or "_OTHER",
            "gen_ai.request.model": model,
            "gen_ai.request.temperature": params.get("ls_temperature"),
            "gen_ai.request.max_tokens": params.get("ls_max_tokens"),
            **{
                f"gen_ai.request.{name}": request.get(name)
                for name in ("top_p", "frequency_penalty", "presence_penalty", "seed")
            },
        }
        return self._tracer.start_span(
            f"chat {model}" if model else "chat", _inside(around), SpanKind.CLIENT, _known(told)
        )

    def model_answered(self, span: Span, response: Mapping[str, Any], used: Mapping[str, Any]) -> None:
        reason = response.get("finish_reason") or response.get("stop_reason")
        details = used.get("input_token_details") or {}
        told = {
            "gen_ai.response.model": response.get("model_name") or response.get("model"),
            "gen_ai.response.id": response.get("id"),
            "gen_ai.response.finish_reasons": [str(reason)] if reason else None,
            "gen_ai.usage.input_tokens": used.get("input_tokens"),
            "gen_ai.usage.output_tokens": used.get("output_tokens"),
            "gen_ai.usage.cache_read.input_tokens": details.get("cache_read"),
        }
        span.set_attributes(_known(told))
        span.end()

    def model_failed(self, span: Span, error: BaseException | None) -> None:
        """`None`: it was broken off without an error."""
        kind = type(error).__name__ if error is not None else "cancelled"
        span.set_attribute("error.type", kind)
        span.set_status(Status(StatusCode.ERROR, kind))
        span.end()


class _Ids(RandomIdGenerator):
    """Random ids, but for the next trace, which is `following`."""

    following: int | None = None

    def generate_trace_id(self) -> int:
        following, self.following = self.following, None
        return following or super().generate_trace_id()


def _inside(around: Span | None) -> Context:
    return set_span_in_context(around, Context()) if around is not None else Context()


def _known(attributes: Mapping[str, Any]) -> dict[str, AttributeValue]:
    return {name: value for name, value in attributes.items() if value is not None}
