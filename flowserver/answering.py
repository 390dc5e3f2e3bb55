"""How the caller of a webhook is answered: by a step, by the result, or by where to look."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import sql
from flowserver.db import Pool
from flowserver.doors import DoorMaker, Visitor
from flowserver.events import Event, encode
from flowserver.receiving import Received
from flowserver.run_views import RunView
from flowserver.runs import Runs
from flowserver.workflows import json
from graphs.plan import Plan

_GIVE = sql.queries("deliveries")["give_answer"]
_GET = sql.queries("deliveries")["get_answer"]

JSON = "application/json"
PROBLEM = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer over HTTP."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class GivenAnswers:
    """Keeps what the steps of one run answer. See `nodes.answers.Answers`."""

    def __init__(self, pool: Pool, run: UUID) -> None:
        self._pool = pool
        self._run = run

    async def give(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        values = {"run": self._run, "status": status, "headers": json(dict(headers)), "body": body}
        async with self._pool.connection() as conn:
            await conn.execute(_GIVE, values)


def door(pool: Pool) -> DoorMaker:
    """Makes the door by which a run's steps answer."""

    def make(visitor: Visitor) -> GivenAnswers:
        return GivenAnswers(pool, visitor.run)

    return make


class Answers:
    """Waits for what the callers of webhooks are told."""

    def __init__(self, pool: Pool, runs: Runs) -> None:
        self._pool = pool
        self._runs = runs

    async def of(self, received: Received) -> Reply:
        """What a delivery's caller is told; also when it comes again."""
        run, hook = received.started.id, received.called.hook
        if received.answer == "at_once":
            body = hook.body if hook.body is not None else {"run_id": run}
            return Reply(hook.status, encode(body), {"Content-Type": JSON, **_location(run)})
        reply: Reply | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(hook.timeout_seconds):
                reply = await self._given(received)
        if reply is not None:
            return reply
        return _of_run(await self._runs.get(received.called.org_id, run))

    async def _given(self, received: Received) -> Reply | None:
        """What a step answers; `None` when the run has ended, or waits, without."""
        run = received.started.id
        answering = _answering(received.compiled.plan) if received.answer == "step" else frozenset()
        async for events in self._runs.watch(run, 0, is_told=False):
            for event in events:
                if _may_have_answered(event, answering) and (reply := await self._kept(run)):
                    return reply
        return await self._kept(run) if answering else None

    async def _kept(self, run: UUID) -> Reply | None:
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_GET, {"run": run})).fetchone()
        return Reply(row["status"], bytes(row["body"]), row["headers"]) if row else None


def _may_have_answered(event: Event, answering: frozenset[str]) -> bool:
    """Of a workflow within the workflow it is not known which of its steps answer."""
    if not answering or event.type != "step.finished":
        return False
    return event.data.get("step") in answering or bool(event.data.get("within"))


def _answering(plan: Plan) -> frozenset[str]:
    return frozenset(id for id, step in plan.steps.items() if step.type.answers)


def _location(run: UUID) -> dict[str, str]:
    return {"Location": f"/api/v1/runs/{run}"}


def _of_run(run: RunView) -> Reply:
    """What a run that no step has answered for says itself. A stranger learns nothing of its inside."""
    where = _location(run.id)
    if run.status == "succeeded":
        return Reply(200, encode(run.output), {"Content-Type": JSON})
    if run.status == "failed":
        return _problem("run_failed", f"run {run.id} failed")
    if run.status == "cancelled":
        return _problem("run_cancelled", f"run {run.id} was cancelled")
    told: dict[str, Any] = {"run_id": run.id, "status": run.status}
    if run.status == "waiting":
        told |= {"questions": run.questions, "resume": f"/api/v1/runs/{run.id}/resume"}
    return Reply(202, encode(told), {"Content-Type": JSON, **where})


def _problem(code: str, detail: str) -> Reply:
    body = {"type": f"urn:flowserver:problem:{code}", "title": "Internal Server Error", "status": 500}
    return Reply(500, encode({**body, "detail": detail}), {"Content-Type": PROBLEM})
