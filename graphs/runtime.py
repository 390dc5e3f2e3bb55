"""How one step runs inside the graph: its inputs gathered, its providers made, its outcome kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import httpx
import msgspec
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import Runtime
from langgraph.types import interrupt

from graphs.plan import Part, Plan, Step
from graphs.ports import Port, binding_ports, ports
from graphs.state import State, carried, channel, is_live, messages, outcome, why_dead
from graphs.templates import Lookup, Missing, Path, follow
from graphs.values import UnsafeValue, clean
from nodes.contract import Choice, Memory, ModelDefaults, NodeError, NodeType, RunContext
from nodes.question import Question
from nodes.texts import to_text

Node: TypeAlias = Callable[..., Awaitable[dict[str, Any]]]


class Reporter(Protocol):
    """Who is told what the steps do."""

    def started(self, id: str, node_type: NodeType) -> None: ...
    def text(self, id: str, text: str) -> None: ...
    def finished(
        self, id: str, node_type: NodeType, outputs: Any, ms: int, usage: Mapping[str, int]
    ) -> None: ...
    def skipped(self, id: str, because: Mapping[str, Any]) -> None: ...
    def failed(self, id: str, error: Mapping[str, Any]) -> None: ...
    async def written(self) -> None:
        """Return when everything told so far is kept."""


@dataclass(slots=True)
class Run:
    """What the steps of one run share: LangGraph's context. Live things only; nothing here is stored."""

    id: str
    trigger: str | None
    """The trigger that started it."""
    roots: Mapping[str, Any]
    """What paths may start with besides steps: `input`, `trigger`, `run`."""
    reporter: Reporter
    http: httpx.AsyncClient
    models: ModelDefaults
    redact: Callable[[str], str]
    """Takes known secrets out of an error's text."""
    objects: dict[str, Any] = field(default_factory=dict)
    """What providers made, by node id."""


class StepFailed(Exception):
    """A step of the run failed; its failure has been reported."""

    def __init__(self, step: str, code: str, message: str) -> None:
        self.step = step
        self.code = code
        self.message = message
        super().__init__(f"{step}: {message}")

    @property
    def error(self) -> dict[str, str]:
        return {"code": self.code, "step": self.step, "message": self.message}


def runner(step: Step, plan: Plan) -> Node:
    """The LangGraph node of `step`: state in, outcome out. It runs if an arc is live, else it is skipped."""

    async def run(state: State, runtime: Runtime[Run]) -> dict[str, Any]:
        here = runtime.context
        live = [arc for arc in step.arcs if is_live(arc, state)]
        starts = step.id == here.trigger if step.type.kind == "trigger" else step.is_root
        if not live and not starts:
            because = why_dead(step, state, plan.steps)
            here.reporter.skipped(step.id, because)
            return {channel(step.id): {"skipped": because}}
        arrived: dict[str, list[Any]] = {}
        for arc in live:
            arrived.setdefault(arc.input, []).append(carried(arc, state, plan.steps))
        return await _act(_Acting(step, plan, here, state), arrived)

    run.__name__ = step.id
    return run


def _inputs(struct: type[msgspec.Struct], arrived: Mapping[str, Sequence[Any]]) -> msgspec.Struct:
    values: dict[str, Any] = {}
    for port in ports(struct):
        if found := arrived.get(port.name):
            values[port.name] = tuple(found) if port.many else _fit(found[0], port)
        elif port.required:
            raise NodeError(f"nothing has arrived at the input {port.name!r}", code="missing_value")
    return struct(**values)


def _fit(value: Any, port: Port) -> Any:
    if port.kind is Any:
        return value
    if port.kind is str:
        return to_text(value)
    try:
        return msgspec.convert(value, port.kind, strict=False)
    except msgspec.ValidationError as exc:
        message = f"the input {port.name!r} cannot take what arrived: {exc}"
        raise NodeError(message, code="bad_input") from None


