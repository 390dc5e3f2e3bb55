"""A Postgres of a module's own, which may be cut off in the middle of everything and started again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from flowserver import embedded
from flowserver.cluster import Place
from flowserver.postmaster import find, lives
from tests.data_dirs import data_directory

# What was committed is kept when Postgres is cut off, as the machine lives on.
_FAST = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "max_wal_size": "256MB"}


class Restartable:
    """Runs, unless it was cut off."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = embedded.start(folder, _FAST)
        self._dsn = self._running.dsn

    def fresh(self) -> str:
        """The DSN of a new database; the first server brings it up to date."""
        name = f"flow_{uuid4().hex}"
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            conn.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        return make_conninfo(self._dsn, dbname=name)

    def cut_off(self) -> None:
        """What `pg_ctl -m immediate stop` does."""
        postmaster = find(Place(self._folder.resolve()))
        assert postmaster is not None
        os.kill(postmaster.pid, signal.SIGQUIT)
        deadline = time.monotonic() + 30
        while lives(postmaster.pid) and time.monotonic() < deadline:
            time.sleep(0.005)

    def start(self) -> None:
        """Start it again; it recovers by itself."""
        before = self._running
        self._running = embedded.start(self._folder, _FAST)
        before.stop()
        assert self._running.dsn == self._dsn

    def stop(self) -> None:
        self._running.stop()


@contextmanager
def restartable() -> Iterator[Restartable]:
    """A Postgres for one module's tests."""
    with data_directory() as folder:
        postgres = Restartable(folder)
        try:
            yield postgres
        finally:
            postgres.stop()
