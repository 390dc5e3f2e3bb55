"""Puts right what dead processes, lost jobs and passed deadlines leave behind; every worker looks.

Nothing here executes a run: what is left behind is queued again, or ended when it may not be tried any more.
"""

from __future__ import annotations

from uuid import UUID

import psycopg

import sql
from flowserver.execution import Resources
from flowserver.executor import end_unheld
from flowserver.questions import BATCH, expire
from flowserver.recorder import broken_off

_QUERIES = sql.queries("runs")
_DEFER_LEFT = _QUERIES["defer_left"]
_ABANDONED = _QUERIES["abandoned"]
_FORGET_JOBS = _QUERIES["forget_jobs"]
_PAST = _QUERIES["past_events"]

NAMED = 5
"""The most steps that the error of a run that was set aside names."""


class Reconciler:
    """What every worker looks for; see `rounds.Rounds`."""

    def __init__(self, resources: Resources) -> None:
        self._with = resources
        self._was_away = False

    async def look(self) -> bool:
        """Look once; whether there may be more to do at once."""
        try:
            expired = await expire(self._with.pool)
        except psycopg.OperationalError:
            self._was_away = True
            raise
        if self._was_away:  # first those that had to leave runs may say that these have lost no attempt by it
            self._was_away = False
            return False
        async with self._with.pool.connection() as conn:
            await conn.execute(_DEFER_LEFT)
            await conn.execute(_FORGET_JOBS)
            rows = await (await conn.execute(_ABANDONED)).fetchall()
        for row in rows:
            if row["cancel_requested"]:
                await end_unheld(self._with, row["id"], row["epoch"], "cancelled")
            else:
                await self._set_aside(row["id"], row["epoch"], row["losses"])
        return expired == BATCH

    async def _set_aside(self, run: UUID, epoch: int, losses: int) -> None:
        async with self._with.pool.connection() as conn:
            past = await (await conn.execute(_PAST, {"run": run})).fetchall()
        steps = list(dict.fromkeys(event["step"] for _, event in broken_off(past, None)))
        named = ", ".join(repr(each) for each in steps[:NAMED]) + (", …" if len(steps) > NAMED else "")
        message = (
            f"{_times(losses)} the process that executed this run died or stood still, and nothing of the "
            "run was kept in between; it is not tried again. "
            + (f"It was at: {named}" if steps else "No step had begun")
        )
        error = {"code": "poisoned", "message": message} | ({"step": steps[0]} if len(steps) == 1 else {})
        await end_unheld(self._with, run, epoch, "failed", error)


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
