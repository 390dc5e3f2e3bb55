"""Run a compiled drawing in this process, without a server, and record what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from graphs.compile import Compiled
from graphs.runtime import Run
from graphs.state import ENTRY, result
from nodes.contract import ModelDefaults, NodeType


@dataclass
class Recording:
    """A reporter that keeps everything."""

    told: list[tuple[str, str]] = field(default_factory=list)
    """("started" | "finished" | "skipped" | "failed", step), in order."""
    outputs: dict[str, Any] = field(default_factory=dict)
    because: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, Any] = field(default_factory=dict)
    output: Any = None

    def started(self, id: str, node_type: NodeType) -> None:
        self.told.append(("started", id))

    def text(self, id: str, text: str) -> None:
        self.told.append(("text", id))

    def finished(self, id: str, node_type: NodeType, outputs: Any, ms: int, usage: Mapping[str, int]) -> None:
        self.told.append(("finished", id))
        self.outputs[id] = outputs

    def skipped(self, id: str, because: Mapping[str, Any]) -> None:
        self.told.append(("skipped", id))
        self.because[id] = because

    def failed(self, id: str, error: Mapping[str, Any]) -> None:
        self.told.append(("failed", id))
        self.errors[id] = error

    async def written(self) -> None:
        pass

    def those(self, what: str) -> list[str]:
        return [id for told, id in self.told if told == what]


def nowhere(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("these runs have no network")


async def run(compiled: Compiled, given: Any = None, trigger: str | None = None) -> Recording:
    """Run to the end; a failing step raises its `StepFailed`."""
    recording = Recording()
    async with httpx.AsyncClient(transport=httpx.MockTransport(nowhere)) as client:
        context = Run(
            id="00000000-0000-7000-8000-000000000000",
            trigger=compiled.plan.starts(trigger),
            roots={"input": given, "trigger": {"step": trigger}, "run": {"id": "r"}},
            reporter=recording,
            http=client,
            models=ModelDefaults(),
            redact=lambda text: text,
        )
        state = await compiled.graph.ainvoke(
            {ENTRY: {"run": "r"}},
            {"recursion_limit": len(compiled.plan.steps) + 10},
            context=context,
        )
    recording.output = result(compiled.plan, state)
    return recording
