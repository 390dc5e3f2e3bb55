"""A drawing's version is the hash of what it means; and reading one never raises."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.compile import Checked, Compiler
from graphs.problems import MOST, InvalidWorkflow
from graphs.spec import MAX_EDGES, MAX_NODES
from nodes import registry
from tests.graphs.test_cases import leads
from tests.server import drawing, edge, node

TYPES = registry.discover()


def check(flow_data: Any) -> Checked:
    return Compiler(TYPES).check(flow_data)


def example() -> dict[str, Any]:
    return drawing(
        node("start", "StartNode"),
        node("ask", "HumanInput", question="Sure?", actions=["yes", "no"], name="question"),
        node("end", "EndNode"),
        edge("start", "ask"),
        edge("ask", "end", "yes", "target"),
    )


def test_what_only_looks_different_is_the_same_version() -> None:
    saved = example() | {"viewport": {"x": 1, "y": 2, "zoom": 0.5}, "name": "My workflow"}
    for index, each in enumerate(saved["nodes"]):
        each |= {"position": {"x": 7, "y": index}, "width": 3, "selected": True, "measured": {"width": 1}}
        each["data"] |= {
            "displayName": "x",
            "description": "y",
            "icon": {"name": "z"},
            "color": "red",
            "metadata": {"name": "StartNode", "inputs": []},
            "inputs": [{"name": "a"}],
            "outputs": [],
            "_active_optional_fields": [],
        }
    for index, each in enumerate(saved["edges"]):
        each |= {"id": f"edge-{index}", "type": "custom", "animated": True}
    saved["nodes"].append({"id": "note", "type": "StickyNoteNode", "data": {"text": "later"}})

    checked = check(saved)

    assert checked.version == check(example()).version
    assert checked.problems == ()


def test_missing_and_empty_handles_are_the_same() -> None:
    empty, without = example(), example()
    empty["edges"][0] |= {"sourceHandle": "", "targetHandle": None}
    for key in ("sourceHandle", "targetHandle"):
        del without["edges"][0][key]

    assert check(empty).version == check(without).version == check(example()).version


def change(*path: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def make(flow_data: Any) -> None:
        *way, last = path
        for key in way:
            flow_data = flow_data[key]
        flow_data[last] = to

    return make


CHANGES = {
    "type": change("nodes", 0, "type", to="Template"),
    "id": change("nodes", 0, "id", to="begin"),
    "name": change("nodes", 1, "data", "name", to="asked"),
    "config": change("nodes", 1, "data", "question", to="Really?"),
    "actions": change("nodes", 1, "data", "actions", to=["no", "yes"]),
    "unknown config": change("nodes", 1, "data", "whatever", to=1),
    "route": change("edges", 1, "sourceHandle", to="no"),
    "source": change("edges", 1, "source", to="start"),
    "target": change("edges", 0, "target", to="end"),
    "input": change("edges", 1, "targetHandle", to="input"),
    "settings": change("settings", to={"max_concurrency": 2}),
    "one edge less": change("edges", to=example()["edges"][:1]),
    "the order of edges": change("edges", to=example()["edges"][::-1]),
    "one node more": change("nodes", to=[*example()["nodes"], node("more", "EndNode")]),
    "an edge that cannot be read": change("edges", to=[*example()["edges"], 5]),
    "a node that cannot be read": change("nodes", to=[*example()["nodes"], {"type": "EndNode"}]),
    "a node twice": change("nodes", to=[*example()["nodes"], example()["nodes"][0]]),
    "settings that are none": change("settings", to=["x"]),
}


def test_every_change_of_the_meaning_is_another_version() -> None:
    versions = {"as it was": check(example()).version}
    for name, make in CHANGES.items():
        changed = copy.deepcopy(example())
        make(changed)
        versions[name] = check(changed).version

    unreadable = {"an edge that cannot be read", "a node that cannot be read", "a node twice"}
    assert len({versions[name] for name in versions.keys() - unreadable}) == len(versions) - len(unreadable)
    assert all(versions[name] != versions["as it was"] for name in CHANGES)


def test_the_version_is_the_same_for_ever() -> None:
    version = check(drawing(node("t", "Template", template="x"))).version

    assert version == "cf94c6a022057d5d26336c9ffe1a6e1683136b550aeea1ed9c2aa5d7cd2d004d"


def test_a_problem_names_the_edges_of_this_drawing_not_of_one_compiled_before() -> None:
    compiler = Compiler(TYPES)
    first, second = example(), example()
    for name, flow_data in (("old", first), ("new", second)):
        flow_data["edges"].append(flow_data["edges"][0] | {"id": name})
    compiler.compile(first)

    checked = compiler.check(second)

    assert [each.where for each in checked.problems] == ["new"]


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        (MAX_NODES + 1, 0, "2001 nodes are too many; at most 2000 are allowed"),
        (2, MAX_EDGES + 1, "10001 edges are too many; at most 10000 are allowed"),
    ],
)
def test_a_drawing_that_is_too_large_is_one_problem(nodes: int, edges: int, message: str) -> None:
    flow_data = drawing(
        *(node(str(index), "Template", template="x") for index in range(nodes)),
        *(edge("0", "nobody") for _ in range(edges)),
    )

    checked = check(flow_data)

    assert [(each.code, each.message) for each in checked.problems] == [("too_large", message)]


def test_a_flood_of_mistakes_is_cut_off() -> None:
    ids = [str(index) for index in range(MAX_NODES)]
    edges = [edge(f"nobody-{index}", ids[index % MAX_NODES]) for index in range(MAX_EDGES)]

    checked = check(drawing(*(node(id, "Template", template="x") for id in ids), *edges))

    assert len(checked.problems) == MOST + 1
    assert checked.problems[-1].code == "too_many_problems"
    assert checked.problems[-1].severity == "error"
    assert checked.plan is None


def test_an_error_counts_even_where_warnings_have_filled_the_list() -> None:
    unknown = {f"key-{index}": 1 for index in range(MOST + 5)}

    checked = check(drawing(node("a", "StartNode", **unknown), node("b", "Template")))

    assert [each.code for each in checked.problems if each.severity == "error"] == ["too_many_problems"]
    assert checked.plan is None


def test_a_large_drawing_full_of_cycles_ends() -> None:
    ids = [str(index) for index in range(1_000)]
    edges = [
        edge(id, ids[(7 * index + step) % 1_000]) for index, id in enumerate(ids) for step in range(1, 9)
    ]

    checked = check(drawing(*(node(id, "Template", template="x") for id in ids), *edges))

    assert [each.code for each in checked.problems] == ["ambiguous_loop"]


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(codec="utf-8"), max_size=6),
        st.sampled_from(
            ["{{ input }}", "{{ a.b[0] }}", "{{", "{{ 1 }}", "[1", "{}", "true", "5", "yes", "a", "b", "c"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
ids = st.sampled_from(["a", "b", "c", "d", ""])
config_keys = sorted(
    {key for kind in TYPES.types.values() for key in kind.config.__struct_fields__} | {"name"}
)
some_nodes = st.fixed_dictionaries(
    {
        "id": st.one_of(ids, ids, ids, json_values),
        "type": st.one_of(*[st.sampled_from([*TYPES.types, "Nope", "StickyNoteNode"])] * 4, json_values),
    },
    optional={"data": st.one_of(st.dictionaries(st.sampled_from(config_keys), json_values), json_values)},
)
handles = st.one_of(
    st.none(),
    st.sampled_from(["output", "input", "llm", "tools", "memory", "true_output", "input-1", "output-7", "x"]),
    json_values,
)
some_edges = st.fixed_dictionaries(
    {"source": st.one_of(ids, ids, json_values), "target": st.one_of(ids, ids, json_values)},
    optional={"id": json_values, "sourceHandle": handles, "targetHandle": handles},
)
some_drawings = st.one_of(
    st.fixed_dictionaries(
        {"nodes": st.lists(some_nodes, max_size=5), "edges": st.lists(some_edges, max_size=6)},
        optional={"settings": json_values},
    ),
    st.fixed_dictionaries({"nodes": st.one_of(st.lists(json_values, max_size=3), json_values)}),
    json_values,
)


@settings(derandomize=True, database=None, deadline=None, max_examples=250)
@given(flow_data=some_drawings)
def test_whatever_is_sent_has_a_plan_or_problems_that_lead_into_it(flow_data: Any) -> None:
    before = copy.deepcopy(flow_data)

    checked = check(flow_data)

    assert (checked.plan is None) == any(each.severity == "error" for each in checked.problems)
    assert [each for each in checked.problems if not leads(each.pointer, flow_data)] == []
    assert len(set(map(str, checked.problems))) == len(checked.problems)
    assert flow_data == before
    if checked.plan is not None:
        assert Compiler(TYPES).compile(flow_data).version == checked.version
    else:
        with pytest.raises(InvalidWorkflow):
            Compiler(TYPES).compile(flow_data)
