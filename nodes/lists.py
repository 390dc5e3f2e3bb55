"""Lists as steps take them: which one is meant, and how items are put in order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET

from nodes.contract import NodeError
from nodes.operands import as_list, shown
from nodes.paths import Steps, steps

MAX_ITEMS = 1_000_000
Order: TypeAlias = tuple[Any, ...]


def items_of(given: Any, arrived: Any) -> list[Any]:
    """The list that a setting gives, or what arrived if it is unset; a JSON text of a list is one, too.

    Raises:
        NodeError: `bad_input`, there is no list; `limit_exceeded`, it is too long.
    """
    value = arrived if given is UNSET else given
    found = as_list(value)
    if found is None:
        raise NodeError(f"the items are a list, not {shown(value)}", code="bad_input")
    if len(found) > MAX_ITEMS:
        message = f"the list has {len(found)} items; allowed are {MAX_ITEMS}"
        raise NodeError(message, code="limit_exceeded", is_final=True)
    return found


def path_of(text: str, setting: str) -> Steps:
    """The path that a setting has come to.

    Raises:
        NodeError: `bad_config`, it is none.
    """
    try:
        return steps(text)
    except ValueError as exc:
        raise NodeError(f"{setting!r} {exc}", code="bad_config") from None


def is_nothing(value: Any) -> bool:
    """Whether it is null, or a number that is none."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def order_of(value: Any, *, case_sensitive: bool = True) -> Order:
    """Where a value that is not null stands among others of any type.

    Booleans come before numbers, then texts, lists and objects; lists and objects by their JSON.
    """
    match value:
        case bool():
            return (0, value)
        case int() | float():
            return (1, value)
        case str():
            return (2, value if case_sensitive else value.casefold())
        case Mapping():
            return (4, canonical(value))
        case _:
            return (3, canonical(value))


def identity(value: Any) -> Any:
    """The same for equal JSON values: 1 is 1.0, but not true and not the text "1"."""
    match value:
        case None | bool() | str():
            return (type(value), value)
        case int() | float():
            return (float, value)
        case _:
            return (list, canonical(value))


def canonical(value: Any) -> bytes:
    """A value's JSON, the same for equal values."""
    return msgspec.json.encode(_plain(value), order="deterministic")


def _plain(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case int() if not isinstance(value, bool) and abs(value) >= 2**63:
            return f"\0{value}"  # no number for JSON writers; no text of a run has such a start
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value