@dataclass(slots=True)
class _Acting:
    """A step while it runs."""

    step: Step
    plan: Plan
    run: Run
    state: State
    kept: dict[str, list[Any]] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)

    def lookup(self, node: Step | Part) -> Lookup:
        def find(path: Path) -> Any:
            reference = node.references[path]
            if reference.port is None:
                return follow(self.run.roots.get(reference.root), reference.keys, path.text)
            found = outcome(self.state, reference.root)
            if found is None:
                raise Missing(f"'{{{{ {path.text} }}}}': {reference.root!r} did not run")
            return follow(found["outputs"].get(reference.port), reference.keys, path.text)

        return find

    def context(self, node: Step | Part) -> RunContext:
        key = f"{self.run.id}\n{node.id}"
        return RunContext(
            step=node.id,
            name=node.name,
            run_id=self.run.id,
            input=self.run.roots.get("input"),
            idempotency_key=hashlib.sha256(key.encode()).hexdigest(),
            http=self.run.http,
            models=self.run.models,
            emit=lambda text: self.run.reporter.text(self.step.id, text) if text else None,
            ask=self._ask,
            recall=lambda memory: list(self.state.get(messages(memory.channel)) or ()),
            remember=self._remember,
            used=self._used,
        )

    def _ask(self, question: Question) -> Any:
        return interrupt({"step": self.step.id, "question": msgspec.to_builtins(question)})

    def _remember(self, memory: Memory, new: Sequence[Any]) -> None:
        self.kept.setdefault(messages(memory.channel), []).extend(new)

    def _used(self, usage: Mapping[str, int]) -> None:
        for key, amount in usage.items():
            self.usage[key] = self.usage.get(key, 0) + amount

    def bound(self, node: Step | Part) -> msgspec.Struct:
        """What the providers of `node` make, by its binding ports."""
        values: dict[str, Any] = {}
        for port in binding_ports(node.type.bindings):
            if ids := node.bindings.get(port.name):
                made = [self._made(self.plan.parts[id]) for id in ids]
                values[port.name] = tuple(made) if port.many else made[0]
        return node.type.bindings(**values)

    def _made(self, part: Part) -> Any:
        if part.type.is_step:
            assert part.type.tool is not None  # resolve binds no other steps
            return part.type.tool(part.settings.fill(self.lookup(part)), self.context(part))
        if part.id in self.run.objects:
            return self.run.objects[part.id]
        began = time.perf_counter()
        self.run.reporter.started(part.id, part.type)
        made = part.type.act(part.settings.fill(self.lookup(part)), self.bound(part), self.context(part))
        if part.settings.ready is not None:
            self.run.objects[part.id] = made
        self.run.reporter.finished(part.id, part.type, {}, _ms(began), {})
        return made


async def _act(acting: _Acting, arrived: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    step, reporter = acting.step, acting.run.reporter
    reporter.started(step.id, step.type)
    if step.type.effect:  # an attempt that may have done something is on record, whatever dies next
        await reporter.written()
    began = time.perf_counter()
    try:
        inputs = _inputs(step.type.inputs, arrived)
        config = step.settings.fill(acting.lookup(step))
        given = [acting.bound(step)] if step.type.bindings.__struct_fields__ else []
        made = await step.type.act(config, inputs, *given, acting.context(step))
        left = _left(made)
    except GraphBubbleUp:
        raise
    except Exception as exc:  # whatever a step raises is its failure, reported once and by its name
        failed = StepFailed(step.id, _code(exc), acting.run.redact(_words(exc))[:4000])
        reporter.failed(step.id, failed.error)
        raise failed from exc
    reporter.finished(step.id, step.type, left["outputs"], _ms(began), acting.usage)
    return {channel(step.id): left, **acting.kept}


def _left(made: Any) -> dict[str, Any]:
    if isinstance(made, Choice):
        return {"outputs": clean(made.outputs), "route": made.port, "because": clean(made.because)}
    return {"outputs": clean(made)}


def _ms(began: float) -> int:
    return round((time.perf_counter() - began) * 1000)


def _code(exc: Exception) -> str:
    match exc:
        case NodeError():
            return exc.code
        case Missing():
            return "missing_value"
        case UnsafeValue():
            return "unsafe_output"
        case TimeoutError():
            return "timeout"
        case _:
            return "step_failed"


def _words(exc: Exception) -> str:
    if isinstance(exc, NodeError | Missing):
        return str(exc)
    if isinstance(exc, UnsafeValue):
        return f"the step's output cannot be kept: {exc}"
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
