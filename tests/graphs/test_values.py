"""What steps return becomes data that Postgres, msgpack and JSON take unchanged (RELIABILITY.md F3)."""

from __future__ import annotations

import dataclasses
import enum
import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from psycopg.types.json import Jsonb

from graphs.values import LIGHT, MAX_BYTES, MAX_DEPTH, UnsafeValue, clean, clean_aside, cut


class Point(msgspec.Struct):
    x: Any
    y: Any = None


@dataclasses.dataclass
class Pair:
    left: Any
    right: Any


class Colour(enum.Enum):
    RED = "red"


class Word(enum.StrEnum):
    HELLO = "hello"


class Number(enum.IntEnum):
    THREE = 3


class Real(float):
    """As numpy's float64 is one."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (0, 0),
        (-1.5, -1.5),
        ("text", "text"),
        ("Grüße 😀", "Grüße 😀"),
        ("a\x00b\x00", "ab"),
        ("a\ud800b", "a?b"),
        ("\udfff", "?"),
        (math.nan, None),
        (math.inf, None),
        (-math.inf, None),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**63, "9223372036854775808"),
        (-(2**63) - 1, "-9223372036854775809"),
        (2**70, "1180591620717411303424"),
        ([1, "\x00", [math.nan]], [1, "", [None]]),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        ({"a\x00": {"b": 2**70}}, {"a": {"b": "1180591620717411303424"}}),
        ({1: "a", None: "b", 2.5: "c"}, {"1": "a", "None": "b", "2.5": "c"}),
        (Point(1, Point("\x00")), {"x": 1, "y": {"x": "", "y": None}}),
        (Pair(math.nan, Point(2**64)), {"left": None, "right": {"x": "18446744073709551616", "y": None}}),
        ([Point(1)], [{"x": 1, "y": None}]),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(hours=1), "PT3600S"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Decimal("1.50"), "1.50"),
        (b"\x00\xff", "AP8="),
        (Colour.RED, "red"),
        (Word.HELLO, "hello"),
        ({Word.HELLO: Number.THREE}, {"hello": 3}),
        (Real(2.5), 2.5),
        (Real("nan"), None),
        (1 + 2j, "(1+2j)"),
    ],
    ids=repr,
)
def test_a_value_becomes_plain_data(value: Any, expected: Any) -> None:
    cleaned = clean(value)

    assert cleaned == expected
    assert plain(cleaned)


def plain(value: Any) -> bool:
    """Whether `value` is made of JSON's own types, not of their subclasses."""
    if type(value) is dict:
        return all(type(key) is str and plain(item) for key, item in value.items())
    return (
        all(map(plain, value)) if type(value) is list else type(value) in (str, int, float, bool, type(None))
    )


texts = st.text(st.characters(codec=None, categories=None), max_size=8)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    texts,
    st.binary(max_size=4),
    st.datetimes(),
    st.decimals(),
    st.uuids(),
    st.sampled_from([Colour.RED, Word.HELLO, Number.THREE, Real(1), Real("inf"), object]),
)
everything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(texts, st.integers(), st.none()), inner, max_size=4),
        st.builds(Point, inner, inner),
        st.builds(Pair, inner, inner),
        st.tuples(inner, inner),
    ),
    max_leaves=12,
)


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(value=everything)
def test_whatever_a_step_returns_survives_a_checkpoint(value: Any) -> None:
    cleaned = clean(value)

    serializer = JsonPlusSerializer(allowed_msgpack_modules=None)
    assert serializer.loads_typed(serializer.dumps_typed({"outputs": cleaned})) == {"outputs": cleaned}
    assert msgspec.json.decode(msgspec.json.encode(cleaned)) == cleaned
    assert b"\\u0000" not in msgspec.json.encode(cleaned)
    assert clean(cleaned) == cleaned


def test_postgres_takes_what_would_have_killed_the_run(dsn: str) -> None:
    poison = {"nul\x00": "\x00", "half": "\ud800", "nan": math.nan, "inf": [-math.inf], "big": 10**30}

    with psycopg.connect(dsn) as conn:
        row = conn.execute("SELECT %s::jsonb", (Jsonb(clean(poison)),)).fetchone()

    assert row == ({"nul": "", "half": "?", "nan": None, "inf": [None], "big": str(10**30)},)


def nested(depth: int) -> Any:
    value: Any = "leaf"
    for _ in range(depth):
        value = [value]
    return value


def test_depth_is_limited() -> None:
    assert clean(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    with pytest.raises(UnsafeValue, match=f"nested deeper than {MAX_DEPTH} levels"):
        clean(nested(MAX_DEPTH + 1))


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["self"] = [loop, loop]

    with pytest.raises(UnsafeValue, match="nested deeper"):
        clean(loop)


def test_size_is_limited() -> None:
    assert clean({"text": "x" * (MAX_BYTES - 20)})
    with pytest.raises(UnsafeValue, match=f"more than {MAX_BYTES} bytes are too many"):
        clean({"text": "x" * MAX_BYTES})


@pytest.mark.parametrize(
    ("value", "most", "expected"),
    [
        ({"a": 1}, 7, ({"a": 1}, False)),
        ({"a": 12}, 7, ('{"a":12…', True)),
        ("üüü", 4, ('"ü…', True)),
        (None, 4, (None, False)),
    ],
)
def test_cut_shows_the_start_of_what_is_too_long(value: Any, most: int, expected: tuple[Any, bool]) -> None:
    assert cut(value, most) == expected


def test_a_value_that_stands_in_many_places_is_refused_without_walking_all_of_them() -> None:
    value: Any = ["x"]
    for _ in range(MAX_DEPTH - 2):
        value = [value, value]

    with pytest.raises(UnsafeValue, match=f"more than {MAX_BYTES} bytes"):
        clean(value)


@pytest.mark.parametrize("value", ["", 0, None, [], {"a": [1, "ä"]}, "x" * LIGHT, ["x" * 10] * LIGHT])
async def test_what_is_cleaned_aside_is_the_same_and_measured(value: Any) -> None:
    cleaned, size = await clean_aside({"output": value})

    assert cleaned == clean({"output": value})
    assert size == len(msgspec.json.encode(cleaned))
