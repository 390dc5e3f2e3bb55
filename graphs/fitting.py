"""Whether what arrows join fits together: values, and the ports that steps have by their policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any, Literal, get_origin

import msgspec

from graphs.plan import ERROR, LIMIT, Arc, MapBody, Step
from graphs.ports import Port, ports
from graphs.problems import Problems, listed
from graphs.regions import Shape
from graphs.spec import NodeSpec

Sort = Literal["text", "number", "boolean", "list", "object"]

_TAKES: Mapping[Sort, frozenset[Sort]] = {
    "text": frozenset({"text", "number", "boolean", "list", "object"}),
    "number": frozenset({"text", "number", "boolean"}),
    "boolean": frozenset({"text", "number", "boolean"}),
    "list": frozenset({"list"}),
    "object": frozenset({"object"}),
}
"""What can become what: every value can be put as a text, and a text can be a number."""


def check_arcs(steps: Mapping[str, Step], back: Iterable[Arc], problems: Problems) -> None:
    """Find arrows that bring what their port can never take."""
    for arc in (*(arc for step in steps.values() for arc in step.arcs), *back):
        source, target = steps.get(arc.source), steps.get(arc.target)
        if source is None or target is None or arc.special:
            continue
        known = ports(source.type.outputs)
        gives = known[0] if source.routes else _named(arc.port, known)
        takes = _named(arc.input, ports(target.type.inputs))
        if gives is None or takes is None or takes.many:
            continue
        left, right = _sort(gives.kind), _sort(takes.kind)
        if left and right and left not in _TAKES[right]:
            message = (
                f"input {arc.input!r} of {target.name!r} ({target.type.name}) takes {_article(right)}, "
                f"but {gives.name!r} of {source.name!r} ({source.type.name}) is {_article(left)}"
            )
            problems.error("wrong_type", arc.where, arc.pointer, message)


def check_ports(
    steps: Mapping[str, Step], shape: Shape, back: Set[Arc], nodes: Mapping[str, NodeSpec], problems: Problems
) -> None:
    """Find ports and settings of policies that are used where they mean nothing."""
    arcs = [*(arc for step in steps.values() for arc in step.arcs), *back]
    first = {loops[-1].first for loops in shape.loops}
    for arc in arcs:
        if arc.special and arc.port == LIMIT and arc.source not in first | shape.unclear:
            message = f"{arc.source!r} has a port {LIMIT!r} only where a loop begins, and none begins there"
            problems.error("unknown_port", arc.where, f"{arc.pointer}/sourceHandle", message)
    failing = {arc.source for arc in arcs if arc.special and arc.port == ERROR}
    for step in steps.values():
        where = nodes[step.id]
        if step.policy.on_error == "port" and step.id not in failing:
            message = f"{step.name!r} is to go on by its port {ERROR!r} when it fails, but no arrow leads on"
            problems.warning("unused_port", step.id, where.at("data", "on_error"), message)
        if step.policy.on_error == "default" and step.id in failing:
            message = (
                f"{step.name!r} goes on with its default when it fails, so its port {ERROR!r} is never taken"
            )
            problems.warning("unused_port", step.id, where.at("data", "on_error"), message)
        _default(step, where, problems)
        _means_nothing(step, step.id in first, where, problems)
    for id, body in shape.maps.items():
        _empty(steps[id], body, nodes[id], problems)


def _means_nothing(step: Step, begins_loop: bool, where: NodeSpec, problems: Problems) -> None:
    if step.type.body is not None and (step.policy.retry is not None or step.policy.timeout is not None):
        message = "'retry' and 'timeout' mean nothing for a map, only for the steps that it runs"
        problems.warning("unused_config", step.id, where.at_data, message)
    # Where something is wrong, an arrow that is not understood may be the one that leads back.
    if step.type.rounds is not None and not begins_loop and not problems.errors:
        message = f"nothing leads back to {step.name!r} ({step.type.name}), so its body runs at most once"
        problems.warning("empty_loop", step.id, where.at(), message)
    if step.policy.max_rounds is not None and not begins_loop:
        key = "max_rounds" if "max_rounds" in where.config else "max_iterations"
        message = f"{step.name!r} begins no loop, so {key!r} means nothing here"
        problems.warning("unused_config", step.id, where.at("data", key), message)


def _empty(step: Step, body: MapBody, where: NodeSpec, problems: Problems) -> None:
    ports = step.type.body
    if ports is None or body.returns:
        return
    what = f"nothing is led back to its input {ports.takes!r}, so each result is null"
    if not body.steps:
        what = f"no arrow leads from its port {ports.gives[0]!r}, so nothing is done with the items"
    problems.warning("empty_map", step.id, where.at(), f"{step.name!r} ({step.type.name}): {what}")


def _default(step: Step, where: NodeSpec, problems: Problems) -> None:
    """A router goes on by its default, so that must be one of its routes."""
    if step.policy.on_error == "default" and step.routes and step.policy.default not in step.routes:
        message = (
            f"{step.name!r} ({step.type.name}) chooses a port, so its 'default' is one of "
            f"{listed(step.routes)}, not {step.policy.default!r}"
        )
        problems.error("bad_config", step.id, where.at("data", "default"), message)


def _named(name: str, known: Iterable[Port]) -> Port | None:
    return next((port for port in known if port.name == name), None)


def _sort(kind: Any) -> Sort | None:
    """What values of `kind` are in JSON; `None` where they can be several things."""
    kind = get_origin(kind) or kind
    if kind is bool:
        return "boolean"
    if kind in (int, float):
        return "number"
    if kind is str:
        return "text"
    if kind in (list, tuple, set, frozenset):
        return "list"
    return "object" if kind is dict or (isinstance(kind, type) and issubclass(kind, msgspec.Struct)) else None


def _article(sort: Sort) -> str:
    return f"an {sort}" if sort == "object" else f"a {sort}"
