"""Filter, Sort, Limit and Aggregate agree with plain Python, and bear whatever arrives."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from graphs.alone import check_alone
from graphs.compile import Compiler
from graphs.kinds import convert
from graphs.runtime import StepFailed
from nodes import registry
from nodes.contract import NodeError, NodeType
from nodes.data import aggregate, filter, limit, sort, value
from nodes.data.aggregate import Figure
from nodes.data.sort import Key
from nodes.isolated import Isolation
from nodes.lists import canonical, identity, order_of
from tests.graphs import runs
from tests.nodes.contexts import context
from tests.server import drawing, edge, node
from tests.workshop import isolation

TYPES: tuple[NodeType, ...] = (filter.NODE, sort.NODE, limit.NODE, aggregate.NODE)
FIELDS = {"filter": {"condition": {"operation": "exists"}}}

settled = examples(derandomize=True, database=None, deadline=None, max_examples=80)
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text(max_size=3)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"id": st.integers(0, 3)},
        optional={"n": st.none() | st.integers(-9, 9), "s": st.none() | st.text(max_size=2)},
    ),
    max_size=12,
)


def settings(node_type: NodeType, **config: Any) -> Any:
    """Settings as a drawing gives them."""
    return convert(config, node_type.config)


async def ran(node_type: NodeType, items: Any, **config: Any) -> Any:
    """What comes of `items` as they arrive."""
    given = settings(node_type, **{name.rstrip("_"): setting for name, setting in config.items()})
    return await node_type.act(given, node_type.inputs(items), context())


async def out(node_type: NodeType, items: Any, **config: Any) -> Any:
    return (await ran(node_type, items, **config)).output


OPERATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "greater": operator.gt,
    "less_or_equal": operator.le,
    "equal": operator.eq,
}


@settled
@given(rows=ROWS, operation=st.sampled_from(sorted(OPERATIONS)), right=st.integers(-9, 9))
async def test_a_filter_keeps_what_plain_python_keeps(rows: list[Any], operation: str, right: int) -> None:
    condition = {"path": "n", "operation": operation, "right": right}

    found = await ran(filter.NODE, rows, condition=condition)

    kept = [row for row in rows if row.get("n") is not None and OPERATIONS[operation](row["n"], right)]
    assert found.output == kept
    assert found.rejected == [row for row in rows if row not in kept]
    assert found.count == len(kept)


@settled
@given(items=st.lists(JSON, max_size=8))
async def test_a_filter_loses_and_invents_nothing(items: list[Any]) -> None:
    condition = {"any": [{"operation": "greater", "right": 0}, {"path": "a.b[0]", "operation": "exists"}]}

    found = await ran(filter.NODE, items, condition=condition)

    assert sorted(map(canonical, found.output + found.rejected)) == sorted(map(canonical, items))


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ({"operation": "equal", "right": 1}, [1, 1.0, "1"]),
        ({"operation": "exists"}, [1, 1.0, "1", True, [1], {"a": 1}]),
        ({"path": "a", "operation": "equal", "right": 1}, [{"a": 1}]),
        ({"path": "[0]", "operation": "exists"}, [[1]]),
        ({"operation": "greater", "right": 0}, [1, 1.0, "1"]),
        ({"not": {"operation": "greater", "right": 0}}, []),
        ({"type": "list", "operation": "includes", "right": 1}, [[1]]),
        ({"left": "{{ 1 }}", "operation": "exists"}, [1, 1.0, "1", None, True, [1], {"a": 1}]),
    ],
)  # fmt: skip
async def test_what_cannot_be_compared_is_not_kept(condition: Any, kept: list[Any]) -> None:
    items = [1, 1.0, "1", None, True, [1], {"a": 1}]

    assert await out(filter.NODE, items, condition=condition) == kept


async def test_a_filter_may_fail_at_what_cannot_be_compared_and_says_which_item() -> None:
    condition = {"path": "age", "operation": "greater", "right": 5}

    with pytest.raises(NodeError) as failed:
        await ran(filter.NODE, [{"age": 7}, {"age": "old"}], condition=condition, on_mismatch="fail")

    assert failed.value.code == "bad_operand"
    assert failed.value.message.startswith("item 1: the left operand of 'greater' is 'old'")


@settled
@given(items=st.lists(st.none() | st.integers() | st.floats(allow_nan=False), max_size=12))
async def test_a_sort_of_numbers_is_pythons_with_nulls_at_the_end(items: list[Any]) -> None:
    there = [each for each in items if each is not None]
    nulls = [None] * (len(items) - len(there))

    assert await out(sort.NODE, items) == sorted(there) + nulls
    assert await out(sort.NODE, items, by="-") == sorted(there, reverse=True) + nulls
    first = {"nulls": "first", "order": "descending"}
    assert await out(sort.NODE, items, by=[first]) == nulls + sorted(there, reverse=True)


@settled
@given(rows=ROWS)
async def test_a_sort_by_several_keys_is_stable_in_both_directions(rows: list[Any]) -> None:
    def place(row: Any) -> tuple[bool, int, int]:
        return (row.get("n") is None, row.get("n") or 0, 0)

    marked = [row | {"at": at} for at, row in enumerate(rows)]

    found = await out(sort.NODE, marked, by=["n", "-id"])

    assert found == sorted(sorted(marked, key=lambda row: row["id"], reverse=True), key=place)


@settled
@given(items=st.lists(JSON, max_size=10))
async def test_values_of_any_type_have_one_order(items: list[Any]) -> None:
    once = await out(sort.NODE, items)

    assert await out(sort.NODE, once) == once
    assert sorted(map(canonical, once)) == sorted(map(canonical, items))
    there = [order_of(each, case_sensitive=False) for each in once if each is not None]
    assert there == sorted(there)
    kinds = [type(each) for each in once if not isinstance(each, int | float)]
    assert [k for k in kinds if k in (str, list, dict)] == sorted(
        (k for k in kinds if k in (str, list, dict)), key=[str, list, dict].index
    )


@pytest.mark.parametrize(
    ("by", "items", "expected"),
    [
        ([], ["b", "A", "a"], ["A", "a", "b"]),
        ([{"case_sensitive": True}], ["b", "a", "B"], ["B", "a", "b"]),
        ([{"type": "number"}], ["10", 9, "x", "1e1"], [9, "10", "1e1", "x"]),
        ([{"type": "text"}], [10, 9, "1"], ["1", 10, 9]),
        ([{"type": "date"}], ["2024-05-01", "2023-01-01T10:00:00+02:00", "soon", 5],
         ["2023-01-01T10:00:00+02:00", "2024-05-01", "soon", 5]),
        ([{"order": "desc"}], [True, 1, "1", None, False], ["1", 1, True, False, None]),
        ("-a.b", [{"a": {"b": 1}}, {"a": {}}, {"a": {"b": 2}}],
         [{"a": {"b": 2}}, {"a": {"b": 1}}, {"a": {}}]),
        ([], [10**400, 1.5, -(10**400), 2**63], [-(10**400), 1.5, 2**63, 10**400]),
        ([], [float("nan"), 1], [1, float("nan")]),
        ([], [{"a": 10**30}, [1], [10**400]], [[10**400], [1], {"a": 10**30}]),
    ],
)  # fmt: skip
async def test_the_order_of_a_sort(by: Any, items: list[Any], expected: list[Any]) -> None:
    assert str(await out(sort.NODE, items, by=by)) == str(expected)


def test_short_and_long_ways_to_say_a_key() -> None:
    made = settings(sort.NODE, by=["name", "-n", {"path": "x", "order": "descending"}])

    assert sort.keys(made) == [Key("name"), Key("n", "descending"), Key("x", "descending")]
    assert sort.keys(settings(sort.NODE)) == [Key()]


@settled
@given(items=st.lists(st.integers(), max_size=12), count=st.integers(0, 15), skip=st.integers(0, 15))
async def test_a_limit_is_a_slice_from_either_end(items: list[int], count: int, skip: int) -> None:
    first = await ran(limit.NODE, items, count=count, skip=skip)
    last = await ran(limit.NODE, items, count=count, skip=skip, keep="last")

    assert first.output == items[skip : skip + count]
    assert last.output == items[::-1][skip : skip + count][::-1]
    for found in (first, last):
        assert sorted(found.output + found.rest) == sorted(items)
        assert found.total == len(items)


@settled
@given(rows=ROWS)
async def test_figures_of_groups_are_those_of_plain_python(rows: list[Any]) -> None:
    told = ["count", *({"function": name, "path": "n"} for name in ("sum", "average", "min", "max", "count"))]
    told.append({"function": "collect", "path": "n"})

    found = await ran(aggregate.NODE, rows, by="id", figures=told)

    expected = []
    for id in dict.fromkeys(row["id"] for row in rows):
        values = [row.get("n") for row in rows if row["id"] == id]
        there = [each for each in values if each is not None]
        expected.append(
            {
                "id": id,
                "count": len(values),
                "sum_n": sum(there),
                "average_n": sum(there) / len(there) if there else None,
                "min_n": min(there, default=None),
                "max_n": max(there, default=None),
                "count_n": len(there),
                "collect_n": values,
            }
        )
    assert found.output == expected
    assert found.groups == len(expected)


@settled
@given(items=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(), max_size=9))
async def test_a_sum_is_exact_whatever_the_order(items: list[Any]) -> None:
    one = await out(aggregate.NODE, items, figures=["sum"])
    other = await out(aggregate.NODE, items[::-1], figures=["sum"])

    is_whole = all(isinstance(each, int) for each in items)
    assert one == other == {"sum": sum(items) if is_whole else math.fsum(items)}


@settled
@given(items=st.lists(JSON, max_size=10))
async def test_items_of_one_group_are_equal_and_those_of_two_are_not(items: list[Any]) -> None:
    rows = [{"k": each} for each in items]

    found = await out(aggregate.NODE, rows, by=["k"], figures=["count"])

    assert sum(each["count"] for each in found) == len(items)
    keys = [identity(each["k"]) for each in found]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {identity(each) for each in items}


@pytest.mark.parametrize(
    ("config", "items", "expected"),
    [
        ({}, [], {"count": 0}),
        ({"figures": ["sum", "average", "min", "max", "collect"]}, [],
         {"sum": 0, "average": None, "min": None, "max": None, "collect": []}),
        ({"by": "a"}, [], []),
        ({"by": ["a", "b.c"]}, [{"a": 1, "b": {"c": 2}}, {"a": 1.0, "b": {"c": 2}}, {}],
         [{"a": 1, "b.c": 2, "count": 2}, {"a": None, "b.c": None, "count": 1}]),
        ({"by": "a"}, [{"a": 1}, {"a": True}, {"a": "1"}, {"a": [1]}, {"a": [1.0]}],
         [{"a": 1, "count": 1}, {"a": True, "count": 1}, {"a": "1", "count": 1}, {"a": [1], "count": 2}]),
        ({"figures": ["sum"]}, ["1.5", 2, None], {"sum": 3.5}),
        ({"figures": ["sum"]}, [10**400, 1], {"sum": 10**400 + 1}),
        ({"figures": ["min", "max"]}, ["b", 3, None, "a", True], {"min": True, "max": "b"}),
        ({"figures": [{"function": "max", "path": "a b", "name": "top"}]}, [{"a b": 1}], {"top": 1}),
    ],
)  # fmt: skip
async def test_what_is_summed_up(config: dict[str, Any], items: list[Any], expected: Any) -> None:
    found = await out(aggregate.NODE, items, **config)

    assert str(found) == str(expected)


@pytest.mark.parametrize(
    ("items", "function", "code", "words"),
    [
        ([1, "x"], "sum", "bad_input", "item 1 is 'x'; allowed in 'sum' is a number or a text of one"),
        ([[1]], "average", "bad_input", "item 0 is [1]; allowed in 'average'"),
        ([True], "sum", "bad_input", "item 0 is true; allowed"),
        ([1e308, 1e308], "sum", "limit_exceeded", "'sum' is too large for a number"),
        ([10**400, 1.5], "sum", "limit_exceeded", "'sum' is too large for a number"),
        ([10**400], "average", "limit_exceeded", "'average' is too large for a number"),
    ],
)
async def test_what_cannot_be_summed_up_is_named(
    items: list[Any], function: str, code: str, words: str
) -> None:
    with pytest.raises(NodeError) as failed:
        await ran(aggregate.NODE, items, figures=[function])

    assert failed.value.code == code
    assert failed.value.message.startswith(words)


def test_the_names_of_figures() -> None:
    assert [Figure("sum", path).called for path in ("", "a.b", 'x["y z"]', "[0]")] == [
        "sum", "sum_a_b", "sum_x__y_z", "sum_0",
    ]  # fmt: skip


JUNK = [None, "", "text", "[", "[1", "{}", 5, 1.5, True, {}, {"items": [1]}, "[" * 5000]


@pytest.mark.parametrize("node_type", TYPES, ids=lambda each: each.name)
@pytest.mark.parametrize("junk", JUNK, ids=lambda each: repr(each)[:20])
async def test_what_is_no_list_is_refused_and_named(node_type: NodeType, junk: Any) -> None:
    config = {"condition": {"operation": "exists"}} if node_type is filter.NODE else {}

    with pytest.raises(NodeError) as failed:
        await ran(node_type, junk, **config)

    assert failed.value.code == "bad_input"
    assert failed.value.message.startswith("the items are a list, not ")
    assert len(failed.value.message) < 200


@pytest.mark.parametrize("node_type", TYPES, ids=lambda each: each.name)
async def test_a_list_may_be_a_json_text_and_the_setting_comes_before_what_arrives(
    node_type: NodeType,
) -> None:
    config = {"condition": {"operation": "exists"}} if node_type is filter.NODE else {}

    from_text = await ran(node_type, "[3, 1]", **config)
    from_setting = await ran(node_type, [9], items_=[3, 1], **config)

    assert from_text == from_setting


@pytest.mark.parametrize("node_type", TYPES, ids=lambda each: each.name)
async def test_a_long_list_gives_the_same_in_another_process(node_type: NodeType) -> None:
    items = [{"n": (at * 7919) % 10007, "s": "x" * 20} for at in range(30_000)]
    config: dict[str, Any] = {
        "Filter": {"condition": {"path": "n", "operation": "less", "right": 10}},
        "Sort": {"by": ["s", "-n"]},
        "Limit": {},
        "Aggregate": {"by": "n", "figures": [{"function": "sum", "path": "n"}]},
    }[node_type.name]

    async with isolation() as (door, _):
        given = settings(node_type, **config)
        found = await node_type.act(given, node_type.inputs(items), context(doors={Isolation: door}))

    assert found == await ran(node_type, items, **config)


@pytest.mark.parametrize("node_type", TYPES, ids=lambda each: each.name)
async def test_a_list_that_is_too_long_is_refused(node_type: NodeType) -> None:
    config = {"condition": {"operation": "exists"}} if node_type is filter.NODE else {}

    with pytest.raises(NodeError) as failed:
        await ran(node_type, [None] * 1_000_001, **config)

    assert (failed.value.code, failed.value.is_final) == ("limit_exceeded", True)


@pytest.mark.parametrize("node_type", TYPES, ids=lambda each: each.name)
async def test_hostile_items_are_only_items(node_type: NodeType) -> None:
    deep: Any = {}
    for _ in range(90):
        deep = {"a": deep}
    items = ["{{ input }}", "'; DROP TABLE run; --", "\x00", "\ud800", {"__class__": 1}, deep, "<script>"]
    config = {"condition": {"operation": "exists"}} if node_type is filter.NODE else {}

    assert (await ran(node_type, items, **config)).output


@pytest.mark.parametrize(
    ("name", "config", "found"),
    [
        ("Sort", {"by": "a..b"}, [("/config/by", "'a..b' is no path at '.b'")]),
        ("Sort", {"by": ["ok", "["]}, [("/config/by/1", "'[' is no path at '['")]),
        ("Sort", {"by": ["ok", {"path": "["}]}, [("/config/by/1/path", "'path' is no path at '['")]),
        ("Sort", {"by": [{"order": "up"}]}, [("/config/by/0/order", "'by' at [0].order is 'up'; allowed")]),
        ("Sort", {"by": "{{ input.key }}"}, []),
        ("Sort", {"by": ["{{ input.key }}", {"path": "{{ x }}"}]}, []),
        ("Filter", {}, [("/config", "'Filter' (Filter) needs 'condition'")]),
        ("Filter", {"condition": {"path": "[", "operation": "exists"}},
         [("/config/condition/path", "'path' is no path at '['")]),
        ("Filter", {"condition": {"path": "a", "left": 1, "operation": "exists"}},
         [("/config/condition", "a comparison has both of 'left' and 'path'")]),
        ("Filter", {"condition": {"path": "a"}}, [("/config/condition", "a comparison needs an 'operat")]),
        ("Filter", {"where": {"operation": "exists"}, "conditoin": 1}, [("/config/conditoin", "Filter has")]),
        ("Limit", {"count": -1}, [("/config/count", "'count' is -1; allowed is a whole number from 0")]),
        ("Limit", {"maxItems": "3"}, []),
        ("Limit", {"keep": "middle"}, [("/config/keep", "'keep' is 'middle'; allowed is one of first")]),
        ("Aggregate", {"figures": ["median"]}, [("/config/figures/0", "'figures' at [0] is 'median'")]),
        ("Aggregate", {"figures": ["count", "count"]},
         [("/config/figures/1", "two values of a group are called 'count'")]),
        ("Aggregate", {"by": "count"}, [("/config", "two values of a group are called 'count'")]),
        ("Aggregate", {"by": ["a", "a"]}, [("/config/by/1", "the items are grouped by 'a' twice")]),
        ("Aggregate", {"by": "a]"}, [("/config/by", "'a]' is no path at ']'")]),
        ("Aggregate", {"group_by": "{{ key }}", "figures": [{"function": "sum", "path": "{{ x }}"}]}, []),
    ],
)  # fmt: skip
def test_mistakes_are_told_when_a_node_is_checked(
    name: str, config: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    (node_type,) = [each for each in TYPES if each.name == name]

    problems = check_alone(node_type, config)

    assert [each.pointer for each in problems] == [pointer for pointer, _ in found], problems
    for problem, (_, words) in zip(problems, found, strict=True):
        assert words in problem.message


@settled
@given(given_=JSON, arrives=JSON)
async def test_a_value_is_what_is_set_or_what_arrives(given_: Any, arrives: Any) -> None:
    made = await value.run(value.Config(given_), value.Inputs(arrives), context())
    passed_on = await value.run(value.Config(), value.Inputs(arrives), context())

    assert (made.output, passed_on.output) == (given_, arrives)


async def test_lists_in_a_drawing_with_settings_that_are_known_only_in_the_run() -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("old", "Filter", items="{{ input.people }}", condition=OLD_ENOUGH),
        node("sort", "Sort", by=["{{ input.key }}", {"path": "{{ input.key }}"}]),
        node("few", "Limit", count="{{ input.most }}"),
        node("sum", "Aggregate", by="{{ input.by }}", figures=[{"function": "collect", "path": "name"}]),
        node("say", "Template", template="{{ old.count }} {{ few.rest | length }} {{ sum | json }}"),
        *(edge(*pair) for pair in [("start", "old"), ("old", "sort"), ("sort", "few"), ("few", "sum")]),
        edge("sum", "say"),
    )
    people = [
        {"name": "Eve", "age": 30},
        {"name": "Bob", "age": 7},
        {"name": "Ada", "age": 30},
        {"name": "X"},
    ]
    given = {"people": people, "least": 18, "key": "name", "most": 1, "by": "age"}

    made = await runs.run(Compiler(registry.discover()).compile(flow), given)

    assert made.outputs["say"]["text"] == '2 1 [{"age":30,"collect_name":["Ada"]}]'


OLD_ENOUGH = {"path": "age", "operation": "greater_or_equal", "right": "{{ input.least }}"}


@pytest.mark.parametrize(
    ("type", "data"),
    [
        ("Filter", {"items": "{{ input.none }}", "condition": {"operation": "exists"}}),
        ("Map", {"items": "{{ input.none }}"}),
    ],
)
async def test_a_list_that_is_not_there_is_not_what_arrives_instead(type: str, data: dict[str, Any]) -> None:
    flow = drawing(node("start", "StartNode"), node("it", type, **data), edge("start", "it"))

    with pytest.raises(StepFailed) as failed:
        await runs.run(Compiler(registry.discover()).compile(flow), {"none": None})

    assert failed.value.code == "bad_input"


async def test_a_setting_that_comes_to_null_is_null_and_not_what_arrives() -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("set", "SetVariable", variable="v", value="{{ input.none }}"),
        node("make", "Value", value="{{ input.none }}"),
        node("pass", "Value"),
        *(edge(*pair) for pair in [("start", "set"), ("start", "make"), ("start", "pass")]),
    )
    flow["settings"] = {"variables": {"v": {"initial": 1}}}

    made = await runs.run(Compiler(registry.discover()).compile(flow), {"none": None})

    assert [made.outputs[id]["output"] for id in ("set", "make", "pass")] == [None, None, {"none": None}]
