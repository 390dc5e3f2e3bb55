"""Conditions hold or not, whatever values they meet; what cannot be compared is named."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.comparisons import MAX_MATCHED, OPERATIONS, Operation, compare
from nodes.conditions import MAX_COMPARISONS, MAX_DEPTH, Condition, explain, holds
from nodes.contract import NodeError
from nodes.operands import OperandType

CASES: list[tuple[OperandType, Any, Operation, Any, bool]] = [
    # type, left, operation, right, holds
    ("any", "a", "equal", "a", True),
    ("any", "a", "equal", "A", False),
    ("any", 5, "equal", "5", True),
    ("any", "5.0", "equal", 5, True),
    ("any", "five", "equal", 5, False),
    ("any", "5", "equal", "5.0", False),
    ("any", 1, "equal", 1.0, True),
    ("any", 1, "equal", True, False),
    ("any", "true", "equal", True, False),
    ("any", None, "equal", None, True),
    ("any", None, "equal", "", False),
    ("any", None, "equal", 0, False),
    ("any", {"a": [1, None]}, "equal", {"a": [1.0, None]}, True),
    ("any", {"a": 1}, "equal", {"a": True}, False),
    ("any", {"a": 1}, "equal", {"b": 1}, False),
    ("any", [1], "equal", [1, 2], False),
    ("any", [], "equal", {}, False),
    ("any", 2**53 + 1, "equal", "9007199254740993", True),
    ("any", 2**53, "equal", "9007199254740993", False),
    ("any", 5, "not_equal", "5", False),
    ("any", [1], "not_equal", [2], True),
    ("any", None, "exists", None, False),
    ("any", "", "exists", None, True),
    ("any", 0, "exists", None, True),
    ("any", None, "not_exists", None, True),
    ("any", False, "not_exists", None, False),
    ("any", "b", "in", ["a", "b"], True),
    ("any", 2, "in", "[1, 2]", True),
    ("any", "c", "in", ["a", "b"], False),
    ("number", "2.0", "in", ["1", "2"], True),
    ("any", "c", "not_in", ["a", "b"], True),
    ("any", "a", "not_in", ["a", "b"], False),
    ("any", None, "is_empty", None, True),
    ("any", " \n", "is_empty", None, True),
    ("any", [], "is_empty", None, True),
    ("any", {}, "is_empty", None, True),
    ("any", 0, "is_empty", None, False),
    ("any", False, "is_empty", None, False),
    ("list", "[]", "is_empty", None, True),
    ("list", None, "is_empty", None, True),
    ("text", "[]", "is_empty", None, False),
    ("any", "x", "not_empty", None, True),
    ("any", None, "not_empty", None, False),
    ("text", 5, "equal", "5", True),
    ("text", "5.0", "equal", 5, False),
    ("text", None, "equal", "", True),
    ("text", True, "equal", "true", True),
    ("any", "very urgent", "contains", "urgent", True),
    ("any", None, "contains", "urgent", False),
    ("any", 4711, "contains", 71, True),
    ("any", "calm", "not_contains", "urgent", True),
    ("any", "urgent", "not_contains", "urgent", False),
    ("any", "order 7", "starts_with", "order", True),
    ("any", "order 7", "starts_with", "7", False),
    ("any", "order 7", "ends_with", 7, True),
    ("any", "order 7", "ends_with", "order", False),
    ("any", "order 4711", "matches", r"^order \d+$", True),
    ("any", "order", "matches", r"\d", False),
    ("any", 4711, "regex", r"^\d{4}$", True),
    ("any", "order", "regex", r"\d", False),
    ("any", 10, "greater", "9", True),
    ("any", "10", "greater", "9", True),
    ("any", 9, "greater", 9, False),
    ("any", "2025-02-01", "greater", "2025-01-31T23:59:59Z", True),
    ("number", "1e3", "greater", 999.5, True),
    ("any", 9, "greater_or_equal", 9, True),
    ("any", 8, "greater_or_equal", 9, False),
    ("any", -1, "less", "-.5", True),
    ("any", 9, "less", 9, False),
    ("any", 9, "less_or_equal", 9, True),
    ("any", 10, "less_or_equal", 9, False),
    ("any", 5, "between", [1, 5], True),
    ("any", "5", "between", "[1, 5]", True),
    ("any", 6, "between", [1, "5"], False),
    ("any", "2025-06-01", "between", ["2025-01-01", "2025-12-31"], True),
    ("date", "2025-01-01", "equal", "2025-01-01T00:00:00Z", True),
    ("date", "2025-01-01T01:00:00+01:00", "equal", "2025-01-01", True),
    ("date", "2025-01-01T00:00:00", "equal", "2025-01-01T00:00:00+01:00", False),
    ("date", "2025-01-01", "not_equal", "2025-01-02", True),
    ("date", "0001-01-01T00:00:00+14:00", "less", "9999-12-31T23:59:59-12:00", True),
    ("any", "2025-01-01", "before", "2025-01-02", True),
    ("any", "2025-01-02", "before", "2025-01-02", False),
    ("any", "2025-01-01T00:00:01Z", "after", "2025-01-01", True),
    ("any", "2025-01-01", "after", "2025-01-01T00:00:00Z", False),
    ("any", True, "is_true", None, True),
    ("any", " True ", "is_true", None, True),
    ("any", False, "is_true", None, False),
    ("any", "false", "is_false", None, True),
    ("any", True, "is_false", None, False),
    ("boolean", "true", "equal", True, True),
    ("any", ["a", 1], "includes", "1", True),
    ("any", '["a", "b"]', "includes", "b", True),
    ("any", ["a"], "includes", "A", False),
    ("any", [], "not_includes", None, True),
    ("any", [None], "not_includes", None, False),
    ("list", "[1, 2]", "equal", [1, 2], True),
    ("any", [1, 2], "length_equal", "2", True),
    ("any", [1, 2], "length_equal", 3, False),
    ("any", [1, 2], "length_greater", 1, True),
    ("any", [1, 2], "length_greater", 2, False),
    ("any", [], "length_less", 1, True),
    ("any", [1], "length_less", 1, False),
]


@pytest.mark.parametrize(("type", "left", "operation", "right", "expected"), CASES)
def test_a_comparison(type: OperandType, left: Any, operation: Operation, right: Any, expected: bool) -> None:
    condition = Condition(left=left, operation=operation, right=right, type=type)

    assert (holds(condition), compare(operation, left, right, type=type)) == (expected, expected)


def test_the_table_has_every_operation_both_ways() -> None:
    decided = {(operation, expected) for _, _, operation, _, expected in CASES}

    assert decided == {(operation, way) for operation in get_args(Operation) for way in (True, False)}


def test_every_type_has_operations_of_its_own() -> None:
    assert set(OPERATIONS) == set(get_args(OperandType))
    assert {each for kind, of in OPERATIONS.items() if kind != "any" for each in of} == set(
        get_args(Operation)
    )


@pytest.mark.parametrize(
    ("left", "operation", "right"),
    [
        ("Yes", "equal", "yES"),
        ("STRASSE", "contains", "straße"),
        ("Yes", "matches", "^yes$"),
        (["A"], "includes", "a"),
        ("A", "in", ["a"]),
        ({"a": "X"}, "equal", {"a": "x"}),
    ],
)
def test_case_counts_unless_it_is_told_not_to(left: Any, operation: Operation, right: Any) -> None:
    exact, folded = (compare(operation, left, right, case_sensitive=each) for each in (True, False))

    assert (exact, folded) == (False, True)


def condition(drawn: Any) -> Condition:
    return msgspec.convert(drawn, Condition, strict=False)


@pytest.mark.parametrize(
    ("drawn", "subject", "expected"),
    [
        ({"operation": "equal", "right": "x"}, "x", True),
        ({"left": None, "operation": "exists"}, "x", False),
        ({"all": [{"operation": "greater", "right": 1}, {"operation": "less", "right": 3}]}, 2, True),
        ({"all": [{"operation": "greater", "right": 1}, {"operation": "less", "right": 3}]}, 3, False),
        ({"any": [{"operation": "less", "right": 1}, {"operation": "greater", "right": 3}]}, 4, True),
        ({"any": [{"operation": "less", "right": 1}, {"operation": "greater", "right": 3}]}, 2, False),
        ({"not": {"operation": "equal", "right": 2}}, 2, False),
        ({"not": {"any": [{"operation": "equal", "right": 1}]}}, 2, True),
        ({"all": None, "operation": "equal", "right": 2, "case_sensitive": "false"}, 2, True),
    ],
)
def test_comparisons_are_joined_and_compare_what_arrives(drawn: Any, subject: Any, expected: bool) -> None:
    assert holds(condition(drawn), subject) is expected
    assert explain(condition(drawn), subject)["holds"] is expected


def test_no_more_is_compared_than_must_be() -> None:
    guarded = condition({"all": [{"operation": "exists"}, {"operation": "greater", "right": 5}]})

    assert explain(guarded, None) == {
        "holds": False,
        "compared": [{"left": None, "operation": "exists", "holds": False}],
    }


def test_what_is_told_is_short() -> None:
    many = {"all": [{"left": "x" * 900, "operation": "equal", "right": "x" * 900}] * 50}

    told = explain(condition(many))

    one = {"left": "x" * 100 + "…", "operation": "equal", "right": "x" * 100 + "…", "holds": True}
    assert told == {"holds": True, "compared": [one] * 20, "left_out": 30}


EQUAL = {"operation": "equal", "right": 1}


def nested(levels: int) -> Any:
    drawn: Any = EQUAL
    for _ in range(levels - 1):
        drawn = {"not": drawn}
    return drawn


def wide(comparisons: int) -> Any:
    return {"any": [{"all": [EQUAL] * (comparisons - 1)}, EQUAL]}


ONE_OF = "a condition is one of 'all', 'any', 'not', a comparison; this one is "


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        ({}, ONE_OF + "empty"),
        ({"all": [EQUAL], "any": [EQUAL]}, ONE_OF + "'all' and 'any'"),
        ({"not": EQUAL, **EQUAL}, ONE_OF + "'not' and a comparison"),
        ({"all": [EQUAL], "type": "text"}, ONE_OF + "'all' and a comparison"),
        ({"all": []}, "'all' has no conditions; allowed are 1 to 200"),
        ({"any": [EQUAL, {"all": []}]}, "'all' has no conditions; allowed are 1 to 200 - at `$.any[1]`"),
        (
            {"left": 1, "type": "boolean"},
            "a comparison needs an 'operation': "
            "equal, not_equal, exists, not_exists, in, not_in, is_true, is_false",
        ),
        ({"operation": "equal"}, "'equal' needs a 'right' operand"),
        ({"not": {"operation": "equals", "right": 1}}, "Invalid enum value 'equals' - at `$.not.operation`"),
        (
            {"operation": "contains", "right": "x", "type": "boolean"},
            "'contains' does not compare values of the type 'boolean'; allowed: "
            "equal, not_equal, exists, not_exists, in, not_in, is_true, is_false",
        ),
        (
            {"operation": "matches", "right": "(a"},
            "'right' is not a pattern that RE2 reads: missing ): (a",
        ),
        ({"operation": "between", "right": [1]}, "'right' is [1]; allowed is a list of two, [low, high]"),
        (
            {"left": 1, "path": "a", "operation": "exists"},
            "a comparison has both of 'left' and 'path'; allowed is one",
        ),
        ({"all": [EQUAL], "path": "a"}, ONE_OF + "'all' and a comparison"),
        (
            {"path": "a..b", "operation": "exists"},
            "'path' is no path at '.b'; allowed are keys and indexes, as in customer.name or lines[0]",
        ),
        ({"operation": "exists", "rigth": 1}, "Object contains unknown field `rigth`"),
        (nested(MAX_DEPTH + 1), "the condition is nested 21 levels deep; allowed are 20"),
        (wide(MAX_COMPARISONS + 1), "the condition has 201 comparisons; allowed are 200"),
    ],
)  # fmt: skip
def test_what_is_no_condition_is_refused_when_it_is_made(drawn: Any, words: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        condition(drawn)

    assert str(refused.value) == words


@pytest.mark.parametrize(
    "drawn", [nested(MAX_DEPTH), wide(MAX_COMPARISONS), {"operation": "matches", "right": "({{ a }}"}]
)
def test_what_is_just_allowed_or_open_is_a_condition(drawn: Any) -> None:
    assert msgspec.json.decode(msgspec.json.encode(condition(drawn))) == drawn


@pytest.mark.parametrize(
    ("drawn", "subject", "expected"),
    [
        ({"path": "age", "operation": "greater", "right": 5}, {"age": 6}, True),
        ({"path": "age", "operation": "greater", "right": 5}, {"age": "4"}, False),
        ({"path": "a.b[1]", "operation": "equal", "right": "x"}, {"a": {"b": [1, "x"]}}, True),
        ({"path": "nope", "operation": "not_exists"}, {"age": 6}, True),
        ({"path": "nope", "operation": "not_exists"}, None, True),
        ({"all": [{"path": "a", "operation": "exists"}, {"operation": "not_empty"}]}, {"a": 1}, True),
    ],
)
def test_a_comparison_may_look_into_what_arrives(drawn: Any, subject: Any, expected: bool) -> None:
    assert holds(condition(drawn), subject) == expected


NUMBER, DATE = "a number or a text of one", "a date or time as 2025-01-31 or 2025-01-31T12:00:00Z"


@pytest.mark.parametrize(
    ("type", "left", "operation", "right", "words"),
    [
        ("number", "ten", "greater", 1, f"the left operand of 'greater' is 'ten'; allowed is {NUMBER}"),
        ("number", 1, "less", None, f"the right operand of 'less' is null; allowed is {NUMBER}"),
        ("number", True, "equal", 1, f"the left operand of 'equal' is true; allowed is {NUMBER}"),
        ("number", "1e999", "equal", 1, f"the left operand of 'equal' is '1e999'; allowed is {NUMBER}"),
        ("number", 1, "in", [1, "x"], f"item 1 on the right of 'in' is 'x'; allowed is {NUMBER}"),
        ("any", "x", "greater", 1, f"the left operand of 'greater' is 'x'; allowed is {NUMBER}, or {DATE}"),
        (
            "any",
            1,
            "less",
            "2025-01-01",
            "'less' compares 1, '2025-01-01'; allowed are only numbers, or only dates",
        ),
        ("any", 5, "between", [1, "x"], f"the high end of 'between' is 'x'; allowed is {NUMBER}, or {DATE}"),
        (
            "any",
            5,
            "between",
            "1 to 6",
            "the right operand of 'between' is '1 to 6'; allowed is a list of two, [low, high]",
        ),
        ("date", "1.1.2025", "equal", "", f"the left operand of 'equal' is '1.1.2025'; allowed is {DATE}"),
        ("any", 5, "before", "2025-01-01", f"the left operand of 'before' is 5; allowed is {DATE}"),
        ("any", 1, "is_false", None, "the left operand of 'is_false' is 1; allowed is true or false"),
        ("any", "a", "not_includes", "a", "the left operand of 'not_includes' is 'a'; allowed is a list"),
        ("any", "[1", "length_equal", 1, "the left operand of 'length_equal' is '[1'; allowed is a list"),
        (
            "any",
            ["urgent"],
            "contains",
            "urgent",
            "the left operand of 'contains' is [\"urgent\"]; allowed is a text, a number or a boolean",
        ),
        (
            "number",
            "x" * 900,
            "greater",
            1,
            f"the left operand of 'greater' is '{'x' * 99}…; allowed is {NUMBER}",
        ),
    ],
)  # fmt: skip
def test_an_operand_that_cannot_be_read_is_named(
    type: OperandType, left: Any, operation: Operation, right: Any, words: str
) -> None:
    with pytest.raises(NodeError) as refused:
        compare(operation, left, right, type=type)

    assert (refused.value.code, str(refused.value)) == ("bad_operand", words)


def test_a_filled_in_pattern_that_cannot_be_read_is_named() -> None:
    with pytest.raises(NodeError) as refused:
        compare("matches", "text", "(a")

    assert (refused.value.code, str(refused.value)) == (
        "bad_operand",
        "the right operand of 'matches' is '(a', not a pattern that RE2 reads: missing ): (a",
    )


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(x+x+)+y"])
def test_a_pattern_cannot_run_away(pattern: str) -> None:
    assert compare("matches", "a" * 50_000 + "!", pattern) is False


def test_a_text_too_long_to_be_matched_is_refused_and_not_cut() -> None:
    longest = "a" * (MAX_MATCHED - 1) + "b"

    assert compare("matches", longest, "b$") is True
    with pytest.raises(NodeError) as refused:
        compare("matches", longest + "b", "b$")
    assert (refused.value.code, str(refused.value)) == (
        "limit_exceeded",
        "the left operand of 'matches' has 1000001 characters; allowed are 1000000",
    )


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(["7", "[1]"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
SMALL = settings(max_examples=200, deadline=None, derandomize=True, database=None)


@SMALL
@given(left=VALUES, right=VALUES)
def test_equality_has_no_sides_and_every_value_equals_itself(left: Any, right: Any) -> None:
    assert compare("equal", left, left)
    assert compare("equal", left, right) == compare("equal", right, left)
    assert compare("equal", left, right) != compare("not_equal", left, right)


@SMALL
@given(
    left=VALUES,
    right=VALUES,
    pair=st.sampled_from([(kind, each) for kind, of in OPERATIONS.items() for each in of]),
)
def test_any_two_values_are_compared_or_refused_in_words(
    left: Any, right: Any, pair: tuple[OperandType, Operation]
) -> None:
    kind, operation = pair

    try:
        held = compare(operation, left, right, type=kind)
    except NodeError as exc:
        assert exc.code == "bad_operand"
    else:
        assert isinstance(held, bool)


CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    st.builds(
        Condition,
        left=st.integers(0, 3),
        operation=st.sampled_from(["equal", "less"]),
        right=st.integers(0, 3),
    ),
    lambda inner: (
        st.builds(Condition, all=st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(Condition, any=st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(Condition, not_=inner)
    ),
    max_leaves=10,
)


@SMALL
@given(inner=st.lists(CONDITIONS, min_size=1, max_size=4).map(tuple))
def test_all_and_any_are_each_other_turned_round_by_not(inner: tuple[Condition, ...]) -> None:
    each = tuple(Condition(not_=one) for one in inner)

    assert holds(Condition(all=inner)) == all(map(holds, inner)) == (not holds(Condition(any=each)))
    assert explain(Condition(any=inner))["holds"] == holds(Condition(any=inner)) == any(map(holds, inner))


@SMALL
@given(made=CONDITIONS)
def test_a_condition_survives_being_saved(made: Condition) -> None:
    assert msgspec.json.decode(msgspec.json.encode(made), type=Condition) == made
