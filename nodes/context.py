"""What a step sees of the world outside its inputs: `RunContext`, and the objects that providers make."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import httpx

from nodes.question import Question

Door = TypeVar("Door")


class NodeError(Exception):
    """A step cannot do its work; `message` is shown to the workflow's author and must hold no secret.

    `code` is stable, for programs: `http_status`, `limit_exceeded`, `missing_value` ...
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "step_failed",
        retry_after: float | None = None,
        is_final: bool = False,
    ) -> None:
        """`retry_after`: the seconds that the other side asks to wait; `is_final`: trying again is no use."""
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.is_final = is_final
        super().__init__(message)


class ServerTrouble(Exception):
    """The server cannot reach its own database: no failure of the step, which is executed again later.

    Not a `NodeError`: no step may catch it, retry it or go on without what it asked for.
    """

    def __init__(self, message: str = "the database cannot be reached now") -> None:
        super().__init__(message)


class ChatModel(Protocol):
    """What an `llm` port carries: a LangChain `BaseChatModel`."""


class Tool(Protocol):
    """What a `tools` port carries: a LangChain `BaseTool`."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a `memory` port carries: where the conversation is kept, and how much of it is read."""

    channel: str
    """The id of the memory node: two steps that share the node share the conversation."""
    trim: Callable[[Sequence[Any]], list[Any]]
    """Choose from all kept LangChain messages, oldest first, those that a model is shown."""
    sum_up: Callable[[str, Sequence[Any]], Awaitable[str]] | None = None
    """(the summary so far, messages) -> that of both, for what `trim` leaves out; else it is forgotten."""


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """What a model provider uses for settings that the drawing leaves out."""

    base_url: str | None = None
    api_key: str | None = None
    """Only ever sent to `base_url` (or the provider's own address when that is `None`)."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """The only door from a node to the world outside its inputs. It belongs to one step of one run."""

    step: str
    """The id of this node in the drawing."""
    name: str
    """The name its author gave it, or its id."""
    run_id: str
    input: Any
    """What the run was started with."""
    trigger: Mapping[str, Any]
    """What started the run: `type`, the trigger's step, and what that kind of trigger knows."""
    round: int
    """Which round of the innermost loop around this step it is, from 1; 0 outside loops."""
    idempotency_key: str
    """The same for every attempt of this step, round and item in this run; outbound requests carry it."""
    http: httpx.AsyncClient
    """Refuses private addresses and oversized answers; the only way to the network."""
    models: ModelDefaults
    emit: Callable[[str], None]
    """Stream a piece of partial text output."""
    ask: Callable[[Question], Any]
    """Stop the run, put a question to a person, return the accepted answer. What the step did before is done
    again when the run goes on, unless it keeps that with the question: see `answers`."""
    recall: Callable[[Memory], list[Any]]
    """All messages kept for a memory, oldest first, before any trimming."""
    remember: Callable[[Memory, Sequence[Any]], None]
    """Add messages to a memory; they are kept if this step finishes."""
    set_variable: Callable[[str, Any], None]
    """Give a value to a variable of the workflow; its reducer says what becomes of the old one."""
    used: Callable[[Mapping[str, int]], None]
    """Report usage to be summed up: `input_tokens`, `output_tokens`, `model_calls`, `tool_calls`."""
    is_watched: Callable[[], bool] = lambda: True
    """Whether anybody may want partial output; where nobody does, a step need not ask for it."""
    answers: Callable[[], list[tuple[Any, Any]]] = list
    """What this step has asked with something `kept` and was answered, oldest first: (answer, kept)."""
    asked: Callable[[], Any] = lambda: None
    """What it has `kept` with a question that is still open: it runs again as another one was answered."""
    tell: Callable[[str, Mapping[str, Any]], None] = lambda event, data: None
    """Add an event to the run's: `tool.called`, `tool.returned`."""
    redact: Callable[[str], str] = str
    """Take the secrets that the run has to do with out of a text."""
    call: Callable[[Any], Awaitable[Any]] | None = None
    """For a tool that is a step which runs another workflow: run it with an input, return its output."""
    doors: Mapping[type[Any], Any] = field(default_factory=dict)
    """What else of the world this server lets steps use, by the protocol that says how; see `door`."""

    def door(self, kind: type[Door]) -> Door:
        """What of the world `kind` names: a protocol of `nodes`, which a server fulfils for this run.

        Raises:
            NodeError: This server has no such thing.
        """
        found = self.doors.get(kind)
        if found is None:
            raise NodeError(f"this server offers no {kind.__name__!r}", code="unavailable", is_final=True)
        return cast(Door, found)
