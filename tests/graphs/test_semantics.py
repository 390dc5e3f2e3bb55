"""Random drawings do what the reference interpreter says, and the checks find exactly what can go wrong."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from graphs.compile import Compiler
from graphs.liveness import Liveness
from graphs.plan import Plan
from nodes import registry
from nodes.flow.condition import FALSE, TRUE
from tests import server
from tests.graphs import node_types
from tests.graphs.interpreter import Came, Edge, Interpreter, Made, Node, Outcome, Within, output, started
from tests.graphs.runs import run

Kind: TypeAlias = Literal["StartNode", "Echo", "ConditionNode", "EndNode", "Chooser"]

TYPES = registry.collect([*registry.modules("nodes"), node_types])
WAYS = ("left", "middle", "right")
NAMES = ("n{}", "Agent-{}", "{}__6a2f5ee6-9df1", "__start__{}", "a.b|c:{}", "größe {}", "%2E{}")
"""Ids that editors write, and ids that mean something to LangGraph."""

DETERMINISTIC = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(frozen=True)
class Use:
    """`{{ step }}` in a node's settings, with or without `default`."""

    step: str
    optional: bool


@dataclass(frozen=True)
class Drawing:
    """A random drawing, and what its run is started with."""

    kinds: Mapping[str, Kind]
    edges: tuple[Edge, ...]
    uses: Mapping[str, tuple[Use, ...]]
    routes: Mapping[str, str] = field(default_factory=dict)
    trigger: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def nodes(self) -> list[Node]:
        return [
            Node(id, self.names.get(id, id), kind == "StartNode", kind == "EndNode")
            for id, kind in self.kinds.items()
        ]

    @property
    def input(self) -> str:
        """What makes every condition take its way of `routes`."""
        return "".join(f"<{id}>" for id, way in self.routes.items() if way == TRUE)

    @property
    def flow_data(self) -> dict[str, Any]:
        nodes = [server.node(id, kind, **self._data(id)) for id, kind in self.kinds.items()]
        edges = [
            {"id": str(index), **server.edge(edge.source, edge.target, edge.port)}
            for index, edge in enumerate(self.edges)
        ]
        return server.drawing(*nodes, *edges)

    def _data(self, id: str) -> dict[str, Any]:
        data: dict[str, Any] = {"name": self.names[id]} if id in self.names else {}
        match self.kinds[id]:
            case "ConditionNode":
                data |= {"operation": "contains", "value1": "{{ input }}", "value2": f"<{id}>"}
            case "Chooser":
                data |= {"ways": list(WAYS)}
            case "Echo":
                data |= {"uses": [written(use) for use in self.uses.get(id, ())]}
        return data

    def choices(self) -> Iterator[tuple[str | None, dict[str, str]]]:
        """Every trigger with every way that the routers can take."""
        triggers: list[str | None] = [id for id, kind in self.kinds.items() if kind == "StartNode"]
        routers = {id: ways(kind) for id, kind in self.kinds.items() if ways(kind)}
        for trigger in triggers or [None]:
            for taken in itertools.product(*routers.values()):
                yield trigger, dict(zip(routers, taken, strict=True))

    def outcomes(self) -> list[tuple[str | None, dict[str, str], Outcome]]:
        return [
            (trigger, routes, self.interpret(trigger, routes, lambda id, *rest: id))
            for trigger, routes in self.choices()
        ]

    def interpret(self, trigger: str | None, routes: Mapping[str, str], value: Callable[..., Any]) -> Outcome:
        """What comes of a run from `trigger`, where each router takes its way of `routes`."""

        def act(id: str, within: Within, came: Came, made: Mapping[str, Made | None]) -> Made:
            earlier = {each: found.values["output"] for each, found in made.items() if found is not None}
            return Made({"output": value(id, [each for _, each in came], earlier)}, routes.get(id))

        known = started(self.nodes, self.edges)
        nodes = {node.id: node for node in self.nodes if node.id in known}
        edges = [edge for edge in self.edges if edge.source in known]
        return Interpreter(nodes, edges, trigger, act, lambda id, within, came: came[0], {}, {}).run()

    def act(self, id: str, inputs: list[Any], earlier: Mapping[str, Any]) -> Any:
        """What the node types that are used here do."""
        match self.kinds[id]:
            case "StartNode":
                return inputs[0] if inputs and inputs[0] is not None else self.input
            case "ConditionNode":
                return inputs[0] if inputs else None
            case "EndNode":
                return inputs[0] if len(inputs) == 1 else inputs or None
            case _:
                uses = [self._used(use, earlier) for use in self.uses.get(id, ())]
                return {"step": id, "inputs": inputs, "uses": uses}

    def _used(self, use: Use, earlier: Mapping[str, Any]) -> Any:
        value = earlier.get(use.step) if use.optional else earlier[use.step]
        return "none" if use.optional and value in (None, "") else value


