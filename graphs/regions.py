"""The shape of a drawing: which steps a map runs, which ones are a loop, and in what order all come.

A loop is a strongly connected component. One of its steps is the first: without the arrows that
lead back to it, what remains is ordered again, so loops nest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from graphs.plan import MOST_ROUNDS, Arc, Loop, MapBody, Region, Step
from graphs.problems import Problems, listed
from graphs.spec import NodeSpec

ROUNDS = 100
"""The most rounds of a loop whose author does not say."""
MOST_NESTED = 30
"""How deep loops, maps and workflows may lie in each other; from about 60 on Python's stack is too small."""


@dataclass(slots=True)
class Shape:
    """What is known of a drawing's shape."""

    region: Region
    maps: dict[str, MapBody]
    order: tuple[str, ...]
    """Every step after all that lead to it."""
    unclear: frozenset[str]
    """Steps of loops and maps that are drawn wrongly; nothing is known of what happens there."""

    @property
    def loops(self) -> list[tuple[Loop, ...]]:
        """Every loop with those around it in the same region, outermost first."""
        regions = [self.region, *(body.region for body in self.maps.values())]
        return [loops for region in regions for loops in region.loops()]


def find_shape(
    steps: Mapping[str, Step],
    starts: Set[str],
    nodes: Mapping[str, NodeSpec],
    unsure: Set[str],
    problems: Problems,
) -> Shape:
    """Find the loops and maps among `steps`; what is drawn wrongly is in `problems`, and left out.

    Of the `unsure` steps, which something broken leads to, it is not judged where a loop begins.
    """
    drawing = _Drawing(steps, starts, nodes, unsure, problems)
    bodies = drawing.bodies()
    if bodies is None:
        return Shape(Region(()), {}, tuple(steps), frozenset(steps))
    region = drawing.region(None, bodies)
    maps = {
        id: MapBody(
            drawing.region(id, bodies),
            tuple(arc for arc in steps[id].arcs if arc.input == _returns(steps[id])),
            frozenset(body),
            tuple(dict.fromkeys(drawing.feeding(id, body))),
        )
        for id, body in bodies.items()
    }
    order = tuple(_flat(region, maps))
    left = [id for id in steps if id not in set(order)]
    return Shape(region, maps, (*order, *left), frozenset({*drawing.unclear, *left}))


def too_deep(what: str, most: int) -> str:
    return f"{what} lie too deep in each other here; allowed are {most} levels"


def back_arcs(region: Region, maps: Mapping[str, MapBody]) -> set[Arc]:
    """Every arrow that leads back: to the first step of a loop, or with a result to its map."""
    regions = [region, *(body.region for body in maps.values())]
    back = {arc for each in regions for loops in each.loops() for arc in loops[-1].back}
    return back.union(*(body.returns for body in maps.values()))


def around(region: Region, maps: Mapping[str, MapBody]) -> dict[str, tuple[str, ...]]:
    """Step -> the loops and maps that it is in, outermost first."""
    found: dict[str, tuple[str, ...]] = {}

    def walk(region: Region, outer: tuple[str, ...]) -> None:
        for item in region.items:
            if isinstance(item, Loop):
                walk(item.body, (*outer, item.first))
            else:
                found[item] = outer
                if item in maps:
                    walk(maps[item].region, (*outer, item))

    walk(region, ())
    return found


def _flat(region: Region, maps: Mapping[str, MapBody]) -> Iterable[str]:
    for item in region.items:
        if isinstance(item, Loop):
            yield from _flat(item.body, maps)
        else:
            yield item
            if item in maps:
                yield from _flat(maps[item].region, maps)


def _returns(step: Step) -> str | None:
    return step.type.body.takes if step.type.body else None


