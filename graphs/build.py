"""Turn a plan into a LangGraph graph. The only module of ours that builds one.

The graph has a node for every step that gets a superstep of its own (see `graphs.schedule`), and one that
goes on after several of them. A node runs its step and then, where it was the only one under way, all that
follows without an effect; what may run next is what it sends out.

It is built from LangGraph's runtime (`Pregel`) rather than with `StateGraph`, whose own way from node to node
costs as much as a small step: a superstep for the input, and two channels more for each node.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.channels import BinaryOperatorAggregate, EphemeralValue, LastValue
from langgraph.config import get_config
from langgraph.graph.message import add_messages
from langgraph.pregel import Pregel
from langgraph.pregel._read import ChannelRead, PregelNode
from langgraph.pregel._write import ChannelWrite, ChannelWriteEntry
from langgraph.runtime import get_runtime
from langgraph.types import Send

from graphs.frame import Frame
from graphs.options import reduce
from graphs.plan import Plan, Variable
from graphs.runtime import Held, Run, StepFailed
from graphs.schedule import Schedule
from graphs.standing import Work
from graphs.state import (
    ENTRY,
    KEPT,
    WAVE,
    State,
    channel,
    items,
    messages,
    node,
    results,
    returned,
    rounds,
    variable,
)
from nodes.contract import NodeError

Graph: TypeAlias = Pregel[Any, Run, Any, Any]
_Act: TypeAlias = Callable[[Any], Awaitable[None]]

NEXT = "run.next"
"""The node that goes on after several steps, and at the start."""
STOP = "run.stop"
"""The node that ends a run whose failure was found after something else had been done."""

ENOUGH = 10**9
"""LangGraph's own limit of supersteps; loops have theirs."""
TURN_BITS = 62
"""A turn is drawn, so that a state that another process has left has none that this one knows."""


def build(plan: Plan, planned: Schedule) -> Graph:
    """Build the graph of `plan`; give each run a copy with its own checkpointer."""
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
        return await run.large.whole(state or {})  # nothing, where no arrow brings a result

    return invoke


def _graph(work: Work, owner: str | None) -> Graph:
    plan, planned = work.plan, work.schedule
    own = [id for id in plan.steps if work.owners[id] == owner]
    apart = [id for id in own if id in planned.apart]
    channels: dict[str, Any] = {
        ENTRY: EphemeralValue(dict),
        WAVE: EphemeralValue(bool, guard=False),
    }
    if owner is not None:
        channels[KEPT] = _folded(list, operator.add)
    channels |= {channel(id): LastValue(dict) for id in own}
    channels |= {rounds(id): LastValue(dict) for id in own if id in planned.first}
    channels |= {items(id): LastValue(dict) for id in apart if id in plan.maps}
    channels |= {results(id): _folded(list, _gather) for id in apart if id in plan.maps}
    if owner is None:
        channels |= {messages(id): _folded(list, add_messages) for id in plan.memories}
        channels |= {variable(each.name): _folded(dict, _reducer(each)) for each in plan.variables.values()}
    state = [name for name in channels if name not in (ENTRY, WAVE)]
    acts = _Acts(work, owner, state)
    nodes: dict[str, Any] = {
        NEXT: _pregel_node(NEXT, acts.go_on, reads=state, after=[ENTRY, WAVE]),
        STOP: _pregel_node(STOP, _stop),
    }
    for id in apart:
        nodes[node(id)] = _pregel_node(id, acts.item(id) if id in plan.maps else acts.step(id))
    return Pregel(
        nodes=nodes,
        channels=channels,
        input_channels=[ENTRY, *state],  # a fork begins with a state
        output_channels=[name for name in returned(plan, owner) if name in channels],
        context_schema=Run,
    )


def _folded(kind: type, how: Callable[..., Any]) -> BinaryOperatorAggregate[Any]:
    return BinaryOperatorAggregate(kind, how)


def _pregel_node(name: str, act: _Act, *, reads: Sequence[str] = (), after: Sequence[str] = ()) -> PregelNode:
    """A node that writes for itself; one without `after`, what it waits for, has to be sent for."""
    return PregelNode(channels=list(reads), triggers=after, bound=_Bound(act, name), subgraphs=())


