"""What runs in a confined child process: it takes its limits, then does one task after another.

The parent writes frames to its standard input and reads frames from its standard output: four bytes of
length, then msgpack. It has no environment, can open no socket, write no file and start no program; a parser
that is led astray has little to reach for.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import struct
import sys
from typing import Any, BinaryIO

import msgspec

TASKS = {
    "read": "flowserver.document_texts",
    "code": "flowserver.sandboxed_code",
    "call": "flowserver.isolated_calls",
}
"""Task -> the module whose `work(request)` does it."""

HEADER = struct.Struct(">I")

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_NO_NEW_PRIVILEGES = 38


class Refused(Exception):
    """The task cannot be done, for a reason that its author may be told."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Task(msgspec.Struct, frozen=True):
    name: str
    request: dict[str, Any]
    cpu_seconds: int
    most_bytes: int
    """Of the answer."""


def main(memory_bytes: int) -> None:
    """Work until the parent closes the pipe, or a task fails in a way that may have left traces."""
    inward = os.fdopen(os.dup(0), "rb")
    outward = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for each in (0, 1, 2):  # a library that prints must not speak in between
        os.dup2(nowhere, each)
    confine(memory_bytes)
    while (frame := _frame(inward)) is not None:
        answer, is_sound = _do(msgspec.msgpack.decode(frame, type=Task))
        outward.write(HEADER.pack(len(answer)) + answer)
        outward.flush()
        if not is_sound:
            return


def confine(memory_bytes: int) -> None:
    """Give up what a parser of files does not need; none of it can be had back."""
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    for limit, most in limits.items():
        resource.setrlimit(limit, (most, most))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    # A network of its own, which is empty. Kernels that refuse it leave the hook below.
    libc.unshare(_CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWUSER | _CLONE_NEWNET)
    sys.addaudithook(_refuse)


_FORBIDDEN = (
    "socket.",
    "subprocess.",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pty.",
)
_CHANGING = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
)


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event.startswith((*_FORBIDDEN, *_CHANGING)):
        raise PermissionError(f"{event} is not allowed here")
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        raise PermissionError("nothing can be written here")


def _frame(inward: BinaryIO) -> bytes | None:
    header = inward.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (length,) = HEADER.unpack(header)
    frame = inward.read(length)
    return frame if len(frame) == length else None


def _do(task: Task) -> tuple[bytes, bool]:
    """The answer to a task, and whether this process may go on to another."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + task.cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
    try:
        made = importlib.import_module(TASKS[task.name]).work(task.request)
        answer = msgspec.msgpack.encode({"done": made})
    except Refused as refused:
        return _failure(refused.code, refused.message), True
    except (MemoryError, RecursionError):
        return _failure("too_complex", "it needs more memory, or is nested deeper, than is allowed"), False
    except Exception as exc:
        # Only the kind of error: its text may hold anything of the file.
        return _failure("unreadable", f"it cannot be read ({type(exc).__name__})"), False
    if len(answer) > task.most_bytes:
        return _failure("too_large", f"it gives more than {task.most_bytes:,} bytes"), True
    return answer, True


def _failure(code: str, message: str) -> bytes:
    return msgspec.msgpack.encode({"refused": [code, message]})
