"""Rules that need the whole drawing: what is missing, what collides, what may never have run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from graphs.config import CREDENTIALS
from graphs.fitting import check_arcs, check_ports
from graphs.kinds import extra, fields
from graphs.liveness import NEVER, Liveness, TooComplex
from graphs.plan import ERROR, Arc, Loop, Part, Step
from graphs.ports import binding_ports, ports, title
from graphs.problems import Problems, listed
from graphs.references import users_of
from graphs.regions import Shape, back_arcs
from graphs.spec import NodeSpec


def check(
    steps: Mapping[str, Step],
    parts: Mapping[str, Part],
    triggers: Sequence[str],
    nodes: Mapping[str, NodeSpec],
    shape: Shape,
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
    back = back_arcs(shape.region, shape.maps)
    for step in steps.values():
        if step.id not in doubtful:
            _fed(step, back, nodes[step.id], problems)
        _needed(step, nodes[step.id], problems)
    check_arcs(steps, back, problems)
    check_ports(steps, shape, back, nodes, problems)
    _leaking(every, nodes, problems)
    try:
        _check_runs(steps, parts, triggers, nodes, shape, uncertain, problems)
    except (TooComplex, RecursionError):
        message = "the drawing has too many routers for an exact check of its joins and references"
        problems.warning("not_checked", "", "", message)


def _check_runs(
    steps: Mapping[str, Step],
    parts: Mapping[str, Part],
    triggers: Sequence[str],
    nodes: Mapping[str, NodeSpec],
    shape: Shape,
    uncertain: Set[str],
    problems: Problems,
) -> None:
    """Check what can happen in a run, over every way that the routers may choose."""
    loops = shape.loops
    liveness = Liveness(steps, triggers, loops)
    users = users_of(parts, steps)
    certain = [chain[-1] for chain in loops if not uncertain & chain[-1].steps]
    endless = [loop for loop in certain if not liveness.ends(loop)]
    for loop in endless:
        _endless(loop, nodes, problems)
    back = [(loop.first, loop.back) for loop in certain]
    back += [(map, body.returns) for map, body in shape.maps.items() if map not in uncertain]
    for target, arcs in back:
        _meeting(arcs, steps[target], liveness, problems)
    for step in steps.values():
        if step.id not in uncertain:
            _meeting(step.arcs, step, liveness, problems)
            _unset(step, [step.id], liveness, steps, problems)
    for id in steps.keys() - uncertain if not endless else ():  # what follows such a loop never runs either
        _never(steps[id], liveness, nodes[id], problems)
    for part in parts.values():
        known = [id for id in users.get(part.id, ()) if id not in uncertain]
        _unset(part, known, liveness, steps, problems)


def _bound(node: Step | Part, where: NodeSpec, problems: Problems) -> None:
    for port in binding_ports(node.type.bindings):
        if port.required and port.name not in node.bindings:
            message = f"{node.name!r} ({node.type.name}) needs {title(port.kind)} at its port {port.name!r}"
            problems.error("missing_input", node.id, where.at(), message)


def _credentials(node: Step | Part, where: NodeSpec, problems: Problems) -> None:
    known = fields(node.type.config)
    used = {name for info in known for name in (info.name, *extra(info.type, "also", ()))}
    secrets = [info.name for info in known if extra(info.type, "secret", False)]
    hint = f"set {' or '.join(map(repr, secrets))} instead" if secrets else None
    for key in CREDENTIALS:
        if where.data.get(key) and key not in used:
            message = f"{node.type.name} takes no credential, so this one is not used"
            problems.warning("credential_unavailable", node.id, where.at("data", key), message, hint)


def _fed(step: Step, back: Set[Arc], where: NodeSpec, problems: Problems) -> None:
    reached = {arc.input for arc in (*step.arcs, *back) if arc.target == step.id}
    for port in ports(step.type.inputs):
        if port.required and port.name not in reached:
            message = f"{step.name!r} ({step.type.name}) needs an arrow to its input {port.name!r}"
            problems.error("missing_input", step.id, where.at(), message)


def _needed(step: Step, where: NodeSpec, problems: Problems) -> None:
    for info in fields(step.type.config) if step.type.needs else ():
        keys = (info.name, *extra(info.type, "also", ()))
        if info.name in step.type.needs and all(where.config.get(key) in (None, "") for key in keys):
            message = (
                f"{step.name!r} ({step.type.name}) needs {info.name!r}: only an agent's tool may leave it out"
            )
            problems.error("missing_config", step.id, where.at_data, message)


def _leaking(every: Sequence[Step | Part], nodes: Mapping[str, NodeSpec], problems: Problems) -> None:
    """Find secrets of one node that another has in a text that anybody may see."""
    secrets = {secret: node.name for node in every for secret in node.settings.secrets if len(secret) >= 8}
    for node in every if secrets else ():
        open_ = {info.name for info in fields(node.type.config) if not extra(info.type, "secret", False)}
        for key, value in nodes[node.id].config.items():
            if key in open_ and isinstance(value, str):
                for secret, owner in secrets.items():
                    if secret in value:
                        message = (
                            f"the secret of {owner!r} stands in {key!r}, from where it flows into outputs"
                        )
                        problems.error("secret_in_output", node.id, nodes[node.id].at("data", key), message)


def _endless(loop: Loop, nodes: Mapping[str, NodeSpec], problems: Problems) -> None:
    names = listed(sorted(loop.steps, key=lambda id: nodes[id].index))
    back = " or ".join(_arrow(arc) for arc in loop.back)
    message = f"the loop of {names} has no way out: in every round the arrow {back} leads back"
    hint = "let a condition choose between an arrow back and one that goes on"
    problems.error("endless_loop", loop.first, nodes[loop.first].at(), message, hint)


def _arrow(arc: Arc) -> str:
    drawn = f"{arc.source}->{arc.target}"
    return f"from {arc.source!r} to {arc.target!r}" + (f" ({arc.where})" if arc.where != drawn else "")


def _never(step: Step, liveness: Liveness, where: NodeSpec, problems: Problems) -> None:
    if liveness.step(step.id) == NEVER:
        message = (
            f"{step.name!r} ({step.type.name}) can never run: no choice of the routers before it leads here"
        )
        problems.warning("never_runs", step.id, where.at(), message)


def _meeting(arcs: Sequence[Arc], step: Step, liveness: Liveness, problems: Problems) -> None:
    if step.policy.join == "any":
        return
    single = {port.name for port in ports(step.type.inputs) if not port.many}
    seen: dict[str, list[Arc]] = {}
    for arc in arcs:
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
            hint = "let both lead to a Merge first, remove one arrow, or join 'any' of them"
            problems.error("port_conflict", arc.where, arc.pointer, message, hint)


def _unset(
    node: Step | Part, users: Sequence[str], liveness: Liveness, steps: Mapping[str, Step], problems: Problems
) -> None:
    """Find a reference of `node` to a step that need not have run when one of `users` does."""
    for path, at in dict.fromkeys(node.settings.paths):
        reference = node.references.get(path)
        if reference is None or reference.port is None or path.optional or reference.rounds:
            continue
        for user in users:
            gap = liveness.without(user, reference.root, reference.port)
            if gap is not None:
                way = " and ".join(_choice(router, route, steps) for router, route in gap.items())
                fails = steps[reference.root].policy.on_error == "port"
                what = "has no value" if fails else "does not run"
                message = f"{path}: {reference.root!r} {what} when {way}, but {user!r} runs"
                if fails and reference.port == ERROR:
                    only = f"has a value only when {reference.root!r} fails"
                    message = f"{path} {only}, but {user!r} also runs when {way}"
                hint = f"write {{{{ {path.text} | default('…') }}}} for that case"
                problems.error("maybe_unset", node.id, at, message, hint)
                break


def _choice(router: str, way: str, steps: Mapping[str, Step]) -> str:
    if not router:
        return f"{way!r} starts the run"
    if router not in steps:  # a loop that is entered in its middle
        return f"the loop comes round {way}"
    if way == ERROR:
        return f"{steps[router].name!r} fails"
    return f"{steps[router].name!r} takes {way!r}" if way else f"{steps[router].name!r} does not fail"
