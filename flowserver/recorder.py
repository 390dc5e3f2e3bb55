"""Tells a run's journal what its steps do; the only module that words the events of steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from flowserver.journal import Journal
from graphs.runtime import Place
from graphs.values import clean, cut
from nodes.contract import NodeType

MAX_OUTPUT = 64_000
"""Bytes of a step's outputs that its event shows."""


class Recorder:
    """The reporter of one execution of a run."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._starts: Counter[str] = Counter()
        self._ends: Counter[str] = Counter()
        self._items: set[str] = set()
        self._asked: frozenset[str] = frozenset()
        self._silent: set[str] = set()
        self.usage: Counter[str] = Counter()
        """Summed up over the whole run."""
        self.had_errors = False
        """Whether the run went on past a failure."""

    @property
    def spent(self) -> dict[str, int]:
        """What earlier executions have used of the run's limits."""
        return {**self.usage, "steps": self._starts.total()}

    def remember(self, past: Iterable[Mapping[str, Any]], asked: Iterable[str]) -> None:
        """Take in what earlier executions of the run have told, and which steps have asked something."""
        for each in past:
            key = _key(each["step"], each["within"])
            match each["type"]:
                case "step.started":
                    self._starts[key] += 1
                case "step.failed":
                    self.had_errors |= bool(each["goes_on"])
                    self._ends[key] += not each["will_retry"]
                case "item.finished":
                    self.had_errors |= each["status"] != "succeeded"
                    self._items.add(f"{key} {each['item']}")
                case _:
                    self._ends[key] += 1
            self.usage.update(each["usage"] or {})
        self._asked = frozenset(asked)

    def started(self, place: Place, node_type: NodeType) -> None:
        key = place.key
        waited = place.step in self._asked and self._starts[key] > self._ends[key]
        recomputed = self._ends[key] > 0 and node_type.is_step and not node_type.effect
        if recomputed:  # it has no effect and gives what it gave: nobody needs to see it twice
            self._silent.add(key)
        elif not waited:
            self._starts[key] += 1
            started = {"type": node_type.name, "attempt": self._starts[key]}
            self._journal.add("step.started", place.told | started)

    def text(self, place: Place, text: str) -> None:
        self._journal.add("text", place.told | {"text": clean(text)})

    def happened(self, place: Place, event: str, data: Mapping[str, Any]) -> None:
        parts = {key: cut(value, MAX_OUTPUT) for key, value in clean(dict(data)).items()}
        shown, is_cut = {key: part for key, (part, _) in parts.items()}, any(was for _, was in parts.values())
        self._journal.add(event, place.told | shown | ({"cut": True} if is_cut else {}))

    def finished(
        self, place: Place, node_type: NodeType, outputs: Any, ms: int, usage: Mapping[str, int]
    ) -> None:
        if place.key in self._silent:
            self._silent.remove(place.key)
            return
        shown, is_cut = cut(outputs, MAX_OUTPUT)
        event = place.told | {"outputs": shown, "ms": ms}
        self._journal.add(
            "step.finished",
            event | ({"cut": True} if is_cut else {}) | ({"usage": dict(usage)} if usage else {}),
        )
        self.usage.update(usage)

    def skipped(self, place: Place, because: Mapping[str, Any]) -> None:
        if not self._ends[place.key]:
            self._journal.add("step.skipped", place.told | {"because": dict(because)})

    def failed(
        self, place: Place, error: Mapping[str, Any], *, will_retry: bool = False, goes_on: bool = False
    ) -> None:
        self.had_errors |= goes_on
        if place.key in self._silent:  # it failed before in the same way, and that was told
            self._silent.remove(place.key)
            return
        told = {"error": clean(error), "will_retry": will_retry} | ({"goes_on": True} if goes_on else {})
        self._journal.add("step.failed", place.told | told)

    def item(self, place: Place, index: int, status: str, error: Mapping[str, Any] | None) -> None:
        self.had_errors |= status != "succeeded"
        key = f"{place.key} {index}"
        if key not in self._items:
            told = {"item": index, "status": status} | ({"error": clean(error)} if error else {})
            self._journal.add("item.finished", place.told | told)

    async def written(self) -> None:
        await self._journal.flush()


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
