"""Conditions as data: comparisons, joined by `all`, `any` and `not`. There are no expressions."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

import msgspec
import re2
from msgspec import UNSET

from nodes.contract import NodeError
from nodes.mistakes import Keys, Mistakes
from nodes.texts import to_text

OperandType: TypeAlias = Literal["any", "text", "number", "boolean", "date", "list"]
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

MAX_DEPTH = 20
MAX_COMPARISONS = 200
MAX_MATCHED = 1_000_000
"""The most characters of a text that a pattern is matched against."""
MAX_TOLD = 20
"""The most comparisons that `explain` tells; the last ones, as these decide."""
MAX_SHOWN = 100
"""The most characters of a value that are told or shown in a message."""


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One of `all`, `any` and `not`, or a comparison: an `operation` on `left` and `right`.

    A comparison without `left` compares what arrived.
    """

    all: tuple[Condition, ...] | None = None
    any: tuple[Condition, ...] | None = None
    not_: Condition | None = msgspec.field(name="not", default=None)
    left: Any = UNSET
    operation: Operation | None = None
    right: Any = UNSET
    type: OperandType = "any"
    case_sensitive: bool = True

    def __post_init__(self) -> None:
        found = [*_wrong_form(self)]
        if self.operation is not None:
            found += _wrong_comparison(self, self.operation)
        depth, comparisons = _size(self)
        if depth > MAX_DEPTH:
            found.append((f"the condition is nested {depth} levels deep; allowed are {MAX_DEPTH}", ()))
        if comparisons > MAX_COMPARISONS:
            found.append((f"the condition has {comparisons} comparisons; allowed are {MAX_COMPARISONS}", ()))
        if found:
            raise Mistakes(found)


def holds(condition: Condition, subject: Any = None) -> bool:
    """Whether `condition` holds; `subject` is what comparisons without `left` compare.

    `all` and `any` look no further than they must.

    Raises:
        NodeError: `bad_operand`, an operand cannot be read as its type; `limit_exceeded`, a text is too long
            to be matched.
    """
    return _holds(condition, subject, lambda comparison, held: None)


def explain(condition: Condition, subject: Any = None) -> dict[str, Any]:
    """Whether `condition` holds, and which of its comparisons held on which values, in short.

    Raises:
        NodeError: As `holds`.
    """
    told: list[dict[str, Any]] = []
    held = _holds(condition, subject, lambda comparison, held: told.append(_told(comparison, held)))
    left_out = {"left_out": len(told) - MAX_TOLD} if len(told) > MAX_TOLD else {}
    return {"holds": held, "compared": told[-MAX_TOLD:], **left_out}


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
        NodeError: As `holds`.
    """
    return _compare(_Comparison(operation, left, right, type, case_sensitive))


@lru_cache(64)
def pattern(text: str, case_sensitive: bool = True) -> Any:
    """The RE2 pattern that `text` is; it matches in linear time, whatever it is.

    Raises:
        ValueError: RE2 does not read it.
    """
    options = re2.Options()
    options.case_sensitive = case_sensitive
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as exc:
        reason = exc.args[0].decode() if isinstance(exc.args[0], bytes) else str(exc)
        raise ValueError(f"not a pattern that RE2 reads: {reason}") from None


def shortened(value: Any) -> Any:
    """`value`, or the start of its text if that is long."""
    text = to_text(value)
    return value if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _wrong_form(condition: Condition) -> Iterator[tuple[str, Keys]]:
    compares = (
        condition.operation is not None
        or condition.left is not UNSET
        or condition.right is not UNSET
        or condition.type != "any"
        or not condition.case_sensitive
    )
    given = {
        "'all'": condition.all is not None,
        "'any'": condition.any is not None,
        "'not'": condition.not_ is not None,
        "a comparison": compares,
    }
    forms = [name for name, is_given in given.items() if is_given]
    if len(forms) != 1:
        found = f"this one is {' and '.join(forms)}" if forms else "this one is empty"
        yield f"a condition is one of {', '.join(given)}; {found}", ()
    for name, joined in (("all", condition.all), ("any", condition.any)):
        if joined == ():
            yield f"{name!r} has no conditions; allowed are 1 to {MAX_COMPARISONS}", (name,)
    if compares and condition.operation is None and len(forms) == 1:
        yield f"a comparison needs an 'operation': {', '.join(OPERATIONS[condition.type])}", ()


def _wrong_comparison(condition: Condition, operation: Operation) -> Iterator[tuple[str, Keys]]:
    allowed, right = OPERATIONS[condition.type], condition.right
    if operation not in allowed:
        of_type = f"{operation!r} does not compare values of the type {condition.type!r}"
        yield f"{of_type}; allowed: {', '.join(allowed)}", ()
    if operation in _WITHOUT_RIGHT:
        return
    if right is UNSET:
        yield f"{operation!r} needs a 'right' operand", ()
    elif isinstance(right, str) and "{{" in right:
        return
    elif operation in ("matches", "regex") and isinstance(right, str):
        try:
            pattern(right, condition.case_sensitive)
        except ValueError as exc:
            yield f"'right' is {exc}", ("right",)
    elif operation == "between" and not isinstance(right, str) and not _is_range(right):
        yield f"'right' is {_shown(right)}; allowed is {_RANGE}", ("right",)


def _size(condition: Condition) -> tuple[int, int]:
    """How many levels and how many comparisons there are."""
    inner = _joined(condition)
    if not inner:
        return 1, 1
    sizes = [_size(each) for each in inner]
    return 1 + max(depth for depth, _ in sizes), sum(comparisons for _, comparisons in sizes)


def _joined(condition: Condition) -> tuple[Condition, ...]:
    if condition.not_ is not None:
        return (condition.not_,)
    return condition.all or condition.any or ()


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A comparison with its two values."""

    operation: Operation
    left: Any
    right: Any
    type: OperandType
    case_sensitive: bool

    def read(self, side: Literal["left", "right"], type: OperandType) -> Any:
        return self.read_value(f"the {side} operand", getattr(self, side), type)

    def read_value(self, what: str, value: Any, type: OperandType) -> Any:
        read, words = READ[type]
        if (found := read(value)) is None:
            raise self.bad(what, value, words)
        return found

    def bad(self, what: str, value: Any, allowed: str) -> NodeError:
        message = f"{what} of {self.operation!r} is {_shown(value)}; allowed is {allowed}"
        return NodeError(message, code="bad_operand")


