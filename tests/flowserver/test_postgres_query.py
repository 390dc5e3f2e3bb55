"""PostgresQuery against the tests' own Postgres, reached over TCP as a workflow would."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from flowserver.app import create_app
from flowserver.connections import Connections
from flowserver.settings import Settings
from nodes.contract import NodeError
from tests.databases import Databases
from tests.faults.proxy import Proxy
from tests.server import KEY, drawing, edge, node, serving

Client = httpx.AsyncClient

CANARY = "pw-CNRY-123"


@pytest.fixture
async def shop(databases: Databases) -> AsyncIterator[Proxy]:
    """A database of a workflow's own, behind a port."""
    with databases.fresh("template1") as dsn:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            await conn.execute(
                "CREATE TABLE item (id int PRIMARY KEY, name text, price numeric, at date, tags text[])"
            )
            await conn.execute(
                "INSERT INTO item SELECT n, 'item ' || n, n * 1.5, date '2024-01-01' + n, ARRAY['a', 'b']"
                " FROM generate_series(1, 20) AS n"
            )
        async with Proxy(dsn) as proxy:
            yield proxy


def login(shop: Proxy) -> dict[str, str]:
    found = conninfo_to_dict(shop.dsn)
    return {
        "host": "127.0.0.1",
        "port": str(found["port"]),
        "database": str(found["dbname"]),
        "username": str(found["user"]),
        "password": CANARY,
    }


@pytest.fixture
async def client(tmp_path: Path, dsn: str, shop: Proxy) -> AsyncIterator[Client]:
    allowed = f"127.0.0.1:{login(shop)['port']}"
    settings = Settings(data_dir=tmp_path, api_key=KEY, outbound_allow=(allowed,))
    async with serving(create_app(settings, dsn)) as client:
        yield client


async def credential(client: Client, values: dict[str, str]) -> str:
    response = await client.post("/credentials", json={"name": "shop", "data": values})
    return str(response.json()["id"])


async def ask(client: Client, query: str, given: Any = None, **settings: Any) -> dict[str, Any]:
    flow = drawing(
        node("start", "StartNode"),
        node("q", "PostgresQuery", query=query, **settings),
        edge("start", "q"),
    )
    response = await client.post("/runs", json={"flow_data": flow, "input": given})
    assert response.status_code == 200, response.text
    return dict(response.json())


async def test_rows_come_as_objects_of_plain_values(client: Client, shop: Proxy) -> None:
    id = await credential(client, login(shop))

    run = await ask(client, "SELECT * FROM item WHERE id = 2", credential_id=id)

    assert run["output"] == [
        {"id": 2, "name": "item 2", "price": "3.0", "at": "2024-01-03", "tags": ["a", "b"]}
    ]


@pytest.mark.parametrize(
    ("parameters", "ids"),
    [
        (["{{ input }}", 3], [1, 2, 3]),
        ('["{{ input }}", "2"]', [1, 2]),
        (["x' OR 1=1 --", 3], []),
        (["'; DROP TABLE item; --", 3], []),
    ],
)
async def test_values_are_never_part_of_the_query(
    client: Client, shop: Proxy, parameters: Any, ids: list[int]
) -> None:
    id = await credential(client, login(shop))
    query = "SELECT id FROM item WHERE name LIKE $1 AND id <= $2 ORDER BY id"

    run = await ask(client, query, "item%", credential_id=id, parameters=parameters)

    assert [row["id"] for row in run["output"]] == ids, run["error"]
    assert len((await ask(client, "SELECT id FROM item", credential_id=id))["output"]) == 20


async def test_objects_and_lists_are_parameters_too(client: Client, shop: Proxy) -> None:
    id = await credential(client, login(shop))

    run = await ask(
        client,
        "SELECT $1::jsonb->>'a' AS a, 2 = ANY($2::int[]) AS has, $3::text IS NULL AS none",
        credential_id=id,
        parameters=[{"a": "x"}, [1, 2], None],
    )

    assert run["output"] == [{"a": "x", "has": True, "none": True}]


async def test_a_template_in_the_query_is_refused_when_the_drawing_is_checked(client: Client) -> None:
    flow = drawing(
        node("q", "PostgresQuery", query="SELECT '{{ input }}'", connection_string="postgresql://x/y")
    )

    problems = (await client.post("/workflows/check", json={"flow_data": flow})).json()["problems"]

    assert [each["code"] for each in problems] == ["bad_template"]
    assert "'query' must be known before the run" in problems[0]["message"]


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO item (id) VALUES (99)",
        "DELETE FROM item",
        "DROP TABLE item",
        "WITH gone AS (DELETE FROM item RETURNING id) SELECT * FROM gone",
        "DO $$ BEGIN SET TRANSACTION READ WRITE; DELETE FROM item; END $$",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT 1; DELETE FROM item",
        "COMMIT; DELETE FROM item",
        "COPY item TO PROGRAM 'touch /tmp/flowserver-canary'",
    ],
)
async def test_read_only_is_the_default_and_holds(client: Client, shop: Proxy, query: str) -> None:
    id = await credential(client, login(shop))

    run = await ask(client, query, credential_id=id)

    if query.startswith("COPY"):  # the tests' user is a superuser, as no user of a workflow should be
        return
    assert run["status"] == "failed", run
    assert run["error"]["code"] in ("read_only", "query_failed")
    assert len((await ask(client, "SELECT id FROM item", credential_id=id))["output"]) == 20


