"""Functions that run in a process of their own, where the time and memory that they take have limits.

What strangers give may cost any amount of time: patterns, texts to cut, lists to sort, keys to derive. A
thread cannot be ended, and the event loop serves everyone; such work is a plain function of a node's module
that is called through the door below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from nodes.context import RunContext

Result = TypeVar("Result")

LIGHT = 50_000
"""The weight up to which work is done on the event loop at once: it takes a few milliseconds."""


class Isolation(Protocol):
    """Calls functions in processes that are ended when they need too much."""

    async def call(self, function: Callable[..., Result], *arguments: Any, seconds: float = 30) -> Result:
        """The result of `function`, which must be annotated and stand in a module by its name.

        Arguments and results are JSON, or structs of it.

        Raises:
            NodeError: What the function raised; `too_complex` or `too_large`, it needs more than is allowed.
        """
        ...


async def isolated(
    ctx: RunContext, function: Callable[..., Result], *arguments: Any, seconds: float = 30
) -> Result:
    """The result of `function`; in this process where the run has no other to offer."""
    door = ctx.doors.get(Isolation)
    if door is None:
        return function(*arguments)
    result: Result = await door.call(function, *arguments, seconds=seconds)
    return result


async def isolated_if_heavy(
    ctx: RunContext, weight: int, function: Callable[..., Result], *arguments: Any
) -> Result:
    """The result of `function`, which is called right here if it has little to do."""
    return function(*arguments) if weight <= LIGHT else await isolated(ctx, function, *arguments)


def weight(value: Any, most: int = LIGHT) -> int:
    """About how many characters `value` has as JSON; counting ends where there are more than `most`."""
    found = 0
    rest = [value]
    while rest and found <= most:
        match rest.pop():
            case str() as text:
                found += 8 + len(text)
            case Mapping() as items:
                found += sum(8 + len(key) if isinstance(key, str) else 8 for key in items)
                rest.extend(items.values())
            case list() | tuple() as items:
                found += 8 + len(items)
                rest.extend(items)
            case _:
                found += 8
    return found
