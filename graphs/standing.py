"""How the steps of a frame stand: which are decided, and what live arrows bring to the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeAlias

from langgraph.graph.message import add_messages

from graphs.acting import Arrived
from graphs.options import reduce
from graphs.plan import Arc, Loop, Plan, Region, Step, Variable
from graphs.runtime import Place, Run
from graphs.schedule import Schedule
from graphs.state import State, carried, channel, current, is_live, rounds, variable

NOWHERE: list[int] = []
"""The rounds of a step that no loop is around."""
Invoke: TypeAlias = Callable[[Run], Awaitable[State]]
"""Runs a graph of its own to the end; gives its state."""


@dataclass(frozen=True, slots=True)
class Work:
    """A plan with all that is known before any run of it."""

    plan: Plan
    schedule: Schedule
    children: Mapping[str, Work]
    nested: Mapping[str, Invoke]
    """The graphs of maps' bodies and of other workflows that have checkpoints of their own."""
    owners: Mapping[str, str | None]
    """Step -> the innermost map that runs it."""

    def variable(self, channel: str) -> Variable | None:
        """The variable that `channel` holds; `None` for a conversation."""
        return next((each for each in self.plan.variables.values() if variable(each.name) == channel), None)


class Standing:
    """Some steps of a run, the state that they see, and what has changed in it."""

    def __init__(self, work: Work, values: State, run: Run, owner: str | None) -> None:
        self.work = work
        self.plan = work.plan
        self.run = run
        self.owner = owner
        """The map that runs the steps."""
        self.values: dict[str, Any] = dict(values)
        self.writes: dict[str, Any] = {}
        """What has changed in the state."""
        self.kept: dict[str, list[Any]] = {}
        """What has been added to variables and conversations."""

    @property
    def region(self) -> Region:
        return self.plan.region if self.owner is None else self.plan.maps[self.owner].region

    def is_decided(self, id: str, path: list[int]) -> bool:
        """Whether `id` is decided in the rounds `path`."""
        found = self.values.get(channel(id))
        return found is not None and found.get("at", NOWHERE) == path

    def undecided(self, sources: Sequence[str], reader: str | Loop) -> set[str]:
        """Those of `sources` that are not decided for a step, or a loop, that they lead to."""
        id = reader.first if isinstance(reader, Loop) else reader
        return {source for source in sources if not self.is_decided_now(source, id)}

    def is_decided_now(self, id: str, reader: str) -> bool:
        """Whether `id` is decided, in the present rounds, for a step that it leads to."""
        if self.work.owners[id] != self.owner:
            return True
        path: list[int] = []
        for loop in self.work.schedule.loops.get(id, ()):
            now = self.values.get(rounds(loop.first))
            if now is None or now["at"] != path or (reader not in loop.steps and "ended" not in now):
                return False
            path.append(now["round"])
        return self.is_decided(id, path)

    def arrived(self, step: Step, path: list[int], undecided: Set[str]) -> tuple[Arrived, bool]:
        """What live arrows bring to `step`, by input; and whether it has to wait for more."""
        came: dict[str, list[Any]] = {}
        if step.id in self.work.schedule.first and path[-1] > 1:
            brought = self.values[rounds(step.id)]["brought"]
            for name, value in brought[:1] if step.policy.join == "any" else brought:
                came.setdefault(name, []).append(value)
            return came, False
        body = self.plan.maps.get(step.id)
        if body is not None and not undecided.isdisjoint(body.sources):
            return came, True
        live: list[Arc] = []
        if step.policy.join == "any":
            known = [arc for arc in step.arcs if arc.source not in undecided]
            live = [arc for arc in known if is_live(arc, self.values)][:1]
            waits = not live and len(known) < len(step.arcs)
        else:
            waits = not undecided.isdisjoint(step.sources)
            live = [] if waits else [arc for arc in step.arcs if is_live(arc, self.values)]
        for arc in live:
            came.setdefault(arc.input, []).append(carried(arc, self.values, self.plan.steps))
        return came, waits

    def starts(self, step: Step, path: list[int]) -> bool:
        """Whether `step` runs although nothing has arrived."""
        if step.id in self.work.schedule.first and path[-1] > 1:
            return False
        return step.id == self.run.trigger if step.type.kind == "trigger" else step.is_root

    def path(self, id: str) -> list[int]:
        """The rounds that the loops around `id` are in."""
        return [self.values[rounds(loop.first)]["round"] for loop in self.work.schedule.loops.get(id, ())]

    def place(self, id: str, path: Sequence[int]) -> Place:
        """What events call `id` in the rounds `path`."""
        loops = self.work.schedule.loops.get(id)
        if loops is None:
            return Place(id, self.run.within)
        around = tuple(("round", loop.first, number) for loop, number in zip(loops, path, strict=True))
        return Place(id, (*self.run.within, *around))  # type: ignore[arg-type]  # zip widens the literal

    # What changes

    def write(self, name: str, value: Any) -> None:
        """Change a channel."""
        self.values[name] = self.writes[name] = value

    def leave(self, id: str, path: list[int], left: Mapping[str, Any]) -> None:
        """Decide `id`."""
        self.write(channel(id), {**left, "at": path} if path else left)

    def replay(self, kept: Sequence[tuple[str, Sequence[Any]]]) -> None:
        """Make variables and conversations what they are after `kept`, which is in the state already."""
        for name, new in kept:
            self.values[name] = self._reduced(name, new)

    def keep(self, kept: Mapping[str, Sequence[Any]]) -> None:
        """Add to variables and conversations."""
        for name, new in kept.items():
            self.values[name] = self._reduced(name, new)
            self.kept.setdefault(name, []).extend(new)

    def check(self, name: str, value: Any) -> None:
        """Refuse a value that the variable `name` cannot take."""
        reduce(self.plan.variables[name].reducer, current(self.plan, self.values, name), [value])

    def _reduced(self, name: str, new: Sequence[Any]) -> Any:
        held = self.work.variable(name)
        if held is None:
            return add_messages(self.values.get(name) or [], list(new))
        return {"value": reduce(held.reducer, current(self.plan, self.values, held.name), new)}
