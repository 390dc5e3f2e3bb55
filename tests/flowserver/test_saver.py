"""The fenced saver: who may write, what a new run inherits, what a row may do, and whose clock counts."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import UUID, uuid4

import ormsgpack
import psycopg
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import id as checkpoint_ids
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from psycopg.rows import dict_row

from flowserver.accounts import DEFAULT_ORG
from flowserver.db import Pool, make_pool
from flowserver.errors import Fenced
from flowserver.saver import MARK, SERIALIZER, FencedSaver


class State(TypedDict, total=False):
    text: dict[str, Any]
    messages: Annotated[list[Any], add_messages]


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    async with make_pool(dsn) as pool, pool.connection() as conn:
        await conn.execute("INSERT INTO org (id, name) VALUES (%s, 'o')", (DEFAULT_ORG,))
        await conn.execute("INSERT INTO workflow_version VALUES (%s, 'v', '{}')", (DEFAULT_ORG,))
        yield pool


async def new_run(pool: Pool) -> UUID:
    """A run that is executed under epoch 1."""
    id = uuid4()
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO run (id, org_id, version, thread_id, trigger, status, epoch)"
            " VALUES (%s, %s, 'v', %s, '{}', 'running', 1)",
            (id, DEFAULT_ORG, str(id)),
        )
    return id


async def nothing() -> None:
    pass


def saver(pool: Pool, run: UUID, epoch: int = 1) -> FencedSaver:
    return FencedSaver(pool, run, epoch, frozenset({"messages"}), nothing)


def config(run: UUID, thread: str = "t") -> RunnableConfig:
    return {"configurable": {"thread_id": thread}, "metadata": {MARK: str(run)}}


def graph(pool: Pool, run: UUID, epoch: int = 1) -> Any:
    """Says what it found in its state, and adds one message."""

    def speak(state: State) -> dict[str, Any]:
        seen = [message.content for message in state.get("messages", [])]
        return {
            "text": {"had": state.get("text"), "seen": seen},
            "messages": [AIMessage(f"turn {len(seen)}")],
        }

    built = StateGraph(State).add_node("speak", speak).add_edge(START, "speak")
    return built.compile(checkpointer=saver(pool, run, epoch))


async def test_a_process_that_lost_its_run_cannot_write(pool: Pool) -> None:
    run = await new_run(pool)
    async with pool.connection() as conn:
        await conn.execute("UPDATE run SET epoch = 2 WHERE id = %s", (run,))

    with pytest.raises(Fenced):
        await graph(pool, run).ainvoke({"text": {}}, config(run), durability="sync")

    async with pool.connection() as conn:
        rows = await (await conn.execute("SELECT count(*) AS n FROM checkpoints")).fetchone()
    assert rows == {"n": 0}


async def test_a_run_that_is_over_cannot_be_written(pool: Pool) -> None:
    run = await new_run(pool)
    async with pool.connection() as conn:
        await conn.execute("UPDATE run SET status = 'cancelled' WHERE id = %s", (run,))

    with pytest.raises(Fenced):
        await graph(pool, run).ainvoke({"text": {}}, config(run), durability="exit")


async def test_a_claim_waits_for_a_write_that_has_begun(pool: Pool, dsn: str) -> None:
    run = await new_run(pool)
    async with await psycopg.AsyncConnection.connect(dsn) as writer:
        await writer.execute("SELECT hold_run(%s, 1)", (run,))
        async with await psycopg.AsyncConnection.connect(dsn) as claimer:
            await claimer.execute("SET lock_timeout = '50ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                await claimer.execute("UPDATE run SET epoch = 2 WHERE id = %s", (run,))


async def test_a_new_run_inherits_what_outlives_runs_and_nothing_else(pool: Pool) -> None:
    first, second = await new_run(pool), await new_run(pool)

    await graph(pool, first).ainvoke(
        {"text": {"from": "first"}, "messages": [HumanMessage("hi")]}, config(first), durability="sync"
    )
    state = await graph(pool, second).ainvoke({"messages": [HumanMessage("again")]}, config(second))

    assert state["text"] == {"had": None, "seen": ["hi", "turn 1", "again"]}


async def test_a_run_sees_its_own_state_when_it_goes_on(pool: Pool) -> None:
    run = await new_run(pool)

    await graph(pool, run).ainvoke({"text": {"own": 1}, "messages": []}, config(run), durability="sync")
    found = await graph(pool, run).aget_state(config(run))

    assert found.values["text"]["had"] == {"own": 1}


@pytest.mark.parametrize("behind", [60, 3600])
async def test_flt_27_a_clock_that_is_behind_loses_no_state(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, behind: int
) -> None:
    first, second, third = [await new_run(pool) for _ in range(3)]
    await graph(pool, first).ainvoke({"messages": [HumanMessage("one")]}, config(first), durability="sync")

    real = time.time_ns
    monkeypatch.setattr(checkpoint_ids, "_last_v6_timestamp", None)
    monkeypatch.setattr(time, "time_ns", lambda: real() - behind * 1_000_000_000)
    await graph(pool, second).ainvoke({"messages": [HumanMessage("two")]}, config(second), durability="sync")
    monkeypatch.setattr(checkpoint_ids, "_last_v6_timestamp", None)
    state = await graph(pool, third).ainvoke({"messages": [HumanMessage("three")]}, config(third))

    assert state["text"]["seen"] == ["one", "turn 1", "two", "turn 3", "three"]


async def test_sec_10_a_row_cannot_make_code_run(pool: Pool, tmp_path: Path, dsn: str) -> None:
    run, canary = await new_run(pool), tmp_path / "canary"
    await graph(pool, run).ainvoke({"text": {}, "messages": []}, config(run), durability="sync")
    call = ormsgpack.packb(("os", "system", f"touch {canary}"))
    evil = ormsgpack.packb(ormsgpack.Ext(0, call))
    JsonPlusSerializer(allowed_msgpack_modules=True).loads_typed(("msgpack", evil))
    assert canary.exists()  # that is what the library would do
    canary.unlink()

    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, row_factory=dict_row) as conn:
        await conn.execute("UPDATE checkpoint_blobs SET blob = %s, type = 'msgpack'", (evil,))
    found = await saver(pool, run).aget_tuple(config(run))

    assert not canary.exists()
    assert found is not None
    assert os.environ["LANGGRAPH_STRICT_MSGPACK"] == "true"


async def test_messages_and_plain_data_survive_the_serializer() -> None:
    value = {"messages": [HumanMessage("hi", id="1"), AIMessage("ho", id="2")], "n": [1, 2.5, None, "ü"]}

    assert SERIALIZER.loads_typed(SERIALIZER.dumps_typed(value)) == value
