"""What a superstep costs with our saver, beside LangGraph's own on the same Postgres.

    .venv/bin/python benchmarks/saver.py [--rounds 40] [--beside 8]

A graph of 2 and one of 22 steps, written by hand, whose steps do nothing but write a short text; also a
fan-out of 20 steps, and a chat whose messages grow. The difference of the two chains is 20 supersteps. The
savers take turns on one embedded Postgres with its usual durability: the stock AsyncPostgresSaver over a pool
of 16, one for all runs as its documentation shows it, and one that each run has for itself; and ours, one per
run as it must be, fenced, and with two events told in each step, which the others do not have to store.
`--beside`: so many runs at a time. A ratio above 1 says how many times more a stock saver for each run takes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import operator
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import uuid4

from langchain_core.messages import AIMessage
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from flowserver.accounts import DEFAULT_ORG
from flowserver.database import database
from flowserver.db import Pool, make_pool, migrate
from flowserver.feeds import Feed
from flowserver.journal import Journal
from flowserver.saver import MARK, FencedSaver
from flowserver.settings import Settings

Measured = tuple[float, float]
"""Milliseconds by the clock, and of this process's CPU, for one run."""


class Told(TypedDict, total=False):
    """What a run tells, and nothing that a checkpoint keeps."""

    journal: Any


def chain(length: int) -> Any:
    names = [f"s{n}" for n in range(length)]
    graph = StateGraph(TypedDict("State", dict.fromkeys(["given", *names], dict), total=False), Told)  # type: ignore
    for before, name in zip(["given", *names], names, strict=False):
        graph.add_node(f"node {name}", _writes(name, before))
        graph.add_edge(START if before == "given" else f"node {before}", f"node {name}")
    return graph.compile()


def fan(width: int) -> Any:
    state = {"given": dict, "all": Annotated[list, operator.add]}
    graph = StateGraph(TypedDict("State", state, total=False), Told)  # type: ignore
    for number in range(width):
        graph.add_node(f"node {number}", _adds(number))
        graph.add_edge(START, f"node {number}")
    return graph.compile()


def chat(turns: int) -> Any:
    state = {"given": dict, "messages": Annotated[list, add_messages]}
    graph = StateGraph(TypedDict("State", state, total=False), Told)  # type: ignore
    for number in range(turns):
        graph.add_node(f"turn {number}", _says(number))
        graph.add_edge(START if number == 0 else f"turn {number - 1}", f"turn {number}")
    return graph.compile()


