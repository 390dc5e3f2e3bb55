"""Ask a Postgres database of your own; read-only, unless you say otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.credentials import CredentialId, Credentials
from nodes.databases import Databases, QueryLimits
from nodes.keys import trimmed
from nodes.mistakes import Keys

MOST_BYTES = 5_000_000
"""Of all rows together: what comes out is kept in the run's state."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    query: Annotated[
        Annotated[str, msgspec.Meta(min_length=1)],
        setting(
            "sql",
            "statement",
            template=False,
            description="One statement; for values write $1, $2 … and give them as parameters.",
        ),
    ]
    parameters: Annotated[
        tuple[Any, ...],
        setting(
            "query_parameters",
            "params",
            description="A JSON list of the values of $1, $2 …; {{ }} are filled.",
        ),
    ] = ()
    credential_id: CredentialId = None
    connection_string: Annotated[
        str | None,
        setting(
            "database_connection",
            secret=True,
            description="postgresql://user:password@host:port/database; better kept as a credential.",
        ),
    ] = None
    read_only: Annotated[bool, setting(description="Whether the database refuses every change.")] = True
    timeout: Annotated[
        float, setting(description="Seconds that the query may take."), msgspec.Meta(ge=0.1, le=600)
    ] = 30
    max_rows: Annotated[
        int,
        setting("limit", description="The most rows; the rest is left out."),
        msgspec.Meta(ge=1, le=10_000),
    ] = 1000


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[tuple[Any, ...], port(many=True, description="What must have arrived before.")] = ()


class Outputs(msgspec.Struct, frozen=True):
    rows: Annotated[list[dict[str, Any]], port("output", "result", description="Its rows, as objects.")]
    row_count: Annotated[int, port(description="How many rows it gave or changed.")]
    truncated: Annotated[bool, port(description="Whether there were more rows than are given.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    if config.credential_id:
        login = await ctx.door(Credentials).get(config.credential_id)
    elif config.connection_string:
        login = {"connection_string": trimmed(config.connection_string)}
    else:
        raise NodeError("'credential_id' must say which database", code="bad_config", is_final=True)
    limits = QueryLimits(config.read_only, config.timeout, config.max_rows, MOST_BYTES)
    found = await ctx.door(Databases).query(login, config.query, config.parameters, limits)
    return Outputs(found.rows, found.count, found.is_cut)


def mistakes(config: Config) -> Iterator[tuple[str, Keys]]:
    if not config.credential_id and not config.connection_string:
        yield "'credential_id' or 'connection_string' must say which database", ()


def hosts(config: Config) -> list[str]:
    try:
        host = urlsplit(config.connection_string or "").hostname
    except ValueError:
        return []
    return [host] if host else []


NODE = NodeType.step(
    run,
    "PostgresQuery",
    "Postgres query",
    effect=True,
    mistakes=mistakes,
    hosts=hosts,
    aliases=("PostgresQueryNode", "PostgreSQL", "PostgresNode"),
    icon="database-zap",
    examples=(
        {
            "query": "SELECT id, name FROM customer WHERE city = $1 AND since > $2",
            "parameters": ["{{ input }}", "2024-01-01"],
            "connection_string": "postgresql://reader@db.example.com/shop",
        },
    ),
)
