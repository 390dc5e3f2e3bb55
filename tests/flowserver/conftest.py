"""A server in the test's own process, on a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from flowserver.app import create_app
from flowserver.assembly import Flowserver, assemble
from flowserver.db import Pool, make_pool
from flowserver.settings import Settings
from flowserver.vectors import OrgVectors
from tests.server import KEY, serving


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, api_key=KEY, lease_seconds=2, grace_seconds=2)


@pytest.fixture
async def flowserver(settings: Settings, dsn: str) -> AsyncIterator[Flowserver]:
    """A server without HTTP."""
    async with assemble(settings, dsn) as flowserver:
        yield flowserver


@pytest.fixture
async def client(settings: Settings, dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client that has the key, and paths under `/api/v1`."""
    async with serving(create_app(settings, dsn)) as client:
        yield client


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    """Connections to the test's own database, as a server has them."""
    async with make_pool(dsn) as pool:
        yield pool


@pytest.fixture
async def vectors(pool: Pool) -> OrgVectors:
    """The collections of a new organisation."""
    return OrgVectors(pool, await new_org(pool))


async def new_org(pool: Pool) -> UUID:
    async with pool.connection() as conn:
        await conn.execute("INSERT INTO org (id, name) VALUES (%s, 'somebody')", (id := uuid4(),))
    return id
