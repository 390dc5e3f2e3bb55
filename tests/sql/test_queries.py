"""Postgres itself checks every query we ship, and the migrations can be applied by anybody at any time."""

from __future__ import annotations

import asyncio
import re
from importlib import resources
from typing import LiteralString, cast

import psycopg
import pytest

import sql
from flowserver.db import migrate
from tests.databases import Databases

FILES = [f.name.removesuffix(".sql") for f in resources.files("sql").iterdir() if f.name.endswith(".sql")]
QUERIES = [
    pytest.param(text, id=f"{file}.{name}")
    for file in sorted(FILES)
    for name, text in sql.queries(file).items()
]


def numbered(query: str) -> LiteralString:
    """Write psycopg's `%(name)s` as the `$1` that PREPARE takes."""
    names: dict[str, str] = {}
    text = re.sub(r"%\((\w+)\)s", lambda m: names.setdefault(m[1], f"${len(names) + 1}"), query)
    return cast(LiteralString, text)


@pytest.mark.parametrize("query", QUERIES)
def test_query_is_valid(query: str, dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        conn.execute("PREPARE q AS " + numbered(query))


def test_every_table_of_somebody_has_its_organisation(dsn: str) -> None:
    """Tables that belong to nobody are named here; a new one has `org_id NOT NULL`."""
    nobodys = {"org", "migration"}
    query = """
        SELECT c.relname, bool_or(a.attname = 'org_id' AND a.attnotnull)
          FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
           AND c.relname NOT LIKE 'checkpoint%'
         GROUP BY c.relname
    """
    with psycopg.connect(dsn) as conn:
        tables = dict(conn.execute(query).fetchall())

    assert {name for name, has in tables.items() if not has} == nobodys


async def test_migrations_applied_again_change_nothing(dsn: str) -> None:
    await migrate(dsn)

    with psycopg.connect(dsn) as conn:
        rows = conn.execute("SELECT name FROM migration ORDER BY name").fetchall()
    assert [name for (name,) in rows] == [name for name, _ in sql.migrations()]


async def test_replicas_that_start_together_all_find_the_schema(databases: Databases) -> None:
    with databases.fresh(template="template1") as dsn:
        await asyncio.gather(*(migrate(dsn) for _ in range(4)))

        with psycopg.connect(dsn) as conn:
            conn.execute("SELECT 1 FROM run, checkpoints")