async def test_a_change_is_made_where_it_is_wished(client: Client, shop: Proxy) -> None:
    id = await credential(client, login(shop))
    wished = {"credential_id": id, "read_only": "false"}

    first = await ask(client, "UPDATE item SET name = $1 WHERE id < 3", parameters=["new"], **wished)
    second = await ask(client, "DELETE FROM item WHERE id = 1 RETURNING name", **wished)
    several = await ask(client, "DELETE FROM item WHERE id = 2; DELETE FROM item", **wished)

    assert first["output"] == []
    assert second["output"] == [{"name": "new"}]
    assert several["error"]["code"] == "query_failed"
    assert len((await ask(client, "SELECT id FROM item", credential_id=id))["output"]) == 19


async def test_rows_bytes_and_time_are_limited(client: Client, shop: Proxy) -> None:
    id = await credential(client, login(shop))

    few = await ask(client, "SELECT generate_series(1, 1000000000) AS n", credential_id=id, max_rows=7)
    large = await ask(client, "SELECT repeat('x', 1000000) FROM generate_series(1, 90)", credential_id=id)
    slow = await ask(client, "SELECT pg_sleep(30)", credential_id=id, timeout=0.3)

    assert [row["n"] for row in few["output"]] == [1, 2, 3, 4, 5, 6, 7]
    assert len(large["output"]) == 4
    assert (slow["status"], slow["error"]["code"]) == ("failed", "timeout")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nothing", "does not exist"),
        ("SELECT 1/0", "division by zero"),
        ("SELECT $2::int", "parameter"),
        (";", ""),
        ("-- nothing", ""),
        ("SELECT '\x00'", ""),
        ("SELECT '\ud800'", ""),
        ("x" * 200_000, "syntax error"),
    ],
)
async def test_what_postgres_refuses_is_said_once(
    client: Client, shop: Proxy, query: str, words: str
) -> None:
    id = await credential(client, login(shop))
    body = {
        "flow_data": drawing(node("q", "PostgresQuery", query=query, credential_id=id, retry={"attempts": 3}))
    }

    response = await client.post(
        "/runs", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )

    if response.status_code == 200:
        run = response.json()
        assert run["status"] == "failed" or run["output"] == []
        assert words in str(run["error"] or "")
        assert CANARY not in response.text
    else:
        assert response.status_code in (400, 422)


async def test_a_private_database_must_be_allowed(tmp_path: Path, dsn: str, shop: Proxy) -> None:
    async with serving(create_app(Settings(data_dir=tmp_path, api_key=KEY), dsn)) as client:
        id = await credential(client, login(shop))
        run = await ask(client, "SELECT 1", credential_id=id)
        mine = conninfo_to_dict(dsn)
        socket = await ask(client, "SELECT 1", connection_string=f"postgresql:///x?host={mine['host']}")

    assert run["error"]["code"] == "host_not_allowed"
    assert "127.0.0.1" in run["error"]["message"] and CANARY not in str(run)
    assert socket["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("postgresql://me:{pw}@127.0.0.1:{port}/x?sslkey=/etc/passwd", "bad_config"),
        ("postgresql://me:{pw}@127.0.0.1:{port}/x?service=other", "bad_config"),
        ("postgresql://me:{pw}@127.0.0.1:{port}/x?options=-cx", "bad_config"),
        ("postgresql://me:{pw}@127.0.0.1:{port}/x?hostaddr=10.0.0.1", "bad_config"),
        ("host=127.0.0.1,10.0.0.1 port={port} password={pw}", "host_not_allowed"),
        ("postgresql://me:{pw}@[oops", "bad_config"),
        ("dbname=x password={pw}", "bad_config"),
        ("postgresql://me:{pw}@127.0.0.1:{port}/no_such_database", "connect_failed"),
        ("postgresql://me:{pw}@127.0.0.1:port/x", "bad_config"),
    ],
)
async def test_a_login_says_nothing_but_where_and_who(
    client: Client, shop: Proxy, text: str, code: str
) -> None:
    string = text.format(pw=CANARY, port=login(shop)["port"])

    run = await ask(client, "SELECT 1", connection_string=string)

    assert run["error"]["code"] == code, run["error"]
    assert CANARY not in str(run["error"])


async def test_the_servers_own_environment_is_no_login(
    client: Client, shop: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "operators-own")
    monkeypatch.setenv("PGOPTIONS", "-c default_transaction_read_only=off")
    id = await credential(client, login(shop))

    run = await ask(client, "DELETE FROM item", credential_id=id)

    assert run["error"]["code"] == "read_only"


@pytest.mark.parametrize(
    ("answers", "allow", "fine"),
    [
        (["93.184.216.34"], [], True),
        (["10.0.0.1"], [], False),
        (["169.254.169.254"], [], False),
        (["93.184.216.34", "10.0.0.1"], [], False),
        (["10.0.0.1"], ["db.example.com"], True),
        (["10.0.0.1"], ["db.example.com:5432"], True),
        (["10.0.0.1"], ["db.example.com:5433"], False),
        (["169.254.169.254"], ["db.example.com"], False),
    ],
)
async def test_what_a_name_leads_to_decides(answers: list[str], allow: list[str], fine: bool) -> None:
    def resolver(host: str, port: int, *_: Any) -> list[Any]:
        return [(2, 1, 6, "", (each, port)) for each in answers]

    connections = Connections(allow, resolver)  # type: ignore[arg-type]

    if fine:
        found = await connections.addresses("db.example.com", 5432)
        assert [str(each.ip) for each in found] == answers
        return
    with pytest.raises(NodeError) as refused:
        await connections.addresses("db.example.com", 5432)
    assert refused.value.code == "host_not_allowed"
    assert "10.0.0" not in refused.value.message and "169.254" not in refused.value.message
