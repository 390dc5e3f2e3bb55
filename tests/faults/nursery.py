"""Many real server processes in little time: one process imports everything, and each child is a fork of it.

A child is `flowserver serve` or `flowserver worker` as the command line runs it, sabotaged or not. It is its
own process with its own connections; only the two seconds of imports are shared.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec

from tests.faults.sabotage import Sabotage
from tests.server import HEADERS, KEY, ROOT

READY = {"serve": "listens on", "worker": "executes up to"}
_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG, which the standard library does not name."""

PATIENCE = 45.0
"""Seconds after which what has not happened is not waited for any longer."""


class Order(msgspec.Struct, frozen=True):
    """A child that is wanted."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    output: str
    log: str
    sabotage: Sabotage


class News(msgspec.Struct, frozen=True):
    """What the nursery tells: a child was born, or has ended."""

    pid: int
    status: int | None = None


class Child:
    """A server or worker process."""

    def __init__(self, pid: int, ended: Future[int], output: Path, log: Path) -> None:
        self.pid = pid
        self.log = log
        self._ended = ended
        self._output = output
        # Without TLS, as loading the certificates of the world takes longer than a request.
        self.client = httpx.AsyncClient(headers=HEADERS, timeout=PATIENCE, verify=False)

    async def is_ready(self, command: str) -> None:
        """Wait until it serves, or takes jobs."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for line in self._output.read_text().splitlines():
                if READY[command] in line:
                    if command == "serve":
                        self.client.base_url = httpx.URL(line.split()[3] + "/api/v1")
                    return
            if self._ended.done():
                break
            await asyncio.sleep(0.01)
        raise AssertionError(f"the {command} did not start")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def ended(self) -> int:
        """Its exit status, when it has ended; negative after a signal."""
        return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._ended)), PATIENCE)

    async def kill(self) -> None:
        """SIGKILL: nothing in the process gets a chance."""
        if not self._ended.done():
            self.signal(signal.SIGKILL)
            await self.ended()

    @property
    def lives(self) -> bool:
        return not self._ended.done()


class Nursery:
    """Bears children."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._born: list[Future[int]] = []
        self._ends: dict[int, Future[int]] = {}
        self._lock = threading.Lock()
        self._number = 0
        threading.Thread(target=self._listen, name="nursery", daemon=True).start()

    async def bear(
        self,
        dsn: str,
        command: str = "serve",
        *arguments: str,
        settings: Mapping[str, str] | None = None,
        sabotage: Sabotage | None = None,
    ) -> Child:
        """Start a server or a worker."""
        with self._lock:
            self._number += 1
            place = self._folder / str(self._number)
            place.mkdir()
            output, log = place / "output", place / "log"
            environment = {
                **{key: value for key, value in os.environ.items() if not key.startswith("FLOWSERVER_")},
                "FLOWSERVER_DATABASE_URL": dsn,
                "FLOWSERVER_DATA_DIR": str(place),
                "FLOWSERVER_API_KEY": KEY,
                "FLOWSERVER_PORT": "0",
                "FLOWSERVER_LEASE_SECONDS": "2",
                **(settings or {}),
            }
            order = Order((command, *arguments), environment, str(output), str(log), sabotage or Sabotage())
            output.touch()
            log.touch()
            born: Future[int] = Future()
            self._born.append(born)
            assert self._process.stdin is not None
            self._process.stdin.write(msgspec.json.encode(order) + b"\n")
            self._process.stdin.flush()
        pid = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(born)), PATIENCE)
        return Child(pid, self._ends[pid], output, log)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            news = msgspec.json.decode(line, type=News)
            if news.status is None:
                self._ends[news.pid] = Future()
                self._born.pop(0).set_result(news.pid)
            else:
                self._ends[news.pid].set_result(news.status)


class Family:
    """The children of one test: they end with it, and what they logged is shown if it fails."""

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self._children: list[Child] = []

    async def bear(self, dsn: str, command: str = "serve", *arguments: str, **more: Any) -> Child:
        """Start a server or a worker, and wait until it is ready; see `Nursery.bear`."""
        child = await self._nursery.bear(dsn, command, *arguments, **more)
        self._children.append(child)
        await child.is_ready(command)
        return child

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in self._children:
            await child.kill()
            await child.client.aclose()
            sys.stderr.write(f"--- log of {child.pid}\n{child.log.read_text(errors='replace')}")


@contextmanager
def nursery(folder: Path) -> Iterator[Nursery]:
    """A nursery whose children do not outlive it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.nursery"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Nursery(process, folder)
    finally:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.wait(PATIENCE)
        process.stdout.close()


def _tell(news: News) -> None:
    os.write(1, msgspec.json.encode(news) + b"\n")


class _Mother:
    """The process that has imported everything; it runs no threads and no event loop of its own."""

    def __init__(self) -> None:
        self._children: set[int] = set()
        self._woken, self._wakes = os.pipe()

    def live(self) -> None:
        os.set_blocking(self._wakes, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakes)
        waiting = selectors.DefaultSelector()
        waiting.register(0, selectors.EVENT_READ)
        waiting.register(self._woken, selectors.EVENT_READ)
        orders = b""
        while True:
            for key, _ in waiting.select():
                if key.fd == self._woken:
                    os.read(self._woken, 4096)
                    self._bury()
                    continue
                if not (piece := os.read(0, 65536)):
                    return self._end()
                *whole, orders = (orders + piece).split(b"\n")
                for line in whole:
                    self._bear(msgspec.json.decode(line, type=Order))

    def _bear(self, order: Order) -> None:
        if (pid := os.fork()) == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(self._woken)
            os.close(self._wakes)
            _be(order)
        self._children.add(pid)
        _tell(News(pid))

    def _bury(self) -> None:
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = found
                self._children.discard(pid)
                _tell(News(pid, os.waitstatus_to_exitcode(status)))

    def _end(self) -> None:
        for pid in self._children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            os.waitpid(pid, 0)


def _be(order: Order) -> None:
    """Become the child."""
    from flowserver.__main__ import main  # noqa: PLC0415  the nursery's users need not import the server
    from tests.faults.sabotage import apply  # noqa: PLC0415

    status: Any = 1
    try:
        os.setsid()
        with suppress(AttributeError):  # not on macOS: there a child outlives a nursery that is killed
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, path in ((0, None), (1, order.output), (2, order.log)):
            file = nothing if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, number)
            os.close(file) if path is not None else None
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        os.environ.clear()
        os.environ.update(order.environment)
        apply(order.sabotage)
        status = main(list(order.arguments))
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)


def _import_everything() -> None:
    modules: Sequence[str] = (
        "flowserver.app",
        "flowserver.working",
        "flowserver.welcome",
        "langchain_openai",
        "procrastinate",
        "uvicorn.protocols.http.httptools_impl",
        "uvicorn.lifespan.off",
        "uvloop",
    )
    for name in modules:
        __import__(name)
    from nodes import registry  # noqa: PLC0415

    registry.discover()


if __name__ == "__main__":
    _import_everything()
    assert threading.active_count() == 1, "a process with threads cannot be forked safely"
    gc.freeze()
    _Mother().live()
