"""Make an arc or a binding of every arrow: which ports it joins, and whether what it brings fits there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from graphs.config import Settings
from graphs.plan import ERROR, LIMIT, Arc, routes
from graphs.policy import Policy
from graphs.ports import (
    PLAIN,
    Port,
    binding_ports,
    find,
    find_route,
    guess,
    is_counted,
    is_strange,
    ports,
    title,
)
from graphs.problems import Problems, listed
from graphs.spec import EdgeSpec, NodeSpec, WorkflowSpec
from nodes.contract import NodeType, Tool


@dataclass(slots=True)
class Draft:
    """What is known of a drawing while it is resolved."""

    spec: WorkflowSpec
    nodes: dict[str, NodeSpec] = field(default_factory=dict)
    types: dict[str, NodeType] = field(default_factory=dict)
    settings: dict[str, Settings] = field(default_factory=dict)
    lost: dict[str, Settings] = field(default_factory=dict)
    """Of routers whose settings are wrong, so that their ports are not known."""
    policies: dict[str, Policy] = field(default_factory=dict)
    arcs: list[Arc] = field(default_factory=list)
    plain: set[Arc] = field(default_factory=set)
    """Those of `arcs` that do not say which input they mean."""
    joined: set[tuple[str, str, str, str]] = field(default_factory=set)
    """What each of `arcs` joins: source, port, target, input."""
    bindings: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    loose: list[EdgeSpec] = field(default_factory=list)
    """Edges that could not be connected; a problem says why."""
    uncertain: set[str] = field(default_factory=set)
    """Steps that follow something broken: nothing is known of what has happened before them."""

    @property
    def broken(self) -> set[str]:
        """Nodes whose type or routes are not known; what hangs on them is not judged."""
        return self.nodes.keys() - self.settings.keys()

    @property
    def unsure(self) -> list[EdgeSpec]:
        """Edges that lead on from something broken, or are broken themselves."""
        broken = self.broken
        return [*self.loose, *(edge for edge in self.spec.edges if edge.source in broken)]

    @property
    def doubtful(self) -> set[str]:
        """Nodes that something broken leads to: what seems to be missing there may be on its way."""
        return {edge.target for edge in self.unsure}

    def binds(self, edge: EdgeSpec) -> bool:
        """Whether `edge` brings, or would bring, a provider's object: no step waits for it."""
        source, target = self.types.get(edge.source), self.types.get(edge.target)
        if source is not None and source.kind == "provider":
            return True
        return target is not None and find(edge.target_handle, binding_ports(target.bindings)) is not None

    @property
    def bound(self) -> set[str]:
        """Every node that is bound to another."""
        return {id for ports in self.bindings.values() for ids in ports.values() for id in ids}


def connect(edge: EdgeSpec, draft: Draft, problems: Problems) -> bool:
    """Make an arc or a binding of `edge`; whether that could be done."""
    if not edge.readable:
        return False
    for key, id in (("source", edge.source), ("target", edge.target)):
        if id not in draft.nodes:
            hint = problems.did_you_mean(id, draft.nodes)
            problems.error("dangling_edge", edge.name, edge.at(key), f"its {key} {id!r} is not a node", hint)
    if edge.source not in draft.types or edge.target not in draft.types:
        return False
    target = draft.types[edge.target]
    if draft.types[edge.source].kind == "provider":
        return provide(edge, draft, problems)
    port = find(edge.target_handle, binding_ports(target.bindings))
    return join(edge, draft, problems) if port is None else bind(edge, port, draft, problems)


def provide(edge: EdgeSpec, draft: Draft, problems: Problems) -> bool:
    """Make a binding of an arrow from a provider; what that gives says where to, if the handle does not."""
    source, target = draft.types[edge.source], draft.types[edge.target]
    known, gives = binding_ports(target.bindings), ports(source.outputs)
    if gives:
        _taken_for(edge, "source", source, gives, gives[0], problems)
    port = find(edge.target_handle, known)
    fitting = [each for each in known if each.kind is source.gives]
    if port is None and len(fitting) == 1:
        port = fitting[0]
        _taken_for(edge, "target", target, known, port, problems)
    if port is not None:
        return bind(edge, port, draft, problems)
    what = f"{edge.target!r} ({target.name}) has no port for what {source.name} makes"
    names = listed(f"{each.name} ({title(each.kind)})" for each in known)
    message = f"{what}: {title(source.gives)}; its ports for providers: {names}"
    problems.error("wrong_type", edge.name, at_handle(edge, "target"), message)
    return False


def at_handle(edge: EdgeSpec, end: Literal["source", "target"]) -> str:
    """Where the drawing names the port at one end of `edge`; the edge itself if it does not."""
    handle = edge.source_handle if end == "source" else edge.target_handle
    return edge.at(f"{end}Handle") if handle else edge.at()


