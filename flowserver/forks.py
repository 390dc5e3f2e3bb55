"""Forks: new runs that take over what an earlier one has done.

Trying again after a failure, running again from a step, and going back to a checkpoint are one thing: a run
that starts with a state. What is in that state is not run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec

from flowserver.checkpoints import History, Seed
from flowserver.db import Pool
from flowserver.errors import BadRequest, NotFound
from graphs.plan import Plan, Step
from graphs.ports import ports
from graphs.rerun import CannotRerun, again_from, kept_steps, place_of, present_rounds, touched
from graphs.state import channel
from graphs.values import UnsafeValue, clean


class Fork(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run begins anew, and with which values."""

    checkpoint: str | None = None
    """With the state of this moment; without one, with the newest."""
    step: str | None = None
    """From this step on, by id or name: it and all that comes after it run again."""
    set: Mapping[str, Mapping[str, Any]] = {}
    """Step -> output -> the value that it shall have given; what comes after it runs again."""
    routes: Mapping[str, str] = {}
    """Router -> the port that it shall have chosen."""


async def seed_from(pool: Pool, plan: Plan, run: UUID, thread: str, fork: Fork) -> Seed:
    """What a fork of `run` starts with, in the terms of `plan`.

    Raises:
        NotFound: The run has no such checkpoint.
        BadRequest: There is no such step, output or port, or a run cannot begin there.
    """
    history = History(pool, plan, run, thread)
    try:
        state = await _begun(history, plan, fork)
        state = _changed(plan, state, fork)
    except CannotRerun as exc:
        raise BadRequest(str(exc)) from None
    named = {"checkpoint": fork.checkpoint, "step": fork.step}
    told = {"run": str(run), **{key: value for key, value in named.items() if value is not None}}
    return Seed(run, told, tuple(kept_steps(plan, state)), state)


async def _begun(history: History, plan: Plan, fork: Fork) -> dict[str, Any]:
    step = None if fork.step is None else place_of(plan, fork.step)
    if fork.checkpoint is not None:
        found = await history.at(fork.checkpoint)
        if found is None:
            raise NotFound("checkpoint of this run", fork.checkpoint)
        return found if step is None else again_from(plan, found, {step})
    state = await history.newest()
    if step is None:
        return state
    # What other steps have done stays; what it and those after it have said and set is as it was before.
    if memory := touched(plan, {step}):
        earlier = await history.before(step)
        state = {name: value for name, value in state.items() if name not in memory}
        state |= {name: value for name, value in earlier.items() if name in memory}
    return again_from(plan, state, {step})


def _changed(plan: Plan, state: dict[str, Any], fork: Fork) -> dict[str, Any]:
    changes: dict[str, dict[str, Any]] = {}
    for named, values in fork.set.items():
        step = plan.steps[place_of(plan, named)]
        changes[step.id] = {"outputs": _values(step, values)}
    for named, port in fork.routes.items():
        step = plan.steps[place_of(plan, named)]
        port = step.type.route_aliases.get(port, port)
        if port not in step.routes:
            known = ", ".join(step.routes) or "none: it is no router"
            raise CannotRerun(f"{step.name!r} has no route {port!r}; it has: {known}")
        changes[step.id] = {**changes.get(step.id, {}), "route": port, "because": {"set": port}}
    if not changes:
        return state
    state = again_from(plan, state, set(changes), keep=True)
    return state | {channel(id): _outcome(plan, id, state, change) for id, change in changes.items()}


def _outcome(plan: Plan, id: str, state: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    step = plan.steps[id]
    before = state.get(channel(step.id))
    if before is None:  # as for a step that has failed
        before = {"at": path} if (path := present_rounds(plan, state, step.id)) else {}
    large = {key: each for key, each in before.get("large", {}).items() if key.startswith("outputs.")}
    outputs = {**before.get("outputs", {}), **change.get("outputs", {})}
    large = {key: each for key, each in large.items() if key.removeprefix("outputs.") not in outputs}
    left: dict[str, Any] = {"outputs": outputs}
    if "at" in before:
        left["at"] = before["at"]
    if step.routes:
        left |= {"route": change.get("route", before.get("route")), "because": change.get("because", {})}
        if left["route"] is None:
            raise CannotRerun(
                f"{step.name!r} is a router that has not chosen; say in 'routes' which way it takes"
            )
    return left | ({"large": large} if large else {})


def _values(step: Step, values: Mapping[str, Any]) -> dict[str, Any]:
    known = [port.name for port in ports(step.type.outputs)]
    if unknown := [name for name in values if name not in known]:
        names = ", ".join(known) or "none"
        raise CannotRerun(f"{step.name!r} has no output {unknown[0]!r}; it has: {names}")
    try:
        return dict(clean(dict(values)))
    except UnsafeValue as exc:
        raise CannotRerun(f"the values for {step.name!r} cannot be kept: {exc}") from None