@dataclass(slots=True)
class _Drawing:
    steps: Mapping[str, Step]
    starts: Set[str]
    nodes: Mapping[str, NodeSpec]
    unsure: Set[str]
    problems: Problems
    unclear: set[str] = field(default_factory=set)

    # Maps

    def bodies(self) -> dict[str, set[str]] | None:
        """The steps that each map runs, those of the maps inside included; `None` if too many are nested."""
        follows: dict[str, list[Arc]] = {}
        for step in self.steps.values():
            for arc in step.arcs:
                follows.setdefault(arc.source, []).append(arc)
        found = {id: self._body(step, follows) for id, step in self.steps.items() if step.type.body}
        bodies = {id: body for id, body in found.items() if body is not None}
        for id in bodies:
            if sum(id in body for body in bodies.values()) >= MOST_NESTED:
                self._too_deep(id)
                return None
        for id, body in list(bodies.items()):
            other = next(
                (o for o, b in bodies.items() if o != id and b & body and not (b < body or body < b)), None
            )
            if other is not None:
                shared = listed(sorted(body & bodies[other]))
                message = f"the maps {id!r} and {other!r} share the steps {shared}"
                self._wrong("map_exit", id, message, "let one map lie wholly inside the other")
                self.unclear |= body
        return {id: body for id, body in bodies.items() if id not in self.unclear}

    def _body(self, step: Step, follows: Mapping[str, Sequence[Arc]]) -> set[str] | None:
        assert step.type.body is not None
        gives, takes = step.type.body.gives, step.type.body.takes
        entering = [arc for arc in follows.get(step.id, ()) if arc.port in gives and not arc.special]
        inside: set[str] = set()
        whole = True
        waiting = [arc.target for arc in entering]
        while waiting:
            id = waiting.pop()
            if id in inside or id == step.id:
                continue
            inside.add(id)
            waiting += [
                arc.target for arc in follows.get(id, ()) if (arc.target, arc.input) != (step.id, takes)
            ]
            for arc in follows.get(id, ()):
                if arc.target == step.id and arc.input != takes:
                    self._leak(arc, step)
                    whole = False
        returning = self._leading_to(
            {arc.source for arc in step.arcs if arc.input == takes and arc.source in inside}, inside
        )
        for arc in step.arcs:
            if arc.input == takes and arc.source not in inside:
                message = f"the arrow from {arc.source!r} brings a result to the map {step.name!r}, "
                message += "but it does not come from one of its items"
                self.problems.error("map_exit", arc.where, arc.pointer, message)
                whole = False
        leaving = self._leaving(step, inside, returning, entering) if whole else None
        if leaving is not None:
            self._leak(leaving, step)
        return inside if whole and leaving is None else None

    def _leaving(
        self, step: Step, inside: Set[str], returning: Set[str], entering: Sequence[Arc]
    ) -> Arc | None:
        """An arrow from the items of the map `step` to a step that is none of theirs."""
        assert step.type.body is not None
        for id in sorted(inside, key=lambda id: self.nodes[id].index):
            arcs = self.steps[id].arcs
            later = any(arc.source == step.id and arc.port not in step.type.body.gives for arc in arcs)
            outer = any(arc.source not in inside and arc.source != step.id for arc in arcs)
            if later or (outer and id not in returning) or id in self.starts:
                return next(arc for arc in arcs if arc.source in inside or arc in entering)
        return None

    def _leading_to(self, goals: set[str], inside: Set[str]) -> set[str]:
        """Those of `inside` from which arrows lead to `goals`."""
        found: set[str] = set()
        waiting = list(goals)
        while waiting:
            if (id := waiting.pop()) not in found:
                found.add(id)
                waiting += [arc.source for arc in self.steps[id].arcs if arc.source in inside]
        return found

    def _leak(self, arc: Arc, step: Step) -> None:
        assert step.type.body is not None
        message = (
            f"the arrow from {arc.source!r} to {arc.target!r} leaves the map {step.name!r}: {arc.target!r} "
            "does not belong to its items, and what these make leaves a map only by way of the map itself"
        )
        hint = f"lead it back to the input {step.type.body.takes!r} of {step.id!r}, and go on from there"
        self.problems.error("map_exit", arc.where, arc.pointer, message, hint)
        self.unclear |= {step.id, arc.source, arc.target}

    def feeding(self, id: str, body: Set[str]) -> Iterable[str]:
        """The steps outside that a map and its body wait for."""
        for each in (id, *sorted(body)):
            for arc in self.steps[each].arcs:
                if arc.source not in body and arc.source != id:
                    yield arc.source

    # Loops

    def region(self, owner: str | None, bodies: Mapping[str, Set[str]]) -> Region:
        """The region of the steps that only the map `owner` runs, or that none does."""
        inside = set(bodies[owner]) if owner is not None else set(self.steps)
        holder = {id: id for id in inside}
        for map, body in sorted(bodies.items(), key=lambda pair: -len(pair[1])):
            if map in inside and map != owner:
                holder |= {id: holder[map] for id in body}
        links = [
            _Link(holder.get(arc.source, ""), holder[id], arc)
            for id in sorted(inside, key=lambda id: self.nodes[id].index)
            for arc in self.steps[id].arcs
        ]
        # What goes on between a map and its own items is no business of this region.
        links = [
            link
            for link in links
            if link.source != link.target
            or (link.arc.source == link.arc.target == link.source and not self._is_result(link.arc))
        ]
        vertices = [id for id in inside if holder[id] == id]
        vertices.sort(key=lambda id: self.nodes[id].index)
        return Region(tuple(self._ordered(vertices, links, bodies, 0)))

    def _is_result(self, arc: Arc) -> bool:
        return arc.input == _returns(self.steps[arc.target])

    def _ordered(
        self, vertices: Sequence[str], links: Sequence[_Link], bodies: Mapping[str, Set[str]], depth: int
    ) -> list[str | Loop]:
        known = set(vertices)
        follows: dict[str, list[str]] = {}
        for link in links:
            if link.source in known and link.target in known:
                follows.setdefault(link.source, []).append(link.target)
        items: list[str | Loop] = []
        for component in components(vertices, follows):
            first = component[0]
            if len(component) == 1 and first not in follows.get(first, ()):
                items.append(first)
            elif (loop := self._loop(component, links, bodies, depth)) is not None:
                items.append(loop)
        return items

    def _loop(
        self, component: Sequence[str], links: Sequence[_Link], bodies: Mapping[str, Set[str]], depth: int
    ) -> Loop | None:
        inside = set(component)
        entering = [link for link in links if link.target in inside and link.source not in inside]
        leading_back = [link for link in links if link.target in inside and link.source in inside]
        first = self._first(component, entering, leading_back)
        if first is None or depth >= MOST_NESTED:
            if first is not None:
                self._too_deep(first)
            self.unclear |= inside
            return None
        back = [link for link in leading_back if link.target == first]
        into = next((link for link in back if link.arc.target != first), None)
        if into is not None:
            message = (
                f"the arrow leads back into the middle of the map {first!r}; it can only lead to its start"
            )
            self.problems.error("ambiguous_loop", into.arc.where, into.arc.pointer, message)
            self.unclear |= inside
            return None
        rest = [link for link in links if link.target in inside and link not in back]
        ordered = sorted(component, key=lambda id: self.nodes[id].index)
        steps = inside.union(*(bodies.get(id, ()) for id in component))
        return Loop(
            first,
            Region(tuple(self._ordered(ordered, rest, bodies, depth + 1))),
            tuple(link.arc for link in back),
            self._most(self.steps[first]),
            frozenset(steps),
            tuple(dict.fromkeys(link.arc.source for link in entering)),
        )

    def _first(
        self, component: Sequence[str], entering: Sequence[_Link], back: Sequence[_Link]
    ) -> str | None:
        """The step that every round begins with."""
        entries = [id for id in component if id in self.starts or any(link.target == id for link in entering)]
        if len(entries) > 1 and (counting := [id for id in entries if self._counts(id)]):
            entries = counting
        if len(entries) > 1:
            # An arrow back is somebody's choice: what always follows within the loop does not begin it.
            chosen = [
                id for id in entries if all(self._is_choice(link.arc) for link in back if link.target == id)
            ]
            entries = chosen if len(chosen) == 1 else entries
        if len(entries) == 1:
            return entries[0]
        ids = sorted(component, key=lambda id: self.nodes[id].index)
        if self.unsure.isdisjoint(ids):
            names = listed(repr(id) for id in sorted(entries, key=lambda id: self.nodes[id].index))
            message = (
                f"it is not clear where the loop {' -> '.join(ids)} begins: arrows lead into it at {names}"
            )
            self._wrong(
                "ambiguous_loop",
                ids[0],
                message,
                "draw a Loop node where it begins, or set 'max_rounds' there",
            )
        return None

    def _counts(self, id: str) -> bool:
        """Whether its author has said that a loop begins with it."""
        return self.steps[id].type.rounds is not None or self.steps[id].policy.max_rounds is not None

    def _is_choice(self, arc: Arc) -> bool:
        return arc.special or bool(self.steps[arc.source].routes)

    def _most(self, first: Step) -> int:
        if first.type.rounds is not None:
            return MOST_ROUNDS + 1  # it counts for itself
        return first.policy.max_rounds or ROUNDS

    def _too_deep(self, id: str) -> None:
        self._wrong("nested_too_deeply", id, too_deep("loops, maps and workflows", MOST_NESTED))

    def _wrong(self, code: str, id: str, message: str, hint: str | None = None) -> None:
        self.problems.error(code, id, self.nodes[id].at(), message, hint)