def written(use: Use) -> str:
    path = f'["{use.step}"]'
    return "{{ %s }}" % (f"{path} | default('none')" if use.optional else path)


def ways(kind: Kind) -> tuple[str, ...]:
    return (TRUE, FALSE) if kind == "ConditionNode" else WAYS if kind == "Chooser" else ()


@st.composite
def drawings(draw: st.DrawFn, *kinds: Kind, crowded: bool = False) -> Drawing:
    """Acyclic drawings of up to twelve nodes; only if `crowded` is a single-value port given many arrows."""
    form = draw(st.sampled_from(NAMES))
    size = draw(st.sampled_from([9, 12, 11, 10, 8, 7, 6, 5, 4, 3, 2, 1]))
    triggers: list[Kind] = ["StartNode"] * draw(st.sampled_from([1, 0, 2, 3]))
    chosen = [*triggers, *draw(st.lists(st.sampled_from(kinds), min_size=size, max_size=size))][:12]
    ids = [form.format(index) for index in range(len(chosen))]
    of = dict(zip(ids, chosen, strict=True))
    edges: list[Edge] = []
    before: dict[str, set[str]] = {}
    for index, id in enumerate(ids):
        ends = [(source, way) for source in ids[:index] for way in ways(of[source]) or ("output",)]
        is_single = of[id] in ("ConditionNode", "StartNode") and not crowded
        most = min(len(ends), 1 if is_single else draw(st.sampled_from([2, 1, 3])))
        least = most if draw(st.sampled_from([True] * 9 + [False])) and of[id] != "StartNode" else 0
        arrows = (
            draw(st.lists(st.sampled_from(ends), min_size=least, max_size=most, unique=True)) if ends else []
        )
        edges += [Edge(source, way, id) for source, way in arrows]
        before[id] = {each for source, _ in arrows for each in (source, *before[source])}
    drawing = Drawing(
        {id: of[id] for id in draw(st.permutations(ids))}, tuple(draw(st.permutations(edges))), {}
    )
    can = started(drawing.nodes, drawing.edges)
    uses = {
        id: tuple(
            Use(step, draw(st.booleans()))
            for step in draw(st.lists(st.sampled_from(sorted(before[id] & can)), max_size=3, unique=True))
        )
        for id in ids
        if of[id] == "Echo" and before[id] & can
    }
    trigger, routes = draw(st.sampled_from(list(drawing.choices())))
    names = {id: draw(st.sampled_from(["End", "Done", *ids])) for id in ids if of[id] == "EndNode"}
    return Drawing(drawing.kinds, drawing.edges, uses, routes, trigger, names if draw(st.booleans()) else {})


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        yield runner


# A failing drawing is shown as it was found: to shrink it by running it takes minutes.
@settings(DETERMINISTIC, max_examples=200, phases=[Phase.generate])
@given(drawing=drawings("Echo", "ConditionNode", "Echo", "ConditionNode", "Echo", "EndNode"))
def test_a_run_does_what_the_interpreter_says(drawing: Drawing, loop: asyncio.Runner) -> None:
    compiler = Compiler(TYPES)
    drawing = with_defaults(drawing, compiler)
    compiled = compiler.compile(drawing.flow_data)
    expected = drawing.interpret(drawing.trigger, drawing.routes, drawing.act)

    actual = loop.run(run(compiled, drawing.input, drawing.trigger))

    ran = {id: made.values["output"] for (id, _), made in expected.ran.items()}
    assert sorted(actual.those("started")) == sorted(actual.those("finished")) == sorted(ran)
    assert sorted(actual.those("skipped")) == sorted(id for id, _ in expected.skipped)
    assert {id: found["output"] for id, found in actual.outputs.items()} == ran
    assert actual.output == output(drawing.nodes, drawing.edges, expected)
    assert out_of_order(drawing, actual.told) == []
    assert wrong_reasons(drawing, actual.because) == []


