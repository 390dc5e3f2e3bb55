"""Postgres itself checks every query that is shipped, and the migrations that they need."""

from __future__ import annotations

import asyncio
import re
import sys
from importlib import resources
from typing import Any

import psycopg
import pytest

import sql
from flowserver.db import migrate
from tests.databases import Databases
from tests.server import ROOT

FILES = sorted(
    file.name.removesuffix(".sql") for file in resources.files("sql").iterdir() if file.name.endswith(".sql")
)
QUERIES = [
    pytest.param(text, id=f"{file}.{name}") for file in FILES for name, text in sql.queries(file).items()
]

SCHEMA = """
SELECT table_name, column_name, data_type, is_nullable, column_default
  FROM information_schema.columns
 WHERE table_schema = 'public'
UNION ALL
SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
 ORDER BY 1, 2
"""


def numbered(query: str) -> str:
    """Write psycopg's `%(name)s` as the `$1` that PREPARE takes."""
    names: dict[str, str] = {}
    text = re.sub(r"%\((\w+)\)s", lambda found: names.setdefault(found[1], f"${len(names) + 1}"), query)
    return text.replace("%%", "%")


COLLECTION = "00000000-0000-7000-8000-000000000000"
NAMES = {
    "{chunks}": f"chunk_{COLLECTION.replace('-', '')}",
    "{kind}": "vector",
    "{distance}": "<=>",
    "{where}": "metadata @@ %(where)s::text::jsonpath",
}
"""What code puts into queries that are for a table, or an operator, of its choice."""


def complete(query: str) -> str:
    for name, meant in NAMES.items():
        query = query.replace(name, meant)
    return query


@pytest.mark.parametrize("query", QUERIES)
def test_postgres_can_prepare_a_query(query: str, dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        conn.execute("SELECT make_chunks(%s, 3, 'cosine', 'english')", (COLLECTION,))
        conn.execute("PREPARE q AS " + numbered(complete(query)))


def test_every_query_file_holds_queries() -> None:
    assert all(sql.queries(file) for file in FILES)
    assert len(QUERIES) == sum(len(sql.queries(file)) for file in FILES)


def test_a_query_begins_at_its_name_and_keeps_its_comments() -> None:
    found = sql.split("-- first --\n-- Why.\nSELECT 1;\n\n-- second --\nSELECT 2 -- two --\n;\n")

    assert found == {"first": "-- Why.\nSELECT 1;", "second": "SELECT 2 -- two --\n;"}


def test_migrations_are_numbered_without_a_gap() -> None:
    names = [name for name, _ in sql.migrations()]

    assert [name.split("_")[0] for name in names] == [f"{number:04}" for number in range(1, len(names) + 1)]


def schema(dsn: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(SCHEMA).fetchall()


def applied(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as conn:
        ours = "SELECT name FROM migration WHERE name NOT LIKE 'procrastinate %' ORDER BY name"
        return [row[0] for row in conn.execute(ours)]


async def test_migrations_applied_twice_change_nothing(dsn: str) -> None:
    before = schema(dsn)

    await migrate(dsn)

    assert schema(dsn) == before
    assert applied(dsn) == [name for name, _ in sql.migrations()]


async def test_two_processes_may_migrate_one_empty_database_at_once(databases: Databases, dsn: str) -> None:
    command = "import asyncio, sys; from flowserver.db import migrate; asyncio.run(migrate(sys.argv[1]))"
    with databases.fresh("template1") as empty:
        processes = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", command, empty, cwd=ROOT)
            for _ in range(2)
        ]
        ended = [await process.wait() for process in processes]

        assert ended == [0, 0]
        assert schema(empty) == schema(dsn)
        assert applied(empty) == [name for name, _ in sql.migrations()]


async def test_a_failed_migration_leaves_nothing_and_frees_the_lock(databases: Databases) -> None:
    with databases.fresh("template1") as empty:
        with psycopg.connect(empty) as conn:
            conn.execute("CREATE TABLE workflow (in_the_way int)")

        with pytest.raises(psycopg.errors.DuplicateTable):
            await migrate(empty)

        with psycopg.connect(empty) as conn:
            conn.execute("DROP TABLE workflow")
        await migrate(empty)
        assert applied(empty) == [name for name, _ in sql.migrations()]