@dataclass(frozen=True, slots=True)
class _Link:
    """An arc between the items of a region: a map stands for its whole body."""

    source: str
    target: str
    arc: Arc


def components(vertices: Sequence[str], follows: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The strongly connected components, each after all that lead to it (Kosaraju and Sharir 1981)."""
    leads: dict[str, list[str]] = {}
    for source, targets in follows.items():
        for target in targets:
            leads.setdefault(target, []).append(source)
    found: list[list[str]] = []
    seen: set[str] = set()
    for root in reversed(_by_end(vertices, follows)):
        if root not in seen:
            found.append(_reach(root, leads, seen))
    return found


def _by_end(vertices: Sequence[str], follows: Mapping[str, Sequence[str]]) -> list[str]:
    """`vertices` in the order in which a depth-first search leaves them."""
    left: list[str] = []
    seen: set[str] = set()
    for root in reversed(vertices):
        work = [(root, iter(follows.get(root, ())))] if root not in seen else []
        seen.add(root)
        while work:
            new = next((each for each in work[-1][1] if each not in seen), None)
            if new is None:
                left.append(work.pop()[0])
            else:
                seen.add(new)
                work.append((new, iter(follows.get(new, ()))))
    return left


def _reach(root: str, leads: Mapping[str, Sequence[str]], seen: set[str]) -> list[str]:
    """All from which arrows lead to `root` by way of none that has been `seen`, which they are now."""
    found = [root]
    seen.add(root)
    for at in found:  # grows while it is walked
        for each in leads.get(at, ()):
            if each not in seen:
                seen.add(each)
                found.append(each)
    return found
