"""Conditions as data: comparisons, joined by `all`, `any` and `not`. There are no expressions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

import msgspec
from msgspec import UNSET

from nodes.comparisons import OPERATIONS, RIGHT, WITHOUT_RIGHT, Comparison, Operation, pattern
from nodes.isolated import LIGHT, weight
from nodes.mistakes import Keys, Mistakes
from nodes.operands import RANGE, READ, OperandType, is_range, shortened, shown
from nodes.paths import follow, steps, wrong_path

MAX_DEPTH = 20
MAX_COMPARISONS = 200
MAX_TOLD = 20
"""The most comparisons that `explain` tells; the last ones, as these decide."""


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One of `all`, `any` and `not`, or a comparison: an `operation` on `left` and `right`.

    A comparison without `left` compares what arrived, or what lies at `path` in it.
    """

    all: Annotated[
        tuple[Condition, ...] | None, msgspec.Meta(description="Conditions of which every one must hold.")
    ] = None
    any: Annotated[
        tuple[Condition, ...] | None, msgspec.Meta(description="Conditions of which one must hold.")
    ] = None
    not_: Annotated[Condition | None, msgspec.Meta(description="A condition that must not hold.")] = (
        msgspec.field(name="not", default=None)
    )
    left: Annotated[
        Any, msgspec.Meta(description="The left side of a comparison; left out, what arrives.")
    ] = UNSET
    operation: Annotated[Operation | None, msgspec.Meta(description="How the two sides are compared.")] = None
    right: Annotated[Any, msgspec.Meta(description="The right side; some operations have none.")] = UNSET
    type: Annotated[
        OperandType,
        msgspec.Meta(description="As what both sides are read; `any` leaves it to the operation."),
    ] = "any"
    case_sensitive: Annotated[
        bool, msgspec.Meta(description="Whether texts differ that are only spelled differently.")
    ] = True
    path: Annotated[
        str,
        msgspec.Meta(
            description="In place of `left`: what is compared of what arrives, as in `customer.age`."
        ),
    ] = ""

    def __post_init__(self) -> None:
        found = [*_wrong_form(self)]
        if self.operation is not None:
            found += [*_wrong_left(self), *_wrong_comparison(self, self.operation)]
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


def work_of(conditions: Iterable[Condition], subject: Any = None) -> int:
    """About how much work `explain` has with `conditions`, in the measure of `nodes.isolated.weight`."""
    found = 0
    rest = [*conditions]
    while rest and found <= LIGHT:
        condition = rest.pop()
        if inner := _joined(condition):
            rest.extend(inner)
        elif condition.operation is not None:
            found += _work_of_one(condition, condition.operation, _left(condition, subject))
    return found


def _work_of_one(condition: Condition, operation: Operation, left: Any) -> int:
    found = weight(left) + weight(condition.right)
    if operation in ("matches", "regex") and isinstance(condition.right, str):
        with contextlib.suppress(ValueError):  # of a wrong pattern, which is reported when it is compared
            # At worst RE2 does every instruction for every character, about 100 million a second.
            found += pattern(condition.right, condition.case_sensitive).programsize * found // 20
    return found


def _wrong_form(condition: Condition) -> Iterator[tuple[str, Keys]]:
    compares = (
        condition.operation is not None
        or condition.left is not UNSET
        or condition.right is not UNSET
        or condition.type != "any"
        or not condition.case_sensitive
        or condition.path != ""
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
    if operation in WITHOUT_RIGHT:
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
    elif allowed_right := _never_read(condition, operation):
        yield f"'right' is {shown(right)}; allowed is {allowed_right}", ("right",)


def _wrong_left(condition: Condition) -> Iterator[tuple[str, Keys]]:
    if condition.path and condition.left is not UNSET:
        yield "a comparison has both of 'left' and 'path'; allowed is one", ()
    if wrong := wrong_path(condition.path):
        yield f"'path' {wrong}", ("path",)


def _never_read(condition: Condition, operation: Operation) -> str | None:
    """What the right operand must be, where it is something else."""
    right = condition.right
    if operation == "between":
        return RANGE if not isinstance(right, str) and not is_range(right) else None
    type = RIGHT.get(operation, condition.type)
    return None if type == "any" or READ[type][0](right) is not None else READ[type][1]


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


def _holds(condition: Condition, subject: Any, tell: Callable[[Comparison, bool], None]) -> bool:
    if condition.not_ is not None:
        return not _holds(condition.not_, subject, tell)
    if condition.operation is None:
        join = all if condition.all else any
        return join(_holds(each, subject, tell) for each in _joined(condition))
    comparison = Comparison(
        condition.operation,
        _left(condition, subject),
        None if condition.right is UNSET else condition.right,
        condition.type,
        condition.case_sensitive,
    )
    held = comparison.holds()
    tell(comparison, held)
    return held


def _left(condition: Condition, subject: Any) -> Any:
    if condition.left is not UNSET:
        return condition.left
    return follow(subject, steps(condition.path)) if condition.path else subject


def _told(comparison: Comparison, held: bool) -> dict[str, Any]:
    left, operation = shortened(comparison.left), comparison.operation
    right = {} if operation in WITHOUT_RIGHT else {"right": shortened(comparison.right)}
    return {"left": left, "operation": operation, **right, "holds": held}
