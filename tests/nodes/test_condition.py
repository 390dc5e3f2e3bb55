"""A condition takes one of two ways, whatever texts and patterns it is given."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from graphs.kinds import convert
from nodes.conditions import Condition
from nodes.contract import Choice, NodeError
from nodes.flow.condition import FALSE, NODE, TRUE, Config, Inputs, Operation, Outputs, run
from tests.nodes.contexts import context

CASES: list[tuple[Operation, str, str, bool, bool]] = [
    # operation, left, right, case_sensitive, holds
    ("equal", "yes", "yes", False, True),
    ("equal", "Yes", "yES", False, True),
    ("equal", "Yes", "yes", True, False),
    ("equal", "STRASSE", "straße", False, True),
    ("equal", "yes ", "yes", False, False),
    ("equal", "", "", False, True),
    ("not_equal", "yes", "no", False, True),
    ("not_equal", "Yes", "yes", False, False),
    ("not_equal", "Yes", "yes", True, True),
    ("contains", "very urgent!", "URGENT", False, True),
    ("contains", "very urgent!", "URGENT", True, False),
    ("contains", "calm", "urgent", False, False),
    ("contains", "anything", "", False, True),
    ("not_contains", "calm", "urgent", False, True),
    ("not_contains", "Urgent", "urgent", False, False),
    ("not_contains", "Urgent", "urgent", True, True),
    ("starts_with", "Hello world", "hello", False, True),
    ("starts_with", "Hello world", "hello", True, False),
    ("starts_with", "Say hello", "hello", False, False),
    ("ends_with", "Hello world", "WORLD", False, True),
    ("ends_with", "Hello world", "WORLD", True, False),
    ("ends_with", "world!", "world", False, False),
    ("regex", "order 4711", r"\d{4}", False, True),
    ("regex", "order 47", r"\d{4}", False, False),
    ("regex", "ORDER", "^order$", False, True),
    ("regex", "ORDER", "^order$", True, False),
    ("regex", "grüße", "gr.{2}e", False, True),
    ("regex", "a\nb", "a.b", False, False),
    ("regex", "a\nb", "(?s)a.b", False, True),
    ("regex", "anything", "", False, True),
    ("is_empty", "", "ignored", False, True),
    ("is_empty", " \n\t", "", False, True),
    ("is_empty", "x", "", False, False),
    ("not_empty", "x", "", False, True),
    ("not_empty", "  ", "", False, False),
]


def test_the_table_has_every_operation_both_ways() -> None:
    assert {(operation, holds) for operation, *_, holds in CASES} == {
        (operation, holds) for operation in get_args(Operation) for holds in (True, False)
    }


@pytest.mark.parametrize(("operation", "left", "right", "exact", "holds"), CASES)
async def test_an_operation(operation: Operation, left: str, right: str, exact: bool, holds: bool) -> None:
    config = Config(operation=operation, value2=right, case_sensitive=exact)

    made = await run(config, Inputs(left), context())

    assert made == Choice(
        TRUE if holds else FALSE,
        Outputs(left, holds),
        {"value1": left, "operation": operation, "value2": right, "result": holds},
    )


@pytest.mark.parametrize(
    ("arrives", "reads"),
    [
        (None, ""),
        ("text", "text"),
        (5, "5"),
        (True, "true"),
        ([1, "ü"], '[1, "ü"]'),
        ({"a": None}, '{"a": null}'),
    ],
)
async def test_what_arrives_is_compared_as_text_and_passed_on_as_it_is(arrives: Any, reads: str) -> None:
    made = await run(Config(operation="equal", value2=reads), Inputs(arrives), context())

    assert made.port == TRUE
    assert made.outputs == Outputs(arrives, True)


async def test_a_left_side_of_its_own_wins_over_what_arrives() -> None:
    made = await run(Config(value1="mine", value2="mine"), Inputs("theirs"), context())

    assert (made.port, made.outputs) == (TRUE, Outputs("theirs", True))


async def test_the_reasons_are_cut() -> None:
    made = await run(Config(value1="x" * 900, value2="y" * 900), Inputs(), context())

    assert (made.because["value1"], made.because["value2"]) == ("x" * 500, "y" * 500)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(a|a?)+b", "(.*a){20}b", "(x+x+)+y"])
async def test_a_pattern_cannot_run_away(pattern: str) -> None:
    config = Config(operation="regex", value2=pattern)

    made = await run(config, Inputs("a" * 50_000 + "!"), context())

    assert made.port == FALSE


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a", "missing )"),
        ("a{2,1}", "invalid repetition size"),
        ("(?=a)", "invalid perl operator"),
        (r"(a)\1", "invalid escape sequence"),
        ("[b-a]", "invalid character class range"),
        ("(a{1000}){1000}", "invalid repetition size"),
    ],
)
async def test_a_pattern_that_cannot_be_read_is_named(pattern: str, reason: str) -> None:
    with pytest.raises(NodeError) as refused:
        Config(operation="regex", value2=pattern)

    assert refused.value.code == "bad_config"
    assert str(refused.value).startswith(f"'value2' is not a pattern that RE2 reads: {reason}")


async def test_a_pattern_is_only_read_where_it_is_one() -> None:
    assert Config(operation="equal", value2="(a").value2 == "(a"


@pytest.mark.parametrize(("saved", "means"), [("true", True), ("False", False), (1, True), ("0", False)])
def test_a_checkbox_may_be_saved_as_a_text(saved: Any, means: bool) -> None:
    assert convert(saved, bool) is means


def test_it_has_two_ways_under_the_names_of_all_editors() -> None:
    assert NODE.routes is not None
    assert tuple(NODE.routes(Config())) == (TRUE, FALSE)
    assert NODE.route_aliases == {"true": TRUE, "false": FALSE, "output-0": TRUE, "output-1": FALSE}


async def test_a_structured_condition_decides_by_what_arrives() -> None:
    condition = Condition(all=(Condition(operation="greater", right=5), Condition(operation="less", right=8)))

    made = await run(Config(condition=condition), Inputs("7"), context())

    assert made == Choice(
        TRUE,
        Outputs("7", True),
        {
            "holds": True,
            "compared": [
                {"left": "7", "operation": "greater", "right": 5, "holds": True},
                {"left": "7", "operation": "less", "right": 8, "holds": True},
            ],
        },
    )


@pytest.mark.parametrize(
    ("beside", "named"),
    [
        ({"value1": "a"}, "'value1'"),
        ({"value2": "b"}, "'value2'"),
        ({"value1": "a", "value2": "b"}, "'value1' and 'value2'"),
    ],
)
def test_a_structured_condition_takes_no_values_beside_it(beside: dict[str, str], named: str) -> None:
    with pytest.raises(NodeError) as refused:
        Config(condition=Condition(operation="exists"), **beside)

    assert (refused.value.code, str(refused.value)) == (
        "bad_config",
        f"'condition' decides alone, but there is also {named}; allowed is one or the other",
    )
