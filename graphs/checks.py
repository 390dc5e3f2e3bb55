"""Rules that need the whole drawing: what is missing, what collides, what may never have run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from itertools import combinations

from graphs.liveness import Liveness, TooComplex
from graphs.plan import Part, Step
from graphs.ports import binding_ports, ports
from graphs.problems import Problems
from graphs.spec import NodeSpec


def check(
    steps: Mapping[str, Step],
    parts: Mapping[str, Part],
    triggers: Sequence[str],
    nodes: Mapping[str, NodeSpec],
    unjudged: Set[str],
    problems: Problems,
) -> None:
    """Check `steps`, in topological order, and the `parts` they use.

    What is missing at the nodes in `unjudged` is not reported: something broken leads to them.
    """
    if not steps and not problems.errors:
        problems.error("empty_workflow", "", "/nodes", "the workflow has no steps that could run")
    every: list[Step | Part] = [*steps.values(), *parts.values()]
    for node in every:
        _credentials(node, nodes[node.id], problems)
        if node.id not in unjudged:
            _bound(node, nodes[node.id], problems)
    for step in steps.values():
        if step.id not in unjudged:
            _fed(step, nodes[step.id], problems)
    if not problems.errors:  # a drawing with holes says nothing about which steps can meet
        _check_runs(steps, triggers, problems)


def _check_runs(steps: Mapping[str, Step], triggers: Sequence[str], problems: Problems) -> None:
    """Check what can happen in a run, over every way that the routers may choose."""
    try:
        liveness = Liveness(steps, triggers)
    except (TooComplex, RecursionError):
        message = "the drawing has too many routers for an exact check of its joins and references"
        problems.warning("not_checked", "", "", message)
        return
    for step in steps.values():
        _meeting(step, liveness, problems)
        _unset(step, liveness, steps, problems)


def _bound(node: Step | Part, where: NodeSpec, problems: Problems) -> None:
    for port in binding_ports(node.type.bindings):
        if port.required and port.name not in node.bindings:
            message = f"{node.name!r} ({node.type.name}) needs something connected to its port {port.name!r}"
            problems.error("missing_input", node.id, where.at(), message)


def _credentials(node: Step | Part, where: NodeSpec, problems: Problems) -> None:
    for key in ("credential_id", "credential"):
        if where.data.get(key):
            message = "this server keeps no credentials yet; the server's own key for the provider is used"
            problems.warning("credential_unavailable", node.id, where.at("data", key), message)


def _fed(step: Step, where: NodeSpec, problems: Problems) -> None:
    reached = {arc.input for arc in step.arcs}
    for port in ports(step.type.inputs):
        if port.required and port.name not in reached:
            message = f"{step.name!r} ({step.type.name}) needs an arrow to its input {port.name!r}"
            problems.error("missing_input", step.id, where.at(), message)


def _meeting(step: Step, liveness: Liveness, problems: Problems) -> None:
    single = {port.name for port in ports(step.type.inputs) if not port.many}
    for first, second in combinations((arc for arc in step.arcs if arc.input in single), 2):
        if first.input == second.input and liveness.meet(first, second):
            message = (
                f"input {second.input!r} of {step.name!r} ({step.type.name}) takes one value, but those of "
                f"{first.source!r} and {second.source!r} can both arrive in one run"
            )
            hint = "let both lead to a Template first, or remove one arrow"
            problems.error("port_conflict", second.where, second.pointer, message, hint)


def _unset(step: Step, liveness: Liveness, steps: Mapping[str, Step], problems: Problems) -> None:
    pointers = dict(step.settings.paths)
    for path, reference in step.references.items():
        if reference.port is None or path.optional:
            continue
        gap = liveness.without(step.id, reference.root)
        if gap is not None:
            way = " and ".join(_choice(router, route, steps) for router, route in gap.items())
            message = (
                f"'{{{{ {path.text} }}}}': {reference.root!r} does not run when {way}, but {step.id!r} does"
            )
            hint = f"write {{{{ {path.text} | default('…') }}}} for that case"
            problems.error("maybe_unset", step.id, pointers[path], message, hint)


def _choice(router: str, route: str, steps: Mapping[str, Step]) -> str:
    return f"{steps[router].name!r} takes {route!r}" if router else f"{route!r} starts the run"
