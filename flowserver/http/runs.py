"""`/runs` and `/workflows/{id}/runs`: start, read, answer, cancel, watch."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from flowserver.callbacks import Callbacks
from flowserver.checkpoints import CheckpointView
from flowserver.errors import Forgotten
from flowserver.forks import Fork
from flowserver.http.bodies import MAX_PAGE, Answer, ForkRun, Page, RunDrawing, RunSaved, RunWorkflow, cursor
from flowserver.http.streams import event_stream, position
from flowserver.idempotency import Key
from flowserver.run_views import RunView, Status
from flowserver.runs import Runs
from flowserver.starts import Callback, Start
from flowserver.workflows import Workflows
from graphs.compile import Compiled

Timeout = Annotated[float, QueryParameter(gt=0, le=3600, description="Seconds to wait before answering 202.")]
IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(name="Idempotency-Key", description="Sent again with it, a request is not done again."),
]
LastEventId = Annotated[str | None, HeaderParameter(name="Last-Event-ID")]


_REPLAYED = {"Idempotency-Replayed": "true"}


class StartController(Controller):
    path = "/"
    tags = ("Runs",)

    @post("/workflows/{id:uuid}/runs", status_code=200)
    async def start_saved(
        self,
        id: FromPath[UUID],
        data: JSONBody[RunSaved],
        request: Request[UUID, None, Any],
        org: NamedDependency[UUID],
        workflows: NamedDependency[Workflows],
        runs: NamedDependency[Runs],
        callbacks: NamedDependency[Callbacks],
        timeout: Timeout = 60,  # noqa: ASYNC109  the name that callers write
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Any]:
        """Run a saved workflow: wait for the result, stream the events, or just start it."""
        compiled, keeps = await workflows.runnable(org, id, data.version)
        key = await key_of(request, idempotency_key)
        start = start_of(
            request,
            data,
            compiled,
            workflow_id=id,
            flow_data=keeps,
            once=key,
            callback=await callback_of(callbacks, org, data),
        )
        return await started(request, runs, org, start, data, timeout)

    @post("/runs", status_code=200)
    async def start_drawing(
        self,
        data: JSONBody[RunDrawing],
        request: Request[UUID, None, Any],
        org: NamedDependency[UUID],
        workflows: NamedDependency[Workflows],
        runs: NamedDependency[Runs],
        callbacks: NamedDependency[Callbacks],
        timeout: Timeout = 60,  # noqa: ASYNC109
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Any]:
        """Run a drawing that is not saved."""
        compiled, whole = await workflows.drawn(org, data.flow_data)
        key = await key_of(request, idempotency_key)
        start = start_of(
            request,
            data,
            compiled,
            flow_data=whole,
            once=key,
            callback=await callback_of(callbacks, org, data),
        )
        return await started(request, runs, org, start, data, timeout)


class RunController(Controller):
    path = "/runs"
    tags = ("Runs",)

    @get()
    async def page(
        self,
        org: NamedDependency[UUID],
        runs: NamedDependency[Runs],
        workflow_id: Annotated[UUID | None, QueryParameter()] = None,
        status: Annotated[Status | None, QueryParameter()] = None,
        session_id: Annotated[str | None, QueryParameter()] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str | None, QueryParameter(name="cursor")] = None,
    ) -> Page[RunView]:
        """Runs, newest first."""
        items = await runs.page(
            org,
            workflow_id=workflow_id,
            status=status,
            session_id=session_id,
            before=cursor(after),
            limit=limit + 1,
        )
        return Page(items[:limit], str(items[limit - 1].id) if len(items) > limit else None)

    @get("/{id:uuid}")
    async def read(
        self, id: FromPath[UUID], org: NamedDependency[UUID], runs: NamedDependency[Runs]
    ) -> RunView:
        """A run, with its result or its open questions."""
        return await runs.get(org, id)

    @get("/{id:uuid}/events")
    async def events(
        self,
        id: FromPath[UUID],
        request: Request[UUID, None, Any],
        org: NamedDependency[UUID],
        runs: NamedDependency[Runs],
        after: Annotated[int | None, QueryParameter()] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 500,
        last_event_id: LastEventId = None,
    ) -> Response[Any]:
        """The events of a run: as server-sent events, or a page of them with `Accept: application/json`."""
        run = await runs.get(org, id)
        if run.events_forgotten:
            raise Forgotten("events", id)
        seq = position(last_event_id, after)
        if _wants(request, "application/json"):
            found = await runs.events(id, seq, limit + 1)
            following = str(found[limit - 1].seq) if len(found) > limit else None
            return Response(Page([event.body for event in found[:limit]], following))
        if run.is_over and seq >= run.last_seq:
            return Response(None, status_code=204)  # tells an EventSource to stop coming back
        return event_stream(runs, org, id, seq, {"Location": f"/api/v1/runs/{id}"})

    @post("/{id:uuid}/resume", status_code=202)
    async def resume(
        self,
        id: FromPath[UUID],
        data: JSONBody[Answer],
        request: Request[UUID, None, Any],
        org: NamedDependency[UUID],
        runs: NamedDependency[Runs],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[RunView]:
        """Answer the question that a run waits for."""
        key = await key_of(request, idempotency_key)
        run, is_replay = await runs.resume(org, id, data.question_id, data.answer, key)
        return Response(run, status_code=202, headers=_REPLAYED if is_replay else {})

    @get("/{id:uuid}/checkpoints")
    async def checkpoints(
        self,
        id: FromPath[UUID],
        org: NamedDependency[UUID],
        runs: NamedDependency[Runs],
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str | None, QueryParameter(name="cursor", max_length=100)] = None,
    ) -> Page[CheckpointView]:
        """The moments at which a run's state was saved, oldest first, and what changed at each."""
        items = await runs.checkpoints(org, id, after, limit + 1)
        return Page(items[:limit], items[limit - 1].id if len(items) > limit else None)

    @post("/{id:uuid}/fork", status_code=201)
    async def fork(
        self,
        id: FromPath[UUID],
        data: JSONBody[ForkRun],
        request: Request[UUID, None, Any],
        org: NamedDependency[UUID],
        runs: NamedDependency[Runs],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[RunView]:
        """Start a new run from a moment of this one: try again, run again from a step, change a value."""
        key = await key_of(request, idempotency_key)
        fork = Fork(checkpoint=data.checkpoint, step=data.step, set=data.set, routes=data.routes)
        new, is_replay = await runs.fork(org, id, fork, version=data.version, input=data.input, key=key)
        headers = {"Location": f"/api/v1/runs/{new}"} | (_REPLAYED if is_replay else {})
        return Response(await runs.get(org, new), status_code=201, headers=headers)

    @post("/{id:uuid}/cancel", status_code=202)
    async def cancel(
        self, id: FromPath[UUID], org: NamedDependency[UUID], runs: NamedDependency[Runs]
    ) -> RunView:
        """Cancel a run."""
        return await runs.cancel(org, id)


def start_of(request: Request[Any, Any, Any], data: RunWorkflow, compiled: Compiled, **more: Any) -> Start:
    """What a run starts with, as a request says it."""
    return Start(
        compiled=compiled,
        input=data.input,
        session_id=data.session_id,
        trigger=data.trigger,
        on_busy=data.on_busy,
        durability=data.durability,
        limits=data.limits,
        now=data.mode != "background",
        is_watched=data.mode != "wait" or _wants(request, "text/event-stream"),
        **more,
    )


async def callback_of(callbacks: Callbacks, org: UUID, data: RunWorkflow) -> Callback | None:
    """Where the end of a run is told, as a request says it."""
    return await callbacks.callback(org, data.callback.url, data.callback.secret) if data.callback else None


async def started(
    request: Request[UUID, None, Any], runs: Runs, org: UUID, start: Start, data: RunWorkflow, seconds: float
) -> Response[Any]:
    """Start a run, and answer as its `mode` says."""
    id, is_replay = await runs.start(org, start)
    headers = {"Location": f"/api/v1/runs/{id}"} | (_REPLAYED if is_replay else {})
    if data.mode == "background":
        return Response(await runs.get(org, id), status_code=202, headers=headers)
    if data.mode == "stream" or _wants(request, "text/event-stream"):
        return event_stream(runs, org, id, 0, headers, cancels=data.on_disconnect == "cancel")
    run = await runs.wait(org, id, seconds)
    return Response(run, status_code=200 if run.is_over else 202, headers=headers)


async def key_of(request: Request[UUID, None, Any], key: str | None) -> Key | None:
    """The key of a request that may be sent again."""
    return Key.of(f"{request.method} {request.url.path}", key, await request.body())


def _wants(request: Request[UUID, None, Any], kind: str) -> bool:
    """Whether the client asks for `kind` by name."""
    return any(
        part.partition(";")[0].strip() == kind for part in request.headers.get("accept", "").split(",")
    )
