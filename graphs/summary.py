"""What a plan will do, in the words of the editor: shown by `check` before anything runs."""

from __future__ import annotations

import msgspec

from graphs.plan import Durability, Loop, Plan, Region
from graphs.schedule import schedule


class LoopSummary(msgspec.Struct, frozen=True):
    """Steps that run again and again."""

    first: str
    """The step that every round begins with."""
    steps: tuple[str, ...]
    max_rounds: int
    exits: tuple[str, ...]
    """The steps outside that arrows out of the loop lead to."""


class MapSummary(msgspec.Struct, frozen=True):
    """Steps that run once per item."""

    step: str
    steps: tuple[str, ...]


class PlanSummary(msgspec.Struct, frozen=True):
    """What a plan will do, for the editor."""

    version: str
    order: tuple[str, ...]
    parallel: tuple[tuple[str, ...], ...]
    """Waves of steps that can run at the same time; those of a loop or a map in its first round."""
    loops: tuple[LoopSummary, ...]
    maps: tuple[MapSummary, ...]
    triggers: tuple[str, ...]
    providers: tuple[str, ...]
    model_calls: int | None
    """The most calls of a chat model in one run; `None` where a map has no known number of items."""
    supersteps: tuple[str, ...]
    """Steps that act on the world outside, and are saved one by one; all others run in passing."""
    credentials: tuple[str, ...]
    hosts: tuple[str, ...]
    """The hosts that it talks to, as far as they are known before it runs."""
    durability: Durability


def summary(plan: Plan) -> PlanSummary:
    """Sum up `plan`."""
    planned = schedule(plan)
    loops = [chain[-1] for region in _regions(plan) for chain in region.loops()]
    place = {id: at for at, id in enumerate(plan.steps)}
    return PlanSummary(
        version=plan.version,
        order=tuple(plan.steps),
        parallel=waves(plan),
        loops=tuple(_loop(loop, plan, place) for loop in loops),
        maps=tuple(MapSummary(id, _sorted(body.steps, place)) for id, body in plan.maps.items()),
        triggers=plan.triggers,
        providers=tuple(plan.parts),
        model_calls=_calls(plan, plan.region),
        supersteps=_sorted(planned.apart, place),
        credentials=_credentials(plan),
        hosts=_hosts(plan),
        durability=planned.durability,
    )


def waves(plan: Plan) -> tuple[tuple[str, ...], ...]:
    """Steps that can run at the same time: each in the first wave after all that lead to it."""
    groups = [chain[-1].steps for region in _regions(plan) for chain in region.loops()]
    bodies = {id: body.steps for id, body in plan.maps.items()}
    depth: dict[str, int] = {}
    for step in plan.steps.values():
        before = set(step.sources)
        for map in before & bodies.keys():
            before = before if step.id in bodies[map] else before | bodies[map]
        for group in groups:  # a loop or a map has ended when what follows it begins
            if step.id not in group and not group.isdisjoint(before):
                before |= group
        depth[step.id] = 1 + max((depth.get(source, -1) for source in before), default=-1)
    rows: dict[int, list[str]] = {}
    for id, row in depth.items():
        rows.setdefault(row, []).append(id)
    return tuple(tuple(rows[row]) for row in sorted(rows))


def _regions(plan: Plan) -> list[Region]:
    return [plan.region, *(body.region for body in plan.maps.values())]


def _loop(loop: Loop, plan: Plan, place: dict[str, int]) -> LoopSummary:
    exits = {
        step.id
        for step in plan.steps.values()
        if step.id not in loop.steps and any(arc.source in loop.steps for arc in step.arcs)
    }
    return LoopSummary(loop.first, _sorted(loop.steps, place), _rounds(loop, plan), _sorted(exits, place))


def _rounds(loop: Loop, plan: Plan) -> int:
    first = plan.steps[loop.first]
    if first.type.rounds is not None:
        return first.type.rounds(first.settings.provisional())
    return loop.most


def _calls(plan: Plan, region: Region) -> int | None:
    """The most model calls of `region`: those in a loop as often as it may go round."""
    total = 0
    for item in region.items:
        if isinstance(item, Loop):
            inner, times = _calls(plan, item.body), _rounds(item, plan)
        elif item in plan.maps:
            inner, times = _calls(plan, plan.maps[item].region), 1
            inner = None if inner else 0
        elif item in plan.children:
            inner, times = _calls(plan.children[item], plan.children[item].region), 1
        else:
            step, times = plan.steps[item], plan.steps[item].policy.retries.attempts
            count = step.type.model_calls
            known = count is not None and step.settings.ready is not None
            inner = count(step.settings.ready) if known and count is not None else 0
        if inner is None:
            return None
        total += inner * times
    return total


def _credentials(plan: Plan) -> tuple[str, ...]:
    own = {id for node in plan.nodes for id in node.settings.credentials}
    return tuple(sorted(own.union(*(_credentials(child) for child in plan.children.values()))))


def _hosts(plan: Plan) -> tuple[str, ...]:
    own = {
        host
        for node in plan.nodes
        if node.type.hosts is not None and node.settings.ready is not None
        for host in node.type.hosts(node.settings.ready)
    }
    return tuple(sorted(own.union(*(_hosts(child) for child in plan.children.values()))))


def _sorted(ids: frozenset[str] | set[str], place: dict[str, int]) -> tuple[str, ...]:
    return tuple(sorted(ids, key=lambda id: place[id]))
