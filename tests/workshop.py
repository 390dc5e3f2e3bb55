"""A real reader of files, and a real sandbox for code, in confined processes of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from flowserver.confined import Confined
from flowserver.workshop import ConfinedCode, ConfinedReader, IsolatedCalls, IsolationOf


@asynccontextmanager
async def confined(**limits: int) -> AsyncIterator[Confined]:
    pool = Confined(**limits)
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def reader() -> AsyncIterator[ConfinedReader]:
    async with confined() as pool:
        yield ConfinedReader(pool)


@asynccontextmanager
async def isolation(**limits: int) -> AsyncIterator[tuple[IsolationOf, Confined]]:
    """A door to functions in processes of their own, and the pool of these."""
    async with confined(**limits) as pool:
        yield IsolatedCalls(pool, 2).of(UUID(int=1)), pool


@asynccontextmanager
async def code_runner() -> AsyncIterator[ConfinedCode]:
    async with confined() as pool:
        yield ConfinedCode(pool)
