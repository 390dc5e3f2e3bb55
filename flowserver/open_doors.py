"""Which doors this server opens to the steps of its runs, and to what."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from flowserver import answering, credentials
from flowserver.confined import Confined
from flowserver.connections import Connections
from flowserver.credentials import Credentials
from flowserver.databases import Databases
from flowserver.db import Pool
from flowserver.doors import DoorMaker
from flowserver.files import FilesOf, FileStore
from flowserver.memories import OrgMemories
from flowserver.settings import Settings
from flowserver.vectors import OrgVectors
from flowserver.workshop import ConfinedCode, ConfinedReader, IsolatedCalls
from nodes.answers import Answers as AnswersDoor
from nodes.code_runner import CodeRunner
from nodes.connections import Connections as ConnectionsDoor
from nodes.credentials import Credentials as CredentialsDoor
from nodes.databases import Databases as DatabasesDoor
from nodes.files import Files
from nodes.isolated import Isolation
from nodes.long_term_memory import Memories
from nodes.reading import Reader
from nodes.search_access import TAVILY, SearchAccess
from nodes.vectors import Vectors


def closed_doors(settings: Settings) -> frozenset[type[Any]]:
    """What the operator keeps closed: drawings that need it are warned of."""
    return frozenset() if settings.allow_code else frozenset({CodeRunner})


@asynccontextmanager
async def open_doors(
    settings: Settings, pool: Pool, allowed: Sequence[str], kept: Credentials, files: FileStore
) -> AsyncIterator[dict[type[Any], DoorMaker]]:
    """What steps may use of the world besides HTTP and models; `allowed` are private hosts all the same."""
    # Pools of their own, so that slow code keeps no document waiting.
    processes = max(2, os.cpu_count() or 1)
    for_files, for_code, for_calls = Confined(), Confined(), Confined(processes=processes, uses=500)
    calls = IsolatedCalls(for_calls, processes)
    connections = Connections(allowed)
    databases = Databases(connections)
    search = SearchAccess(settings.tavily_api_key, settings.tavily_base_url or TAVILY)
    doors: dict[type[Any], DoorMaker] = {
        AnswersDoor: answering.door(pool),
        ConnectionsDoor: lambda visitor: connections,
        CredentialsDoor: credentials.door(kept),
        DatabasesDoor: lambda visitor: databases,
        Files: lambda visitor: FilesOf(files, visitor.org),
        Isolation: lambda visitor: calls.of(visitor.org),
        Memories: lambda visitor: OrgMemories(pool, visitor.org, visitor.workflow),
        Reader: lambda visitor: ConfinedReader(for_files),
        SearchAccess: lambda visitor: search,
        Vectors: lambda visitor: OrgVectors(pool, visitor.org),
    }
    if settings.allow_code:
        doors[CodeRunner] = lambda visitor: ConfinedCode(for_code)
    try:
        yield doors
    finally:
        for each in (for_files, for_code, for_calls):
            await each.close()