def _holds(condition: Condition, subject: Any, tell: Callable[[_Comparison, bool], None]) -> bool:
    if condition.not_ is not None:
        return not _holds(condition.not_, subject, tell)
    if condition.operation is None:
        join = all if condition.all else any
        return join(_holds(each, subject, tell) for each in _joined(condition))
    comparison = _Comparison(
        condition.operation,
        subject if condition.left is UNSET else condition.left,
        None if condition.right is UNSET else condition.right,
        condition.type,
        condition.case_sensitive,
    )
    held = _compare(comparison)
    tell(comparison, held)
    return held


def _told(comparison: _Comparison, held: bool) -> dict[str, Any]:
    left, operation = shortened(comparison.left), comparison.operation
    right = {} if operation in _WITHOUT_RIGHT else {"right": shortened(comparison.right)}
    return {"left": left, "operation": operation, **right, "holds": held}


def _compare(comparison: _Comparison) -> bool:
    opposite = _OPPOSITES.get(comparison.operation)
    if opposite is not None:
        return not _TESTS[opposite](comparison)
    return _TESTS[comparison.operation](comparison)


def _exists(comparison: _Comparison) -> bool:
    return comparison.left is not None


def _is_empty(comparison: _Comparison) -> bool:
    value = comparison.left
    if comparison.type != "any" and value is not None:
        value = comparison.read("left", comparison.type)
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, list | tuple | dict) and not value)


def _equal(comparison: _Comparison) -> bool:
    left = comparison.read("left", comparison.type) if comparison.type != "any" else comparison.left
    right = comparison.read("right", comparison.type) if comparison.type != "any" else comparison.right
    return _same(left, right, comparison.case_sensitive)


def _in(comparison: _Comparison) -> bool:
    left, items, type = comparison.left, comparison.read("right", "list"), comparison.type
    if type not in ("any", "list"):
        left = comparison.read("left", type)
        items = [
            comparison.read_value(f"item {at} on the right", item, type) for at, item in enumerate(items)
        ]
    return any(_same(left, item, comparison.case_sensitive) for item in items)


def _includes(comparison: _Comparison) -> bool:
    items = comparison.read("left", "list")
    return any(_same(item, comparison.right, comparison.case_sensitive) for item in items)


def _same(left: Any, right: Any, case_sensitive: bool) -> bool:
    """Whether two JSON values are equal; a text of a number equals the number, as templates make texts."""
    if isinstance(left, str) and _is_number(right):
        return bool(_number(left) == right)
    if isinstance(right, str) and _is_number(left):
        return bool(_number(right) == left)
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


