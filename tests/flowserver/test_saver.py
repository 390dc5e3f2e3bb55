"""The fenced saver: who may write, what a new run inherits, what a row may do, and whose clock counts."""

from __future__ import annotations

import asyncio
import operator
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
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt
from psycopg.rows import dict_row

from flowserver.accounts import DEFAULT_ORG
from flowserver.db import Pool, make_pool
from flowserver.errors import Fenced
from flowserver.feeds import Feed
from flowserver.journal import Journal, read
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


def saver(pool: Pool, run: UUID, epoch: int = 1) -> FencedSaver:
    return FencedSaver(pool, Journal(pool, Feed(), run, epoch, 1), frozenset({"messages"}))


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


# What is stored, beside what the stock saver stores


class Wide(TypedDict, total=False):
    text: Annotated[dict[str, Any], operator.or_]
    note: Any
    number: Any
    messages: Annotated[list[Any], add_messages]
    found: Annotated[list[Any], operator.add]


def shape() -> Any:
    """A map, a graph in a graph, values of every kind, and two questions at the end."""

    def begin(state: Wide) -> dict[str, Any]:
        return {"note": "plain", "number": 2**60, "messages": [HumanMessage("hi", id="h")]}

    def item(state: Any) -> dict[str, Any]:
        return {"found": [{"item": state["item"]}]}

    def inner(state: Wide) -> dict[str, Any]:
        return {"text": {"inner": True, "odd": "a\0b", "nan": float("inf")}, "note": None, "number": 1.5}

    def ask(state: Wide) -> dict[str, Any]:
        return {"text": {"answer": interrupt({"question": "?"})}}

    def beside(state: Wide) -> dict[str, Any]:
        return {"messages": [AIMessage("ho", id="a")]}

    nested = StateGraph(Wide).add_node("inner", inner).add_node("ask", ask)
    nested.add_edge(START, "inner").add_edge("inner", "ask")
    built = StateGraph(Wide).add_node("begin", begin).add_node("item", item).add_edge(START, "begin")
    built.add_node("nested", nested.compile()).add_node("ask", ask).add_node("beside", beside)
    built.add_conditional_edges("begin", lambda _: [Send("item", {"item": n}) for n in range(3)])
    built.add_edge("item", "nested").add_edge("item", "ask").add_edge("item", "beside")
    return built.compile()


class Both(FencedSaver):
    """Hands everything to the stock saver too, for a thread of its own."""

    stock: AsyncPostgresSaver

    async def aput(self, config: RunnableConfig, *values: Any) -> RunnableConfig:
        stored = await super().aput(config, *values)
        await self.stock.aput(as_stock(config), *values)
        return stored

    async def aput_writes(self, config: RunnableConfig, *values: Any) -> None:
        await super().aput_writes(config, *values)
        await self.stock.aput_writes(as_stock(config), *values)


def as_stock(config: RunnableConfig) -> RunnableConfig:
    return {**config, "configurable": {**config["configurable"], "thread_id": "stock"}}


async def stored(pool: Pool, thread: str) -> list[list[Any]]:
    """Every row of LangGraph's tables for `thread`."""
    found = []
    async with pool.connection() as conn:
        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
            statement = f"SELECT * FROM {table} WHERE thread_id = %s"
            rows = await (await conn.execute(statement, (thread,))).fetchall()
            found.append(
                sorted([str(value) for key, value in row.items() if key != "thread_id"] for row in rows)
            )
    return found


@pytest.mark.parametrize("durability", ["sync", "exit"])
async def test_the_tables_are_as_the_stock_saver_would_leave_them(pool: Pool, durability: str) -> None:
    run = await new_run(pool)
    both = Both(pool, Journal(pool, Feed(), run, 1, 1), frozenset())
    both.stock = AsyncPostgresSaver(pool, serde=SERIALIZER)
    graph = shape().copy({"checkpointer": both})

    asked = await graph.ainvoke({"note": "given"}, config(run), durability=durability)
    waiting = [await stored(pool, thread) for thread in ("t", "stock")]
    answers = Command(resume={each.id: "yes" for each in asked["__interrupt__"]})
    ended = await graph.ainvoke(answers, config(run), durability=durability)
    over = [await stored(pool, thread) for thread in ("t", "stock")]

    assert len(asked["__interrupt__"]) == 2
    assert "__interrupt__" not in ended
    assert waiting[0] == waiting[1]
    assert over[0] == over[1]
    assert all(over[0])  # rows in each of the tables