def _step(name: str, made: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    async def run(state: dict[str, Any], runtime: Any) -> dict[str, Any]:
        journal = (runtime.context or {}).get("journal")
        if journal is not None:
            journal.add("step.started", {"step": name, "type": "Act", "attempt": 1})
            journal.add("step.finished", {"step": name, "outputs": {"text": name}, "ms": 0})
        return made(state)

    return run


def _writes(name: str, before: str) -> Any:
    return _step(name, lambda state: {name: {"text": f"{name} after {state[before]['text'][:40]}"}})


def _adds(number: int) -> Any:
    return _step(f"n{number}", lambda state: {"all": [{"text": f"number {number}"}]})


def _says(number: int) -> Any:
    return _step(f"t{number}", lambda state: {"messages": [AIMessage("word " * 40, id=str(number))]})


# The two sides


class Stock:
    """Runs with LangGraph's saver over a pool as its documentation makes one: `shared`, or one each."""

    def __init__(self, pool: Pool, *, shared: bool) -> None:
        self._pool = pool
        self._shared = AsyncPostgresSaver(pool) if shared else None

    async def __call__(self, graph: Any, durability: str) -> None:
        saver = self._shared or AsyncPostgresSaver(self._pool)
        config = {"configurable": {"thread_id": str(uuid4())}}
        await graph.copy({"checkpointer": saver}).ainvoke(
            {"given": {"text": "x"}}, config, durability=durability, context={}
        )


class Ours:
    """Runs with the fenced saver, and the journal that is written with it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._ready: list[Any] = []

    async def prepare(self, count: int) -> None:
        """Make the rows of so many runs: that is not the saver's work."""
        self._ready = [uuid4() for _ in range(count)]
        statement = (
            "INSERT INTO run (id, org_id, version, thread_id, trigger, status, epoch)"
            " SELECT id, %s, 'v', id::text, '{}', 'running', 1 FROM unnest(%s::uuid[]) AS id"
        )
        async with self._pool.connection() as conn:
            await conn.execute(statement, (DEFAULT_ORG, self._ready))

    async def __call__(self, graph: Any, durability: str) -> None:
        run = self._ready.pop()
        journal = Journal(self._pool, Feed(), run, 1, 1)
        saver = FencedSaver(self._pool, journal, frozenset())
        config = {"configurable": {"thread_id": str(run)}, "metadata": {MARK: str(run)}}
        await graph.copy({"checkpointer": saver}).ainvoke(
            {"given": {"text": "x"}}, config, durability=durability, context={"journal": journal}
        )


async def measure(
    sides: dict[str, Callable[[Any, str], Awaitable[None]]],
    graph: Any,
    durability: str,
    rounds: int,
    beside: int,
) -> dict[str, Measured]:
    found: dict[str, list[Measured]] = {name: [] for name in sides}
    for number in range(rounds + 2):
        for name, run in sides.items():
            if isinstance(run, Ours):
                await run.prepare(beside)
            with _no_collection():
                began, cpu = time.perf_counter(), time.process_time()
                await asyncio.gather(*(run(graph, durability) for _ in range(beside)))
                took = (time.perf_counter() - began, time.process_time() - cpu)
            if number > 1:  # the first two warm up
                found[name].append((took[0] * 1000 / beside, took[1] * 1000 / beside))
    return {
        name: (statistics.median(clock for clock, _ in each), statistics.median(cpu for _, cpu in each))
        for name, each in found.items()
    }


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def compare(dsn: str, rounds: int, beside: int) -> None:
    await migrate(dsn)
    stock = AsyncConnectionPool(
        dsn,
        min_size=2,
        max_size=16,
        open=False,
        kwargs={"autocommit": True, "row_factory": dict_row, "prepare_threshold": 0},
        connection_class=AsyncConnection[DictRow],
    )
    async with make_pool(dsn) as pool, stock:
        async with pool.connection() as conn:
            await conn.execute("INSERT INTO org (id, name) VALUES (%s, 'o')", (DEFAULT_ORG,))
            await conn.execute("INSERT INTO workflow_version VALUES (%s, 'v', '{}')", (DEFAULT_ORG,))
        sides: dict[str, Callable[[Any, str], Awaitable[None]]] = {
            "stock, shared": Stock(stock, shared=True),
            "stock, one each": Stock(stock, shared=False),
            "ours": Ours(pool),
        }
        short, long = chain(2), chain(22)
        for runs in dict.fromkeys((1, beside)):
            print(f"\n{runs} at a time, milliseconds (CPU of this process), median of {rounds}")
            print(f"{'':<26}" + "".join(f"{name:>20}" for name in sides) + f"{'ratio':>8}{'CPU':>6}")
            for durability in ("sync", "exit"):
                few, many = [await measure(sides, graph, durability, rounds, runs) for graph in (short, long)]
                per_step = {
                    name: ((many[name][0] - few[name][0]) / 20, (many[name][1] - few[name][1]) / 20)
                    for name in sides
                }
                _row(f"a superstep, {durability}", per_step)
                _row(f"a run of 2 steps, {durability}", few)
            _row("fan-out of 20, sync", await measure(sides, fan(20), "sync", rounds, runs))
            _row("chat of 20 turns, sync", await measure(sides, chat(20), "sync", rounds, runs))


def _row(title: str, found: dict[str, Measured]) -> None:
    cells = "".join(f"{clock:>12.2f} ({cpu:>5.2f})" for clock, cpu in found.values())
    ours, stock = found["ours"], found["stock, one each"]
    print(f"{title:<26}{cells}{stock[0] / ours[0]:>8.2f}{stock[1] / ours[1]:>6.2f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    arguments.add_argument("--rounds", type=int, default=40)
    arguments.add_argument("--beside", type=int, default=8)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # Postgres may have to run as another user
        with database(Settings(data_dir=Path(folder) / "data")) as dsn:
            asyncio.run(compare(dsn, given.rounds, given.beside))


if __name__ == "__main__":
    main()
