"""What a child of the nursery does to itself: it dies at its n-th statement, stops at a named place, or lies
about the time. Everything is done from outside, by wrapping functions; the server has no code for it.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import os
import re
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import psycopg

KILLED = 137
"""The exit status of a process that died by SIGKILL, as a shell tells it."""

Action: TypeAlias = Literal["die", "hold", "block", "fail", "clock", "hog"]

_counted: ContextVar[bool] = ContextVar("counted", default=False)


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A place in the server, and what happens there, once."""

    at: str
    """A function by its full name: `flowserver.saver.FencedSaver.aput`."""
    do: Action
    when: Literal["before", "after"] = "before"
    nth: int = 1
    """At which of its calls; 0 is every one."""
    seconds: float = 0.0
    """For how long it blocks the event loop, or by how much the clock jumps."""
    mark: str | None = None
    """A file that is made when the place is reached; one that is held goes on when the file is gone."""


class Sabotage(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is wrong with one child."""

    statement: int = 0
    """Die at this one of the counted statements."""
    when: Literal["before", "after"] = "before"
    counted: tuple[str, ...] = ()
    """Statements count that these functions, or tasks which they start, send."""
    count: str | None = None
    """The file that tells how many there have been."""
    points: tuple[Point, ...] = ()
    values: Mapping[str, Any] = {}
    """Other values of constants, by full name."""
    clock: float = 0.0
    """By how many seconds this machine's clock is wrong."""
    takes_jobs: bool = True
    """Whether it takes part in executing what is not its own: jobs of the queue, runs of the dead."""


def apply(sabotage: Sabotage) -> None:
    """Do to this process what `sabotage` says."""
    for name, value in sabotage.values.items():
        owner, attribute = _find(name)
        setattr(owner, attribute, value)
    if sabotage.counted:
        _count(sabotage)
    for point in sabotage.points:
        _set(point)
    if sabotage.clock or any(point.do == "clock" for point in sabotage.points):
        _clock.offset = sabotage.clock
        _clock.install()
    if not sabotage.takes_jobs:
        for name in ("flowserver.dispatcher.Dispatcher.start", "flowserver.rounds.Rounds.start"):
            owner, attribute = _find(name)
            setattr(owner, attribute, lambda self: None)


def _count(sabotage: Sabotage) -> None:
    for name in sabotage.counted:
        _wrap(name, _counting)
    file = os.open(sabotage.count, os.O_WRONLY | os.O_CREAT) if sabotage.count else None
    sent = 0
    real = psycopg.AsyncConnection.wait

    async def wait(self: Any, *values: Any, **more: Any) -> Any:
        """Every exchange with the database goes through here: statements, BEGIN and COMMIT, pipelines."""
        nonlocal sent
        if not _counted.get():
            return await real(self, *values, **more)
        sent += 1
        mine = sent
        if file is not None:
            os.pwrite(file, str(mine).encode(), 0)
        if mine == sabotage.statement and sabotage.when == "before":
            os._exit(KILLED)
        try:
            return await real(self, *values, **more)
        finally:
            if mine == sabotage.statement:
                os._exit(KILLED)

    psycopg.AsyncConnection.wait = wait  # type: ignore[method-assign]


def _counting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def counting(*values: Any, **more: Any) -> Any:
        token = _counted.set(True)
        try:
            return await function(*values, **more)
        finally:
            _counted.reset(token)

    return counting


def _set(point: Point) -> None:
    _wrap(point.at, functools.partial(_stop_at, point))


def _stop_at(point: Point, function: Callable[..., Any]) -> Callable[..., Any]:
    calls = 0

    def is_now(when: str) -> bool:
        nonlocal calls
        calls += when == "before"
        return when == point.when and point.nth in (0, calls)

    @functools.wraps(function)
    def wrapped(*values: Any, **more: Any) -> Any:
        if is_now("before"):
            _act(point)
        found = function(*values, **more)
        if is_now("after"):
            _act(point)
        return found

    @functools.wraps(function)
    async def awaited(*values: Any, **more: Any) -> Any:
        if is_now("before"):
            await _reach(point)
        found = await function(*values, **more)
        if is_now("after"):
            await _reach(point)
        return found

    return awaited if inspect.iscoroutinefunction(function) else wrapped


async def _reach(point: Point) -> None:
    _act(point)
    while point.do == "hold" and point.mark is not None and Path(point.mark).exists():
        await asyncio.sleep(0.01)


def _act(point: Point) -> None:
    if point.mark is not None:
        Path(point.mark).touch()
    match point.do:
        case "die":
            os._exit(KILLED)
        case "block":
            time.sleep(point.seconds)
        case "hog":
            # In C, with the interpreter held, for longer than any test lasts.
            re.fullmatch("(a+)+", "a" * 60 + "b")
        case "fail":
            raise SystemExit("the process was told to leave in the middle of a step")
        case "clock":
            _clock.offset += point.seconds


class _Clock:
    offset = 0.0

    def install(self) -> None:
        real, real_ns = time.time, time.time_ns
        time.time = lambda: real() + self.offset
        time.time_ns = lambda: real_ns() + int(self.offset * 1e9)


_clock = _Clock()


def _wrap(name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    owner, attribute = _find(name)
    setattr(owner, attribute, wrapper(getattr(owner, attribute)))


def _find(name: str) -> tuple[Any, str]:
    """What has the last part of a full name, and that part."""
    path, _, attribute = name.rpartition(".")
    parts = path.split(".")
    for size in range(len(parts), 0, -1):
        try:
            owner: Any = importlib.import_module(".".join(parts[:size]))
        except ModuleNotFoundError:
            continue
        for part in parts[size:]:
            owner = getattr(owner, part)
        getattr(owner, attribute)  # a name that nothing has would sabotage nothing
        return owner, attribute
    raise ModuleNotFoundError(name)
