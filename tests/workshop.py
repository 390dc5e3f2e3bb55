"""A real reader of files, and a real sandbox for code, in confined processes of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flowserver.confined import Confined
from flowserver.workshop import ConfinedCode, ConfinedReader


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
async def code_runner() -> AsyncIterator[ConfinedCode]:
    async with confined() as pool:
        yield ConfinedCode(pool)
