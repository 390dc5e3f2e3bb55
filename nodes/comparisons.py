"""One comparison of two values: the operations there are, and when each holds."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

import re2

from nodes.contract import NodeError
from nodes.operands import RANGE, READ, OperandType, as_date, as_list, as_number, is_number, is_range, shown

Operation: TypeAlias = Literal[
    "equal",
    "not_equal",
    "exists",
    "not_exists",
    "in",
    "not_in",
    "is_empty",
    "not_empty",
    "contains",
    "not_contains",
    "starts_with",
    "ends_with",
    "matches",
    "regex",
    "greater",
    "greater_or_equal",
    "less",
    "less_or_equal",
    "between",
    "before",
    "after",
    "is_true",
    "is_false",
    "includes",
    "not_includes",
    "length_equal",
    "length_greater",
    "length_less",
]

MAX_MATCHED = 1_000_000
"""The most characters of a text that a pattern is matched against."""
MAX_PATTERN = 2_000
"""The most characters of a pattern."""
_PATTERN_MEMORY = 2 << 20
"""Bytes for a compiled pattern, which bounds what repeats grow to: the worst time to match is the product of
its instructions and the characters of the text."""


def compare(
    operation: Operation,
    left: Any,
    right: Any = None,
    *,
    type: OperandType = "any",
    case_sensitive: bool = True,
) -> bool:
    """Whether one comparison holds.

    Raises:
        NodeError: `bad_operand`, an operand cannot be read as its type; `limit_exceeded`, a text is too long
            to be matched.
    """
    return Comparison(operation, left, right, type, case_sensitive).holds()


@lru_cache(64)
def pattern(text: str, case_sensitive: bool = True, most: int = MAX_PATTERN) -> Any:
    """The RE2 pattern that `text` is, of up to `most` characters; its matches have no groups.

    Raises:
        ValueError: It is too long, too large, or RE2 does not read it.
    """
    if len(text) > most:
        raise ValueError(f"a pattern of {len(text)} characters; allowed are {most}")
    options = re2.Options()
    # To say where each of hundreds of groups matched takes thousands of times as long.
    options.never_capture = True
    options.max_mem = _PATTERN_MEMORY
    options.case_sensitive = case_sensitive
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as exc:
        reason = exc.args[0].decode() if isinstance(exc.args[0], bytes) else str(exc)
        raise ValueError(f"not a pattern that RE2 reads: {reason}") from None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison with its two values."""

    operation: Operation
    left: Any
    right: Any
    type: OperandType
    case_sensitive: bool

    def holds(self) -> bool:
        """Whether it holds; see `compare`."""
        opposite = _OPPOSITES.get(self.operation)
        if opposite is not None:
            return not _TESTS[opposite](self)
        return _TESTS[self.operation](self)

    def read(self, side: Literal["left", "right"], type: OperandType) -> Any:
        return self.read_value(f"the {side} operand", getattr(self, side), type)

    def read_value(self, what: str, value: Any, type: OperandType) -> Any:
        read, words = READ[type]
        if (found := read(value)) is None:
            raise self.bad(what, value, words)
        return found

    def bad(self, what: str, value: Any, allowed: str) -> NodeError:
        message = f"{what} of {self.operation!r} is {shown(value)}; allowed is {allowed}"
        return NodeError(message, code="bad_operand")


def _exists(comparison: Comparison) -> bool:
    return comparison.left is not None


def _is_empty(comparison: Comparison) -> bool:
    value = comparison.left
    if comparison.type != "any" and value is not None:
        value = comparison.read("left", comparison.type)
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, list | tuple | dict) and not value)


def _equal(comparison: Comparison) -> bool:
    left = comparison.read("left", comparison.type) if comparison.type != "any" else comparison.left
    right = comparison.read("right", comparison.type) if comparison.type != "any" else comparison.right
    return _same(left, right, comparison.case_sensitive)


def _in(comparison: Comparison) -> bool:
    left, items, type = comparison.left, comparison.read("right", "list"), comparison.type
    if type not in ("any", "list"):
        left = comparison.read("left", type)
        items = [
            comparison.read_value(f"item {at} on the right", item, type) for at, item in enumerate(items)
        ]
    return any(_same(left, item, comparison.case_sensitive) for item in items)


def _includes(comparison: Comparison) -> bool:
    items = comparison.read("left", "list")
    return any(_same(item, comparison.right, comparison.case_sensitive) for item in items)


def _same(left: Any, right: Any, case_sensitive: bool) -> bool:
    """Whether two JSON values are equal; a text of a number equals the number, as templates make texts."""
    if isinstance(left, str) and is_number(right):
        return bool(as_number(left) == right)
    if isinstance(right, str) and is_number(left):
        return bool(as_number(right) == left)
    return _equal_json(left, right, case_sensitive)


def _equal_json(left: Any, right: Any, case_sensitive: bool) -> bool:
    match left, right:
        case str(), str():
            return _folded(left, case_sensitive) == _folded(right, case_sensitive)
        case dict(), dict():
            return left.keys() == right.keys() and all(
                _equal_json(value, right[key], case_sensitive) for key, value in left.items()
            )
        case list() | tuple(), list() | tuple():
            return len(left) == len(right) and all(
                _equal_json(*pair, case_sensitive) for pair in zip(left, right, strict=True)
            )
        case _:
            return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _on_texts(test: Callable[[str, str], bool]) -> Callable[[Comparison], bool]:
    def run(comparison: Comparison) -> bool:
        left, right = comparison.read("left", "text"), comparison.read("right", "text")
        return test(_folded(left, comparison.case_sensitive), _folded(right, comparison.case_sensitive))

    return run