def bind(edge: EdgeSpec, port: Port, draft: Draft, problems: Problems) -> bool:
    source = draft.types[edge.source]
    gives = Tool if source.tool is not None and source.is_step else source.gives
    if gives is not port.kind:
        found = f"gives {title(gives)}" if gives else "is a step, not a provider"
        message = f"port {port.name!r} of {edge.target!r} takes {title(port.kind)}, but "
        message += f"{edge.source!r} ({source.name}) {found}"
        problems.error("wrong_type", edge.name, at_handle(edge, "target"), message)
        return False
    bound = draft.bindings.setdefault(edge.target, {})
    known = bound.get(port.name, ())
    if edge.source in known:
        return True
    if known and not port.many:
        message = f"port {port.name!r} of {edge.target!r} takes one, but {known[0]!r} is connected already"
        problems.error("port_conflict", edge.name, edge.at(), message, "remove one of the arrows")
        return False
    bound[port.name] = (*known, edge.source)
    return True


def join(edge: EdgeSpec, draft: Draft, problems: Problems) -> bool:
    source, target = draft.types[edge.source], draft.types[edge.target]
    if target.kind == "provider":
        message = f"{edge.target!r} ({target.name}) is a provider and never runs, so no step leads to it"
        problems.error("wrong_type", edge.name, edge.at("target"), message)
        return False
    port = out_port(edge, source, draft, problems)
    into = guess(edge.target_handle, ports(target.inputs))
    if into is None:
        names = [*(each.name for each in ports(target.inputs)), *target.bindings.__struct_fields__]
        handle = edge.target_handle or ""
        message = f"{edge.target!r} ({target.name}) has no input {handle!r}; it has: {listed(names)}"
        hint = problems.did_you_mean(handle, names)
        problems.error("unknown_port", edge.name, at_handle(edge, "target"), message, hint)
    else:
        _taken_for(edge, "target", target, ports(target.inputs), into, problems)
    if port is None or into is None:
        return False
    same = (edge.source, port, edge.target, into.name)
    special = port in (ERROR, LIMIT) and _special(edge, draft) is not None
    if same in draft.joined:
        message = f"a second arrow from {edge.source!r} to {edge.target!r} at the same ports; it is ignored"
        problems.warning("duplicate_edge", edge.name, edge.at(), message)
    else:
        draft.joined.add(same)
        draft.arcs.append(Arc(*same, edge.name, edge.at(), special))
        if edge.target_handle in PLAIN:
            draft.plain.add(draft.arcs[-1])
    return True


def out_port(edge: EdgeSpec, source: NodeType, draft: Draft, problems: Problems) -> str | None:
    if source.routes is not None and edge.source not in draft.settings:
        _unheard_of(edge, source, draft, problems)  # what it routes by is wrong already
        return None
    if (special := _special(edge, draft)) is not None:
        return special
    if source.routes is not None:
        names = routes(source, draft.settings[edge.source])
        name = find_route(edge.source_handle, source, names)
    else:
        known = ports(source.outputs)
        names = tuple(each.name for each in known)
        found = guess(edge.source_handle, known)
        name = found.name if found else None
        if found:
            _taken_for(edge, "source", source, known, found, problems)
    if name is None:
        handle = edge.source_handle
        message = f"{edge.source!r} ({source.name}) has no output {handle!r}; it has: {listed(names)}"
        hint = problems.did_you_mean(handle or "", names)
        if handle in PLAIN:
            hint = None
            message = f"the arrow does not say from which output of {edge.source!r} ({source.name}) it leads"
            message = f"{message}; it has: {listed(names)}"
        problems.error("unknown_port", edge.name, at_handle(edge, "source"), message, hint)
    return name


def _unheard_of(edge: EdgeSpec, source: NodeType, draft: Draft, problems: Problems) -> None:
    """Find an output that a router cannot have, whatever its settings were to mean."""
    named = [*source.own_routes, *_texts(draft.nodes[edge.source].config)]
    handle = edge.source_handle
    if handle is None or is_counted(handle):
        return
    if handle in (*PLAIN, *source.route_aliases, *named, ERROR, LIMIT):
        return
    message = f"{edge.source!r} ({source.name}) has no output {handle!r}, and its settings name none"
    hint = problems.did_you_mean(handle, named)
    problems.error("unknown_port", edge.name, at_handle(edge, "source"), message, hint)


def _texts(value: Any) -> Iterator[str]:
    match value:
        case dict() | list():
            for inner in value.values() if isinstance(value, dict) else value:
                yield from _texts(inner)
        case _:
            yield str(value)


def _taken_for(
    edge: EdgeSpec,
    end: Literal["source", "target"],
    node_type: NodeType,
    known: tuple[Port, ...],
    port: Port,
    problems: Problems,
) -> None:
    """Warn of a handle that no port has, and that is taken for the only one that it can be."""
    handle = edge.source_handle if end == "source" else edge.target_handle
    if not is_strange(handle, known):
        return
    what, id = ("output", edge.source) if end == "source" else ("input", edge.target)
    message = (
        f"{id!r} ({node_type.name}) has no {what} {handle!r}; the arrow is taken for one at {port.name!r}"
    )
    hint = problems.did_you_mean(handle or "", [each.name for each in known])
    problems.warning("unknown_port", edge.name, at_handle(edge, end), message, hint)


def _special(edge: EdgeSpec, draft: Draft) -> str | None:
    """The port that a step has by its policy, if `edge` names one and the type has none of that name."""
    handle, source = edge.source_handle, draft.types[edge.source]
    if handle not in (ERROR, LIMIT) or find(handle, ports(source.outputs)) is not None:
        return None
    own = routes(source, draft.settings[edge.source]) if edge.source in draft.settings else ()
    return None if handle in own else handle
