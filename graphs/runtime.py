"""What the steps of a run share while it is executed."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import httpx
import msgspec

from graphs.large import LargeValues
from graphs.options import NO_LIMITS, Limits
from nodes.contract import ModelDefaults, NodeType, ServerTrouble

Within: TypeAlias = tuple[tuple[Literal["round", "item", "call"], str, int], ...]
"""What a step is in, outermost first: a round (from 1) of a loop, an item (from 0) of a map, a workflow that
a step runs."""


@dataclass(frozen=True, slots=True)
class Place:
    """A step, and which time of its running is meant."""

    step: str
    within: Within = ()

    @property
    def told(self) -> dict[str, Any]:
        """How events say it: `{"step", "within"?: [{"step", "round"?, "item"?, "call"?}, …]}`."""
        if not self.within:
            return {"step": self.step}
        return {"step": self.step, "within": [_told(*each) for each in self.within]}

    @property
    def key(self) -> str:
        """The same for the same time of running, and for no other."""
        return msgspec.json.encode([self.step, *self.within]).decode() if self.within else self.step


def _told(kind: str, step: str, number: int) -> dict[str, Any]:
    return {"step": step} if kind == "call" and not number else {"step": step, kind: number}


def asked_at(told: Mapping[str, Any]) -> bytes:
    """The key of the place that a question says it was asked at."""
    where = {"step": told["step"], "within": told.get("within") or []}
    return msgspec.json.encode(where, order="deterministic")


class Reporter(Protocol):
    """Who is told what the steps do."""

    def of_task(self, task: str | None) -> Reporter:
        """Return the reporter of one LangGraph task.

        Once a step with an effect has ended in the task, what it reports is shown with the task's writes:
        nobody sees the end of a step that a crash could still undo. With `None` it is shown at once.
        """
        ...

    def started(self, place: Place, node_type: NodeType) -> None: ...
    def text(self, place: Place, text: str) -> None: ...
    def happened(self, place: Place, event: str, data: Mapping[str, Any]) -> None:
        """Something that a step does has an event of its own."""

    def finished(
        self, place: Place, node_type: NodeType, outputs: Any, ms: int, usage: Mapping[str, int]
    ) -> None: ...
    def skipped(self, place: Place, because: Mapping[str, Any]) -> None: ...
    def failed(
        self, place: Place, error: Mapping[str, Any], *, will_retry: bool = False, goes_on: bool = False
    ) -> None:
        """`goes_on`: the run does, by the step's error port, a default value, or without the item."""

    def item(
        self,
        place: Place,
        index: int,
        status: str,
        error: Mapping[str, Any] | None,
        *,
        goes_on: bool = False,
    ) -> None:
        """An item of the map at `place` has `succeeded`, `failed` or been `dropped`.

        `goes_on`: it has not succeeded, and the map goes on all the same.
        """

    async def written(self) -> None:
        """Return when everything told so far is kept."""


class Witness:
    """A reporter that also remembers which of the steps of one item have begun or been skipped."""

    def __init__(self, reporter: Reporter, within: Within) -> None:
        self._reporter = reporter
        self._within = len(within)
        self.told: set[str] = set()

    def of_task(self, task: str | None) -> Witness:
        same = copy.copy(self)
        same._reporter = self._reporter.of_task(task)
        return same

    def started(self, place: Place, node_type: NodeType) -> None:
        self._remember(place)
        self._reporter.started(place, node_type)

    def text(self, place: Place, text: str) -> None:
        self._reporter.text(place, text)

    def happened(self, place: Place, event: str, data: Mapping[str, Any]) -> None:
        self._reporter.happened(place, event, data)

    def finished(
        self, place: Place, node_type: NodeType, outputs: Any, ms: int, usage: Mapping[str, int]
    ) -> None:
        self._reporter.finished(place, node_type, outputs, ms, usage)

    def skipped(self, place: Place, because: Mapping[str, Any]) -> None:
        self._remember(place)
        self._reporter.skipped(place, because)

    def failed(
        self, place: Place, error: Mapping[str, Any], *, will_retry: bool = False, goes_on: bool = False
    ) -> None:
        self._reporter.failed(place, error, will_retry=will_retry, goes_on=goes_on)

    def item(
        self,
        place: Place,
        index: int,
        status: str,
        error: Mapping[str, Any] | None,
        *,
        goes_on: bool = False,
    ) -> None:
        self._reporter.item(place, index, status, error, goes_on=goes_on)

    async def written(self) -> None:
        await self._reporter.written()

    def _remember(self, place: Place) -> None:
        if all(
            kind != "call" for kind, _, _ in place.within[self._within :]
        ):  # ids of other workflows are others
            self.told.add(place.step)


