"""Resolve a drawing against the registry: every name looked up, every setting and arrow typed.

All mistakes are collected; what is wrong is left out, so that the search for more can go on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TypeVar

from graphs.checks import check
from graphs.config import read_settings
from graphs.connect import Draft, connect
from graphs.plan import Arc, Durability, Part, Plan, Step
from graphs.problems import InvalidWorkflow, Problem, Problems, listed
from graphs.references import resolve_references
from graphs.spec import WorkflowSpec
from nodes.registry import Registry

Named = TypeVar("Named", Step, Part)

MOST_CYCLES = 20
"""How many are reported; a drawing can have more than anybody could wait for."""


def resolve(spec: WorkflowSpec, registry: Registry, problems: Problems) -> Plan:
    """Make the plan of `spec`; warnings are added to `problems`.

    Raises:
        InvalidWorkflow: With everything found, warnings included, when one problem is an error.
    """
    draft = Draft(spec, nodes={node.id: node for node in spec.nodes})
    look_up(draft, registry, problems)
    draft.loose = [edge for edge in spec.edges if not connect(edge, draft, problems)]
    parts = make_parts(draft, problems)
    steps = order(reachable(make_steps(draft), draft, problems), draft, problems)
    triggers = tuple(step.id for step in steps.values() if step.type.kind == "trigger")
    parts, steps = resolve_references(parts, steps, draft.nodes, draft.broken, draft.uncertain, problems)
    check(steps, parts, triggers, draft.nodes, draft.doubtful, draft.uncertain, problems)
    if problems.errors:
        raise InvalidWorkflow(in_place(problems.found))
    levels = waves(steps)
    return Plan(spec.version, steps, parts, triggers, levels, durability(steps, levels))


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
            message = f"no node type {node.type!r}; known types: {listed(sorted(registry.types))}"
            hint = problems.did_you_mean(node.type, names)
            problems.error("unknown_type", node.id, node.at("type"), message, hint)
            continue
        draft.types[node.id] = node_type
        settings = read_settings(node, node_type, problems)
        if settings.valid or node_type.routes is None:
            draft.settings[node.id] = settings


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
    drawn = leads.keys() | {arc.source for arc in draft.arcs}
    return {
        node.id: Step(
            node.id,
            node.name,
            draft.types[node.id],
            draft.settings[node.id],
            tuple(leads.get(node.id, ())),
            draft.bindings.get(node.id, {}),
        )
        for node in draft.spec.nodes
        if node.id in draft.settings
        and draft.types[node.id].is_step
        and (node.id not in tools or node.id in drawn)
    }


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


def order(steps: dict[str, Step], draft: Draft, problems: Problems) -> dict[str, Step]:
    """The steps, each after those that lead to it; a cycle is a problem and is cut."""
    for _ in range(MOST_CYCLES):
        sorter = TopologicalSorter({id: sorted(step.sources) for id, step in steps.items()})
        try:
            return {id: steps[id] for id in sorter.static_order() if id in steps}
        except CycleError as exc:
            ids = exc.args[1][:-1]
            first = min(ids, key=lambda id: draft.nodes[id].index)
            at = ids.index(first)
            path = [*ids[at:], *ids[:at], first]
            problems.error(
                "cycle",
                first,
                draft.nodes[first].at(),
                f"the arrows form a cycle: {' -> '.join(path)}; arrows may only lead onward",
                "remove one of these arrows",
            )
            last = path[-2]
            draft.uncertain |= led_to(ids, draft.arcs)
            kept = tuple(arc for arc in steps[first].arcs if arc.source != last)
            steps = steps | {first: dataclasses.replace(steps[first], arcs=kept)}
    draft.uncertain |= steps.keys()
    return {id: dataclasses.replace(step, arcs=()) for id, step in steps.items()}


def waves(steps: Mapping[str, Step]) -> tuple[tuple[str, ...], ...]:
    """Steps that can run at the same time: each in the first wave after all that lead to it."""
    depth: dict[str, int] = {}
    for step in steps.values():
        depth[step.id] = 1 + max((depth[source] for source in step.sources), default=-1)
    rows: dict[int, list[str]] = {}
    for id, row in depth.items():
        rows.setdefault(row, []).append(id)
    return tuple(tuple(rows[row]) for row in sorted(rows))


def durability(steps: Mapping[str, Step], levels: tuple[tuple[str, ...], ...]) -> Durability:
    """`exit` where all effects lie in one wave: a crash could repeat nothing that `sync` would have saved."""
    waves_with_effects = sum(any(steps[id].type.effect for id in wave) for wave in levels)
    return "exit" if waves_with_effects <= 1 else "sync"
