"""Paths lead into values, or to nothing; what is no path says where."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.paths import Steps, follow, steps, wrong_path

VALUE = {"a": {"b": [{"c": 1}, {"c": None}]}, "x.y": 2, "0": "zero", 'q"]': 3, "": 4, " s ": 5}


@pytest.mark.parametrize(
    ("path", "keys", "found"),
    [
        ("", (), VALUE),
        ("a", ("a",), VALUE["a"]),
        ("a.b[0].c", ("a", "b", 0, "c"), 1),
        ("a.b.0.c", ("a", "b", "0", "c"), 1),
        ("a.b[-1].c", ("a", "b", -1, "c"), None),
        ("a.b[2].c", ("a", "b", 2, "c"), None),
        ('["x.y"]', ("x.y",), 2),
        ('a["b"][0]["c"]', ("a", "b", 0, "c"), 1),
        ('["q\\"]"]', ('q"]',), 3),
        ('[""]', ("",), 4),
        ('[" s "]', (" s ",), 5),
        ("[0]", (0,), "zero"),
        ("a.nope.deeper", ("a", "nope", "deeper"), None),
        ("a.b.c", ("a", "b", "c"), None),
        ("x.y", ("x", "y"), None),
        ("größe", ("größe",), None),
    ],
)  # fmt: skip
def test_a_path_leads_somewhere_or_to_nothing(path: str, keys: Steps, found: Any) -> None:
    assert steps(path) == keys
    assert follow(VALUE, steps(path)) == found


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (".", "'.'"),
        ("a.", "its end"),
        ("a..b", "'.b'"),
        (".a", "'.a'"),
        ("a.[0]", "'[0]'"),
        ("a[", "'['"),
        ("a[x]", "'[x]'"),
        ("a[1", "'[1'"),
        ("a]", "']'"),
        ('["a', "'[\"a'"),
        ('["\\x"]', "'[\"\\\\\\\\x\"]'"),
        ("[9999999999]", "'[9999999999]'"),
        ("[0]a", "'a'"),
    ],
)
def test_what_is_no_path_says_where(path: str, where: str) -> None:
    words = wrong_path(path)

    assert words is not None
    assert words.startswith("is no path at ")


def test_a_path_with_a_template_is_looked_at_when_it_is_filled() -> None:
    assert wrong_path("{{ input.field }}[") is None


def test_a_very_long_path_is_refused() -> None:
    assert wrong_path("a" * 1001) == "has 1001 characters; allowed are 1000"


@settings(derandomize=True, database=None, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_a_path_or_a_refusal(text: str) -> None:
    try:
        found = steps(text)
    except ValueError:
        assert wrong_path(text)
    else:
        assert follow(None, found) is None or found == ()
        assert follow("text", found) == ("text" if found == () else None)


@pytest.mark.parametrize("value", [None, "text", b"bytes", 5, 1.5, True, [], {}, [[]], object()])
def test_nothing_lies_in_what_is_no_object_and_no_list(value: Any) -> None:
    assert follow(value, ("a", 0, "b")) is None