class StepFailed(Exception):
    """A step of the run failed; its failure has been reported."""

    def __init__(self, step: str, code: str, message: str, **more: Any) -> None:
        self.step = step
        self.code = code
        self.message = message
        where = {"step": step} if step else {}
        self.error: dict[str, Any] = {"code": code, **where, "message": message, **more}
        super().__init__(f"{step}: {message}" if step else message)


class LimitReached(StepFailed):
    """The run has used up what it may; no policy of a step goes on after that."""


@dataclass(slots=True)
class Meter:
    """What a run has used, against what it may use."""

    limits: Limits = NO_LIMITS
    used: dict[str, float] = field(default_factory=dict)
    outer: Meter | None = None
    """That of the run that this one is within."""

    def inside(self, limits: Limits) -> Meter:
        """The meter of a workflow that the run runs: what is used there counts here too."""
        return Meter(limits, outer=self)

    def add(self, step: str, usage: Mapping[str, float]) -> None:
        """Count `usage` of `step`.

        Raises:
            LimitReached: A limit is passed.
        """
        for key, amount in usage.items():
            self.used[key] = self.used.get(key, 0) + amount
        if self.limits != NO_LIMITS:
            self._check(step)
        if self.outer is not None:
            self.outer.add(step, usage)

    def _check(self, step: str) -> None:
        for name, spent in self._spent():
            most = getattr(self.limits, name)
            if most is not None and spent > most:
                what = name.replace("_", " ")
                message = f"the run may have {_shown(most)} {what}, and this would be {_shown(spent)}"
                raise LimitReached(step, "limit_exceeded", message, limit=name)

    def _spent(self) -> list[tuple[str, float]]:
        used = self.used
        tokens = used.get("input_tokens", 0) + used.get("output_tokens", 0)
        names = ("steps", "tool_calls", "model_calls", "output_bytes")
        return [("tokens", tokens), *((name, used.get(name, 0)) for name in names)]


def _shown(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


@dataclass(frozen=True, slots=True)
class Held:
    """The state that a superstep has left, so that the next need neither read nor walk all of it."""

    turn: int
    """What it is known by to those that were sent out then."""
    values: Mapping[str, Any]
    after: str | None
    """The step that was all that could run, if it was one."""


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
    is_watched: Callable[[], bool] = lambda: True
    """Whether anybody may want partial output."""
    is_outage: Callable[[BaseException], bool] = lambda exc: isinstance(exc, ServerTrouble)
    """Whether an error is the server's own trouble: it is passed on, and the run goes on later."""
    doors: Mapping[type[Any], Any] = field(default_factory=dict)
    """What else of the world steps may use, by the protocol that says how."""
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(16))
    """Held by each step that does something outside."""
    meter: Meter = field(default_factory=Meter)
    large: LargeValues = field(default_factory=LargeValues)
    within: Within = ()
    """What the whole of it is in, where it is an item of a map, or a workflow that another runs."""
    outer: Mapping[str, Any] = field(default_factory=dict)
    """For an item of a map: the state of the steps around it."""
    objects: dict[str, Any] = field(default_factory=dict)
    """What providers made, by node id."""
    kept: dict[bytes, Any] = field(default_factory=dict)
    """What steps have kept with questions that are still open, by `asked_at`: when one is answered, the steps
    that asked the others run again, too."""
    served: dict[str, int] = field(default_factory=dict)
    """How often tools that are workflows have run, from 0, by node id."""
    making: dict[str, asyncio.Lock] = field(default_factory=dict)
    """Held while a provider is made: what two steps share is made once."""
    gates: dict[str, asyncio.Semaphore] = field(default_factory=dict)
    """How many items of a map may run at once, by the place of the map."""
    witness: Witness | None = None
    """For an item of a map: who knows what has begun there."""
    held: Held | None = field(default=None, init=False)
    """Never that of a run within it, as `replace` begins it anew."""
    stopped: set[str] = field(default_factory=set)
    """The places of maps of which an item has failed, so that no more need to begin."""
