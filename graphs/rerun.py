"""The state that a new run of a plan starts with, when it takes over what an earlier one has done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

from langgraph.graph.message import add_messages
from langgraph.types import Overwrite

from graphs.options import reduce
from graphs.plan import Loop, Part, Plan, Step
from graphs.state import State, channel, current, items, messages, results, rounds, variable


class CannotRerun(ValueError):
    """A run cannot begin like that; the message says why and what is possible."""


def outcomes(plan: Plan) -> dict[str, str]:
    """Channel -> the step whose outcome it holds."""
    return {channel(id): id for id in plan.steps}


def memory_channels(plan: Plan) -> dict[str, str]:
    """The channels of variables and conversations -> their names, as `vars.<name>` or the memory's id."""
    named = {variable(name): f"vars.{name}" for name in plan.variables}
    return {**named, **{messages(id): id for id in plan.memories}}


def taken_over(plan: Plan, state: State) -> dict[str, Any]:
    """What of an earlier run's state means something to `plan`: not LangGraph's own, nor other steps'."""
    names = [*outcomes(plan), *memory_channels(plan), *_own(plan), *(results(map) for map in plan.maps)]
    return {name: state[name] for name in names if name in state}


def absorb(plan: Plan, state: State, writes: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """`state` with what tasks have written that ended after it was saved."""
    mine = taken_over(plan, state)
    known = outcomes(plan)
    conversations = {messages(id) for id in plan.memories}
    variables = {variable(each.name): each for each in plan.variables.values()}
    collected = {results(map) for map in plan.maps}
    for name, value in writes:
        if name in conversations:
            mine[name] = add_messages(mine.get(name) or [], value)
        elif name in variables:
            held = variables[name]
            mine[name] = {"value": reduce(held.reducer, current(plan, mine, held.name), value)}
        elif name in collected:  # as the graph gathers them: `None` first begins anew
            mine[name] = value[1:] if value[:1] == [None] else [*mine.get(name, []), *value]
        elif name in known or name in _own(plan):
            mine[name] = value
    return mine


def _own(plan: Plan) -> set[str]:
    return {rounds(chain[-1].first) for chain in _loops(plan)} | {items(map) for map in plan.maps}


def again_from(plan: Plan, state: State, steps: Set[str], *, keep: bool = False) -> dict[str, Any]:
    """`state` without what `steps`, and all that comes after them, have done; with `keep` theirs stays.

    A loop is run again from its first round if it is entered again, else from the round that it was in.
    """
    undone, anew = _undone(plan, steps, keep)
    left = {name: value for name, value in state.items() if outcomes(plan).get(name) not in undone}
    for map in plan.maps:
        if map in undone:
            left.pop(items(map), None)
            left.pop(results(map), None)
    for chain in _loops(plan):
        loop, name = chain[-1], rounds(chain[-1].first)
        if name in left and not undone.isdisjoint(loop.steps):
            if any(each.first in anew for each in chain):
                del left[name]
            else:
                left[name] = {key: value for key, value in left[name].items() if key != "ended"}
    return left


def touched(plan: Plan, steps: Set[str]) -> set[str]:
    """The channels of variables and conversations that `steps`, or what follows them, may have written."""
    undone, _ = _undone(plan, steps, keep=False)
    for map in undone & set(plan.maps):
        undone |= plan.maps[map].steps
    found: set[str] = set()
    for step in (plan.steps[id] for id in undone):
        if step.type.sets is not None:
            found |= {variable(name) for name in step.type.sets(step.settings.provisional())}
        found |= {messages(id) for id in _bound(plan, step) if id in plan.memories}
    return found


def _bound(plan: Plan, node: Step | Part) -> set[str]:
    """The parts that `node` uses, directly or by way of others."""
    direct = {id for ids in node.bindings.values() for id in ids}
    return direct.union(*(_bound(plan, plan.parts[id]) for id in direct))


def seed(plan: Plan, state: State) -> dict[str, Any]:
    """The input of a graph that begins with `state`."""
    reduced = {*memory_channels(plan), *(results(map) for map in plan.maps)}
    return {name: Overwrite(value) if name in reduced else value for name, value in state.items()}


def place_of(plan: Plan, step: str) -> str:
    """`step`, known to be one that a run can begin again from: its id.

    Raises:
        CannotRerun: There is none of this id or name, or a map runs it.
    """
    found = [each.id for each in plan.steps.values() if step in (each.id, each.name)]
    exact = [id for id in found if id == step] or found
    if len(exact) != 1:
        what = f"{len(exact)} steps are called {step!r}" if exact else f"there is no step {step!r}"
        raise CannotRerun(f"{what}; the steps: {', '.join(plan.steps)}")
    for map, body in plan.maps.items():
        if exact[0] in body.steps:
            raise CannotRerun(f"{step!r} is run by the map {map!r}; begin with that one")
    return exact[0]


def present_rounds(plan: Plan, state: State, step: str) -> list[int]:
    """The rounds that the loops around `step` are in.

    Raises:
        CannotRerun: One of them has not begun.
    """
    around = next((chain for chain in reversed([*_loops(plan)]) if step in chain[-1].steps), ())
    found = [state.get(rounds(loop.first)) for loop in around]
    if None in found:
        raise CannotRerun(f"the loop around {step!r} has not begun in that state")
    return [now["round"] for now in found if now is not None]


def _undone(plan: Plan, steps: Set[str], keep: bool) -> tuple[set[str], set[str]]:
    """The steps whose outcome is gone, and the first steps of the loops that begin anew."""
    changed, undone, anew = set(steps), set() if keep else set(steps), set[str]()
    loops = [chain[-1] for chain in _loops(plan)]
    while True:
        before = len(undone), len(anew)
        for step in plan.steps.values():
            body = plan.maps.get(step.id)
            if not (changed | undone).isdisjoint((*step.sources, *(body.sources if body else ()))):
                undone.add(step.id)
        for loop in loops:
            entered = not (changed | undone).isdisjoint(loop.sources) or loop.first in undone
            if entered and not undone.isdisjoint(loop.steps):
                undone |= loop.steps
                anew.add(loop.first)
        if (len(undone), len(anew)) == before:
            return undone, anew


def _loops(plan: Plan) -> Iterator[tuple[Loop, ...]]:
    """The loops outside of maps, each with those around it."""
    return plan.region.loops()


def kept_steps(plan: Plan, state: Mapping[str, Any]) -> list[str]:
    """The steps whose outcome `state` holds."""
    return [id for name, id in outcomes(plan).items() if name in state]
