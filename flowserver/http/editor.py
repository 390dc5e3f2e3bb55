"""`POST /workflows/execute`: runs as the editor starts and watches them, a rendering of the one journal.

Frames are `data: {json}` only, without event names, numbers or signs of life, as the editor's reader expects.
A client that wants more than the editor knows watches `/runs/{id}/events`; the run's id is in every frame.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any
from uuid import UUID, uuid4

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from litestar.response import Stream

from flowserver.events import Event, encode
from flowserver.http.problems import problem
from flowserver.http.streams import HEADERS
from flowserver.runs import Runs
from flowserver.starts import Start
from flowserver.workflows import Workflows
from graphs.compile import Compiled
from graphs.problems import InvalidWorkflow
from nodes.texts import to_text


class Execute(msgspec.Struct, frozen=True, kw_only=True):
    """What the editor sends; what else it sends means nothing here."""

    flow_data: dict[str, Any] | None = None
    """The drawing as it stands in the editor; without one, that of the workflow is run."""
    input_text: Any = "Hello"
    session_id: str | None = None
    chatflow_id: str | None = None
    workflow_id: UUID | None = None


@post("/workflows/execute", status_code=200, tags=("Editor",))
async def execute(
    data: JSONBody[Execute],
    org: NamedDependency[UUID],
    workflows: NamedDependency[Workflows],
    runs: NamedDependency[Runs],
) -> Response[Any]:
    """Run a drawing as the editor does: its frames, by the drawing's node ids."""
    session = data.session_id or data.chatflow_id or f"session_{uuid4().hex}"
    try:
        compiled, keeps = await _chosen(data, org, workflows)
    except InvalidWorkflow as exc:
        told, problems = f"Failed to run workflow: {exc}", msgspec.to_builtins(exc.problems)
        return problem(400, "invalid_workflow", told, problems=problems)
    start = Start(
        compiled=compiled,
        flow_data=keeps,
        workflow_id=data.workflow_id,
        input=data.input_text,
        session_id=session,
        kind="editor",
        on_busy="interrupt",  # whoever presses "run" again wants the new run
    )
    id = (await runs.start(org, start)).id
    frames = Frames(id, session, data.workflow_id, compiled)
    return Stream(
        _stream(runs, id, frames), media_type="text/event-stream", headers={**HEADERS, "X-Run-Id": str(id)}
    )


async def _chosen(data: Execute, org: UUID, workflows: Workflows) -> tuple[Compiled, Any]:
    if data.workflow_id is not None:
        if data.flow_data is None:
            return await workflows.runnable(org, data.workflow_id)
        await workflows.get(org, data.workflow_id)  # somebody else's is not there
    return await workflows.drawn(org, data.flow_data or {})


async def _stream(runs: Runs, run: UUID, frames: Frames) -> AsyncGenerator[bytes]:
    async for events in runs.watch(run, 0):
        if told := b"".join(frame for event in events for frame in frames.of(event)):
            yield told


class Frames:
    """Renders the events of one run."""

    def __init__(self, run: UUID, session: str, workflow: UUID | None, compiled: Compiled) -> None:
        self._about = {
            "session_id": session,
            "workflow_id": str(workflow) if workflow else None,
            "execution_id": str(run),
        }
        self._plan = compiled.plan
        self._executed: list[str] = []
        self._outputs: dict[str, Any] = {}
        self._told_error = False

    def of(self, event: Event) -> Iterable[bytes]:
        """The frames that tell an event; none for what the editor does not know."""
        if "step" not in event.data:
            yield from self._of_run(event)
        elif all(len(each) > 1 for each in event.data.get("within", ())):
            yield from self._of_step(event.data["step"], event)
        # else it is in another workflow, whose ids mean nothing in this drawing

    def _of_step(self, step: str, event: Event) -> Iterable[bytes]:
        data = event.data
        match event.type:
            case "step.started":
                yield self._frame("node_start", node_id=step, metadata=self._metadata(data))
            case "text":
                yield self._frame("token", node_id=step, content=data["text"])
            case "step.finished":
                yield self._finished(step, data["outputs"])
            case "step.failed" if not (data.get("will_retry") or data.get("goes_on")):
                yield self._error(data["error"], event)

    def _of_run(self, event: Event) -> Iterable[bytes]:
        data = event.data
        match event.type:
            case "run.created":
                yield self._frame("start", message="Execution started")
            case "run.waiting":
                yield self._frame("waiting", questions=data["questions"])
            case "run.failed" if not self._told_error:
                yield self._error(data["error"], event)
            case "run.cancelled":
                yield self._error({"code": "cancelled", "message": "the run was cancelled"}, event)
            case "run.succeeded":
                done = {"executed_nodes": self._executed, "node_outputs": self._outputs}
                yield self._frame("complete", result=to_text(data["output"]), **done)

    def _finished(self, step: str, outputs: Any) -> bytes:
        if step in self._plan.steps:
            self._executed.append(step)
            self._outputs[step] = outputs
        return self._frame("node_end", node_id=step, output=outputs)

    def _metadata(self, data: Mapping[str, Any]) -> dict[str, Any]:
        if data["step"] in self._plan.parts:
            return {"node_type": "provider", "provider_type": data["type"]}
        return {"node_type": data["type"]}

    def _error(self, error: Mapping[str, Any], event: Event) -> bytes:
        self._told_error = True
        where = {"node_id": error["step"]} if "step" in error else {}
        return self._frame(
            "error", error=error["message"], error_type=error["code"], timestamp=event.at, **where
        )

    def _frame(self, type: str, **data: Any) -> bytes:
        return b"data: %b\n\n" % encode({"type": type, **data, **self._about})
