"""Collections in Postgres: what is known of each, without the chunks that it holds."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow

import sql
from flowserver.db import Pool, is_outage
from flowserver.ids import new_id
from nodes.contract import NodeError, ServerTrouble
from nodes.vectors import MOST_DIMENSIONS, Collection, Distance

_QUERIES = sql.queries("collections")
_INSERT = _QUERIES["insert_collection"]
_MAKE_CHUNKS = _QUERIES["make_chunks"]
_GET = _QUERIES["get_collection"]
_FIND = _QUERIES["find_collection"]
_LIST = _QUERIES["list_collections"]
_DELETE = _QUERIES["delete_collection"]
_DROP_CHUNKS = _QUERIES["drop_chunks"]
_RENAME = _QUERIES["rename_collection"]
_TOUCH = _QUERIES["touch_collection"]

_LONGEST_NAME = 200
_LONGEST_DESCRIPTION = 10_000


class NoCollection(NodeError):
    """There is no collection of this name, or not any more."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="no_collection", is_final=True)


class Collections:
    """Make, read, list and delete. Every call is within one organisation."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(
        self,
        org: UUID,
        name: str,
        model: str,
        dimension: int,
        *,
        distance: Distance = "cosine",
        language: str = "english",
        description: str | None = None,
    ) -> tuple[Collection, bool]:
        """Make a collection unless there is one of the name; it, and whether it is new.

        Raises:
            NodeError: The name, the dimension or the language is not allowed.
        """
        values = {
            "id": new_id(),
            "org": org,
            "name": checked_name(name),
            "description": _checked_description(description),
            "model": _checked_model(model),
            "dimension": _checked_dimension(dimension),
            "distance": distance,
            "language": _checked_language(language),
        }
        try:
            async with asked(self._pool) as conn, conn.transaction():
                row = await (await conn.execute(_INSERT, values)).fetchone()
                if row is not None:
                    await conn.execute(_MAKE_CHUNKS, values)
                    return _collection(row), True
        except psycopg.errors.UndefinedObject:
            raise _no_language(language) from None
        found = await self.find(org, name)
        if found is None:
            raise NodeError(f"the collection {name!r} was deleted just now", code="conflict")
        return found, False

    async def get(self, org: UUID, id: UUID) -> Collection | None:
        async with asked(self._pool) as conn:
            row = await (await conn.execute(_GET, {"org": org, "id": id})).fetchone()
        return _collection(row) if row else None

    async def find(self, org: UUID, name: str) -> Collection | None:
        """The collection called so.

        Raises:
            NodeError: It is no name that a collection can have.
        """
        async with asked(self._pool) as conn:
            row = await (await conn.execute(_FIND, {"org": org, "name": checked_name(name)})).fetchone()
        return _collection(row) if row else None

    async def page(self, org: UUID, *, before: UUID | None, limit: int) -> list[Collection]:
        """The newest collections, or those older than `before`."""
        async with asked(self._pool) as conn:
            values = {"org": org, "before": before, "limit": limit}
            rows = await (await conn.execute(_LIST, values)).fetchall()
        return [_collection(row) for row in rows]

    async def delete(self, org: UUID, id: UUID) -> bool:
        """Delete a collection with all that it holds; whether there was one."""
        async with asked(self._pool) as conn, conn.transaction():
            row = await (await conn.execute(_DELETE, {"org": org, "id": id})).fetchone()
            if row is not None:
                await conn.execute(_DROP_CHUNKS, {"id": id})
        return row is not None

    async def rename(self, org: UUID, name: str, to: str) -> Collection | None:
        """Give a collection another name, and delete the one that was called so; `None` if there is none."""
        values = {"org": org, "name": checked_name(name), "to": checked_name(to)}
        async with asked(self._pool) as conn, conn.transaction():
            old = await (await conn.execute(_FIND, {"org": org, "name": to})).fetchone()
            row = await (await conn.execute(_FIND, values)).fetchone()
            if row is not None and old is not None and old["id"] != row["id"]:
                await conn.execute(_DELETE, {"org": org, "id": old["id"]})
                await conn.execute(_DROP_CHUNKS, {"id": old["id"]})
            row = await (await conn.execute(_RENAME, values)).fetchone()
        return _collection(row) if row else None

    async def touch(self, org: UUID, id: UUID) -> None:
        """Note that its chunks have changed."""
        async with asked(self._pool) as conn:
            await conn.execute(_TOUCH, {"org": org, "id": id})


@asynccontextmanager
async def asked(pool: Pool) -> AsyncIterator[AsyncConnection[DictRow]]:
    """A connection; what Postgres refuses is told in words that hold neither a statement nor an address."""
    try:
        async with pool.connection() as conn:
            yield conn
    except psycopg.errors.UndefinedTable:
        raise NoCollection("the collection was deleted just now") from None
    except psycopg.errors.QueryCanceled:
        raise NodeError("the database took too long; ask for less", code="timeout") from None
    except psycopg.OperationalError as exc:
        if not is_outage(exc):
            raise
        raise ServerTrouble from exc


def checked_name(name: str) -> str:
    """`name` if a collection can be called so.

    Raises:
        NodeError: It cannot.
    """
    if not 0 < len(name.strip()) <= _LONGEST_NAME or not _storable(name):
        message = f"the name of a collection is a text of 1 to {_LONGEST_NAME} characters that is not blank"
        raise NodeError(message, code="bad_name", is_final=True)
    return name


def storable(text: str) -> str:
    """`text` without what Postgres cannot hold."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def _storable(text: str) -> bool:
    return storable(text) == text


def _checked_description(description: str | None) -> str | None:
    if description is not None and len(description) > _LONGEST_DESCRIPTION:
        message = f"a description has at most {_LONGEST_DESCRIPTION} characters, not {len(description)}"
        raise NodeError(message, code="bad_description", is_final=True)
    return None if description is None else storable(description)


def _checked_model(model: str) -> str:
    if not 0 < len(model.strip()) <= _LONGEST_NAME or not _storable(model):
        message = f"the name of a model has 1 to {_LONGEST_NAME} characters"
        raise NodeError(message, code="bad_name", is_final=True)
    return model


def _checked_dimension(dimension: int) -> int:
    if not 1 <= dimension <= MOST_DIMENSIONS:
        message = f"vectors have 1 to {MOST_DIMENSIONS} dimensions, not {dimension}"
        raise NodeError(message, code="bad_vector", is_final=True)
    return dimension


def _checked_language(language: str) -> str:
    if not re.fullmatch(r"[a-z_]{1,60}", language):
        raise _no_language(language)
    return language


def _no_language(language: str) -> NodeError:
    message = f"there is no language {language[:80]!r}; examples: english, german, simple"
    return NodeError(message, code="bad_language", is_final=True)


def _collection(row: DictRow) -> Collection:
    return msgspec.convert(row, Collection)
