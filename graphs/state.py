"""The channels of a run's state, and what a step leaves in its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import quote

from graphs.plan import ERROR, LIMIT, Arc, Plan, Step
from graphs.ports import ports

State: TypeAlias = Mapping[str, Any]
Outcome: TypeAlias = Mapping[str, Any]
"""`{"outputs": {…}}`, with `route` and `because` for a router; or `{"skipped": {…}}`; or, where a failure
goes on by the error port, `{"outputs": {}, "route": "error", "error": {…}}`. `at` are the rounds of loops."""

ENTRY = "run.in"
"""The channel that a run's start is written to."""
WAVE = "run.wave"
"""The channel that steps write to which ran at the same time: what comes after them goes on from there."""
KEPT = "run.kept"
"""What an item of a map adds to variables and conversations: `[[channel, [value, …]], …]`."""

KNOWN_NAMES = 50_000
"""How many names of channels are remembered; a run asks for them all the time."""

MOST_REASONS = 20
"""How many routers a skipped step names: every skipped step after it repeats them."""


@lru_cache(KNOWN_NAMES)
def node(id: str) -> str:
    """The LangGraph node of a step: ids are opaque, but LangGraph reserves `|`, `:` and a leading `__`."""
    name = quote(id, safe="").replace(".", "%2E")
    return f"%5F{name[1:]}" if name.startswith("_") else name


@lru_cache(KNOWN_NAMES)
def channel(id: str) -> str:
    """The channel of a step's outcome."""
    return f"{node(id)}.out"


def messages(id: str) -> str:
    """The channel of the conversation that a memory node keeps; it outlives the run."""
    return f"{node(id)}.messages"


@lru_cache(KNOWN_NAMES)
def variable(name: str) -> str:
    """The channel of a variable."""
    return f"{quote(name, safe='')}.var"


def current(plan: Plan, state: State, name: str) -> Any:
    """The value of a variable; its channel holds `{"value": …}`, or nothing before it is set."""
    found = state.get(variable(name))
    return found["value"] if found else plan.variables[name].initial


@lru_cache(KNOWN_NAMES)
def rounds(first: str) -> str:
    """The channel of a loop: `{"at", "round", "brought": [[input, value], …]}`, at last `ended`."""
    return f"{node(first)}.loop"


def items(map: str) -> str:
    """The channel of a map that runs: `{"at", "values", "on_error", "max_concurrency", "began"}`."""
    return f"{node(map)}.items"


def results(map: str) -> str:
    """The channel of what a map's items have come to: `[{"index", "value" | "error" | "stopped"}, …]`."""
    return f"{node(map)}.results"


def persistent(plan: Plan) -> frozenset[str]:
    """The channels that the next run of the thread starts with."""
    kept = [variable(each.name) for each in plan.variables.values() if each.persistent]
    return frozenset([*kept, *(messages(id) for id in plan.memories)])


def outcome(state: State, step: str) -> Outcome | None:
    """What `step` left; `None` when it was skipped or has not run."""
    found = state.get(channel(step))
    return None if found is None or "skipped" in found else found


def is_live(arc: Arc, state: State) -> bool:
    """Whether the source ran and took this way."""
    if arc.special and arc.port == LIMIT:
        return (state.get(rounds(arc.source)) or {}).get("ended") == LIMIT
    found = outcome(state, arc.source)
    if found is None:
        return False
    route = found.get("route")
    return not arc.special if route is None else route == arc.port


def carried(arc: Arc, state: State, steps: Mapping[str, Step]) -> Any:
    """The value that a live arc brings."""
    if arc.special and arc.port == LIMIT:
        brought = state[rounds(arc.source)]["brought"]
        return brought[0][1] if brought else None
    found = state[channel(arc.source)]
    if arc.special:
        return found["error"]
    if "route" in found:
        known = ports(steps[arc.source].type.outputs)
        return found["outputs"].get(known[0].name) if known else None
    return found["outputs"].get(arc.port)


def why_dead(step: Step, state: State, steps: Mapping[str, Step]) -> dict[str, Any]:
    """Why no arc of `step` is live: `{"message", "routers": [{"step", "chose", "port", "values"}]}`."""
    if not step.arcs:
        return {"message": f"{step.name!r} did not start this run", "routers": []}
    messages: dict[str, None] = {}
    routers: dict[tuple[str, str], dict[str, Any]] = {}
    for arc in step.arcs:
        found = state.get(channel(arc.source)) or {}
        name = steps[arc.source].name
        if skipped := found.get("skipped"):
            # Clause by clause: whole messages would double in length wherever two dead branches cross.
            messages |= dict.fromkeys(skipped["message"].split("; "))
            routers |= {(each["step"], each["port"]): each for each in skipped["routers"]}
        elif arc.special and arc.port == LIMIT:
            messages[f"the loop of {name!r} ended before it had all its rounds"] = None
        elif arc.special and arc.port == ERROR:
            went_on = "failed, and went on with its default" if found.get("instead") else "did not fail"
            messages[f"{name!r} {went_on}"] = None
        elif found.get("route") == ERROR and "error" in found:
            messages[f"{name!r} failed"] = None
        else:
            chose = found.get("route")
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
    last = _last(plan)
    spelled = Counter(word for step in last for word in {step.name, step.id})
    values: dict[str, Any] = {}
    for step in last:
        found = outcome(state, step.id)
        inside = step.type.body.gives if step.type.body else ()
        known = [port.name for port in ports(step.type.outputs) if port.name not in inside]
        if found is not None and known:
            name = step.name if spelled[step.name] == 1 else step.id
            values[name] = found["error"] if "error" in found else found["outputs"].get(known[0])
    return next(iter(values.values())) if len(values) == 1 else values or None


def returned(plan: Plan, map: str | None) -> frozenset[str]:
    """The channels that the output of a run is read from, or that of one item of `map`."""
    if map is None:
        return frozenset(channel(step.id) for step in _last(plan))
    sources = [arc.source for arc in plan.maps[map].returns]
    return frozenset([KEPT, *(channel(id) for id in sources), *(rounds(id) for id in sources)])


def _last(plan: Plan) -> list[Step]:
    mapped = frozenset[str]().union(*(body.steps for body in plan.maps.values()))
    steps = [step for step in plan.steps.values() if step.id not in mapped]
    ends = [step for step in steps if step.type.name == "EndNode"]
    sources = {arc.source for step in steps for arc in step.arcs}
    return ends or [step for step in steps if step.id not in sources]
