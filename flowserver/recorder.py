"""Tells a run's journal what its steps do; the only module that words the events of steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from flowserver.journal import Journal
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
        self._asked: frozenset[str] = frozenset()
        self._silent: set[str] = set()
        self.usage: Counter[str] = Counter()
        """Summed up over the whole run."""

    def remember(self, past: Iterable[Mapping[str, Any]], asked: Iterable[str]) -> None:
        """Take in what earlier executions of the run have told, and which steps have asked something."""
        for each in past:
            counter = self._starts if each["type"] == "step.started" else self._ends
            counter[each["step"]] += 1
            self.usage.update(each["usage"] or {})
        self._asked = frozenset(asked)

    def started(self, id: str, node_type: NodeType) -> None:
        waited = id in self._asked and self._starts[id] > self._ends[id]
        recomputed = self._ends[id] > 0 and node_type.is_step and not node_type.effect
        if recomputed:  # it has no effect and gives what it gave: nobody needs to see it twice
            self._silent.add(id)
        elif not waited:
            self._starts[id] += 1
            self._journal.add(
                "step.started", _step(id) | {"type": node_type.name, "attempt": self._starts[id]}
            )

    def text(self, id: str, text: str) -> None:
        self._journal.add("text", _step(id) | {"text": clean(text)})

    def finished(self, id: str, node_type: NodeType, outputs: Any, ms: int, usage: Mapping[str, int]) -> None:
        if id in self._silent:
            self._silent.remove(id)
            return
        shown, is_cut = cut(outputs, MAX_OUTPUT)
        event = _step(id) | {"outputs": shown, "ms": ms}
        self._journal.add(
            "step.finished",
            event | ({"cut": True} if is_cut else {}) | ({"usage": dict(usage)} if usage else {}),
        )
        self.usage.update(usage)

    def skipped(self, id: str, because: Mapping[str, Any]) -> None:
        if not self._ends[id]:
            self._journal.add("step.skipped", _step(id) | {"because": dict(because)})

    def failed(self, id: str, error: Mapping[str, Any]) -> None:
        self._journal.add("step.failed", _step(id) | {"error": clean(error), "will_retry": False})

    async def written(self) -> None:
        await self._journal.flush()


def _step(id: str) -> dict[str, Any]:
    return {"step": id}
