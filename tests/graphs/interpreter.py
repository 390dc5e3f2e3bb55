"""What a drawing means (DESIGN §6), said so plainly that it is obviously right.

It knows nothing of plans, channels or supersteps: there are nodes, edges, the steps of each loop and map, and
what each step makes of what arrives. It runs one step after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Within: TypeAlias = tuple[tuple[str, str, int], ...]
"""The rounds (from 1) and items (from 0) that a step is in, outermost first."""
Came: TypeAlias = list[tuple[str, Any]]
"""What arrives at a step: input and value, in edge order."""


@dataclass(frozen=True)
class Made:
    """What a step makes: a value for each port; if it takes a way, only edges from that port are live."""

    values: Mapping[str, Any]
    way: str | None = None
    items: Sequence[Any] | None = None
    """For a map."""


@dataclass(frozen=True)
class Node:
    id: str
    name: str = ""
    is_trigger: bool = False
    is_end: bool = False
    joins_any: bool = False
    error_port: bool = False
    goes_on: Callable[[Came], Made] | None = None
    """What a step makes of what came where it fails, and goes on with a default."""
    item_error: str = "stop"
    """For a map: `stop`, `keep` or `drop`."""
    most: int = 0
    """For the first step of a loop: the most rounds."""


@dataclass(frozen=True)
class Edge:
    source: str
    port: str
    target: str
    input: str = "input"


class Failed(Exception):
    """A step fails; the argument is what its error port gives."""


@dataclass
class Outcome:
    """What happened in a run."""

    ran: dict[tuple[str, Within], Made] = field(default_factory=dict)
    came: dict[tuple[str, Within], Came] = field(default_factory=dict)
    skipped: list[tuple[str, Within]] = field(default_factory=list)
    failed: list[tuple[str, Within]] = field(default_factory=list)
    items: list[tuple[str, Within, int, str]] = field(default_factory=list)
    last: dict[str, Made | None] = field(default_factory=dict)
    """What each step has made in the end; `None` where it was skipped."""
    live: set[Edge] = field(default_factory=set)


Act: TypeAlias = Callable[[str, Within, Came, Mapping[str, Made | None]], Made]
"""What a step makes of what has arrived, and of what other steps have made so far."""
Pick: TypeAlias = Callable[[str, Within, Came], tuple[str, Any]]
"""Which of the live edges was first, for a step that runs at the first one."""


@dataclass
class Interpreter:
    nodes: Mapping[str, Node]
    edges: Sequence[Edge]
    trigger: str | None
    act: Act
    pick: Pick
    loops: Mapping[str, frozenset[str]]
    """First step -> all steps of the loop."""
    maps: Mapping[str, frozenset[str]]
    """Map -> all steps that it runs."""
    outcome: Outcome = field(default_factory=Outcome)
    made: dict[str, Made | None] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    """Loops that had all their rounds -> what was to be brought back once more."""

    def run(self) -> Outcome:
        self.region(frozenset(self.nodes), ())
        self.outcome.last = dict(self.made)
        self.outcome.live = {edge for edge in self.edges if self.is_live(edge)}
        return self.outcome

    def region(
        self, steps: frozenset[str], within: Within, first: str = "", brought: Came | None = None
    ) -> None:
        """Run `steps`, each when nothing that leads to it is left; a loop or a map is run as one."""
        loops = [(id, group) for id, group in self.loops.items() if id != first]
        groups = [*loops, *((id, body | {id}) for id, body in self.maps.items())]
        groups = [(id, group) for id, group in groups if group <= steps]
        outermost = [(id, group) for id, group in groups if not any(group < other for _, other in groups)]
        grouped = {id for _, group in outermost for id in group}
        units = [*outermost, *((id, frozenset({id})) for id in self.nodes if id in steps - grouped)]
        left = set(steps)
        while units:
            id, unit = next(each for each in units if not self.waits(each[1], left - each[1], first))
            units.remove((id, unit))
            if id in self.maps:
                self.map(id, within, brought if id == first else None)
            elif id in self.loops and id != first:
                self.loop(id, within)
            else:
                self.step(id, within, brought if id == first else None)
            left -= unit

    def waits(self, unit: Iterable[str], left: set[str], first: str) -> bool:
        return any(
            edge.target in unit and edge.target != first and edge.source in left for edge in self.edges
        )

    def arrives(self, id: str, within: Within, brought: Came | None) -> Came:
        if brought is not None:
            came = brought
        else:
            back = self.loops.get(id, frozenset()) | self.maps.get(id, frozenset())
            edges = [edge for edge in self.edges if edge.target == id and edge.source not in back]
            came = [(edge.input, self.carried(edge)) for edge in edges if self.is_live(edge)]
        return [self.pick(id, within, came)] if self.nodes[id].joins_any and came else came

    def step(self, id: str, within: Within, brought: Came | None) -> None:
        came = self.arrives(id, within, brought)
        if not came and (brought is not None or not self.starts(id)):
            self.skip(id, within)
            return
        self.outcome.came[id, within] = came
        try:
            made = self.act(id, within, came, self.made)
            self.outcome.ran[id, within] = made
        except Failed as exc:
            made = self.failed(id, within, exc, came)
        self.made[id] = made

    def failed(self, id: str, within: Within, exc: Failed, came: Came) -> Made:
        self.outcome.failed.append((id, within))
        if (goes_on := self.nodes[id].goes_on) is not None:
            return goes_on(came)
        if not self.nodes[id].error_port:
            raise exc
        return Made({"error": exc.args[0]}, "error")

    def starts(self, id: str) -> bool:
        node = self.nodes[id]
        if node.is_trigger:
            return id == self.trigger
        back = self.loops.get(id, frozenset())
        return all(edge.target != id or edge.source in back for edge in self.edges)

    def skip(self, id: str, within: Within) -> None:
        self.made[id] = None
        for each in (id, *self.maps.get(id, ())):
            self.outcome.skipped.append((each, within))

    def loop(self, first: str, within: Within) -> None:
        """Round after round, until no edge leads back, or there have been enough."""
        steps = self.loops[first]
        for id in steps:
            self.made.pop(id, None)
        self.limits.pop(first, None)
        brought, number = None, 1
        while True:
            self.region(steps, (*within, ("round", first, number)), first, brought)
            back = [edge for edge in self.edges if edge.target == first and edge.source in steps]
            brought = [(edge.input, self.carried(edge)) for edge in back if self.is_live(edge)]
            if not brought:
                return
            if number == self.nodes[first].most:
                self.limits[first] = brought[0][1]
                return
            number += 1

    def map(self, id: str, within: Within, brought: Came | None) -> None:
        """The steps once per item; what is led back is the item's result."""
        came = self.arrives(id, within, brought)
        if not came and (brought is not None or not self.starts(id)):
            self.skip(id, within)
            return
        self.outcome.came[id, within] = came
        begun = self.act(id, within, came, self.made)
        around = dict(self.made)
        if not begun.items:
            self.outcome.skipped.extend((each, within) for each in self.maps[id])
        done: list[Any] = []
        errors: list[Any] = []
        mode = self.nodes[id].item_error
        for index, item in enumerate(begun.items or ()):
            self.made = {**around, id: Made({"item": item, "index": index})}
            try:
                self.region(self.maps[id], (*within, ("item", id, index)))
            except Failed as exc:
                self.outcome.skipped += self.left_out(id, (*within, ("item", id, index)))
                status = "dropped" if mode == "drop" else "failed"
                self.outcome.items.append((id, within, index, status))
                errors.append({"index": index, "error": exc.args[0]})
                if mode == "stop":
                    break
                done += [{"error": exc.args[0]}] if mode == "keep" else []
                continue
            self.outcome.items.append((id, within, index, "succeeded"))
            back = [edge for edge in self.edges if edge.target == id and edge.source in self.maps[id]]
            live = [self.carried(edge) for edge in back if self.is_live(edge)]
            done.append(live[0] if live else None)
        self.made = around
        if errors and mode == "stop":
            index, error = errors[0]["index"], errors[0]["error"]
            message = f"item {index}: {error['step']}: {error['message']}"
            failed = Failed({"code": error["code"], "step": id, "message": message, "item": index})
            self.made[id] = self.failed(id, within, failed, came)
        else:
            self.made[id] = self.outcome.ran[id, within] = Made({"done": done, "errors": errors})

    def left_out(self, map: str, within: Within) -> list[tuple[str, Within]]:
        """The steps of an item that has failed before it came to them."""
        found = [*self.outcome.came, *self.outcome.skipped]
        told = {id for id, where in found if where[: len(within)] == within}
        return [(id, within) for id in self.maps[map] if id not in told]

    def is_live(self, edge: Edge) -> bool:
        if edge.port == "limit" and edge.source in self.loops:
            return edge.source in self.limits
        made = self.made.get(edge.source)
        if made is None:
            return False
        return edge.port != "error" if made.way is None else made.way == edge.port

    def carried(self, edge: Edge) -> Any:
        if edge.port == "limit" and edge.source in self.loops:
            return self.limits[edge.source]
        made = self.made[edge.source]
        assert made is not None
        return made.values[edge.port] if edge.port in made.values else made.values["output"]


