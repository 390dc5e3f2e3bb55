"""A server in the test's own process, on a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from litestar.testing import AsyncTestClient

from flowserver.app import create_app
from flowserver.assembly import Flowserver, assemble
from flowserver.settings import Settings
from tests.server import HEADERS, KEY


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, api_key=KEY, lease_seconds=2, grace_seconds=2)


@pytest.fixture
async def flowserver(settings: Settings, dsn: str) -> AsyncIterator[Flowserver]:
    """A server without HTTP."""
    async with assemble(settings, dsn) as flowserver:
        yield flowserver


@pytest.fixture
async def client(settings: Settings, dsn: str) -> AsyncIterator[AsyncTestClient]:  # type: ignore[type-arg]
    """A client that has the key, and paths under `/api/v1`."""
    app = create_app(settings, dsn)
    async with AsyncTestClient(app, base_url="http://testserver.local/api/v1") as client:
        client.headers.update(HEADERS)
        yield client
