"""What enters a run's state is plain, and safe to keep."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from graphs.values import MAX_BYTES, MAX_DEPTH, UnsafeValue, clean, cut


class Point(msgspec.Struct):
    x: int
    at: datetime


class Text(str):
    pass


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("a\x00b", "ab"),
        ("\ud800x", "?x"),
        ({"k\x00": ["\x00", "\udfff"]}, {"k": ["", "?"]}),
        (float("nan"), None),
        ([float("inf"), -float("inf"), 1.5], [None, None, 1.5]),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**70, str(2**70)),
        (True, True),
        (None, None),
        ((1, 2), [1, 2]),
        ({1: "a"}, {"1": "a"}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Point(2**65, datetime(2026, 1, 2, tzinfo=UTC)), {"x": str(2**65), "at": "2026-01-02T00:00:00Z"}),
        ("Zoë 😀", "Zoë 😀"),
    ],
)
def test_f3_values_that_would_kill_a_run_are_made_harmless(value: Any, kept: Any) -> None:
    assert clean(value) == kept
    msgspec.json.encode(clean(value))


def test_a_text_of_a_subclass_becomes_a_plain_text() -> None:
    assert type(clean(Text("x"))) is str


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_depth_and_size_are_bounded() -> None:
    assert clean(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    with pytest.raises(UnsafeValue, match=f"nested deeper than {MAX_DEPTH} levels"):
        clean(nested(MAX_DEPTH + 1))
    with pytest.raises(UnsafeValue, match="are too many"):
        clean(["x" * MAX_BYTES])


def test_an_output_is_cut_where_it_is_shown_and_says_so() -> None:
    assert cut({"a": 1}, 100) == ({"a": 1}, False)
    shown, is_cut = cut({"a": "ü" * 100}, 50)
    assert is_cut
    assert shown.startswith('{"a":"ü') and shown.endswith("…")
