"""Turn a plan into a LangGraph graph. The only module of ours that builds a `StateGraph`.

Every step is a LangGraph node that runs once, after all nodes that lead to it: it acts if an arc is live and
passes on its absence if none is (dead-path elimination, DESIGN §6 rule 1). A list edge alone would drop all
that follows a skipped branch; separate edges would run a join once per branch.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph

from graphs.plan import Part, Plan, Step
from graphs.runtime import Run, runner
from graphs.state import ENTRY, channel, messages, node
from nodes.contract import Memory

Graph: TypeAlias = CompiledStateGraph[Any, Run, Any, Any]


def build(plan: Plan) -> Graph:
    """Build and compile the graph of `plan`; give each run a copy with its own checkpointer."""
    channels: dict[str, Any] = {ENTRY: dict[str, Any]}
    channels |= {channel(id): dict[str, Any] for id in plan.steps}
    channels |= {messages(id): Annotated[list[Any], add_messages] for id in plan.memories}
    graph = StateGraph(_schema("State", channels), context_schema=Run)
    for step in plan.steps.values():
        reads = {name: channels[name] for name in (ENTRY, *_reads(step, plan))}
        graph.add_node(node(step.id), runner(step, plan), input_schema=_schema("Input", reads))
    for step in plan.steps.values():
        sources = [node(source) for source in step.sources]
        if len(sources) > 1:
            graph.add_edge(sources, node(step.id))
        else:
            graph.add_edge(sources[0] if sources else START, node(step.id))
    return graph.compile()


def _schema(name: str, channels: dict[str, Any]) -> type[Any]:
    return TypedDict(name, channels, total=False)  # type: ignore[operator,no-any-return]


def _reads(step: Step, plan: Plan) -> list[str]:
    """The channels that a step looks at; LangGraph reads no others for it."""
    parts = [plan.parts[id] for ids in step.bindings.values() for id in ids]
    for part in parts:  # grows while it is walked: parts have parts
        parts += [plan.parts[id] for ids in part.bindings.values() for id in ids]
    names = [channel(source) for source in step.sources]
    users: list[Step | Part] = [step, *parts]
    for each in users:
        names += [channel(ref.root) for ref in each.references.values() if ref.port is not None]
    names += [messages(part.id) for part in parts if part.type.gives is Memory]
    return list(dict.fromkeys(names))
