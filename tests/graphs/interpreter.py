"""What a drawing means (DESIGN §6, rules 1 to 4), said so plainly that it is obviously right.

It knows nothing of plans, channels or supersteps: there are nodes, edges, and the way that each router takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Node:
    id: str
    name: str
    is_trigger: bool = False
    is_end: bool = False


@dataclass(frozen=True)
class Edge:
    source: str
    port: str
    """For a router, the way; any other step takes all of its ways."""
    target: str


@dataclass
class Outcome:
    """What happened in a run."""

    inputs: dict[str, list[Any]] = field(default_factory=dict)
    """Step -> what arrived, in edge order, for every step that ran."""
    outputs: dict[str, Any] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    live: set[Edge] = field(default_factory=set)


Act: TypeAlias = Callable[[str, list[Any], Mapping[str, Any]], Any]
"""What a step makes of its inputs and of what earlier steps have made."""


def interpret(
    nodes: Sequence[Node], edges: Sequence[Edge], trigger: str | None, routes: Mapping[str, str], act: Act
) -> Outcome:
    """Run a drawing from `trigger`, where each router takes its way of `routes`."""
    steps = [node.id for node in nodes if node.id in started(nodes, edges)]
    edges = [edge for edge in edges if edge.source in steps]
    roots = {id for id in steps if all(edge.target != id for edge in edges)}
    starts = {trigger} if trigger else roots
    decided: set[Edge] = set()
    outcome = Outcome()
    while steps:
        # A step waits until none of its incoming edges is undecided.
        id = next(id for id in steps if all(edge in decided for edge in edges if edge.target == id))
        steps.remove(id)
        live = [edge for edge in edges if edge.target == id and edge in outcome.live]
        # If one is live it runs, once; if all are dead it is skipped and its outgoing edges are dead.
        if live or id in starts:
            outcome.inputs[id] = [outcome.outputs[edge.source] for edge in live]
            outcome.outputs[id] = act(id, outcome.inputs[id], outcome.outputs)
        else:
            outcome.skipped.append(id)
        for edge in edges:
            if edge.source == id:
                decided.add(edge)
                # A router makes the edges of the ports it did not choose dead.
                if id in outcome.outputs and routes.get(id, edge.port) == edge.port:
                    outcome.live.add(edge)
    return outcome


def started(nodes: Sequence[Node], edges: Sequence[Edge]) -> set[str]:
    """The nodes that a start leads to: a trigger, or where there is none, a node that nothing leads to."""
    found = {node.id for node in nodes if node.is_trigger}
    if not found:
        found = {node.id for node in nodes if all(edge.target != node.id for edge in edges)}
    while more := {edge.target for edge in edges if edge.source in found} - found:
        found |= more
    return found


def output(nodes: Sequence[Node], edges: Sequence[Edge], outcome: Outcome) -> Any:
    """What a run comes to: what its ends took, or where there are none, what the last steps made."""
    steps = [node for node in nodes if node.id in started(nodes, edges)]
    sources = {edge.source for edge in edges if any(edge.source == node.id for node in steps)}
    last = [node for node in steps if node.is_end] or [node for node in steps if node.id not in sources]
    found = {}
    for node in last:
        if node.id in outcome.outputs:
            shared = any(node.name in (other.name, other.id) for other in last if other is not node)
            found[node.id if shared else node.name] = outcome.outputs[node.id]
    return None if not found else next(iter(found.values())) if len(found) == 1 else found
