"""Calls of chat models, seen through LangChain's callbacks, whichever node type makes them."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers.context import register_configure_hook

from flowserver.metrics import Metrics

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from flowserver.tracing import Traces

calls: ContextVar[ModelCalls | None] = ContextVar("calls", default=None)
"""Who is told of the model calls of the step that runs here."""
step_span: ContextVar[Span | None] = ContextVar("step_span", default=None)
"""The span of that step."""

register_configure_hook(calls, inheritable=True)


class ModelCalls(AsyncCallbackHandler):
    """The model calls of one execution."""

    run_inline = True  # in the task of the step, whose span is found by that

    def __init__(self, metrics: Metrics, traces: Traces | None) -> None:
        self._metrics = metrics
        self._traces = traces
        self._open: dict[UUID, tuple[float, Span | None]] = {}

    @property
    def ignore_chain(self) -> bool:
        return True

    @property
    def ignore_agent(self) -> bool:
        return True

    async def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        span = None
        if self._traces is not None:
            span = self._traces.model_call(
                step_span.get(), metadata or {}, kwargs.get("invocation_params", {})
            )
        self._open[run_id] = time.monotonic(), span

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        message = _message(response)
        used: Any = message.usage_metadata if message is not None and message.usage_metadata else {}
        for direction in ("input", "output"):
            self._metrics.model_tokens.labels(direction).inc(used.get(f"{direction}_tokens", 0))
        span = self._ended(run_id, "succeeded")
        if self._traces is not None and span is not None:
            self._traces.model_answered(span, message.response_metadata if message else {}, used)

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        span = self._ended(run_id, "failed")
        if self._traces is not None and span is not None:
            self._traces.model_failed(span, error)

    def close(self) -> None:
        """The execution is over: what has not ended was broken off."""
        for run in list(self._open):
            span = self._ended(run, "failed")
            if self._traces is not None and span is not None:
                self._traces.model_failed(span, None)

    def _ended(self, run: UUID, outcome: str) -> Span | None:
        began, span = self._open.pop(run, (None, None))
        if began is not None:
            self._metrics.model_call.labels(outcome).observe(time.monotonic() - began)
        return span


def _message(response: LLMResult) -> AIMessage | None:
    """The answer; the first one, where a model gives several."""
    for generation in response.generations[0] if response.generations else ():
        if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
            return generation.message
    return None
