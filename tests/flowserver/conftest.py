"""A server in the test's own process, on a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from flowserver.app import create_app
from flowserver.assembly import Flowserver, assemble
from flowserver.settings import Settings
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
