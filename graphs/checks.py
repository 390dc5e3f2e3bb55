"""Rules that need the whole drawing: what is missing, what collides, what may never have run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from msgspec.structs import fields

from graphs.config import CREDENTIALS, extra
from graphs.liveness import Liveness, TooComplex
from graphs.plan import Arc, Part, Step
from graphs.ports import binding_ports, ports, title
from graphs.problems import Problems
from graphs.references import users_of
from graphs.spec import NodeSpec


def check(
    steps: Mapping[str, Step],
    parts: Mapping[str, Part],
    triggers: Sequence[str],
    nodes: Mapping[str, NodeSpec],
    doubtful: Set[str],
    uncertain: Set[str],
    problems: Problems,
) -> None:
    """Check `steps`, in topological order, and the `parts` they use.

    What is missing at the `doubtful` nodes is not reported: something broken leads to them. Nor is it judged
    what can happen at the `uncertain` steps, which are all that follow something broken.
    """
    if not steps and not problems.errors:
        problems.error("empty_workflow", "", "/nodes", "the workflow has no steps that could run")
    every: list[Step | Part] = [*steps.values(), *parts.values()]
    for node in every:
        _credentials(node, nodes[node.id], problems)
        if node.id not in doubtful:
            _bound(node, nodes[node.id], problems)
    for step in steps.values():
        if step.id not in doubtful:
            _fed(step, nodes[step.id], problems)
    try:
        _check_runs(steps, parts, triggers, uncertain, problems)
    except (TooComplex, RecursionError):
        message = "the drawing has too many routers for an exact check of its joins and references"
        problems.warning("not_checked", "", "", message)


def _check_runs(
    steps: Mapping[str, Step],
    parts: Mapping[str, Part],
    triggers: Sequence[str],
    uncertain: Set[str],
    problems: Problems,
) -> None:
    """Check what can happen in a run, over every way that the routers may choose."""
    liveness = Liveness(steps, triggers)
    users = users_of(parts, steps)
    for step in steps.values():
        if step.id not in uncertain:
            _meeting(step, liveness, problems)
            _unset(step, [step.id], liveness, steps, problems)
    for part in parts.values():
        certain = [id for id in users.get(part.id, ()) if id not in uncertain]
        _unset(part, certain, liveness, steps, problems)


def _bound(node: Step | Part, where: NodeSpec, problems: Problems) -> None:
    for port in binding_ports(node.type.bindings):
        if port.required and port.name not in node.bindings:
            message = f"{node.name!r} ({node.type.name}) needs {title(port.kind)} at its port {port.name!r}"
            problems.error("missing_input", node.id, where.at(), message)


def _credentials(node: Step | Part, where: NodeSpec, problems: Problems) -> None:
    secrets = [info.name for info in fields(node.type.config) if extra(info.type, "secret", False)]
    hint = f"set {' or '.join(map(repr, secrets))} instead" if secrets else None
    for key in CREDENTIALS:
        if where.data.get(key):
            message = "this server keeps no credentials yet, so this one is not used"
            problems.warning("credential_unavailable", node.id, where.at("data", key), message, hint)


def _fed(step: Step, where: NodeSpec, problems: Problems) -> None:
    reached = {arc.input for arc in step.arcs}
    for port in ports(step.type.inputs):
        if port.required and port.name not in reached:
            message = f"{step.name!r} ({step.type.name}) needs an arrow to its input {port.name!r}"
            problems.error("missing_input", step.id, where.at(), message)


def _meeting(step: Step, liveness: Liveness, problems: Problems) -> None:
    single = {port.name for port in ports(step.type.inputs) if not port.many}
    seen: dict[str, list[Arc]] = {}
    for arc in step.arcs:
        if arc.input not in single:
            continue
        before = seen.setdefault(arc.input, [])
        other = next((each for each in before if liveness.meet(each, arc)), None)
        before.append(arc)
        if other is not None:
            message = (
                f"input {arc.input!r} of {step.name!r} ({step.type.name}) takes one value, but those of "
                f"{other.source!r} and {arc.source!r} can both arrive in one run"
            )
            hint = "let both lead to a Template first, or remove one arrow"
            problems.error("port_conflict", arc.where, arc.pointer, message, hint)


def _unset(
    node: Step | Part, users: Sequence[str], liveness: Liveness, steps: Mapping[str, Step], problems: Problems
) -> None:
    """Find a reference of `node` to a step that need not have run when one of `users` does."""
    for path, at in dict.fromkeys(node.settings.paths):
        reference = node.references.get(path)
        if reference is None or reference.port is None or path.optional:
            continue
        for user in users:
            gap = liveness.without(user, reference.root)
            if gap is not None:
                way = " and ".join(_choice(router, route, steps) for router, route in gap.items())
                message = f"{path}: {reference.root!r} does not run when {way}, but {user!r} does"
                hint = f"write {{{{ {path.text} | default('…') }}}} for that case"
                problems.error("maybe_unset", node.id, at, message, hint)
                break


def _choice(router: str, route: str, steps: Mapping[str, Step]) -> str:
    return f"{steps[router].name!r} takes {route!r}" if router else f"{route!r} starts the run"