def _on_texts(test: Callable[[str, str], bool]) -> Callable[[_Comparison], bool]:
    def run(comparison: _Comparison) -> bool:
        left, right = comparison.read("left", "text"), comparison.read("right", "text")
        return test(_folded(left, comparison.case_sensitive), _folded(right, comparison.case_sensitive))

    return run


def _matches(comparison: _Comparison) -> bool:
    text, source = comparison.read("left", "text"), comparison.read("right", "text")
    if max(len(text), len(source)) > MAX_MATCHED:
        side = "left" if len(text) > MAX_MATCHED else "right"
        found = f"the {side} operand of {comparison.operation!r} has {max(len(text), len(source))} characters"
        raise NodeError(f"{found}; allowed are {MAX_MATCHED}", code="limit_exceeded", is_final=True)
    try:
        compiled = pattern(source, comparison.case_sensitive)
    except ValueError as exc:
        message = f"the right operand of {comparison.operation!r} is {_shown(source)}, {exc}"
        raise NodeError(message, code="bad_operand") from None
    return compiled.search(text) is not None


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[_Comparison], bool]:
    def run(comparison: _Comparison) -> bool:
        sides = {"the left operand": comparison.left, "the right operand": comparison.right}
        return test(*_in_order(comparison, sides))

    return run


def _between(comparison: _Comparison) -> bool:
    bounds = _list(comparison.right)
    if bounds is None or not _is_range(bounds):
        raise comparison.bad("the right operand", comparison.right, _RANGE)
    sides = {"the left operand": comparison.left, "the low end": bounds[0], "the high end": bounds[1]}
    value, low, high = _in_order(comparison, sides)
    return bool(low <= value <= high)


def _in_order(comparison: _Comparison, sides: Mapping[str, Any]) -> list[Any]:
    """The values as numbers if all of them can be, else as dates; only what their type allows."""
    type = "date" if comparison.operation in ("before", "after") else comparison.type
    if type != "any":
        return [comparison.read_value(what, value, type) for what, value in sides.items()]
    for read in (_number, _date):
        found = [read(value) for value in sides.values()]
        if None not in found:
            return found
    for what, value in sides.items():
        if _number(value) is None and _date(value) is None:
            raise comparison.bad(what, value, f"{READ['number'][1]}, or {READ['date'][1]}")
    shown = ", ".join(map(_shown, sides.values()))
    message = f"{comparison.operation!r} compares {shown}; allowed are only numbers, or only dates"
    raise NodeError(message, code="bad_operand")


def _of_length(test: Callable[[Any, Any], bool]) -> Callable[[_Comparison], bool]:
    return lambda comparison: test(len(comparison.read("left", "list")), comparison.read("right", "number"))


def _is_true(comparison: _Comparison) -> bool:
    return bool(comparison.read("left", "boolean"))


def _folded(text: str, case_sensitive: bool) -> str:
    return text if case_sensitive else text.casefold()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_range(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else "null" if value is None else to_text(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?")
_RANGE = "a list of two, [low, high]"


def _text(value: Any) -> str | None:
    return None if isinstance(value, list | tuple | dict) else to_text(value)


def _number(value: Any) -> int | float | None:
    if isinstance(value, str):
        value = value.strip()
        if len(value) > MAX_SHOWN or not _DECIMAL.fullmatch(value):
            return None
        value = int(value) if value.lstrip("+-").isdigit() else float(value)
    return value if _is_number(value) and abs(value) < math.inf else None


def _boolean(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _date(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value.strip())
    except (AttributeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _list(value: Any) -> list[Any] | None:
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return None
    return list(value) if isinstance(value, list | tuple) else None


READ: Mapping[OperandType, tuple[Callable[[Any], Any], str]] = {
    "text": (_text, "a text, a number or a boolean"),
    "number": (_number, "a number or a text of one"),
    "boolean": (_boolean, "true or false"),
    "date": (_date, "a date or time as 2025-01-31 or 2025-01-31T12:00:00Z"),
    "list": (_list, "a list"),
}
"""How an operand of each type is read, `None` if it cannot be; and what can, in words."""

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

_WITHOUT_RIGHT: frozenset[Operation] = frozenset(
    {"exists", "not_exists", "is_empty", "not_empty", "is_true", "is_false"}
)
_OPPOSITES: Mapping[Operation, Operation] = {
    "not_equal": "equal",
    "not_exists": "exists",
    "not_in": "in",
    "not_empty": "is_empty",
    "not_contains": "contains",
    "is_false": "is_true",
    "not_includes": "includes",
}
_TESTS: Mapping[Operation, Callable[[_Comparison], bool]] = {
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
