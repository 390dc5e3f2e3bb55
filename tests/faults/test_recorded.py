"""FLT-60: what earlier versions have stored of waiting runs, this one goes on with.

`tests/faults/recorded/` holds the rows of a database as the version that names each file left it. A release
adds one, `RECORD_CHECKPOINTS=1 make test ARGS=tests/faults/test_recorded.py`, and changes no other.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from tests.faults.checks import check_events, events, rows, run_is
from tests.faults.nursery import Child, Family
from tests.server import drawing, edge, node

RECORDED = Path(__file__).parent / "recorded"
TABLES = (
    "workflow_version",
    "workflow",
    "run",
    "run_event",
    "question",
    "large_value",
    "checkpoints",
    "checkpoint_blobs",
    "checkpoint_writes",
)

LOOP = drawing(
    node("start", "StartNode"),
    node("draft", "Template", template="{{ input }}, draft {{ ask.values.n | default('0') }}"),
    node("ask", "HumanInput", question="Good? {{ draft }}", form=[{"name": "n"}], actions=["again", "good"]),
    node("end", "Template", template="{{ draft }} it is"),
    edge("start", "draft"),
    edge("draft", "ask"),
    edge("ask", "draft", "again"),
    edge("ask", "end", "good"),
)
MAP = drawing(
    node("start", "StartNode"),
    node("each", "Map", items="{{ input }}"),
    node("ask", "HumanInput", question="Is {{ each.item }} good?", actions=["yes", "no"]),
    node("kept", "Template", template="{{ each.item }}"),
    node("left", "Template", template="not {{ each.item }}"),
    edge("start", "each"),
    edge("each", "ask", "item"),
    edge("ask", "kept", "yes"),
    edge("ask", "left", "no"),
    edge("kept", "each"),
    edge("left", "each"),
)
INNER = drawing(
    node("begin", "StartNode"),
    node("long", "Template", template="{{ input }}" * 30),
    node("ask", "HumanInput", question="For {{ input }}?"),
    node("end", "Template", template="{{ ask.answer }} for {{ long | length }} letters"),
    edge("begin", "long"),
    edge("long", "ask"),
    edge("ask", "end"),
)
OUTER = drawing(
    node("start", "StartNode"),
    node("sub", "Subflow", workflow="inner", input="{{ start }}"),
    node("end", "Template", template="{{ sub }}!"),
    edge("start", "sub"),
    edge("sub", "end"),
)
SESSION = drawing(
    node("start", "StartNode"),
    node("keep", "SetVariable", variable="seen", value="{{ input }}"),
    node("ask", "HumanInput", question="More?"),
    node("end", "Template", template="{{ vars.seen | json }} {{ ask.answer }}"),
    edge("start", "keep"),
    edge("keep", "ask"),
    edge("ask", "end"),
) | {"settings": {"variables": {"seen": {"initial": [], "reducer": "append", "persistent": True}}}}


async def begin(client: httpx.AsyncClient, flow: Any, **more: Any) -> dict[str, Any]:
    run = (await client.post("/runs", json={"flow_data": flow, **more})).json()
    assert run["status"] == "waiting", run
    return dict(run)


async def answer(client: httpx.AsyncClient, run: Any, given: Any, *statuses: str) -> Any:
    """Answer the oldest question of a run, and wait until it has gone on."""
    asked = run["questions"][0]["id"]
    body = {"question_id": asked, "answer": given}
    taken = await client.post(f"/runs/{run['id']}/resume", json=body)
    assert taken.status_code == 202, taken.text
    while True:
        found = await run_is(client, run["id"], *statuses)
        if asked not in [each["id"] for each in found["questions"]]:
            return found


async def leave_waiting(server: Child) -> None:
    """The runs that a recording holds."""
    client = server.client
    saved = await client.post("/workflows", json={"name": "inner", "flow_data": INNER})
    assert saved.json()["problems"] == []
    loop = await begin(client, LOOP, input="Hi", session_id="loop")
    await answer(client, loop, {"action": "again", "values": {"n": "1"}}, "waiting")
    items = await begin(client, MAP, input=["a", "b"], session_id="map")
    await answer(client, items, "no", "waiting")
    await begin(client, OUTER, input="x" * 100, session_id="sub")
    one = await begin(client, SESSION, input="one", session_id="s")
    await answer(client, one, "so", "succeeded")
    await begin(client, SESSION, input="two", session_id="s")


def dump(dsn: str) -> str:
    """The rows of a database, as COPY writes them."""
    parts = []
    with psycopg.connect(dsn) as conn:
        for table in TABLES:
            found = conn.execute(
                "SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute"
                " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
                (table,),
            ).fetchone()
            assert found is not None
            columns = SQL(", ").join(map(Identifier, found[0]))
            with conn.cursor().copy(SQL("COPY {} ({}) TO STDOUT").format(Identifier(table), columns)) as copy:
                lines = b"".join(bytes(piece) for piece in copy).decode()
            parts.append(f"{table} {','.join(found[0])}\n{lines}\\.\n")
    return "".join(parts)


def load(dsn: str, recorded: str) -> None:
    """Put the rows of a recording into a database that has none."""
    with psycopg.connect(dsn) as conn:
        for part in recorded.split("\\.\n")[:-1]:
            head, _, lines = part.partition("\n")
            table, _, names = head.partition(" ")
            columns = SQL(", ").join(map(Identifier, names.split(",")))
            with conn.cursor().copy(
                SQL("COPY {} ({}) FROM STDIN").format(Identifier(table), columns)
            ) as copy:
                copy.write(lines)


@pytest.mark.skipif("RECORD_CHECKPOINTS" not in os.environ, reason="a release records what it leaves")
async def test_record_what_this_version_leaves(children: Family, dsn: str) -> None:
    from importlib.metadata import version  # noqa: PLC0415

    file = RECORDED / f"{version('flowserver')}.copy"
    assert not file.exists(), f"{file.name} is there: what a release has left does not change"
    await leave_waiting(await children.bear(dsn))
    await rows(dsn, "UPDATE run SET worker = NULL")
    RECORDED.mkdir(exist_ok=True)
    file.write_text(dump(dsn))


@pytest.mark.parametrize("file", sorted(RECORDED.glob("*.copy")), ids=lambda file: file.stem)
async def test_flt_60_runs_that_an_earlier_version_left_waiting_go_on(
    children: Family, dsn: str, file: Path
) -> None:
    server = await children.bear(dsn)
    load(dsn, file.read_text())
    client = server.client
    runs = {run["session_id"]: run for run in (await client.get("/runs?status=waiting")).json()["items"]}

    loop = await answer(client, runs["loop"], {"action": "good", "values": {"n": "x"}}, "succeeded")
    items = await answer(client, runs["map"], "yes", "succeeded")
    sub = await answer(client, runs["sub"], "yes", "succeeded")
    session = await answer(client, runs["s"], "there", "succeeded")
    next_one = await begin(client, SESSION, input="three", session_id="s")
    after = await answer(client, next_one, "end", "succeeded")

    assert loop["output"] == "Hi, draft 1 it is"
    assert items["output"] == ["not a", "b"]
    assert sub["output"] == "yes for 3000 letters!"
    assert session["output"] == '["one","two"] there'
    assert after["output"] == '["one","two","three"] end'
    for run in runs.values():
        found = await events(client, run["id"])
        check_events(found)
