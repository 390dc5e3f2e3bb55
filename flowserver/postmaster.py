"""The running Postgres as postmaster.pid tells it; as that may be stale, its process is asked too."""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass

from flowserver.cluster import SOCKET, Place

_DARWIN_PEER_PID = (0, 2)
"""SOL_LOCAL and LOCAL_PEERPID, which the socket module lacks."""

POLL = 0.01
"""Seconds between two looks at what changes within milliseconds."""
_UNHEARD_SECONDS = 2.0
"""How long a living pid may go without listening before it is another program's; Postgres needs 20 ms."""


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What a complete postmaster.pid says."""

    pid: int
    socket_dir: str
    status: str


def find(place: Place) -> Postmaster | None:
    """The living server of this cluster; what a dead one left is cleared away."""
    deadline = time.monotonic() + _UNHEARD_SECONDS
    while (pid := _recorded_pid(place)) is not None:
        postmaster = _read(place)
        if postmaster is not None and listener(postmaster) is not None:
            return postmaster
        if not lives(pid) or time.monotonic() > deadline:
            # Postgres refuses to start while any program of its user has the pid, as happens after a reboot.
            place.pid_file.unlink(missing_ok=True)
            return None
        time.sleep(POLL)
    return None


def ready(place: Place) -> Postmaster | None:
    """The server of this cluster, if it has said that it takes connections."""
    postmaster = _read(place)
    return postmaster if postmaster is not None and postmaster.status == "ready" else None


def listener(postmaster: Postmaster) -> int | None:
    """The pid listening on the server's socket: 0 if it cannot be seen from here, None if nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            connection.connect(f"{postmaster.socket_dir}/{SOCKET}")
        except BlockingIOError:
            return 0
        except OSError:
            return None
        if sys.platform == "darwin":
            return connection.getsockopt(*_DARWIN_PEER_PID)
        return int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), sys.byteorder)


def lives(pid: int) -> bool:
    """Whether there is such a process, whosever it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0


def _recorded_pid(place: Place) -> int | None:
    try:
        return int(place.pid_file.read_bytes().split(b"\n")[0])
    except FileNotFoundError:
        return None
    except ValueError:
        return 0


def _read(place: Place) -> Postmaster | None:
    """postmaster.pid, or None until its last line, the status, is written."""
    try:
        lines = os.fsdecode(place.pid_file.read_bytes()).split("\n")
        return Postmaster(pid=int(lines[0]), socket_dir=lines[4], status=lines[7].strip())
    except (FileNotFoundError, ValueError, IndexError):
        return None
