"""Runs the error workflow of a run that has failed, once."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import DictRow
from psycopg_pool import PoolTimeout, TooManyRequests

import sql
from flowserver.db import Pool, row_of
from flowserver.errors import FlowserverError, NotFound
from flowserver.runs import Runs
from flowserver.starts import Start
from flowserver.workflows import PUBLISHED, Workflows
from graphs.compile import Compiled
from graphs.problems import InvalidWorkflow

_QUERIES = sql.queries("deliveries")

ERROR_TRIGGER = "ErrorTrigger"

logger = logging.getLogger(__name__)


class Failures:
    """Looks for runs that have failed, and starts what is to run then."""

    def __init__(self, pool: Pool, workflows: Workflows, runs: Runs, public_url: str) -> None:
        self._pool = pool
        self._workflows = workflows
        self._runs = runs
        self._base = public_url.rstrip("/")

    async def look(self) -> bool:
        """Deal with one failed run; whether there may be more."""
        async with self._pool.connection() as conn, conn.transaction():
            taken = await (await conn.execute(_QUERIES["take_failed_run"])).fetchone()
            if taken is None:
                return False
            row = await (await conn.execute(_QUERIES["failure"], {"run": taken["run_id"]})).fetchone()
            start = await self._start(row) if row is not None else None
            if row is not None and start is not None:
                try:
                    await self._runs.enlist(conn, row["org_id"], start)
                except FlowserverError as exc:  # refused before anything is written
                    logger.warning("run %s: its error workflow cannot start: %s", row["id"], exc)
        return True

    async def _start(self, row: DictRow) -> Start | None:
        """What runs after a failed run; `None` where nothing is to, or can."""
        try:
            workflow = await self._named(row)
            if workflow is None:
                return None
            compiled, keeps = await self._runnable(row["org_id"], workflow)
        except (FlowserverError, InvalidWorkflow) as exc:
            logger.warning("run %s: its error workflow cannot run: %s", row["id"], exc)
            return None
        except (psycopg.Error, PoolTimeout, TooManyRequests):
            raise
        except Exception:  # tried again and again, it would keep all that come after from being dealt with
            logger.exception("run %s: its error workflow is not run", row["id"])
            return None
        return Start(
            compiled=compiled,
            flow_data=keeps,
            workflow_id=workflow,
            input=self._told(row),
            trigger=_error_trigger(compiled),
            kind="error",
            about={"run": str(row["id"])},
            now=False,
            is_watched=False,
        )

    async def _named(self, row: DictRow) -> UUID | None:
        """The workflow that its drawing names, or its organisation's."""
        if not row["named"]:
            return row["error_workflow"]  # type: ignore[no-any-return]
        async with self._pool.connection() as conn:
            values = {"org": row["org_id"], "ref": row["named"]}
            found = await (await conn.execute(_QUERIES["error_workflow"], values)).fetchone()
        if found is None:
            raise NotFound("workflow", row["named"])
        return UUID(str(found["id"]))

    async def _runnable(self, org: UUID, workflow: UUID) -> tuple[Compiled, Any]:
        """As it is published; one that never was, as it is drawn."""
        found = await self._workflows.get(org, workflow)
        return await self._workflows.runnable(org, workflow, PUBLISHED if found.published_version else None)

    def _told(self, row: DictRow) -> dict[str, Any]:
        error = row["error"] or {}
        return {
            "error": error,
            "step": error.get("step"),
            "workflow": {
                "id": str(row["workflow_id"]),
                "name": row["workflow_name"],
                "version": row["version"],
            },
            "run": {
                "id": str(row["id"]),
                "trigger": row["trigger"],
                "input": row["input"],
                "started_at": row["started_at"].isoformat() if row["started_at"] else None,
                "finished_at": row["finished_at"].isoformat() if row["finished_at"] else None,
            },
            "link": f"{self._base}/api/v1/runs/{row['id']}",
        }


def _error_trigger(compiled: Compiled) -> str | None:
    steps = compiled.plan.steps
    return next((id for id in compiled.plan.triggers if steps[id].type.name == ERROR_TRIGGER), None)


async def error_workflow(pool: Pool, org: UUID) -> UUID | None:
    """The workflow that runs when one of `org` fails that names none."""
    async with pool.connection() as conn:
        row = row_of(await (await conn.execute(_QUERIES["get_error_workflow"], {"org": org})).fetchone())
    return row["error_workflow"]  # type: ignore[no-any-return]


async def set_error_workflow(pool: Pool, org: UUID, workflow: UUID | None) -> None:
    """
    Raises:
        NotFound: There is no such workflow in `org`.
    """
    async with pool.connection() as conn:
        values = {"org": org, "workflow": workflow}
        if await (await conn.execute(_QUERIES["set_error_workflow"], values)).fetchone() is None:
            raise NotFound("workflow", workflow or "")
