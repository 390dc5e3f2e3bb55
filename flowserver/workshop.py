"""Work that steps have done in confined processes: files read, functions called, and code run if allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar, get_type_hints
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec

from flowserver.confined import Confined, ConfinedFailure
from nodes.code_runner import CodeResult
from nodes.contract import NodeError
from nodes.reading import Reading

Result = TypeVar("Result")

CODE_MEMORY = 128 << 20
MOST_CODE_VALUES = 5_000_000
"""Bytes of what a piece of code is given."""


class ConfinedReader:
    """Reads files, as `nodes.reading.Reader` says."""

    def __init__(self, confined: Confined) -> None:
        self._confined = confined

    async def read(
        self,
        data: bytes,
        *,
        name: str = "",
        media_type: str = "",
        remove: Sequence[str] = (),
        article: bool = False,
        by_page: bool = False,
    ) -> Reading:
        request = {
            "data": data,
            "name": name,
            "media_type": media_type,
            "remove": list(remove),
            "article": article,
            "by_page": by_page,
        }
        try:
            return msgspec.convert(await self._confined.call("read", request), Reading)
        except ConfinedFailure as failed:
            _fail(failed)


class ConfinedCode:
    """Runs code, as `nodes.code_runner.CodeRunner` says."""

    def __init__(self, confined: Confined) -> None:
        self._confined = confined

    async def run(self, code: str, values: Mapping[str, Any], seconds: float) -> CodeResult:
        if len(msgspec.msgpack.encode(values)) > MOST_CODE_VALUES:
            message = f"what arrived has more than {MOST_CODE_VALUES:,} bytes, which is too much for code"
            raise NodeError(message, code="too_large", is_final=True)
        request = {"code": code, "values": values, "seconds": seconds, "memory_bytes": CODE_MEMORY}
        try:
            # Its own interpreter ends it in time; the rest is for one that does not.
            made = await self._confined.call(
                "code", request, seconds=seconds + 5, cpu_seconds=int(seconds) + 5
            )
        except ConfinedFailure as failed:
            _fail(failed)
        return msgspec.convert(made, CodeResult)


class IsolatedCalls:
    """Calls functions for the runs of all organisations; no single one keeps every process busy."""

    def __init__(self, confined: Confined, processes: int) -> None:
        """`confined` has `processes`."""
        self._confined = confined
        self._most = max(1, processes - 1)
        self._turns: WeakValueDictionary[UUID, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, org: UUID) -> IsolationOf:
        """The door for the runs of one organisation."""
        turns = self._turns.get(org)
        if turns is None:
            turns = self._turns[org] = asyncio.Semaphore(self._most)
        return IsolationOf(self._confined, turns)


class IsolationOf:
    """Calls functions, as `nodes.isolated.Isolation` says."""

    def __init__(self, confined: Confined, turns: asyncio.Semaphore) -> None:
        self._confined = confined
        self._turns = turns

    async def call(self, function: Callable[..., Result], *arguments: Any, seconds: float = 30) -> Result:
        request = {
            "module": function.__module__,
            "function": function.__name__,
            "arguments": msgspec.json.encode(arguments),
        }
        async with self._turns:
            try:
                made = await self._confined.call("call", request, seconds=seconds, cpu_seconds=int(seconds))
            except ConfinedFailure as failed:
                _fail(failed)
        return msgspec.json.decode(made, type=get_type_hints(function)["return"])  # type: ignore[no-any-return]


def _fail(failed: ConfinedFailure) -> NoReturn:
    raise NodeError(failed.message, code=failed.code, is_final=True) from None