def started(nodes: Iterable[Node], edges: Sequence[Edge]) -> set[str]:
    """The nodes that a start leads to: a trigger, or where there is none, a node that nothing leads to."""
    nodes = list(nodes)
    found = {node.id for node in nodes if node.is_trigger}
    if not found:
        found = {node.id for node in nodes if all(edge.target != node.id for edge in edges)}
    while more := {edge.target for edge in edges if edge.source in found} - found:
        found |= more
    return found


def on_cycles_through(first: str, edges: Sequence[Edge]) -> frozenset[str]:
    """The steps of the loop that begins with `first`: those that it leads to and that lead back to it."""

    def reach(edges: list[tuple[str, str]]) -> set[str]:
        found = {first}
        while more := {target for source, target in edges if source in found} - found:
            found |= more
        return found

    ahead = reach([(edge.source, edge.target) for edge in edges])
    return frozenset(ahead & reach([(edge.target, edge.source) for edge in edges]))


def output(nodes: Sequence[Node], edges: Sequence[Edge], outcome: Outcome) -> Any:
    """What a run comes to: what its ends took, or where there are none, what the last steps made."""
    known = started(nodes, edges)
    steps = [node for node in nodes if node.id in known]
    sources = {edge.source for edge in edges if edge.source in known}
    last = [node for node in steps if node.is_end] or [node for node in steps if node.id not in sources]
    found = {}
    for node in last:
        if (made := outcome.last.get(node.id)) is not None:
            shared = any(node.name in (other.name, other.id) for other in last if other is not node)
            found[node.id if shared else node.name] = made.values["output"]
    return None if not found else next(iter(found.values())) if len(found) == 1 else found
