"""Keeps the runs of this process its own: a heartbeat in its own thread, on its own connection.

A blocked event loop does not stop it, and a stopped process does.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

import sql
from flowserver.db import PATIENCE, hang_up

_EXTEND = sql.queries("runs")["extend_leases"]
_TIMEOUT = "-c statement_timeout=5s"

logger = logging.getLogger(__name__)


class Leases:
    """The leases of the runs that this process executes."""

    def __init__(
        self, dsn: str, seconds: float, lost: Callable[[UUID], None], cancel: Callable[[UUID], None]
    ) -> None:
        """`lost` and `cancel` are called in the heartbeat's thread, with the run they concern."""
        self.seconds = seconds
        self._dsn = dsn
        self._lost = lost
        self._cancel = cancel
        self.is_database_away = False
        """Whether the database has not answered the last time that leases were to be extended."""
        self._is_asking = False
        self._held: dict[UUID, tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._conn: psycopg.Connection[dict[str, object]] | None = None
        self._thread = threading.Thread(target=self._beat, name="leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=5)

    def hold(self, run: UUID, epoch: int) -> None:
        """Extend the lease of `run` from now on."""
        with self._lock:
            self._held[run] = (epoch, time.monotonic() + self.seconds)

    def drop(self, run: UUID) -> None:
        with self._lock:
            self._held.pop(run, None)

    def expire(self) -> None:
        """Give up what another process may have taken over by now; to be called from any thread.

        A heartbeat that is stuck on a database which does not answer is freed.
        """
        with self._lock:
            late = [(run, epoch) for run, (epoch, until) in self._held.items() if time.monotonic() > until]
        self.is_database_away |= self._is_asking and bool(late)
        for run, epoch in late:
            self._give_up(run, epoch)
        if late and (conn := self._conn) is not None:
            with contextlib.suppress(OSError, psycopg.Error):  # it has been closed at this moment
                hang_up(conn)

    def _beat(self) -> None:
        pause = self.seconds / 4
        while not self._stopped.wait(pause):
            pause = self.seconds / 4
            if not self._held:
                continue
            try:
                if self._conn is None or self._conn.closed:
                    self._conn = psycopg.connect(
                        self._dsn, autocommit=True, row_factory=dict_row, options=_TIMEOUT, **PATIENCE
                    )
                self._is_asking = True
                self._extend(self._conn)
                self.is_database_away = False
            except psycopg.Error as exc:
                self.is_database_away = True
                logger.warning("leases not extended: %s", str(exc).strip() or type(exc).__name__)
                if self._conn is not None:
                    self._conn.close()
                self.expire()
                pause = self.seconds / 20
            finally:
                self._is_asking = False
        if self._conn is not None:
            self._conn.close()

    def _extend(self, conn: psycopg.Connection[dict[str, object]]) -> None:
        with self._lock:
            held = dict(self._held)
        asked = time.monotonic()
        rows = conn.execute(
            _EXTEND,
            {
                "lease": timedelta(seconds=self.seconds),
                "ids": list(held),
                "epochs": [epoch for epoch, _ in held.values()],
            },
        ).fetchall()
        kept = {row["id"]: row["cancel_requested"] for row in rows}
        for run, (epoch, _) in held.items():
            if run not in kept:
                self._give_up(run, epoch)
                continue
            with self._lock:
                if self._held.get(run, (None,))[0] == epoch:
                    self._held[run] = (epoch, asked + self.seconds)
            if kept[run]:
                self._cancel(run)

    def _give_up(self, run: UUID, epoch: int) -> None:
        with self._lock:
            if self._held.get(run, (None,))[0] != epoch:
                return
            del self._held[run]
        self._lost(run)
