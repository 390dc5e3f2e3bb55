"""Data directories for embedded servers, and what still runs in one."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ROOM = 2**30


@contextmanager
def data_directory() -> Iterator[Path]:
    """A directory that Postgres can reach when it runs as another user, in RAM if there is room.

    pytest's own it cannot: whenever a session starts, it closes the folder above those of all sessions. The
    name is one that `tests.databases` clears away if this session is killed.
    """
    in_memory = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM
    parent = _MEMORY if in_memory else None
    folder = Path(tempfile.mkdtemp(prefix=f"flowserver-tests-{os.getpid()}-", dir=parent))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def left_running(data_dir: Path, seconds: float = 10) -> list[str]:
    """The processes that still work in `data_dir` after so long: those of its Postgres."""
    deadline = time.monotonic() + seconds
    while (found := _working_in(data_dir.resolve())) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def _working_in(folder: Path) -> list[str]:
    """By their directory, for Postgres' children do not say in their names whose they are."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if Path(os.readlink(process / "cwd")).is_relative_to(folder):
                found.append(f"{process.name} {(process / 'cmdline').read_text().replace(chr(0), ' ')}")
    if not Path("/proc/self").exists() and (folder / "postgres" / "postmaster.pid").exists():
        found.append("a Postgres, says its postmaster.pid")
    return found