async def test_the_stock_saver_reads_what_ours_has_stored(pool: Pool) -> None:
    run = await new_run(pool)
    ours = saver(pool, run)
    graph = shape().copy({"checkpointer": ours})
    await graph.ainvoke({"note": "given"}, config(run), durability="sync")

    stock = AsyncPostgresSaver(pool, serde=SERIALIZER)
    for found in [each async for each in ours.alist(config(run))]:
        assert found == await stock.aget_tuple(found.config)
    assert await ours.aget_tuple(config(run)) == await stock.aget_tuple(config(run))
    assert len({each.config["configurable"]["checkpoint_ns"] async for each in stock.alist(None)}) > 1


@pytest.mark.parametrize(
    "value",
    [
        "a\0b",
        "x" * 3_000_000,
        float("nan"),
        float("-inf"),
        2**63,
        -0.5,
        True,
        None,
        "",
        "ü€😀",
        b"\0\xff",
        {"a": "\0"},
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_a_value_of_any_kind_comes_back_as_it_was(pool: Pool, value: Any) -> None:
    run = await new_run(pool)
    built = StateGraph(Wide).add_node("keep", lambda _: {"note": value}).add_edge(START, "keep")
    graph = built.compile(checkpointer=saver(pool, run))

    await graph.ainvoke({"note": value}, config(run), durability="sync")
    found = await graph.aget_state(config(run))

    assert repr(found.values["note"]) == repr(value)


async def test_half_of_a_character_does_not_end_the_run(pool: Pool) -> None:
    run = await new_run(pool)
    built = StateGraph(Wide).add_node("keep", lambda _: {"note": "a\ud800b"}).add_edge(START, "keep")
    graph = built.compile(checkpointer=saver(pool, run))

    await graph.ainvoke({"note": "x"}, config(run), durability="sync")

    assert (await graph.aget_state(config(run))).values["note"] == "a?b"


async def test_a_large_state_with_many_messages_is_stored_and_found(pool: Pool) -> None:
    run = await new_run(pool)
    messages = [HumanMessage("word " * 200, id=str(number)) for number in range(2_000)]

    await graph(pool, run).ainvoke(
        {"text": {"all": ["x" * 1000] * 5000}, "messages": messages}, config(run), durability="sync"
    )
    found = await graph(pool, run).aget_state(config(run))

    assert found.values["messages"][:-1] == messages
    assert found.values["text"]["had"] == {"all": ["x" * 1000] * 5000}


# One statement


class Counted(Journal):
    """Counts what it writes."""

    written = 0

    async def _commit(self, *values: Any) -> Any:
        self.written += 1
        return await super()._commit(*values)


@pytest.mark.parametrize("text", ["short", "long " * 50_000])
async def test_what_a_step_writes_and_tells_is_one_commit_with_the_checkpoint(pool: Pool, text: str) -> None:
    run = await new_run(pool)
    journal = Counted(pool, Feed(), run, 1, 1)

    async def tell(state: Wide) -> dict[str, Any]:
        journal.add("step.started", {"step": "x"})
        return {"text": {"long": text, "before": len(state["text"])}}

    built = StateGraph(Wide).add_node("0", tell).add_edge(START, "0")
    for number in range(1, 10):
        built.add_node(str(number), tell).add_edge(str(number - 1), str(number))
    graph = built.compile(checkpointer=FencedSaver(pool, journal, frozenset()))
    await graph.ainvoke({"text": {"long": text}}, config(run), durability="sync")

    assert journal.written == 12  # the input, the start, and ten steps
    assert len(await read(pool, run, 0)) == 10
    assert len([each async for each in saver(pool, run).alist(config(run))]) == 12


async def test_a_step_that_has_ended_is_stored_before_those_beside_it_end(
    pool: Pool,
) -> None:
    run = await new_run(pool)
    is_stored = asyncio.Event()

    async def slow(state: Wide) -> dict[str, Any]:
        await is_stored.wait()
        raise ValueError("it fails")

    built = StateGraph(Wide).add_node("fast", lambda _: {"found": ["fast"]}).add_node("slow", slow)
    graph = built.add_edge(START, "fast").add_edge(START, "slow").compile(checkpointer=saver(pool, run))
    running = asyncio.create_task(graph.ainvoke({"found": []}, config(run), durability="sync"))
    async with asyncio.timeout(10):
        while not any("found" in row[4] for row in (await stored(pool, "t"))[2]):
            await asyncio.sleep(0.01)
    is_stored.set()
    with pytest.raises(ValueError, match="it fails"):
        await running

    tasks = [task.name for task in (await graph.aget_state(config(run))).tasks if task.result is None]
    assert tasks == ["slow"]


async def test_what_was_told_is_not_kept_when_the_checkpoint_is_not(pool: Pool) -> None:
    run = await new_run(pool)
    journal = Journal(pool, Feed(), run, 1, 1)
    async with pool.connection() as conn:
        await conn.execute("UPDATE run SET epoch = 2 WHERE id = %s", (run,))
    fenced = FencedSaver(pool, journal, frozenset())

    async def tell(state: Wide) -> dict[str, Any]:
        journal.add("step.started", {"step": "x"})
        return {"found": [1]}

    graph = StateGraph(Wide).add_node("tell", tell).add_edge(START, "tell").compile(checkpointer=fenced)
    with pytest.raises(Fenced):
        await graph.ainvoke({"found": []}, config(run), durability="exit")
    with pytest.raises(Fenced):
        await fenced.adelete_thread("t")

    assert await stored(pool, "t") == [[], [], []]
    assert await read(pool, run, 0) == []


async def test_flt_20_a_checkpoint_whose_answer_was_lost_is_stored_once(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await new_run(pool)
    journal = Journal(pool, Feed(), run, 1, 1)
    real, failures = psycopg.AsyncConnection.execute, iter([True, False] * 20)

    async def execute(conn: Any, statement: Any, *values: Any, **more: Any) -> Any:
        found = await real(conn, statement, *values, **more)
        if "checkpoint_blobs" in str(statement) and next(failures):
            raise psycopg.OperationalError("the answer was lost")
        return found

    async def tell(state: Wide) -> dict[str, Any]:
        journal.add("step.started", {"step": "x"})
        return {"found": [1]}

    fenced = FencedSaver(pool, journal, frozenset(), is_new=True)
    graph = StateGraph(Wide).add_node("tell", tell).add_edge(START, "tell").compile(checkpointer=fenced)
    with monkeypatch.context() as patched:
        patched.setattr(psycopg.AsyncConnection, "execute", execute)
        await graph.ainvoke({"found": []}, config(run), durability="sync")

    assert next(failures) is True and [event.seq for event in await read(pool, run, 0)] == [1]
    assert (await graph.aget_state(config(run))).values["found"] == [1]
    assert len((await stored(pool, "t"))[0]) == 3


async def test_threads_are_listed_pruned_and_deleted(pool: Pool) -> None:
    run = await new_run(pool)
    await graph(pool, run).ainvoke({"text": {}, "messages": []}, config(run), durability="sync")
    fenced = saver(pool, run)
    before = [each async for each in fenced.alist(config(run))]

    await fenced.aprune(["t"])
    after = [each async for each in fenced.alist(config(run))]
    await fenced.adelete_thread("t")

    assert len(before) == 3
    assert [each.config for each in after] == [before[0].config]
    assert after[0].checkpoint == before[0].checkpoint
    assert await stored(pool, "t") == [[], [], []]
