"""Resolve a drawing against the registry: every name looked up, every setting and arrow typed.

All mistakes are collected; what is wrong is left out, so that the search for more can go on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Set
from graphlib import CycleError, TopologicalSorter

import msgspec

from graphs.checks import check
from graphs.config import read_settings, spellings
from graphs.connect import Draft, connect
from graphs.options import read_options
from graphs.plan import ERROR, Arc, Part, Plan, Step, Variable
from graphs.policy import Policy, read_policy
from graphs.problems import InvalidWorkflow, Problem, Problems, listed
from graphs.references import resolve_references
from graphs.regions import MOST_NESTED, Shape, around, back_arcs, find_shape, too_deep
from graphs.spec import Saved, WorkflowSpec, read_inside, ref_key
from nodes.elsewhere import INSTEAD
from nodes.registry import Registry

MOST_WORKFLOWS = 10
"""How deep workflows may run each other."""


_OF_SEVERAL = ("workflow_cycle", "nested_too_deeply")
"""Mistakes that concern every workflow on the way to them."""


def resolve(
    spec: WorkflowSpec, registry: Registry, problems: Problems, above: tuple[Saved, ...] = ()
) -> Plan:
    """Make the plan of `spec`; warnings are added to `problems`. `above` are the workflows that it runs in.

    Raises:
        InvalidWorkflow: With everything found, warnings included, when one problem is an error.
    """
    options = read_options(spec.settings, problems)
    draft = Draft(spec, nodes={node.id: node for node in spec.nodes})
    look_up(draft, registry, problems)
    draft.loose = [edge for edge in spec.edges if not connect(edge, draft, problems)]
    lead_back(draft)
    parts = make_parts(draft, problems)
    steps = reachable(make_steps(draft), draft, problems)
    steps = forward(steps, draft, problems)
    shape = find_shape(steps, starts(steps), draft.nodes, draft.uncertain, problems)
    draft.uncertain |= led_to(shape.unclear, draft.arcs)
    back = back_arcs(shape.region, shape.maps)
    steps = {id: without(steps[id], back, shape.unclear) for id in shape.order}
    triggers = tuple(step.id for step in steps.values() if step.type.kind == "trigger")
    parts, steps = resolve_references(
        parts,
        steps,
        shape,
        options.variables,
        draft.nodes,
        draft.lost,
        draft.broken,
        draft.uncertain,
        problems,
    )
    check(steps, parts, triggers, draft.nodes, shape, draft.doubtful, draft.uncertain, problems)
    children = called({**steps, **parts}, draft, registry, problems, above)
    for id in children.keys() & parts.keys():
        asking = who_asks(children[id])
        if asking is not None:
            message = (
                f"{parts[id].name!r} is a tool, and {asking!r} in its workflow may ask a person, who would "
            )
            message += "have to be waited for in the middle of a conversation"
            hint = "let the agent ask: see its setting 'approve_tools'"
            problems.error("asks_in_tool", id, draft.nodes[id].at(), message, hint)
    nested(shape, children, draft, problems)
    if problems.errors:
        raise InvalidWorkflow(in_place(problems.found))
    return Plan(
        spec.version,
        steps,
        parts,
        triggers,
        shape.region,
        shape.maps,
        {name: Variable(name, v.initial, v.reducer, v.persistent) for name, v in options.variables.items()},
        children,
        options.max_concurrency,
        options.limits,
        options.retention,
    )


def in_place(problems: Iterable[Problem]) -> list[Problem]:
    """`problems`, errors before warnings, else as they were found."""
    return sorted(problems, key=lambda problem: problem.severity)


def look_up(draft: Draft, registry: Registry, problems: Problems) -> None:
    for node in draft.spec.nodes:
        if not node.type:
            continue  # it could not be read, which is a problem already
        node_type = registry.find(node.type)
        if node_type is None:
            names = [*registry.types, *registry.aliases]
            message = f"no node type {node.type!r}; GET /nodes and 'flowserver nodes' list all there are"
            hint = INSTEAD.get(node.type) or problems.did_you_mean(node.type, names)
            problems.error("unknown_type", node.id, node.at("type"), message, hint)
            continue
        draft.types[node.id] = node_type
        settings = read_settings(node, node_type, problems)
        known = settings.valid or node_type.routes is None
        (draft.settings if known else draft.lost)[node.id] = settings
        if node_type.is_step:
            draft.policies[node.id] = read_policy(node, spellings(node_type), problems)


def make_parts(draft: Draft, problems: Problems) -> dict[str, Part]:
    """The providers in use and the steps that serve as tools, each after those it needs."""
    bound = draft.bound
    used = bound | {edge.source for edge in draft.loose}
    for node in draft.spec.nodes:
        node_type = draft.types.get(node.id)
        if node_type is not None and node_type.kind == "provider" and node.id not in used:
            message = f"{node.name!r} ({node_type.name}) is connected to nothing and is not used"
            problems.warning("unused_provider", node.id, node.at(), message)
    waiting = {
        id: {each for ids in draft.bindings.get(id, {}).values() for each in ids}
        for id in draft.nodes
        if id in bound
    }
    try:
        ordered = [id for id in TopologicalSorter(waiting).static_order() if id in bound]
    except CycleError as exc:
        ids = list(dict.fromkeys(exc.args[1]))
        problems.error("cycle", ids[0], draft.nodes[ids[0]].at(), f"providers need each other: {listed(ids)}")
        return {}
    return {
        id: Part(id, draft.nodes[id].name, draft.types[id], draft.settings[id], draft.bindings.get(id, {}))
        for id in ordered
        if id in draft.settings
    }


def make_steps(draft: Draft) -> dict[str, Step]:
    leads: dict[str, list[Arc]] = {}
    for arc in draft.arcs:
        leads.setdefault(arc.target, []).append(arc)
    tools = draft.bound
    failing = {arc.source for arc in draft.arcs if arc.special and arc.port == ERROR}
    drawn = leads.keys() | {arc.source for arc in draft.arcs}
    return {
        node.id: Step(
            node.id,
            node.name,
            draft.types[node.id],
            draft.settings[node.id],
            policy(draft.policies[node.id], node.id in failing),
            tuple(leads.get(node.id, ())),
            draft.bindings.get(node.id, {}),
        )
        for node in draft.spec.nodes
        if node.id in draft.settings
        and draft.types[node.id].is_step
        and (node.id not in tools or node.id in drawn)
    }


def policy(read: Policy, has_error_arrow: bool) -> Policy:
    """The policy of a step; an arrow from its error port says what is to be done when it fails."""
    if has_error_arrow and read.on_error == "fail":
        return msgspec.structs.replace(read, on_error="port")
    return read


def reachable(steps: dict[str, Step], draft: Draft, problems: Problems) -> dict[str, Step]:
    """The steps that a start leads to. Where there are triggers, only they are starts."""
    starts = [step.id for step in steps.values() if step.type.kind == "trigger"]
    if not starts:
        starts = [step.id for step in steps.values() if step.is_root] or list(steps)
    seen = led_to(starts, draft.arcs)
    # A start may be missing only because what would be one is broken, or leads on by a loose edge.
    hanging = {edge.source for edge in draft.loose} - seen
    arriving = {edge.target for edge in draft.unsure if not draft.binds(edge)}
    draft.uncertain |= led_to([*draft.broken, *arriving, *hanging], draft.arcs)
    seen |= draft.uncertain
    for id in sorted(steps.keys() - seen, key=lambda id: draft.nodes[id].index):
        where = draft.nodes[id]
        message = f"no start leads to {where.name!r} ({where.type}), so it will never run"
        problems.warning("unreachable", id, where.at(), message, "draw an arrow to it, or remove it")
    return {
        id: dataclasses.replace(
            step, arcs=tuple(arc for arc in step.arcs if arc.source in seen and arc.source in steps)
        )
        for id, step in steps.items()
        if id in seen
    }


def forward(steps: dict[str, Step], draft: Draft, problems: Problems) -> dict[str, Step]:
    """The steps without arrows that lead back to what only begins a run."""
    kept = dict(steps)
    for id, step in steps.items():
        ahead = led_to([id], draft.arcs) if step.type.kind == "trigger" and step.arcs else set()
        for arc in step.arcs:
            if arc.source in ahead:
                message = f"the arrow from {arc.source!r} leads back to {id!r} ({step.type.name}), "
                message += "which begins a run and is no step of a loop"
                hint = "lead it to a step after that"
                problems.error("trigger_in_loop", arc.where, arc.pointer, message, hint)
        if ahead:
            arcs = tuple(arc for arc in step.arcs if arc.source not in ahead)
            kept[id] = dataclasses.replace(step, arcs=arcs)
    return kept


def led_to(starts: Iterable[str], arcs: Iterable[Arc]) -> set[str]:
    """Everything that arrows lead to from `starts`."""
    follows: dict[str, list[str]] = {}
    for arc in arcs:
        follows.setdefault(arc.source, []).append(arc.target)
    seen: set[str] = set()
    waiting = list(starts)
    while waiting:
        if (id := waiting.pop()) not in seen:
            seen.add(id)
            waiting += follows.get(id, ())
    return seen


def starts(steps: Mapping[str, Step]) -> set[str]:
    """The steps that a run can begin with."""
    triggers = {id for id, step in steps.items() if step.type.kind == "trigger"}
    return triggers or {id for id, step in steps.items() if step.is_root} or set(steps)


def without(step: Step, back: Set[Arc], unclear: Set[str]) -> Step:
    """`step` without the arrows that lead back to it, and without those of a loop that is not understood."""
    kept = tuple(
        arc for arc in step.arcs if arc not in back and not (arc.source in unclear and step.id in unclear)
    )
    return step if len(kept) == len(step.arcs) else dataclasses.replace(step, arcs=kept)


def lead_back(draft: Draft) -> None:
    """Let arrows that come back to a map, and do not say at which input, mean the one for results."""
    for id, node_type in draft.types.items():
        body = node_type.body
        if body is None:
            continue
        into = [arc.target for arc in draft.arcs if arc.source == id and arc.port in body.gives]
        inside = led_to(into, (arc for arc in draft.arcs if id not in (arc.source, arc.target)))
        draft.arcs = [
            dataclasses.replace(arc, input=body.takes)
            if arc.target == id and arc in draft.plain and arc.source in inside
            else arc
            for arc in draft.arcs
        ]


def who_asks(plan: Plan) -> str | None:
    """The name of a step that may ask a person, in this workflow or in one that it runs."""
    own = [step.name for step in plan.steps.values() if step.asks]
    inner = (found for child in plan.children.values() if (found := who_asks(child)) is not None)
    return own[0] if own else next(inner, None)


def called(
    steps: Mapping[str, Step | Part],
    draft: Draft,
    registry: Registry,
    problems: Problems,
    above: tuple[Saved, ...],
) -> dict[str, Plan]:
    """The plans of the workflows that steps and tools run, by their ids."""
    found: dict[str, Plan] = {}
    for step in steps.values():
        if step.type.calls is None or not step.settings.valid:
            continue
        where = draft.nodes[step.id]
        ref = step.type.calls(step.settings.provisional())
        known = draft.spec.subflows
        saved = (known or {}).get(ref_key(ref))
        if known is None:
            message = f"the workflow {ref.workflow!r} is not looked up here, so it is not checked"
            problems.warning("not_checked", step.id, where.at("data", "workflow"), message)
        elif saved is None:
            version = f" in version {ref.version!r}" if ref.version else ""
            message = f"there is no saved workflow {ref.workflow!r}{version}"
            hint = problems.did_you_mean(ref.workflow, [each.name for each in known.values()])
            problems.error("unknown_workflow", step.id, where.at("data", "workflow"), message, hint)
        elif saved.id in (each.id for each in above):
            way = " -> ".join(repr(each.name) for each in (*above, saved))
            message = f"workflows run each other: {way}"
            problems.error("workflow_cycle", step.id, where.at("data", "workflow"), message)
        elif len(above) >= MOST_WORKFLOWS:
            message = too_deep("workflows", MOST_WORKFLOWS)
            problems.error("nested_too_deeply", step.id, where.at("data", "workflow"), message)
        else:
            inner = Problems()
            try:
                child = read_inside(saved.flow_data, draft.spec, inner)
                found[step.id] = resolve(child, registry, inner, (*above, saved))
            except InvalidWorkflow as exc:
                errors = [each for each in exc.problems if each.severity == "error"]
                first = errors[0]
                more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
                what = f"{first.where or 'workflow'}: {first.message}{more}"
                message = f"the workflow {saved.name!r} cannot run: {what}"
                code = first.code if first.code in _OF_SEVERAL else "broken_workflow"
                problems.error(code, step.id, where.at("data", "workflow"), message)
    return found


def nested(shape: Shape, children: Mapping[str, Plan], draft: Draft, problems: Problems) -> None:
    """Find where loops, maps and workflows lie too deep in each other."""
    for step, outer in around(shape.region, shape.maps).items():
        inner = 1 + children[step].depth if step in children else 0
        if len(outer) + inner > MOST_NESTED:
            at = step if inner else outer[-1]
            message = too_deep("loops, maps and workflows", MOST_NESTED)
            problems.error("nested_too_deeply", at, draft.nodes[at].at(), message)
            return
