"""Puts right what dead processes, lost jobs and passed deadlines leave behind; every worker looks.

Nothing here executes a run: what is left behind is queued again, or ended when it may not be tried any more.
"""

from __future__ import annotations

import psycopg

import sql
from flowserver.execution import Resources
from flowserver.executor import end_unheld
from flowserver.questions import BATCH, expire

_QUERIES = sql.queries("runs")
_DEFER_LEFT = _QUERIES["defer_left"]
_ABANDONED = _QUERIES["abandoned"]
_FORGET_JOBS = _QUERIES["forget_jobs"]


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
                message = "the processes that executed this run died; it is not tried again"
                error = {"code": "worker_lost", "message": message}
                await end_unheld(self._with, row["id"], row["epoch"], "failed", error)
        return expired == BATCH
