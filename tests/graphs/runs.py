"""Run a compiled drawing in this process, without a server, and record what it tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from graphs.build import ENOUGH
from graphs.compile import Compiled
from graphs.large import LargeValues
from graphs.runtime import Place, Run
from graphs.state import ENTRY, result
from nodes.contract import ModelDefaults, NodeType

RUN_ID = "00000000-0000-7000-8000-000000000000"


@dataclass
class Recording:
    """A reporter that keeps everything."""

    told: list[tuple[str, str]] = field(default_factory=list)
    """("started" | "finished" | "skipped" | "failed", step), in order."""
    outputs: dict[str, Any] = field(default_factory=dict)
    because: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, Any] = field(default_factory=dict)
    items: list[tuple[str, int, str]] = field(default_factory=list)
    """(map, index, status), in the order of their ends."""
    output: Any = None

    def started(self, place: Place, node_type: NodeType) -> None:
        self._tell("started", place)

    def text(self, place: Place, text: str) -> None:
        self._tell("text", place)

    def happened(self, place: Place, event: str, data: Mapping[str, Any]) -> None:
        self._tell(event, place)

    def finished(
        self, place: Place, node_type: NodeType, outputs: Any, ms: int, usage: Mapping[str, int]
    ) -> None:
        self._tell("finished", place)
        self.outputs[place.key] = outputs

    def skipped(self, place: Place, because: Mapping[str, Any]) -> None:
        self._tell("skipped", place)
        self.because[place.key] = because

    def failed(
        self, place: Place, error: Mapping[str, Any], *, will_retry: bool = False, goes_on: bool = False
    ) -> None:
        self._tell("retried" if will_retry else "failed", place)
        self.errors[place.key] = error

    def of_task(self, task: str | None) -> Recording:
        return self

    def item(
        self,
        place: Place,
        index: int,
        status: str,
        error: Mapping[str, Any] | None,
        *,
        goes_on: bool = False,
    ) -> None:
        self.items.append((place.key, index, status))

    def _tell(self, what: str, place: Place) -> None:
        self.told.append((what, place.key))

    async def written(self) -> None:
        pass

    def those(self, what: str) -> list[str]:
        return [id for told, id in self.told if told == what]


def nowhere(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("these runs have no network")


class Shelf(dict[str, bytes]):
    """A store of large values in memory."""

    async def put(self, values: Mapping[str, bytes]) -> None:
        self.update(values)

    async def get(self, keys: Iterable[str]) -> Mapping[str, bytes]:
        return {key: self[key] for key in keys}


async def run(
    compiled: Compiled,
    given: Any = None,
    trigger: str | None = None,
    large: LargeValues | None = None,
    recording: Recording | None = None,
) -> Recording:
    """Run to the end; a failing step raises its `StepFailed`."""
    recording = recording or Recording()
    async with httpx.AsyncClient(transport=httpx.MockTransport(nowhere)) as client:
        context = Run(
            id=RUN_ID,
            trigger=compiled.plan.starts(trigger),
            roots={"input": given, "trigger": {"step": trigger}, "run": {"id": "r"}},
            reporter=recording,
            http=client,
            models=ModelDefaults(),
            redact=lambda text: text,
            large=large or LargeValues(),
        )
        state = await compiled.graph.ainvoke(
            {ENTRY: {"run": "r"}},
            {"recursion_limit": ENOUGH},
            context=context,
        )
    recording.output = result(compiled.plan, await context.large.whole(state))
    return recording
