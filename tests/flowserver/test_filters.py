"""A filter means in Postgres what it says: many at random are compared with a reading of our own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodes.filters import BadFilter, by_strategy, json_path

KEYS = ["a", "b", "c.d", 'qu"ote', "ключ"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.5, -1.25])
    | st.sampled_from(["", "x", "xy", 'q"\\', "2", "Ω\n"])
)
VALUES = SCALARS | st.lists(SCALARS.filter(lambda value: value is not None), max_size=3)
METADATA = st.dictionaries(st.sampled_from([*KEYS, "c"]), VALUES | st.dictionaries(st.just("d"), SCALARS))

COMPARABLE = SCALARS.filter(lambda value: value is not None and not isinstance(value, bool))
TESTS = st.one_of(
    st.builds(lambda value: {"$eq": value}, SCALARS),
    st.builds(lambda value: {"$ne": value}, SCALARS),
    st.builds(lambda sign, value: {sign: value}, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), COMPARABLE),
    st.builds(lambda values: {"$in": values}, st.lists(SCALARS, max_size=3)),
    st.builds(lambda values: {"$nin": values}, st.lists(SCALARS, max_size=3)),
    st.builds(lambda value: {"$contains": value}, SCALARS.filter(lambda value: value is not None)),
    st.builds(lambda value: {"$exists": value}, st.booleans()),
)
FILTERS = st.recursive(
    st.dictionaries(st.sampled_from(KEYS), SCALARS | TESTS, max_size=2),
    lambda inner: st.one_of(
        st.builds(lambda each: {"$not": each}, inner),
        st.builds(lambda each: {"$and": each}, st.lists(inner, max_size=2)),
        st.builds(lambda each: {"$or": each}, st.lists(inner, max_size=2)),
    ),
    max_leaves=4,
)


def fits(wanted: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    return all(_fits(key, value, metadata) for key, value in wanted.items())


def _fits(key: str, value: Any, metadata: Mapping[str, Any]) -> bool:
    match key:
        case "$and":
            return all(fits(each, metadata) for each in value)
        case "$or":
            return any(fits(each, metadata) for each in value)
        case "$not":
            return not fits(value, metadata)
    tests = value if isinstance(value, Mapping) else {"$eq": value}
    return all(_test(sign, operand, _values(key, metadata)) for sign, operand in tests.items())


def _values(key: str, metadata: Mapping[str, Any]) -> list[Any] | None:
    """What is under `key`, a list's values one by one; `None` where nothing is."""
    found: list[Any] = []
    is_there = key in metadata
    if is_there:
        found += metadata[key] if isinstance(metadata[key], list) else [metadata[key]]
    first, _, rest = key.partition(".")
    if rest and isinstance(inner := metadata.get(first), Mapping) and rest in inner:
        is_there = True
        found.append(inner[rest])
    return found if is_there else None


def _test(sign: str, operand: Any, values: list[Any] | None) -> bool:
    if sign in ("$ne", "$nin"):
        return not _test("$eq" if sign == "$ne" else "$in", operand, values)
    if sign == "$exists":
        return (values is not None) == operand
    if sign == "$in":
        return any(_test("$eq", each, values) for each in operand)
    if sign == "$eq" and operand is None:
        return values is None or None in values
    return any(_compared(sign, operand, each) for each in values or ())


def _compared(sign: str, operand: Any, value: Any) -> bool:
    if sign == "$contains" and isinstance(operand, str):
        return isinstance(value, str) and operand in value
    if _sort(operand) != _sort(value):
        return False
    match sign:
        case "$eq" | "$contains":
            return bool(value == operand)
        case "$gt":
            return bool(value > operand)
        case "$gte":
            return bool(value >= operand)
        case "$lt":
            return bool(value < operand)
    return bool(value <= operand)


def _sort(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__


@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=400,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(wanted=FILTERS, metadata=st.lists(METADATA, min_size=1, max_size=5))
def test_postgres_and_the_reference_agree(
    connection: psycopg.Connection, wanted: Any, metadata: list[Any]
) -> None:
    path = json_path(wanted)
    expected = [fits(wanted, each) for each in metadata]

    if path is None:
        assert all(expected)
        return
    rows = connection.execute(
        "SELECT coalesce(value @@ %s::text::jsonpath, false) FROM jsonb_array_elements(%s::text::jsonb)",
        (path, json.dumps(metadata)),
    ).fetchall()
    assert [row[0] for row in rows] == expected, path


@pytest.fixture
def connection(dsn: str) -> Any:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def _nested(levels: int) -> Any:
    found: Any = {"a": 1}
    for _ in range(levels):
        found = {"$not": found}
    return found


@pytest.mark.parametrize(
    "wanted",
    [
        {"$where": "1"},
        {"a": {}},
        {"a": {"$regex": "x"}},
        {"a": {"b": 1}},
        {"a": [1]},
        {"a": {"$in": "x"}},
        {"a": {"$exists": "yes"}},
        {"a": {"$gt": None}},
        {"a": {"$gt": True}},
        {"a": {"$eq": {"b": 1}}},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": 10**40},
        {"a": "x" * 1001},
        {"a": "\x00"},
        {"a": "\ud800"},
        {"": 1},
        {"\x00": 1},
        {"$and": {"a": 1}},
        {"$or": ["a"]},
        {"$not": [1]},
        _nested(11),
        {"$and": [{"a": 1}] * 101},
        {f"k{n}": n for n in range(101)},
        {"a": {"$in": list(range(101))}},
    ],
    ids=lambda wanted: repr(wanted)[:40],
)
def test_what_is_no_filter_is_refused(wanted: Any) -> None:
    with pytest.raises(BadFilter) as caught:
        json_path(wanted)
    assert caught.value.code == "bad_filter"
    assert len(caught.value.message) < 300


def test_the_editors_form_means_a_filter() -> None:
    flat = {"a": 1, "b": "x"}

    assert by_strategy(flat, "exact") == flat
    assert by_strategy(flat, "contains") == {"a": {"$contains": 1}, "b": {"$contains": "x"}}
    assert by_strategy(flat, "or") == {"$or": [{"a": 1}, {"b": "x"}]}
    assert by_strategy({}, "or") == {}