class _Bound(Runnable[Any, None]):
    """What a node does, in the task that LangGraph runs it in: one of its own would cost as much again."""

    def __init__(self, act: _Act, name: str) -> None:
        self.name = name
        self._act = act

    def invoke(self, input: Any, config: RunnableConfig | None = None, **more: Any) -> None:
        raise TypeError("these graphs run with 'ainvoke' and 'astream' only")

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **more: Any) -> None:
        assert config is not None  # LangGraph always has one
        callbacks = config.get("callbacks")
        if isinstance(callbacks, BaseCallbackManager) and callbacks.handlers:  # somebody traces the run
            await self._acall_with_config(self._act, input, config)
            return
        token = var_child_runnable_config.set(config)  # where questions and nested graphs find it
        try:
            await self._act(input)
        finally:
            var_child_runnable_config.reset(token)


def _of_task(run: Run) -> Run:
    """`run` as the task that is executed now sees it; its id is the end of its checkpoint namespace."""
    task = get_config()["configurable"].get("checkpoint_ns", "").rpartition(":")[2]
    return replace(run, reporter=run.reporter.of_task(task or None))


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


async def _stop(failed: Mapping[str, Any]) -> None:
    more = {name: value for name, value in failed.items() if name not in ("step", "code", "message")}
    raise StepFailed(failed["step"], failed["code"], failed["message"], **more)


@dataclass(frozen=True, slots=True)
class _Acts:
    """What a graph's nodes do."""

    work: Work
    owner: str | None
    state: list[str]
    """The channels that a frame is made of."""

    async def go_on(self, state: State) -> None:
        await self._advance(await self._read(state, _of_task(get_runtime(Run).context)), acted=False)

    def step(self, id: str) -> _Act:
        async def act(sent: Mapping[str, Any]) -> None:
            frame = await self._frame(sent)
            await frame.act(id)
            if sent["alone"]:
                await self._advance(frame, acted=True)
            else:
                await self._write(frame, {WAVE: True})

        return act

    def item(self, map: str) -> _Act:
        async def act(sent: Mapping[str, Any]) -> None:
            frame = await self._frame(sent)
            entry, kept = await frame.item(map, sent["index"])
            frame.keep(kept)
            frame.writes[results(map)] = [entry]
            await self._write(frame, {WAVE: True})

        return act

    async def _frame(self, sent: Mapping[str, Any]) -> Frame:
        """The state for a node that was sent for: as the superstep before has left it."""
        context = get_runtime(Run).context
        run, held = _of_task(context), context.held
        if held is not None and held.turn == sent["turn"]:
            return Frame(self.work, held.values, run, self.owner, held.after)
        return await self._read(ChannelRead.do_read(get_config(), select=self.state), run)

    async def _read(self, state: State, run: Run) -> Frame:
        frame = Frame(self.work, {**run.outer, **await run.large.whole(state)}, run, self.owner)
        frame.replay(state.get(KEPT) or ())
        return frame

    async def _advance(self, frame: Frame, *, acted: bool) -> None:
        """Go on as far as one checkpoint may: past all that has no effect, and one step that has."""
        try:
            while True:
                await frame.advance()
                if self.work.schedule.fuses and not acted and len(frame.ready) == 1 and not frame.due:
                    await frame.act(frame.ready[0])
                    acted = True
                    continue
                break
        except StepFailed as exc:
            if not acted:
                raise
            # What the step before has done is kept; the run fails with the next superstep.
            await self._write(frame, {}, Send(STOP, exc.error))
        else:
            await self._write(frame, {}, *self._sends(frame))

    def _sends(self, frame: Frame) -> list[Send]:
        """What may run next; where nothing may, the run has ended."""
        if not frame.ready and not frame.due:
            return []
        turn = random.getrandbits(TURN_BITS)
        if self.work.schedule.fuses:
            get_runtime(Run).context.held = Held(turn, frame.values, frame.after)
        alone = len(frame.ready) + len(frame.due) == 1
        sends = [Send(node(id), {"turn": turn, "alone": alone}) for id in frame.ready]
        return sends + [Send(node(map), {"turn": turn, "index": index}) for map, index in frame.due]

    async def _write(self, frame: Frame, more: Mapping[str, Any], *sends: Send) -> None:
        writes = {**await frame.run.large.lean(frame.writes), **more}
        if self.owner is None:
            writes |= frame.kept
        elif frame.kept:
            writes[KEPT] = [[name, new] for name, new in frame.kept.items()]
        ChannelWrite.do_write(get_config(), [*(ChannelWriteEntry(*each) for each in writes.items()), *sends])