def with_defaults(drawing: Drawing, compiler: Compiler) -> Drawing:
    """`drawing` with a `default` wherever its author is told to write one."""
    unset = {
        (each.where, each.message.partition(": ")[0].strip("'"))
        for each in compiler.check(drawing.flow_data).problems
        if each.code == "maybe_unset"
    }
    uses = {
        id: tuple(Use(use.step, use.optional or (id, written(use)) in unset) for use in found)
        for id, found in drawing.uses.items()
    }
    return Drawing(drawing.kinds, drawing.edges, uses, drawing.routes, drawing.trigger, drawing.names)


def out_of_order(drawing: Drawing, told: list[tuple[str, str]]) -> list[Edge]:
    """Edges whose target began before it was known what becomes of their source."""
    first = {id: at for at, (_, id) in reversed(list(enumerate(told)))}
    last = {id: at for at, (_, id) in enumerate(told)}
    both = [edge for edge in drawing.edges if edge.source in last and edge.target in first]
    return [edge for edge in both if first[edge.target] < last[edge.source]]


def wrong_reasons(drawing: Drawing, because: Mapping[str, Any]) -> list[Any]:
    """Routers that a skipped step names although they took the way that it says they did not."""
    named = [each for reason in because.values() for each in reason["routers"]]
    return [each for each in named if not drawing.routes[each["step"]] == each["chose"] != each["port"]]


@settings(DETERMINISTIC, max_examples=200)
@given(drawing=drawings("Echo", "ConditionNode", "Echo", "Echo", "EndNode", "StartNode", crowded=True))
def test_the_checks_find_exactly_what_can_go_wrong(drawing: Drawing) -> None:
    outcomes = [outcome for _, _, outcome in drawing.outcomes()]
    single = [edge for edge in drawing.edges if drawing.kinds[edge.target] in ("ConditionNode", "StartNode")]

    problems = Compiler(TYPES).check(drawing.flow_data).problems

    assert {each.code for each in problems} <= {"maybe_unset", "port_conflict", "unreachable"}
    assert {each.where for each in problems if each.code == "port_conflict"} == {
        str(drawing.edges.index(edge))
        for at, edge in enumerate(single)
        if any(
            {edge, other} <= outcome.live
            for other in single[:at]
            if other.target == edge.target
            for outcome in outcomes
        )
    }
    assert {
        (each.where, each.message.partition(": ")[0]) for each in problems if each.code == "maybe_unset"
    } == {
        (id, f"'{written(use)}'")
        for id, found in drawing.uses.items()
        for use in found
        if not use.optional
        and any(outcome.last.get(id) and not outcome.last.get(use.step) for outcome in outcomes)
    }


@settings(DETERMINISTIC, max_examples=100)
@given(drawing=drawings("Echo", "Chooser", "Echo", "Chooser"))
def test_liveness_agrees_with_every_choice(drawing: Drawing) -> None:
    assume(len(list(drawing.choices())) <= 500)
    plan = planned(drawing)
    outcomes = drawing.outcomes()

    liveness = Liveness(plan.steps, plan.triggers)

    for here, needed in itertools.permutations(plan.steps, 2):
        gap = liveness.without(here, needed)
        gaps = [each for each in outcomes if each[2].last.get(here) and not each[2].last.get(needed)]
        assert (gap is None) == (not gaps)
        if gap is not None:  # whatever else is chosen
            assert all(each in gaps for each in outcomes if gap.items() <= chosen(each[0], each[1]).items())
    arcs = [arc for step in plan.steps.values() for arc in step.arcs]
    for first, second in itertools.combinations(arcs, 2):
        both = {Edge(arc.source, arc.port, arc.target) for arc in (first, second)}
        assert liveness.meet(first, second) == any(both <= outcome.live for _, _, outcome in outcomes)


def planned(drawing: Drawing) -> Plan:
    without_uses = Drawing(drawing.kinds, drawing.edges, {})
    plan = Compiler(TYPES).check(without_uses.flow_data).plan
    assert plan is not None
    return plan


def chosen(trigger: str | None, routes: Mapping[str, str]) -> dict[str, str]:
    return {**routes, **({"": trigger} if trigger else {})}
