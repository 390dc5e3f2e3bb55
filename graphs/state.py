"""The channels of a run's state, and what a step leaves in its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import quote

from graphs.plan import Arc, Plan, Step
from graphs.ports import ports

State: TypeAlias = Mapping[str, Any]
Outcome: TypeAlias = Mapping[str, Any]
"""`{"outputs": {…}}`, with `route` and `because` for a router; or `{"skipped": {…}}`."""

ENTRY = "run.in"
"""The channel that a run's start is written to."""

MOST_REASONS = 20
"""How many routers a skipped step names: every skipped step after it repeats them."""


def node(id: str) -> str:
    """The LangGraph node of a step: ids are opaque, but LangGraph reserves `|`, `:` and a leading `__`."""
    name = quote(id, safe="").replace(".", "%2E")
    return f"%5F{name[1:]}" if name.startswith("_") else name


def channel(id: str) -> str:
    """The channel of a step's outcome."""
    return f"{node(id)}.out"


def messages(id: str) -> str:
    """The channel of the conversation that a memory node keeps; it outlives the run."""
    return f"{node(id)}.messages"


def persistent(plan: Plan) -> frozenset[str]:
    """The channels that the next run of the thread starts with."""
    return frozenset(messages(id) for id in plan.memories)


def outcome(state: State, step: str) -> Outcome | None:
    """What `step` left; `None` when it was skipped or has not run."""
    found = state.get(channel(step))
    return None if found is None or "skipped" in found else found


def is_live(arc: Arc, state: State) -> bool:
    """Whether the source ran and, if it is a router, took this way."""
    found = outcome(state, arc.source)
    return found is not None and found.get("route", arc.port) == arc.port


def carried(arc: Arc, state: State, steps: Mapping[str, Step]) -> Any:
    """The value that a live arc brings."""
    found = state[channel(arc.source)]
    if "route" in found:
        known = ports(steps[arc.source].type.outputs)
        return found["outputs"][known[0].name] if known else None
    return found["outputs"].get(arc.port)


def why_dead(step: Step, state: State, steps: Mapping[str, Step]) -> dict[str, Any]:
    """Why no arc of `step` is live: `{"message", "routers": [{"step", "chose", "port", "values"}]}`."""
    if not step.arcs:
        return {"message": f"{step.name!r} did not start this run", "routers": []}
    messages: dict[str, None] = {}
    routers: dict[tuple[str, str], dict[str, Any]] = {}
    for arc in step.arcs:
        found = state.get(channel(arc.source)) or {}
        if skipped := found.get("skipped"):
            # Clause by clause: whole messages would double in length wherever two dead branches cross.
            messages |= dict.fromkeys(skipped["message"].split("; "))
            routers |= {(each["step"], each["port"]): each for each in skipped["routers"]}
        else:
            chose = found.get("route")
            name = steps[arc.source].name
            messages[f"{name!r} chose {chose!r}, not {arc.port!r}"] = None
            values = found.get("because", {})
            routers[arc.source, arc.port] = {
                "step": arc.source,
                "chose": chose,
                "port": arc.port,
                "values": values,
            }
    return {
        "message": "; ".join(list(messages)[:MOST_REASONS]),
        "routers": list(routers.values())[:MOST_REASONS],
    }


def result(plan: Plan, state: State) -> Any:
    """The output of a run: what its EndNodes took, else the outputs of the last steps.

    One value as it is, several as an object by the steps' names, or by the ids of those that share a name.
    """
    ends = [step for step in plan.steps.values() if step.type.name == "EndNode"]
    sources = {arc.source for step in plan.steps.values() for arc in step.arcs}
    last = ends or [step for step in plan.steps.values() if step.id not in sources]
    spelled = Counter(word for step in last for word in {step.name, step.id})
    values: dict[str, Any] = {}
    for step in last:
        found = outcome(state, step.id)
        known = ports(step.type.outputs)
        if found is not None and known:
            name = step.name if spelled[step.name] == 1 else step.id
            values[name] = found["outputs"].get(known[0].name)
    return next(iter(values.values())) if len(values) == 1 else values or None
