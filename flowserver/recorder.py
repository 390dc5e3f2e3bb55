"""Tells a run's journal what its steps do; the only module that words the events of steps."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from flowserver.journal import Journal
from graphs.runtime import Place
from graphs.values import clean, cut
from nodes.contract import NodeType

MAX_OUTPUT = 64_000
"""Bytes of a step's outputs that its event shows."""

_BROKEN_OFF = {"code": "cancelled", "message": "the run ended before the step did"}


class Recorder:
    """The reporter of one execution of a run."""

    def __init__(self, journal: Journal, *, holds: bool = True) -> None:
        """`holds`: whether the end of a step with an effect is told only when the step's task is kept."""
        self._journal = journal
        self._holds = holds
        self._task: str | None = None
        self._record = _Record()

    def of_task(self, task: str | None) -> Recorder:
        same = copy.copy(self)
        same._task = task if self._holds else None
        return same

    @property
    def usage(self) -> Counter[str]:
        """Summed up over the whole run."""
        return self._record.usage

    @property
    def had_errors(self) -> bool:
        """Whether the run went on past a failure."""
        return self._record.had_errors

    @property
    def spent(self) -> dict[str, int]:
        """What earlier executions have used of the run's limits."""
        return {**self.usage, "steps": self._record.starts.total()}

    def remember(self, past: Iterable[Mapping[str, Any]], asked: Iterable[str]) -> None:
        """Take in what earlier executions of the run have told, and which steps have asked something."""
        for each in past:
            self._record.remember(each)
        self._record.asked = frozenset(asked)

    def started(self, place: Place, node_type: NodeType) -> None:
        record, key = self._record, place.key
        waited = place.step in record.asked and record.starts[key] > record.ends[key]
        recomputed = record.ends[key] > 0 and node_type.is_step and not node_type.effect
        if recomputed:  # it has no effect and gives what it gave: nobody needs to see it twice
            record.silent.add(key)
            return
        if not waited:
            record.starts[key] += 1
            started = {"type": node_type.name, "attempt": record.starts[key]}
            self._tell("step.started", place.told | started)
        if node_type.is_step:
            record.open[key] = place.told

    def text(self, place: Place, text: str) -> None:
        self._tell("text", place.told | {"text": clean(text)})

    def happened(self, place: Place, event: str, data: Mapping[str, Any]) -> None:
        parts = {key: cut(value, MAX_OUTPUT) for key, value in clean(dict(data)).items()}
        shown, is_cut = {key: part for key, (part, _) in parts.items()}, any(was for _, was in parts.values())
        self._tell(event, place.told | shown | ({"cut": True} if is_cut else {}))

    def finished(
        self, place: Place, node_type: NodeType, outputs: Any, ms: int, usage: Mapping[str, int]
    ) -> None:
        if self._is_told(place):
            return
        shown, is_cut = cut(outputs, MAX_OUTPUT)
        event = place.told | {"outputs": shown, "ms": ms}
        self._tell(
            "step.finished",
            event | ({"cut": True} if is_cut else {}) | ({"usage": dict(usage)} if usage else {}),
            holds=node_type.effect,
        )
        self._record.usage.update(usage)

    def skipped(self, place: Place, because: Mapping[str, Any]) -> None:
        if not self._record.ends[place.key]:
            self._tell("step.skipped", place.told | {"because": dict(because)})

    def failed(
        self, place: Place, error: Mapping[str, Any], *, will_retry: bool = False, goes_on: bool = False
    ) -> None:
        self._record.had_errors |= goes_on
        if will_retry:
            self._tell("step.failed", place.told | {"error": clean(error), "will_retry": True})
            return
        if self._is_told(place):
            return
        told = {"error": clean(error), "will_retry": False} | ({"goes_on": True} if goes_on else {})
        self._tell("step.failed", place.told | told, holds=True)

    def item(
        self,
        place: Place,
        index: int,
        status: str,
        error: Mapping[str, Any] | None,
        *,
        goes_on: bool = False,
    ) -> None:
        self._record.had_errors |= goes_on
        key = f"{place.key} {index}"
        if key not in self._record.items:
            told = {"item": index, "status": status} | ({"error": clean(error)} if error else {})
            self._tell("item.finished", place.told | told | ({"goes_on": True} if goes_on else {}))

    def broken_off(self, error: Mapping[str, Any] | None) -> list[tuple[str, dict[str, Any]]]:
        """The ends of steps that have begun and that the end of the run, by this `error` if any, breaks off.

        Inner ones come first.
        """
        return _broken_off(self._record, error)

    async def written(self) -> None:
        if self._task is not None:  # what begins now in the task has to be on record
            self._journal.keep(self._task)
        await self._journal.flush()

    def _is_told(self, place: Place) -> bool:
        """Whether the end of a step was told before; if not, it is told now."""
        record, key = self._record, place.key
        if key in record.silent:  # of what was computed again
            record.silent.remove(key)
            return True
        if record.open.pop(key, None) is None and key in record.ended:  # of a map that is looked at again
            return True
        record.ended.add(key)
        return False

    def _tell(self, type: str, data: dict[str, Any], *, holds: bool = False) -> None:
        self._journal.add(type, data, self._task, holds=holds)


def broken_off(
    past: Iterable[Mapping[str, Any]], error: Mapping[str, Any] | None
) -> list[tuple[str, dict[str, Any]]]:
    """The same for a run that nobody executes, of which `past` was told."""
    record = _Record()
    for each in past:
        record.remember(each)
    return _broken_off(record, error)


def _broken_off(record: _Record, error: Mapping[str, Any] | None) -> list[tuple[str, dict[str, Any]]]:
    ends: list[tuple[str, dict[str, Any]]] = []
    for told in reversed(record.open.values()):
        own = error if error is not None and error.get("step") == told["step"] else _BROKEN_OFF
        ends.append(("step.failed", {**told, "error": dict(own), "will_retry": False}))
    return ends


@dataclass(slots=True)
class _Record:
    """What was told of a run, in this execution and those before; steps by the keys of their places."""

    starts: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    """Those of earlier executions only."""
    ended: set[str] = field(default_factory=set)
    items: set[str] = field(default_factory=set)
    asked: frozenset[str] = frozenset()
    silent: set[str] = field(default_factory=set)
    """Steps that are computed again, of which nobody is told."""
    open: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Steps that have begun and not ended, as events name them."""
    usage: Counter[str] = field(default_factory=Counter)
    had_errors: bool = False

    def remember(self, event: Mapping[str, Any]) -> None:
        """Take in an event of an earlier execution."""
        key = _key(event["step"], event["within"])
        match event["type"]:
            case "step.started":
                self.starts[key] += 1
                within = {"within": event["within"]} if event["within"] else {}
                self.open[key] = {"step": event["step"], **within}
            case "item.finished":
                self.items.add(f"{key} {event['item']}")
            case "step.failed" if event["will_retry"]:
                pass
            case _:
                self.ends[key] += 1
                self.ended.add(key)
                self.open.pop(key, None)
        self.had_errors |= bool(event["goes_on"])
        self.usage.update(event["usage"] or {})


def _key(step: str, within: Any) -> str:
    """The key of a step's place, from what an event says of it."""
    kinds = ("round", "item")
    around = [
        next(
            ([kind, each["step"], each[kind]] for kind in kinds if kind in each),
            ["call", each["step"], each.get("call", 0)],
        )
        for each in within or ()
    ]
    return msgspec.json.encode([step, *around]).decode() if around else step
