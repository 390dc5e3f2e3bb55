"""Every operation of a condition, and that no pattern can hang it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from nodes.contract import Choice, NodeError, RunContext
from nodes.flow.condition import FALSE, TRUE, Config, Inputs, Outputs, run

NO_CONTEXT = cast(RunContext, None)


async def decide(operation: Any, left: Any, right: str = "", exact: bool = False) -> Choice:
    config = Config(operation=operation, value2=right, case_sensitive=exact)
    return cast(Choice, await run(config, Inputs(left), NO_CONTEXT))


@pytest.mark.parametrize(
    ("operation", "left", "right", "exact", "expected"),
    [
        ("equal", "Straße", "STRASSE", False, True),
        ("equal", "a", "A", True, False),
        ("not_equal", "a", "b", False, True),
        ("contains", "It is URGENT", "urgent", False, True),
        ("contains", "It is URGENT", "urgent", True, False),
        ("contains", "", "x", False, False),
        ("not_contains", "abc", "d", False, True),
        ("starts_with", "Hello", "he", False, True),
        ("ends_with", "Hello", "LO", True, False),
        ("regex", "order 4711", r"order \d+$", False, True),
        ("regex", "ORDER", "order", True, False),
        ("is_empty", "  \n", "", False, True),
        ("is_empty", None, "", False, True),
        ("not_empty", "0", "", False, True),
        ("contains", {"kind": "urgent"}, '"urgent"', False, True),
        ("equal", 5, "5", False, True),
        ("equal", True, "true", False, True),
    ],
)
async def test_operations(operation: str, left: Any, right: str, exact: bool, expected: bool) -> None:
    choice = await decide(operation, left, right, exact)

    assert choice.port == (TRUE if expected else FALSE)
    assert choice.outputs == Outputs(left, expected)
    assert choice.because["result"] is expected


async def test_the_first_value_replaces_what_arrives() -> None:
    config = Config(value1="a", value2="a")

    choice = cast(Choice, await run(config, Inputs("b"), NO_CONTEXT))

    assert (choice.port, cast(Outputs, choice.outputs).output) == (TRUE, "b")


async def test_sec_92_a_pattern_that_hangs_other_engines_ends() -> None:
    choice = await decide("regex", "a" * 50_000 + "!", "(a+)+$")

    assert choice.port == FALSE


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "(?=x)", "\\"])
def test_a_pattern_that_cannot_be_read_is_refused_with_its_reason(pattern: str) -> None:
    with pytest.raises((NodeError, ValueError), match="'value2' is not a pattern that RE2 reads"):
        Config(operation="regex", value2=pattern)
