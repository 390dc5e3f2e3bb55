"""Children of a nursery, a web server that counts, and a Postgres that may be restarted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.faults.nursery import Family, Nursery, nursery
from tests.web_server import WebServer


@pytest.fixture(scope="session")
def _nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with nursery(tmp_path_factory.mktemp("nursery")) as made:
        yield made


@pytest.fixture
async def children(_nursery: Nursery) -> AsyncIterator[Family]:
    """Makes server processes, which end with the test."""
    async with Family(_nursery) as family:
        yield family


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    """Where effects are counted."""
    async with WebServer() as web:
        yield web
