"""Random drawings with routers, failures, nested loops, maps and joins of both kinds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import strategies as st

from tests import server
from tests.graphs.interpreter import (
    Came,
    Edge,
    Failed,
    Interpreter,
    Made,
    Node,
    Outcome,
    Within,
    on_cycles_through,
)
from tests.graphs.node_types import fate, seal
from tests.graphs.runs import RUN_ID

USE = """{{ ["ID"] | default('none') }}"""
WAYS = ("left", "right", "on")


@dataclass
class Drawing:
    """A drawing on its way, and what is known of its shape because it was made so."""

    kinds: dict[str, str] = field(default_factory=dict)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    uses: dict[str, list[str]] = field(default_factory=dict)
    firsts: list[tuple[str, int]] = field(default_factory=list)
    """First steps of loops with the number of the region they are in; outer ones come first."""
    maps: dict[str, set[str]] = field(default_factory=dict)

    @property
    def flow_data(self) -> dict[str, Any]:
        nodes = [server.node(id, kind, **self.settings(id)) for id, kind in self.kinds.items()]
        edges = [
            {"id": f"e{at}", **server.edge(edge.source, edge.target, edge.port, edge.input)}
            for at, edge in enumerate(self.edges)
        ]
        return server.drawing(*nodes, *edges)

    def settings(self, id: str) -> dict[str, Any]:
        uses = [USE.replace("ID", each) for each in self.uses.get(id, ())]
        return self.data[id] | ({"uses": uses} if uses else {})

    def nodes(self) -> dict[str, Node]:
        return {
            id: Node(
                id,
                id,
                is_trigger=kind == "StartNode",
                joins_any=self.data[id].get("join") == "any",
                error_port=any(edge.source == id and edge.port == "error" for edge in self.edges),
                goes_on=self.goes_on(id),
                item_error=self.data[id].get("on_item_error", "stop"),
                most=self.data[id].get("max_rounds", 0),
            )
            for id, kind in self.kinds.items()
        }

    def goes_on(self, id: str) -> Callable[[Came], Made] | None:
        """What the step makes where it fails and has a default."""
        data = self.data[id]
        if data.get("on_error") != "default":
            return None
        if data.get("ways"):
            way = data["default"]
            return lambda came: Made({"output": [way, *(value for _, value in came)]}, way)
        port = "done" if self.kinds[id] == "Map" else "output"
        return lambda came: Made({port: data["default"]})

    def loops(self) -> dict[str, frozenset[str]]:
        """The steps of each loop; edges into the first step of a loop around it do not count."""
        found: dict[str, frozenset[str]] = {}
        heads: list[str] = []
        for first, _ in self.firsts:
            outer = {each for each in heads if first in found[each]}
            returns = [e for e in self.edges if e.input != "result" or e.target not in self.maps]
            edges = [edge for edge in returns if edge.target not in outer]
            found[first] = on_cycles_through(first, edges)
            heads.append(first)
        with_bodies = {}
        for first, steps in found.items():
            whole = steps.union(*(body for map, body in self.maps.items() if map in steps))
            if len(steps) > 1 or any(e.source == e.target == first for e in self.edges):
                with_bodies[first] = frozenset(whole)
        return with_bodies

    def interpret(self, observed: Mapping[str, Any]) -> Outcome:
        """What must come of it, where steps that join at the first live edge took what was `observed`."""

        def act(id: str, within: Within, came: Came, made: Mapping[str, Made | None]) -> Made:
            return self._act(id, within, came, made)

        def pick(id: str, within: Within, came: Came) -> tuple[str, Any]:
            taken = observed.get(place(id, within))
            return next((each for each in came if [each[1]] == taken), ("input", f"none of {came}"))

        return Interpreter(
            self.nodes(),
            self.edges,
            next((id for id, kind in self.kinds.items() if kind == "StartNode"), None),
            act,
            pick,
            self.loops(),
            {id: frozenset(body) for id, body in self.maps.items()},
        ).run()

    def _act(self, id: str, within: Within, came: Came, made: Mapping[str, Made | None]) -> Made:
        data = self.data[id]
        if self.kinds[id] == "Map":
            return Made({}, items=data["items"])
        if self.kinds[id] == "StartNode":
            return Made({"output": "begin"})
        key = hashlib.sha256(f"{RUN_ID}\n{place(id, within)}".encode()).hexdigest()
        if data.get("fails") and fate(f"{key} fails", data["fails"]) == 0:
            raise Failed({"code": "fated", "step": id, "message": f"{id} fails"})
        values = [value for _, value in came]
        uses = [self._used(each, made) for each in self.uses.get(id, ())]
        output = values if data.get("join") == "any" else seal(id, values, uses)
        way = data["ways"][fate(key, len(data["ways"]))] if data.get("ways") else None
        return Made({"output": output}, way)

    def _used(self, id: str, made: Mapping[str, Made | None]) -> Any:
        found = made.get(id)
        if found is None or found.way == "error":
            return "none"
        first = next(
            (found.values[port] for port in ("item", "output", "done") if port in found.values), None
        )
        return "none" if first in (None, "") else first


def place(id: str, within: Within) -> str:
    """How the recording of a run names a step at its time."""
    return msgspec.json.encode([id, *within]).decode() if within else id


@dataclass
class _Maker:
    draw: st.DrawFn
    drawing: Drawing
    most: int

    def pick(self, *of: Any) -> Any:
        return self.draw(st.sampled_from(of))

    def new(self, kind: str, **data: Any) -> str:
        id = f"n{len(self.drawing.kinds)}"
        self.drawing.kinds[id] = kind
        self.drawing.data[id] = data
        return id

    def region(
        self, begins: list[tuple[str, str]], depth: int, outer: list[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        """Draw some steps, loops and maps that follow `begins`; the ends from which to go on."""
        ends, fresh = list(begins), list(begins)
        for _ in range(self.pick(2, 3, 1, 4) if depth else self.pick(4, 5, 3, 2, 6)):
            if len(self.drawing.kinds) >= self.most:
                break
            kind = (
                self.pick("step", "step", "router", "step", "loop", "map", "failing") if depth < 3 else "step"
            )
            count = self.pick(1, 2, 1, 3)
            sources = list(dict.fromkeys(self.pick(*(fresh or ends)) for _ in range(count)))
            fed = [self.pick(*outer)] if outer and self.pick(*[False] * 5, True) else []
            leaves = getattr(self, f"_{kind}")(sources, fed, depth, outer)
            fresh = [end for end in fresh if end not in sources or self.pick(False, True)] + leaves
            ends += leaves
        return ends

    def lead(self, sources: list[tuple[str, str]], target: str) -> None:
        for source, port in sources:
            edge = Edge(source, port, target, "items" if self.drawing.kinds[target] == "Map" else "input")
            if edge not in self.drawing.edges:
                self.drawing.edges.append(edge)

    def plain(self, sources: list[tuple[str, str]], **data: Any) -> str:
        kind = self.pick("Fated", "FatedEffect") + ("Router" if data.get("ways") else "")
        # What a failing router passes on is not told, so nobody could say which arrow it took.
        passes_on = data.get("on_error") == "default" and data.get("ways")
        if len(sources) > 1 and not passes_on and self.pick(False, False, True):
            data |= {"join": "any", "any": True}
        id = self.new(kind, **data)
        self.lead(sources, id)
        return id

    def _step(self, sources: Any, fed: Any, depth: int, outer: Any) -> list[tuple[str, str]]:
        return [(self.plain([*sources, *fed]), "output")]

    def _router(self, sources: Any, fed: Any, depth: int, outer: Any) -> list[tuple[str, str]]:
        ways = WAYS[: self.pick(2, 3)]
        fate = (
            {"fails": 2, "on_error": "default", "default": self.pick(*ways)} if self.pick(*[0] * 3, 1) else {}
        )
        id = self.plain(sources, ways=list(ways), **fate)
        return [(id, way) for way in ways]

    def _failing(self, sources: Any, fed: Any, depth: int, outer: Any) -> list[tuple[str, str]]:
        if self.pick(False, False, True):
            return [(self.plain(sources, fails=2, on_error="default", default="a default"), "output")]
        id = self.plain(sources, fails=self.pick(2, 3), on_error="port")
        end = self.plain([(id, "error")])
        return [(id, "output"), (end, "output")]

    def _loop(self, sources: Any, fed: Any, depth: int, outer: Any) -> list[tuple[str, str]]:
        first = self.plain(sources, max_rounds=self.pick(2, 3, 1))
        self.drawing.firsts.append((first, depth))
        begins = [(first, "output")]
        inside = self.region(begins, depth + 1, [*outer, *sources])
        decides = self.plain(
            list(dict.fromkeys([self.pick(*inside), self.pick(*inside)])), ways=list(WAYS[: self.pick(2, 3)])
        )
        ways = self.drawing.data[decides]["ways"]
        self.lead([(decides, ways[0])], first)
        routed = [end for end in inside if self.drawing.data[end[0]].get("ways")]
        if routed and self.pick(False, False, True):
            self.lead([self.pick(*routed)], first)
        end = self.plain([(first, "limit")])
        inside = [each for each in inside if each[0] != first]
        return [*((decides, way) for way in ways[1:]), (end, "output"), *inside[-2:]]

    def _map(self, sources: Any, fed: Any, depth: int, outer: Any) -> list[tuple[str, str]]:
        mode = self.pick("keep", "drop", "stop")
        bound = 1 if mode == "stop" else self.pick(1, 2, 10)
        items = [f"item {index}" for index in range(self.pick(2, 3, 1, 0))]
        id = self.new("Map", items=items, on_item_error=mode, max_concurrency=bound)
        self.lead(sources[:1], id)
        before = set(self.drawing.kinds)
        inside = self.region([(id, "item")], depth + 1, [])
        if self.pick(True, False) and len(self.drawing.kinds) > len(before):
            last = self.plain([self.pick(*inside)], fails=self.pick(0, 2, 3))
            inside.append((last, "output"))
        body = [each for each in inside if each[0] != id]
        if body:
            back = self.pick(*body)
            self.drawing.edges.append(Edge(back[0], back[1], id, "result"))
        self.drawing.maps[id] = set(self.drawing.kinds) - before
        if mode != "stop":
            return [(id, "done")]
        end = self.plain([(id, "error")])
        return [(id, "done"), (end, "output")]


@st.composite
def drawings(draw: st.DrawFn, most: int = 14) -> Drawing:
    """A drawing of about `most` steps that begins with a StartNode."""
    drawing = Drawing()
    maker = _Maker(draw, drawing, most)
    start = maker.new("StartNode", initial_input="begin")
    maker.region([(start, "output")], 0, [])
    ids = list(drawing.kinds)
    for id in ids:
        if drawing.kinds[id] != "Map" and id != start and maker.pick(False, False, True):
            drawing.uses[id] = [maker.pick(*ids)]
    order = draw(st.permutations(ids)) if maker.pick(True, False) else ids
    drawing.kinds = {id: drawing.kinds[id] for id in order}
    return drawing
