"""How one step acts: its inputs gathered, its providers made, its policy kept when it fails."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

import httpx
import msgspec
from langgraph._internal._constants import CONFIG_KEY_SCRATCHPAD
from langgraph.config import get_config
from langgraph.errors import GraphBubbleUp
from langgraph.types import interrupt

from graphs.plan import ERROR, Part, Plan, Reference, Step
from graphs.ports import Port, binding_ports, ports
from graphs.runtime import LimitReached, Place, Reporter, Run, StepFailed, asked_at
from graphs.state import Outcome, State, current, messages, outcome, variable
from graphs.templates import Lookup, Missing, Path, follow
from graphs.values import UnsafeValue, clean, clean_aside
from nodes.contract import Call, Choice, Items, Memory, NodeError, RunContext, ServerTrouble
from nodes.pauses import may_get_better, retry_after
from nodes.question import Question
from nodes.texts import to_text

Arrived: TypeAlias = Mapping[str, Sequence[Any]]
"""Input port -> the values that live arrows have brought, in edge order."""

_NEVER_BETTER = frozenset(
    {"bad_input", "missing_value", "bad_config", "bad_operand", "unsafe_output", "not_supported"}
    | {"bad_url", "bad_json", "bad_header", "bad_request"}
)
"""Codes of failures that another attempt would only repeat."""


@dataclass(slots=True)
class Acting:
    """A step while it runs."""

    step: Step
    plan: Plan
    run: Run
    state: State
    place: Place
    path: Sequence[int]
    """The rounds of the loops around it, as far as the map around it."""
    call: Callable[[Call], Awaitable[Any]]
    """Runs another workflow for the step; gives its result."""
    serve: Callable[[str, Any], Awaitable[Any]]
    """Runs another workflow for a tool, which is known by its id; gives its result."""
    check: Callable[[str, Any], None]
    """Refuses a value that a variable cannot take."""
    kept: dict[str, list[Any]] = field(default_factory=dict)
    """What it adds to variables and conversations, by channel."""
    usage: dict[str, int] = field(default_factory=dict)
    answered: list[Any] = field(default_factory=list)
    """What it has asked before it ran this time, and got."""

    async def act(self, arrived: Arrived) -> Outcome | Items:
        """Run the step by its policy, and tell what becomes of it.

        Raises:
            StepFailed: It failed, and the run with it.
            LimitReached: The run has used up what it may.
        """
        policy, attempt = self.step.policy, 1
        retries = policy.retries
        while True:
            try:
                return await self._attempt(arrived)
            except (GraphBubbleUp, LimitReached, ServerTrouble):
                raise
            except (
                Exception,
                SystemExit,
            ) as exc:  # whatever a step raises is its failure, told once, by name
                own = _own(exc)
                if self.run.is_outage(own):  # no failure of the step's
                    raise own from None
                failed = self._failure(own)
                if attempt >= retries.attempts or not _may_get_better(own):
                    return self.give_up(failed, exc, arrived)
                self.run.reporter.failed(self.place, failed.error, will_retry=True)
                attempt += 1
                await asyncio.sleep(retries.before(attempt, random.random(), _wished(own)))

    def give_up(
        self, failed: StepFailed, cause: BaseException | None = None, arrived: Arrived | None = None
    ) -> Outcome:
        """What the step leaves when no attempt is left.

        Raises:
            StepFailed: By its policy, the run fails too.
        """
        how = self.step.policy.on_error
        self.run.reporter.failed(self.place, failed.error, goes_on=how != "fail")
        if how == "port":
            return {"outputs": {}, "route": ERROR, "error": clean(failed.error)}
        if how == "default":
            return self._instead(arrived or {})
        raise failed from cause

    def _instead(self, arrived: Arrived) -> Outcome:
        given = self.step.policy.default
        if self.step.routes:
            outputs = self._passed_on(given, arrived)
            return {"outputs": outputs, "route": given, "because": {"default": given}, "instead": True}
        body = self.step.type.body
        known = [port for port in ports(self.step.type.outputs) if not body or port.name not in body.gives]
        return {"outputs": {known[0].name: clean(given)} if known else {}, "instead": True}

    def _passed_on(self, port: str, arrived: Arrived) -> dict[str, Any]:
        """What a router gives by a port that it did not choose."""
        if self.step.type.instead is None:
            return {}
        try:
            inputs = _inputs(self.step.type.inputs, arrived)
            return dict(clean(self.step.type.instead(inputs, port, self._context(self.step))))
        except (NodeError, UnsafeValue):  # what arrived may be what it failed by
            return {}

    def _failure(self, exc: BaseException) -> StepFailed:
        if isinstance(exc, StepFailed):  # of the workflow that it runs
            return StepFailed(self.step.id, exc.code, f"{exc.step}: {exc.message}"[:4000])
        if isinstance(exc, TimeoutError) and self.step.policy.timeout is not None:
            message = f"it did not end within {self.step.policy.timeout:g} seconds"
            return StepFailed(self.step.id, "timeout", message)
        return StepFailed(self.step.id, _code(exc), self.run.redact(_words(exc))[:4000])

    async def _attempt(self, arrived: Arrived) -> Outcome | Items:
        self.kept.clear()
        self.usage.clear()
        if self.step.type.effect and not self.step.type.asks:
            async with self.run.slots:
                return await self._once(arrived)
        return await self._once(arrived)

    async def _once(self, arrived: Arrived) -> Outcome | Items:
        step, reporter, meter = self.step, self.run.reporter, self.run.meter
        meter.add(step.id, {"steps": 1})
        reporter.started(self.place, step.type)
        if step.type.effect:  # an attempt that may have done something is on record, whatever dies next
            await _on_record(reporter)
        began = time.perf_counter()
        if step.policy.timeout is None:
            made = await self._made_of(arrived)
        else:
            async with asyncio.timeout(step.policy.timeout):
                made = await self._made_of(arrived)
        if isinstance(made, Items):
            return made
        left, size = await left_by(made)
        meter.add(step.id, {"output_bytes": size})
        reporter.finished(self.place, step.type, left["outputs"], milliseconds(began), self.usage)
        return left

    async def _made_of(self, arrived: Arrived) -> Any:
        step = self.step
        inputs = _inputs(step.type.inputs, arrived)
        config = step.settings.fill(self._lookup(step))
        given = [await self._bound(step)] if step.type.bindings.__struct_fields__ else []
        made = await step.type.act(config, inputs, *given, self._context(step))
        return step.type.outputs(await self.call(made)) if isinstance(made, Call) else made

    def _lookup(self, node: Step | Part) -> Lookup:
        def find(path: Path) -> Any:
            reference = node.references[path]
            keys = reference.keys
            if reference.port is None:
                return follow(self._root(reference.root), keys, path.text)
            found = self._outcome(reference)
            if found is None:
                raise Missing(f"'{{{{ {path.text} }}}}': {reference.root!r} did not run")
            if "error" in found:
                if reference.port == ERROR:
                    return follow(found["error"], keys, path.text)
                raise Missing(f"'{{{{ {path.text} }}}}': {reference.root!r} failed")
            return follow(found["outputs"].get(reference.port), keys, path.text)

        return find

    def _root(self, name: str) -> Any:
        if name == "vars":
            return {each: current(self.plan, self.state, each) for each in self.plan.variables}
        return self.run.roots.get(name)

    def _outcome(self, reference: Reference) -> Outcome | None:
        found = outcome(self.state, reference.root)
        if found is None or not reference.rounds:
            return found
        depth = reference.rounds
        before = [*self.path[: depth - 1], self.path[depth - 1] - 1]
        return found if list(found.get("at", ()))[:depth] == before else None

    def _context(self, node: Step | Part) -> RunContext:
        key = f"{self.run.id}\n{Place(node.id, self.place.within).key}"
        if node is not self.step and self.step.asks and (answered := len(self._answers())):
            key += f"\n{answered}"  # what a tool does after an answer is not what it did before
        return RunContext(
            step=node.id,
            name=node.name,
            run_id=self.run.id,
            input=self.run.roots.get("input"),
            trigger=self.run.roots.get("trigger") or {},
            round=self.path[-1] if self.path else 0,
            idempotency_key=hashlib.sha256(key.encode()).hexdigest(),
            http=self.run.http,
            models=self.run.models,
            emit=lambda text: self.run.reporter.text(self.place, text) if text else None,
            is_watched=self.run.is_watched,
            doors=self.run.doors,
            ask=self._ask,
            answers=self._answers,
            asked=self._kept,
            tell=self._tell,
            redact=self.run.redact,
            call=lambda given: self.serve(node.id, given),
            recall=lambda memory: list(self.state.get(messages(memory.channel)) or ()),
            remember=self._remember,
            set_variable=self._set,
            used=self._used,
        )

    def _ask(self, question: Question) -> Any:
        return interrupt({**self.place.told, "question": clean(msgspec.to_builtins(question))})

    def _answers(self) -> list[tuple[Any, Any]]:
        """What it was answered so far; LangGraph gives the values one by one, and stops behind the last."""
        known = get_config()["configurable"][CONFIG_KEY_SCRATCHPAD].resume if self.step.asks else ()
        while len(self.answered) < len(known):
            self.answered.append(interrupt(None))
        return [(each["answer"], each["kept"]) for each in self.answered]

    def _kept(self) -> Any:
        return self.run.kept.get(asked_at(self.place.told))

    def _tell(self, event: str, data: Mapping[str, Any]) -> None:
        self.run.reporter.happened(self.place, event, _redacted(dict(data), self.run.redact))

    def _remember(self, memory: Memory, new: Sequence[Any]) -> None:
        self.kept.setdefault(messages(memory.channel), []).extend(new)

    def _set(self, name: str, value: Any) -> None:
        if name not in self.plan.variables:
            known = ", ".join(self.plan.variables) or "none"
            message = f"{name!r} is no variable of this workflow; its variables: {known}"
            raise NodeError(message, code="unknown_variable", is_final=True)
        cleaned = clean(value)
        self.check(name, cleaned)
        self.kept.setdefault(variable(name), []).append(cleaned)

    def _used(self, usage: Mapping[str, int]) -> None:
        for key, amount in usage.items():
            self.usage[key] = self.usage.get(key, 0) + amount
        self.run.meter.add(self.step.id, usage)

    async def _bound(self, node: Step | Part) -> msgspec.Struct:
        """What the providers of `node` make, by its binding ports."""
        values: dict[str, Any] = {}
        for port in binding_ports(node.type.bindings):
            if ids := node.bindings.get(port.name):
                made = [await self._provided(self.plan.parts[id]) for id in ids]
                values[port.name] = tuple(made) if port.many else made[0]
        return node.type.bindings(**values)

    async def _provided(self, part: Part) -> Any:
        if part.type.is_step:
            assert part.type.tool is not None  # resolve binds no other steps
            tool = part.type.tool(part.settings.fill(self._lookup(part)), self._context(part))
            return await tool if inspect.isawaitable(tool) else tool
        async with self.run.making.setdefault(part.id, asyncio.Lock()):
            if part.id not in self.run.objects:
                made = await self._make(part)
                if part.settings.ready is None:
                    return made
                self.run.objects[part.id] = made
            return self.run.objects[part.id]

    async def _make(self, part: Part) -> Any:
        began = time.perf_counter()
        place = Place(part.id, self.place.within)
        self.run.reporter.started(place, part.type)
        bound = await self._bound(part)
        made = part.type.act(part.settings.fill(self._lookup(part)), bound, self._context(part))
        if inspect.isawaitable(made):
            made = await made
        self.run.reporter.finished(place, part.type, {}, milliseconds(began), {})
        return made


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    match value:
        case str():
            return redact(value)
        case Mapping():
            return {redact(str(key)): _redacted(item, redact) for key, item in value.items()}
        case list() | tuple():
            return [_redacted(item, redact) for item in value]
        case _:
            return value


async def _on_record(reporter: Reporter) -> None:
    """Return when all that was told is kept.

    Raises:
        ServerTrouble: It cannot be kept.
    """
    try:
        await reporter.written()
    except Exception as exc:
        raise ServerTrouble from exc


async def left_by(made: Any) -> tuple[dict[str, Any], int]:
    """What a step leaves in its channel, and how many bytes its outputs have as JSON."""
    if isinstance(made, Choice):
        outputs, size = await clean_aside(made.outputs)
        return {"outputs": outputs, "route": made.port, "because": clean(made.because)}, size
    outputs, size = await clean_aside(made)
    return {"outputs": outputs}, size


def milliseconds(began: float) -> int:
    """Since `time.perf_counter()` was `began`."""
    return round((time.perf_counter() - began) * 1000)


def _inputs(struct: type[msgspec.Struct], arrived: Arrived) -> msgspec.Struct:
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


def _own(exc: BaseException) -> BaseException:
    """The error of ours that a provider's library has wrapped into one of its own; else `exc`."""
    cause: BaseException | None = exc
    while cause is not None and not isinstance(cause, NodeError | ServerTrouble):
        cause = cause.__cause__
    return cause or exc


def _may_get_better(exc: BaseException) -> bool:
    if isinstance(exc, NodeError):
        return not exc.is_final and exc.code not in _NEVER_BETTER
    response = _response(exc)
    if response is not None:
        return may_get_better(response.status_code)
    return not isinstance(exc, Missing | UnsafeValue)


def _wished(exc: BaseException) -> float | None:
    """The seconds that the other side asks to wait."""
    if isinstance(exc, NodeError):
        return exc.retry_after
    response = _response(exc)
    return (
        None if response is None else retry_after(response.headers.get("retry-after", ""), datetime.now(UTC))
    )


def _response(exc: BaseException) -> httpx.Response | None:
    """What a provider's client was answered; their errors carry it."""
    response = getattr(exc, "response", None)
    return response if isinstance(response, httpx.Response) else None


def _code(exc: BaseException) -> str:
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


def _words(exc: BaseException) -> str:
    if isinstance(exc, NodeError | Missing):
        return str(exc)
    if isinstance(exc, UnsafeValue):
        return f"the step's output cannot be kept: {exc}"
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