def _matches(comparison: Comparison) -> bool:
    text, source = comparison.read("left", "text"), comparison.read("right", "text")
    for side, given, most in (("left", text, MAX_MATCHED), ("right", source, MAX_PATTERN)):
        if len(given) > most:
            found = f"the {side} operand of {comparison.operation!r} has {len(given)} characters"
            raise NodeError(f"{found}; allowed are {most}", code="limit_exceeded", is_final=True)
    try:
        compiled = pattern(source, comparison.case_sensitive)
    except ValueError as exc:
        message = f"the right operand of {comparison.operation!r} is {shown(source)}, {exc}"
        raise NodeError(message, code="bad_operand") from None
    return compiled.search(text) is not None


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Comparison], bool]:
    def run(comparison: Comparison) -> bool:
        sides = {"the left operand": comparison.left, "the right operand": comparison.right}
        return test(*_in_order(comparison, sides))

    return run


def _between(comparison: Comparison) -> bool:
    bounds = as_list(comparison.right)
    if bounds is None or not is_range(bounds):
        raise comparison.bad("the right operand", comparison.right, RANGE)
    sides = {"the left operand": comparison.left, "the low end": bounds[0], "the high end": bounds[1]}
    value, low, high = _in_order(comparison, sides)
    return bool(low <= value <= high)


def _in_order(comparison: Comparison, sides: Mapping[str, Any]) -> list[Any]:
    """The values as numbers if all of them can be, else as dates; only what their type allows."""
    type = "date" if comparison.operation in ("before", "after") else comparison.type
    if type != "any":
        return [comparison.read_value(what, value, type) for what, value in sides.items()]
    for read in (as_number, as_date):
        found = [read(value) for value in sides.values()]
        if None not in found:
            return found
    for what, value in sides.items():
        if as_number(value) is None and as_date(value) is None:
            raise comparison.bad(what, value, f"{READ['number'][1]}, or {READ['date'][1]}")
    values = ", ".join(map(shown, sides.values()))
    message = f"{comparison.operation!r} compares {values}; allowed are only numbers, or only dates"
    raise NodeError(message, code="bad_operand")


def _of_length(test: Callable[[Any, Any], bool]) -> Callable[[Comparison], bool]:
    return lambda comparison: test(len(comparison.read("left", "list")), comparison.read("right", "number"))


def _is_true(comparison: Comparison) -> bool:
    return bool(comparison.read("left", "boolean"))


def _folded(text: str, case_sensitive: bool) -> str:
    return text if case_sensitive else text.casefold()


_COMMON: tuple[Operation, ...] = ("equal", "not_equal", "exists", "not_exists", "in", "not_in")
_EMPTY: tuple[Operation, ...] = ("is_empty", "not_empty")
_ORDER: tuple[Operation, ...] = ("greater", "greater_or_equal", "less", "less_or_equal", "between")
OPERATIONS: Mapping[OperandType, tuple[Operation, ...]] = {
    "any": get_args(Operation),
    "text": (
        *_COMMON,
        *_EMPTY,
        "contains",
        "not_contains",
        "starts_with",
        "ends_with",
        "matches",
        "regex",
    ),
    "number": (*_COMMON, *_ORDER),
    "boolean": (*_COMMON, "is_true", "is_false"),
    "date": (*_COMMON, *_ORDER, "before", "after"),
    "list": (
        *_COMMON,
        *_EMPTY,
        "includes",
        "not_includes",
        "length_equal",
        "length_greater",
        "length_less",
    ),
}
"""What compares operands of each type."""

WITHOUT_RIGHT: frozenset[Operation] = frozenset(
    {"exists", "not_exists", "is_empty", "not_empty", "is_true", "is_false"}
)
RIGHT: Mapping[Operation, OperandType] = {
    "in": "list",
    "not_in": "list",
    "contains": "text",
    "not_contains": "text",
    "starts_with": "text",
    "ends_with": "text",
    "matches": "text",
    "regex": "text",
    "before": "date",
    "after": "date",
    "includes": "any",
    "not_includes": "any",
    "length_equal": "number",
    "length_greater": "number",
    "length_less": "number",
}
"""The type of the right operand, where it is not that of the comparison."""
_OPPOSITES: Mapping[Operation, Operation] = {
    "not_equal": "equal",
    "not_exists": "exists",
    "not_in": "in",
    "not_empty": "is_empty",
    "not_contains": "contains",
    "is_false": "is_true",
    "not_includes": "includes",
}
_TESTS: Mapping[Operation, Callable[[Comparison], bool]] = {
    "equal": _equal,
    "exists": _exists,
    "in": _in,
    "is_empty": _is_empty,
    "contains": _on_texts(lambda left, right: right in left),
    "starts_with": _on_texts(str.startswith),
    "ends_with": _on_texts(str.endswith),
    "matches": _matches,
    "regex": _matches,
    "greater": _ordered(operator.gt),
    "greater_or_equal": _ordered(operator.ge),
    "less": _ordered(operator.lt),
    "less_or_equal": _ordered(operator.le),
    "between": _between,
    "before": _ordered(operator.lt),
    "after": _ordered(operator.gt),
    "is_true": _is_true,
    "includes": _includes,
    "length_equal": _of_length(operator.eq),
    "length_greater": _of_length(operator.gt),
    "length_less": _of_length(operator.lt),
}
