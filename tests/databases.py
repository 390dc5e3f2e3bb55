"""One Postgres for a whole test session, and in it one database for each test.

Every process of the session (pytest-xdist has several) joins the server when its first test needs it: the
first one starts it, the last one stops it. FLOWSERVER_TEST_DSN, a superuser's, names another server instead.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from flowserver import embedded

_PREFIX = "flowserver-tests"
_ROOM = 2**30
_FAST_AND_UNSAFE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_wal_size": "256MB",
}

_END_SESSIONS = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s"


class Databases:
    """Makes the databases of one process's tests."""

    def __init__(self, session: Path, dsn: str, admin: psycopg.Connection) -> None:
        self.dsn = dsn
        """Of a superuser; its own database belongs to nobody, so leave it empty."""
        self._template = session / "template"
        self._admin = admin

    @contextmanager
    def fresh(self, template: str | None = None) -> Iterator[str]:
        """The DSN of a new database, dropped afterwards: a migrated one, or a copy of `template`."""
        source = template or self._migrated()
        name = f"flow_test_{uuid4().hex}"
        create(self._admin, name, source)
        try:
            yield make_conninfo(self.dsn, dbname=name)
        finally:
            drop(self._admin, name)

    def _migrated(self) -> str:
        """The database that tests copy, made by whichever process needs it first."""
        with self._template.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            name = file.read()
            if not name:
                name = f"flow_template_{uuid4().hex}"
                self._migrate(name)
                file.write(name)
        return name

    def _migrate(self, name: str) -> None:
        # LangGraph takes most of a second to import: tests without a database shall not wait for it.
        from flowserver.db import migrate  # noqa: PLC0415

        create(self._admin, name, "template1")
        try:
            # With a factory, the runner leaves the loop alone that pytest-asyncio has set.
            with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
                runner.run(migrate(make_conninfo(self.dsn, dbname=name)))
        except BaseException:
            drop(self._admin, name)
            raise


def create(admin: psycopg.Connection, name: str, template: str) -> None:
    """Copy a database that nobody is connected to."""
    # By file it takes 20 ms, through the log 30 ms.
    statement = SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
    admin.execute(statement.format(Identifier(name), Identifier(template)))


def drop(admin: psycopg.Connection, name: str) -> None:
    """Drop a database whoever is still connected to it."""
    # WITH (FORCE) alone sleeps 100 ms when it meets a session, even one that is about to end.
    deadline = time.monotonic() + 1
    while admin.execute(_END_SESSIONS, (name,)).fetchone() != (0,) and time.monotonic() < deadline:
        time.sleep(0.002)
    admin.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))


def open_session() -> Path:
    """The directory through which the processes of one session share their server."""
    # A session that was killed could not stop its server.
    for left in _parent().glob(f"{_PREFIX}-*"):
        if not _lives(int(left.name.split("-")[2])):
            close_session(left)
    session = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{os.getpid()}-", dir=_parent()))
    # As root, Postgres is another user, who must pass.
    session.chmod(0o711)
    return session


@contextmanager
def joined(session: Path) -> Iterator[Databases]:
    """Use the session's server, which is started if no other process has."""
    dsn = os.environ.get("FLOWSERVER_TEST_DSN")
    server = None if dsn else embedded.start(session / "data", _FAST_AND_UNSAFE)
    try:
        dsn = server.dsn if server else dsn or ""
        with psycopg.connect(dsn, autocommit=True) as admin:
            yield Databases(session, dsn, admin)
    finally:
        if server:
            server.stop()


def close_session(session: Path) -> None:
    """Leave nothing behind, also when a process of the session was killed."""
    template = session / "template"
    if (dsn := os.environ.get("FLOWSERVER_TEST_DSN")) and template.exists():
        with psycopg.connect(dsn, autocommit=True) as admin:
            drop(admin, template.read_text())
    if (session / "data" / "postgres" / "postmaster.pid").exists():
        with suppress(embedded.PostgresFailed):
            embedded.start(session / "data").stop()
    shutil.rmtree(session, ignore_errors=True)


def _parent() -> Path:
    """RAM, if there is enough of it: on a disk that is slow at making files, a copy took 20 times longer."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM:
        return memory
    return Path(tempfile.gettempdir())


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
