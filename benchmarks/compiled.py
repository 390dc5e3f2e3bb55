"""How long compiling takes, and what a run costs beside a LangGraph graph of the same steps written by hand.

    .venv/bin/python benchmarks/compiled.py [--rounds 30] [--postgres]

Compiling: a chain of 10, 100 and 1,000 nodes, of Templates (which are fused) and of steps with an effect
(which are not), and a ladder of routers and joins. Running: both graphs take turns in one process, each with
the same stock saver: none, and with `--postgres` an embedded Postgres, in LangGraph's durabilities `sync` and
`exit`. A ratio above 1 says how many times faster the compiled graph is.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, TypedDict

import httpx
import msgspec
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from flowserver.database import database
from flowserver.settings import Settings
from graphs.build import ENOUGH
from graphs.compile import Compiler
from graphs.runtime import Place, Run
from graphs.state import ENTRY
from nodes import registry
from nodes.contract import ModelDefaults, NodeType, RunContext, port

Drawing = dict[str, Any]
Once = Callable[[], Awaitable[Any]]


class Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str = "acted"


class Came(msgspec.Struct, frozen=True):
    input: Annotated[tuple[Any, ...], port(many=True)] = ()


class Text(msgspec.Struct, frozen=True):
    text: str


async def act(config: Words, inputs: Came, ctx: RunContext) -> Text:
    return Text(config.text)


ACT = NodeType.step(act, "Act", "Has an effect, so that it gets a superstep of its own", effect=True)
TYPES = registry.collect([*registry.modules("nodes"), sys.modules[__name__]])


class Silent:
    """A reporter that tells nobody."""

    def started(self, place: Place, node_type: NodeType) -> None: ...
    def text(self, place: Place, text: str) -> None: ...
    def finished(self, *told: Any) -> None: ...
    def skipped(self, *told: Any) -> None: ...
    def failed(self, *told: Any, **more: Any) -> None: ...
    def item(self, *told: Any) -> None: ...
    async def written(self) -> None: ...


# Drawings, and the same by hand


def node(id: str, type: str, **data: Any) -> Drawing:
    return {"id": id, "type": type, "data": data}


def chain(length: int, type: str = "Template") -> Drawing:
    """Start, then steps that each use the text of the one before."""
    nodes = [node("s0", "StartNode")]
    setting = "template" if type == "Template" else "text"
    nodes += [
        node(f"s{n}", type, **{setting: f"{n}" if length > 100 else f"{n} {{{{ s{n - 1} }}}}"})
        for n in range(1, length)
    ]
    return {"nodes": nodes, "edges": [{"source": f"s{n - 1}", "target": f"s{n}"} for n in range(1, length)]}


def fan(width: int, type: str = "Template") -> Drawing:
    """Start, so many steps beside each other, and one that takes all."""
    setting = "template" if type == "Template" else "text"
    middle = [node(f"m{n}", type, **{setting: f"{n} {{{{ s0 }}}}"}) for n in range(width)]
    edges = [{"source": "s0", "target": f"m{n}"} for n in range(width)]
    edges += [{"source": f"m{n}", "target": "end"} for n in range(width)]
    return {"nodes": [node("s0", "StartNode"), *middle, node("end", "EndNode")], "edges": edges}


def round_and_round(rounds: int) -> Drawing:
    """A Loop and four Templates, so many times."""
    body = [node(f"b{n}", "Template", template=f"{n} {{{{ loop.round }}}}") for n in range(4)]
    edges = [("s0", "loop", None), ("loop", "b0", "body"), *((f"b{n}", f"b{n + 1}", None) for n in range(3))]
    edges += [("b3", "loop", None), ("loop", "end", "done")]
    return {
        "nodes": [
            node("s0", "StartNode"),
            node("loop", "Loop", max_rounds=rounds),
            *body,
            node("end", "EndNode"),
        ],
        "edges": [{"source": a, "target": b, "sourceHandle": handle} for a, b, handle in edges],
    }


def ladder(length: int) -> Drawing:
    """Conditions whose two branches join again, one after the other."""
    nodes, edges = [node("j0", "StartNode")], []
    for n in range(1, length // 4 + 1):
        nodes += [
            node(f"c{n}", "ConditionNode", value1="a", value2="b"),
            node(f"y{n}", "Template", template="y"),
            node(f"n{n}", "Template", template="n"),
            node(f"j{n}", "Template", template=f"{{{{ c{n} }}}}"),
        ]
        pairs = [(f"j{n - 1}", f"c{n}", None), (f"c{n}", f"y{n}", "true"), (f"c{n}", f"n{n}", "false")]
        pairs += [(f"y{n}", f"j{n}", None), (f"n{n}", f"j{n}", None)]
        edges += [{"source": a, "target": b, "sourceHandle": handle} for a, b, handle in pairs]
    return {"nodes": nodes, "edges": edges}


def writes(name: str, *uses: str) -> Any:
    async def run(state: dict[str, Any]) -> dict[str, Any]:
        return {name: {"text": " ".join([name, *(state[use]["text"] for use in uses)])}}

    return run


def hand_chain(length: int) -> Any:
    names = [f"s{n}" for n in range(length)]
    graph = StateGraph(TypedDict("State", dict.fromkeys(["given", *names], dict), total=False))  # type: ignore
    for before, name in zip(["given", *names], names, strict=False):
        graph.add_node(f"node {name}", writes(name, before))
        graph.add_edge(START if before == "given" else f"node {before}", f"node {name}")
    return graph


def hand_fan(width: int) -> Any:
    names = [f"m{n}" for n in range(width)]
    graph = StateGraph(TypedDict("State", dict.fromkeys(["given", "s0", *names, "end"], dict), total=False))  # type: ignore
    graph.add_node("first", writes("s0", "given"))
    graph.add_node("last", writes("end", *names))
    graph.add_edge(START, "first")
    for name in names:
        graph.add_node(f"node {name}", writes(name, "s0"))
        graph.add_edge("first", f"node {name}")
    graph.add_edge([f"node {name}" for name in names], "last")
    return graph


def hand_loop(rounds: int) -> Any:
    names = [f"b{n}" for n in range(4)]
    keys = dict.fromkeys(["given", "count", *names, "end"], dict)
    graph = StateGraph(TypedDict("State", keys, total=False))  # type: ignore

    async def count(state: dict[str, Any]) -> dict[str, Any]:
        return {"count": {"n": state.get("count", {"n": 0})["n"] + 1}}

    graph.add_node("count up", count)
    graph.add_edge(START, "count up")
    for before, name in zip(["count up", *(f"node {each}" for each in names)], names, strict=False):
        graph.add_node(f"node {name}", writes(name))
        if before != "count up":
            graph.add_edge(before, f"node {name}")
    graph.add_node("last", writes("end"))
    graph.add_conditional_edges(
        "count up", lambda state: "node b0" if state["count"]["n"] <= rounds else "last"
    )
    graph.add_edge("node b3", "count up")
    graph.add_edge("last", END)
    return graph


PAIRS: dict[str, tuple[Drawing, Any]] = {
    "chain of 3": (chain(3), hand_chain(3)),
    "chain of 20": (chain(20), hand_chain(20)),
    "fan-out of 20": (fan(20), hand_fan(20)),
    "loop, 5 steps, 20 rounds": (round_and_round(20), hand_loop(20)),
    "chain of 20 effects": (chain(20, "Act"), hand_chain(20)),
    "fan-out of 20 effects": (fan(20, "Act"), hand_fan(20)),
}
LARGE: dict[str, tuple[Drawing, Any]] = {
    "chain of 100 effects": (chain(100, "Act"), hand_chain(100)),
    "fan-out of 100 effects": (fan(100, "Act"), hand_fan(100)),
    "chain of 1,000 effects": (chain(1000, "Act"), hand_chain(1000)),
}
"""Measured without a saver: whether more steps cost more than their number."""


# Measuring


def compiling(rounds: int) -> None:
    print(f"{'compile':<28}{'10':>10}{'100':>10}{'1,000':>10}   milliseconds, median of {rounds}")
    kinds = {"Templates": chain, "effects": lambda n: chain(n, "Act"), "routers and joins": ladder}
    for name, draw in kinds.items():
        row = []
        for size in (10, 100, 1000):
            drawing, times = draw(size), []
            for _ in range(rounds):
                compiler = Compiler(TYPES)
                began = time.perf_counter()
                compiler.compile(drawing)
                times.append((time.perf_counter() - began) * 1000)
            row.append(statistics.median(times))
        print(f"{name:<28}" + "".join(f"{each:>10.1f}" for each in row))


async def running(rounds: int, postgres: str | None) -> None:
    print(f"\n{'run':<28}{'saver':<16}{'by hand':>10}{'compiled':>10}{'ratio':>8}   milliseconds, median")
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient())
        savers: dict[str, tuple[Any, Any]] = {"none": (None, None)}
        if postgres is not None:
            pool = AsyncConnectionPool(
                postgres,
                kwargs={"autocommit": True, "row_factory": dict_row, "prepare_threshold": 0},
                open=False,
            )
            saver = AsyncPostgresSaver(await stack.enter_async_context(pool))
            await saver.setup()
            savers |= {"Postgres sync": (saver, "sync"), "Postgres exit": (saver, "exit")}
        for name, (drawing, by_hand) in PAIRS.items():
            compiled = Compiler(TYPES).compile(drawing)
            for title, (saver, durability) in savers.items():
                times = await both(by_hand.compile(), compiled, saver, durability, http, rounds)
                show(name, title, *times)
        for name, (drawing, by_hand) in LARGE.items():
            compiled = Compiler(TYPES).compile(drawing)
            times = await both(by_hand.compile(), compiled, None, None, http, max(rounds // 6, 2))
            show(name, "none", *times)


def show(name: str, saver: str, hand: Sequence[float], ours: Sequence[float]) -> None:
    milliseconds = [statistics.median(each) * 1000 for each in (hand, ours)]
    ratio = milliseconds[0] / milliseconds[1]
    print(f"{name:<28}{saver:<16}" + "".join(f"{each:>10.2f}" for each in milliseconds) + f"{ratio:>8.2f}")


async def both(
    hand: Any, compiled: Any, saver: Any, durability: str | None, http: httpx.AsyncClient, rounds: int
) -> tuple[list[float], list[float]]:
    hand, ours = (graph.copy({"checkpointer": saver}) for graph in (hand, compiled.graph))
    times: tuple[list[float], list[float]] = ([], [])
    more = {"durability": durability} if durability else {}
    for number in range(rounds + 2):
        thread = f"{id(hand)} {number} {time.time_ns()}"
        context = Run(
            id="run",
            trigger=compiled.plan.starts(None),
            roots={"input": "x", "trigger": {}, "run": {}},
            reporter=Silent(),
            http=http,
            models=ModelDefaults(),
            redact=str,
        )
        for graph, given, kept, extra in (
            (hand, {"given": {"text": "x"}}, times[0], {}),
            (ours, {ENTRY: {"run": "r"}}, times[1], {"context": context}),
        ):
            config = {"configurable": {"thread_id": f"{thread} {id(kept)}"}, "recursion_limit": ENOUGH}
            began = time.perf_counter()
            await graph.ainvoke(given, config, **more, **extra)
            if number > 1:  # the first two warm up
                kept.append(time.perf_counter() - began)
    return times


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    arguments.add_argument("--rounds", type=int, default=30)
    arguments.add_argument("--postgres", action="store_true", help="measure with an embedded Postgres too")
    given = arguments.parse_args()
    compiling(min(given.rounds, 5))
    if not given.postgres:
        asyncio.run(running(given.rounds, None))
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # Postgres may have to run as another user
        with database(Settings(data_dir=Path(folder) / "data")) as dsn:
            asyncio.run(running(given.rounds, dsn))


if __name__ == "__main__":
    main()
