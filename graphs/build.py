"""Turn a plan into a LangGraph graph. The only module of ours that builds a `StateGraph`.

The graph has a node for every step that gets a superstep of its own (see `graphs.schedule`), and one that
goes on after several of them. A node runs its step and then, where it was the only one under way, all that
follows without an effect; what may run next is where it sends LangGraph to.
"""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, TypeAlias, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel._read import ChannelRead
from langgraph.runtime import Runtime
from langgraph.types import Command, Send

from graphs.frame import Frame, Work
from graphs.options import reduce
from graphs.plan import Plan, Variable
from graphs.runtime import Run, StepFailed
from graphs.schedule import Schedule
from graphs.state import (
    ENTRY,
    FAILED,
    KEPT,
    WAVE,
    State,
    channel,
    items,
    messages,
    node,
    results,
    rounds,
    variable,
)
from nodes.contract import NodeError

Graph: TypeAlias = CompiledStateGraph[Any, Run, Any, Any]
_Node: TypeAlias = Callable[..., Awaitable[Command[Any] | dict[str, Any]]]

NEXT = "run.next"
"""The node that goes on after several steps, and at the start."""
STOP = "run.stop"
"""The node that ends a run whose failure was found after something else had been done."""

ENOUGH = 10**9
"""LangGraph's own limit of supersteps; loops have theirs."""


def build(plan: Plan, planned: Schedule) -> Graph:
    """Build and compile the graph of `plan`; give each run a copy with its own checkpointer."""
    return _graph(_work(plan, planned), None)


def _work(plan: Plan, planned: Schedule) -> Work:
    owners: dict[str, str | None] = dict.fromkeys(plan.steps)
    for map, body in sorted(plan.maps.items(), key=lambda pair: -len(pair[1].steps)):
        owners |= dict.fromkeys(body.steps, map)
    children = {id: _work(child, planned.children[id]) for id, child in plan.children.items()}
    nested: dict[str, Any] = {}
    work = Work(plan, planned, children, nested, owners)
    for id in planned.nested:  # each of them knows `work`, so they come last
        inner = _graph(children[id], None) if id in children else _graph(work, id)
        nested[id] = _invoke(inner)
    return work


def _invoke(graph: Graph) -> Callable[[Run], Awaitable[State]]:
    async def invoke(run: Run) -> State:
        # LangGraph finds the parent's configuration by itself: the state lies within the parent's.
        state = await graph.ainvoke({ENTRY: {"run": run.id}}, {"recursion_limit": ENOUGH}, context=run)
        return await run.large.whole(state)

    return invoke


def _graph(work: Work, owner: str | None) -> Graph:
    plan, planned = work.plan, work.schedule
    own = [id for id in plan.steps if work.owners[id] == owner]
    apart = [id for id in own if id in planned.apart]
    channels: dict[str, Any] = {ENTRY: dict[str, Any], WAVE: int, FAILED: dict[str, Any]}
    channels |= {channel(id): dict[str, Any] for id in own}
    channels |= {rounds(id): dict[str, Any] for id in own if id in planned.first}
    channels |= {items(id): dict[str, Any] for id in apart if id in plan.maps}
    channels |= {results(id): Annotated[list[Any], _gather] for id in apart if id in plan.maps}
    if owner is None:
        channels |= {messages(id): Annotated[list[Any], add_messages] for id in plan.memories}
        channels |= {
            variable(each.name): Annotated[dict[str, Any], _reducer(each)] for each in plan.variables.values()
        }
    channels[KEPT] = Annotated[list[Any], operator.add]
    schema: Any = TypedDict("State", channels, total=False)  # type: ignore[misc]
    graph = StateGraph(schema, context_schema=Run)
    nodes = _Nodes(work, owner, list(channels))
    graph.add_node(NEXT, nodes.go_on, input_schema=schema)
    graph.add_node(STOP, _stop, input_schema=schema)
    for id in apart:
        act = nodes.item(id) if id in plan.maps else nodes.step(id)
        graph.add_node(node(id), act, input_schema=schema)
    graph.add_edge(START, NEXT)
    return graph.compile()


def _gather(old: list[Any], new: list[Any]) -> list[Any]:
    """A map's results; a new beginning with `None` forgets those of the round before."""
    return new[1:] if new[:1] == [None] else old + new


def _reducer(variable: Variable) -> Callable[[dict[str, Any], list[Any]], dict[str, Any]]:
    def apply(old: dict[str, Any], new: list[Any]) -> dict[str, Any]:
        try:
            return {"value": reduce(variable.reducer, old["value"] if old else variable.initial, new)}
        except NodeError as exc:  # steps that ran at the same time do not agree
            raise StepFailed(f"vars.{variable.name}", exc.code, exc.message) from None

    return apply


async def _stop(state: State) -> dict[str, Any]:
    failed = dict(state[FAILED])
    raise StepFailed(failed.pop("step"), failed.pop("code"), failed.pop("message"), **failed)


class _Nodes:
    """The functions of a graph's nodes."""

    def __init__(self, work: Work, owner: str | None, channels: list[str]) -> None:
        self._work = work
        self._owner = owner
        self._channels = channels

    async def go_on(self, state: State, runtime: Runtime[Run]) -> Command[Any]:
        return await self._advance(await self._frame(state, runtime), acted=False)

    def step(self, id: str) -> _Node:
        async def act(state: State, runtime: Runtime[Run]) -> Command[Any]:
            frame = await self._frame(state, runtime)
            await frame.act(id)
            if state.get(WAVE, 1) > 1:
                return Command(update=await self._update(frame), goto=NEXT)
            return await self._advance(frame, acted=True)

        act.__name__ = id
        return act

    def item(self, map: str) -> _Node:
        async def act(index: int, runtime: Runtime[Run], config: RunnableConfig) -> Command[Any]:
            # A task that was sent out gets what was sent, not the state: a copy of it per item would be much.
            state = ChannelRead.do_read(config, select=self._channels)
            frame = await self._frame(state, runtime)
            entry, kept = await frame.item(map, index)
            frame.keep(kept)
            frame.writes[results(map)] = [entry]
            return Command(update=await self._update(frame), goto=NEXT)

        act.__name__ = map
        return act

    async def _frame(self, state: Mapping[str, Any], runtime: Runtime[Run]) -> Frame:
        run = runtime.context
        return Frame(self._work, await run.large.whole(state), run, self._owner)

    async def _advance(self, frame: Frame, *, acted: bool) -> Command[Any]:
        """Go on as far as one checkpoint may: past all that has no effect, and one step that has."""
        try:
            while True:
                await frame.advance()
                if self._work.schedule.fuses and not acted and len(frame.ready) == 1 and not frame.due:
                    await frame.act(frame.ready[0])
                    acted = True
                    continue
                going = [node(id) for id in frame.ready] + [
                    Send(node(map), index) for map, index in frame.due
                ]
                return Command(update={**await self._update(frame), WAVE: len(going)}, goto=going)
        except StepFailed as exc:
            if not acted:
                raise
            # What the step before has done is kept; the run fails with the next superstep.
            return Command(update={**await self._update(frame), FAILED: exc.error}, goto=STOP)

    async def _update(self, frame: Frame) -> dict[str, Any]:
        writes = await frame.run.large.lean(frame.writes)
        if self._owner is None:
            return {**writes, **frame.kept}
        kept = {KEPT: [[name, new] for name, new in frame.kept.items()]} if frame.kept else {}
        return {**writes, **kept}
