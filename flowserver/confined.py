"""Child processes for what strangers' files and code may do to a process: limited, watched, thrown away.

One has limits on memory, on processor time per task, and on time by the clock; no environment, no network,
nothing to write to. At most a few live at a time; each is used for some tasks, and for none after a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from flowserver.confined_child import HEADER, Task

_HEAVY = 8 << 20
"""Bytes of a task after which a process is not kept: it would hold on to what it needed."""

_ROOT = str(Path(__file__).parents[1])
_BEGIN = "import sys; sys.path.append({root!r}); from flowserver.confined_child import main; main({memory})"


class ConfinedFailure(Exception):
    """The task could not be done; `code` is stable, `message` is for whoever gave the input."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Confined:
    """A pool of confined child processes, which start when they are needed."""

    def __init__(
        self,
        *,
        processes: int = 2,
        uses: int = 50,
        memory_bytes: int = 512 << 20,
        most_bytes: int = 32 << 20,
    ) -> None:
        """`processes` live at most; each does `uses` tasks, whose answers have up to `most_bytes`."""
        self._uses = uses
        self._memory = memory_bytes
        self._most_bytes = most_bytes
        self._room = asyncio.Semaphore(processes)
        self._idle: list[_Child] = []
        self._living: dict[int, _Child] = {}
        self._closed = False

    @property
    def idle(self) -> list[int]:
        """The process ids of the children that wait for a task."""
        return [child.process.pid for child in self._idle]

    @property
    def living(self) -> list[int]:
        """The process ids of all children."""
        return list(self._living)

    async def call(
        self, task: str, request: dict[str, Any], *, seconds: float = 30.0, cpu_seconds: int = 20
    ) -> Any:
        """What the task makes of `request`.

        Raises:
            ConfinedFailure: It refused, or took too long or too much, or died of it.
        """
        frame = msgspec.msgpack.encode(Task(task, request, cpu_seconds, self._most_bytes))
        async with self._room:
            child = await self._free()
            try:
                async with asyncio.timeout(seconds):
                    answer = await child.ask(frame, self._most_bytes)
            except TimeoutError:
                await self._end(child)
                raise ConfinedFailure("too_complex", f"it took longer than {seconds:g} seconds") from None
            except (OSError, EOFError, RuntimeError):  # the last is uvloop's word for a closed pipe
                await self._end(child)
                raise ConfinedFailure("too_complex", "it needs more time or memory than is allowed") from None
            except BaseException:
                await self._end(child)
                raise
            await self._put_back(child, answer, len(frame))
        if "refused" in answer:
            raise ConfinedFailure(*answer["refused"])
        return answer["done"]

    async def close(self) -> None:
        """End every child."""
        self._closed = True
        while self._idle:
            await self._end(self._idle.pop())

    async def _free(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if child.process.returncode is None:
                return child
            await self._end(child)
        return await self._start()

    async def _start(self) -> _Child:
        # Not `-m`: a package of ours may be importable only by the path that this process has.
        begin = _BEGIN.format(root=_ROOT, memory=self._memory)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-B",
            "-c",
            begin,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
            cwd="/",
            start_new_session=True,
        )
        child = self._living[process.pid] = _Child(process)
        return child

    async def _end(self, child: _Child) -> None:
        await child.kill()
        del self._living[child.process.pid]

    async def _put_back(self, child: _Child, answer: dict[str, Any], size: int) -> None:
        child.used += self._uses if size > _HEAVY else 1
        is_sound = "done" in answer or answer["refused"][0] not in ("too_complex", "unreadable")
        if is_sound and child.used < self._uses and not self._closed:
            self._idle.append(child)
        else:
            await self._end(child)


class _Child:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.used = 0

    async def ask(self, frame: bytes, most_bytes: int) -> dict[str, Any]:
        inward, outward = self.process.stdin, self.process.stdout
        assert inward is not None and outward is not None
        inward.write(HEADER.pack(len(frame)))
        inward.write(frame)
        await inward.drain()
        (length,) = HEADER.unpack(await outward.readexactly(HEADER.size))
        if length > most_bytes:
            raise EOFError("the answer is longer than the child may give")
        found = msgspec.msgpack.decode(await outward.readexactly(length))
        if not isinstance(found, dict) or not found.keys() & {"done", "refused"}:
            raise EOFError("the answer is none")
        return found

    async def kill(self) -> None:
        """End it and whatever it started, which is in its own group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.stdin is not None:
            self.process.stdin.close()
        await self.process.wait()
