"""How a run is divided into supersteps, and that each goes on from what the one before has left."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any
from uuid import UUID

import httpx
import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from graphs.build import ENOUGH, NEXT
from graphs.compile import Compiled, Compiler
from graphs.runtime import Run
from graphs.state import ENTRY, result
from nodes import registry
from nodes.contract import ModelDefaults
from tests.graphs import node_types
from tests.graphs.runs import RUN_ID, Recording, nowhere
from tests.server import drawing, edge, node

TYPES = registry.collect([*registry.modules("nodes"), node_types])


def compiled(*parts: dict[str, Any], **settings: Any) -> Compiled:
    return Compiler(TYPES).compile({**drawing(*parts), "settings": settings})


@asynccontextmanager
async def context(flow: Compiled, recording: Recording) -> AsyncIterator[Run]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(nowhere)) as client:
        yield Run(
            id=RUN_ID,
            trigger=flow.plan.starts(None),
            roots={"input": "x", "trigger": {}, "run": {}},
            reporter=recording,
            http=client,
            models=ModelDefaults(),
            redact=str,
        )


async def tasks(flow: Compiled) -> list[list[str]]:
    """The LangGraph nodes that run, superstep by superstep."""
    found: dict[int, list[str]] = {}
    async with context(flow, Recording()) as run:
        stream = flow.graph.astream(
            {ENTRY: {"run": "r"}}, {"recursion_limit": ENOUGH}, context=run, stream_mode="debug"
        )
        async for told in stream:
            if told["type"] == "task":
                found.setdefault(told["step"], []).append(told["payload"]["name"])
    return list(found.values())


def in_a_row(*types: str) -> list[dict[str, Any]]:
    names = [f"s{number}" for number in range(len(types))]
    edges = [edge(before, after) for before, after in pairwise(names)]
    return [*(node(id, type) for id, type in zip(names, types, strict=True)), *edges]


async def test_steps_without_effects_are_one_superstep() -> None:
    assert await tasks(compiled(*in_a_row("StartNode", "Echo", "Echo", "EndNode"))) == [[NEXT]]


async def test_every_effect_but_the_first_has_a_superstep_with_all_that_follows_it() -> None:
    flow = compiled(*in_a_row("StartNode", "FatedEffect", "Echo", "FatedEffect", "FatedEffect", "EndNode"))

    assert await tasks(flow) == [[NEXT], ["s3"], ["s4"]]


async def test_effects_beside_each_other_share_a_superstep() -> None:
    flow = compiled(
        node("start", "StartNode"),
        node("a", "FatedEffect"),
        node("b", "FatedEffect"),
        node("end", "EndNode"),
        *(edge("start", each) for each in "ab"),
        *(edge(each, "end") for each in "ab"),
    )

    assert await tasks(flow) == [[NEXT], ["a", "b"], [NEXT]]


@pytest.mark.parametrize("another_process", [False, True])
async def test_a_run_goes_on_after_a_question_with_what_was_there(another_process: bool) -> None:
    """In the process that asked, which has the state in hand, and in one that has to read it."""
    flow = compiled(
        node("start", "StartNode"),
        node("loop", "Loop", max_rounds=2),
        node("act", "FatedEffect"),
        node("count", "SetVariable", variable="n", value=1),
        node("ask", "HumanInput", question="?"),
        node("say", "Template", template="{{ ask.answer }} {{ vars.n }}"),
        node("again", "FatedEffect"),
        node("end", "EndNode"),
        edge("start", "loop"),
        edge("loop", "act", "body"),
        edge("act", "count"),
        edge("count", "ask"),
        edge("ask", "say"),
        edge("say", "again"),
        edge("again", "loop"),
        edge("loop", "end", "done"),
        variables={"n": {"initial": 0, "reducer": "add"}},
    )
    graph = flow.graph.copy({"checkpointer": InMemorySaver()})
    config: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": ENOUGH}
    recording, given = Recording(), {ENTRY: {"run": "r"}}
    async with context(flow, recording) as run, context(flow, recording) as other:
        for answer in ("yes", "no", None):
            state = await graph.ainvoke(given, config, context=run, durability="sync")
            if answer is not None:
                (question,) = state["__interrupt__"]
                given = Command(resume={question.id: answer})
                run = other if another_process else run

    said = [made["text"] for key, made in recording.outputs.items() if '"say"' in key]
    assert said == ["yes 1", "no 2"]
    finished = Counter(key.split('"')[1] for key in recording.those("finished") if '"' in key)
    assert finished == {"loop": 3, "act": 2, "count": 2, "ask": 2, "say": 2, "again": 2}
    assert recording.those("finished")[-1] == "end"


class Tracer(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.began: list[str] = []
        self.parents: dict[UUID, UUID | None] = {}

    async def on_chain_start(self, *told: Any, run_id: UUID, parent_run_id: Any, **more: Any) -> None:
        self.began.append(more["name"])
        self.parents[run_id] = parent_run_id


async def test_who_traces_a_run_is_told_of_its_nodes() -> None:
    flow = compiled(*in_a_row("StartNode", "FatedEffect", "FatedEffect", "EndNode"))
    tracer, recording = Tracer(), Recording()
    async with context(flow, recording) as run:
        state = await flow.graph.ainvoke(
            {ENTRY: {"run": "r"}}, {"recursion_limit": ENOUGH, "callbacks": [tracer]}, context=run
        )

    assert tracer.began == ["LangGraph", NEXT, "s2"]
    (root,) = [id for id, parent in tracer.parents.items() if parent is None]
    assert list(tracer.parents.values()) == [None, root, root]
    assert recording.those("finished") == ["s0", "s1", "s2", "s3"]
    assert result(flow.plan, state) is not None
