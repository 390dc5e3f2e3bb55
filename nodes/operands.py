"""The values that conditions compare: how each type of them is read, and how they are shown."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import msgspec

from nodes.texts import to_text

OperandType: TypeAlias = Literal["any", "text", "number", "boolean", "date", "list"]

MAX_SHOWN = 100
"""The most characters of a value that are told or shown in a message."""


def shortened(value: Any) -> Any:
    """`value`, or the start of its text if that is long."""
    text = to_text(value)
    return value if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_range(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


def shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else "null" if value is None else to_text(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?")
RANGE = "a list of two, [low, high]"


def as_text(value: Any) -> str | None:
    return None if isinstance(value, list | tuple | dict) else to_text(value)


def as_number(value: Any) -> int | float | None:
    if isinstance(value, str):
        value = value.strip()
        if len(value) > MAX_SHOWN or not _DECIMAL.fullmatch(value):
            return None
        value = int(value) if value.lstrip("+-").isdigit() else float(value)
    return value if is_number(value) and abs(value) < math.inf else None


def as_boolean(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def as_date(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value.strip())
    except (AttributeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def as_list(value: Any) -> list[Any] | None:
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return None
    return list(value) if isinstance(value, list | tuple) else None


READ: Mapping[OperandType, tuple[Callable[[Any], Any], str]] = {
    "text": (as_text, "a text, a number or a boolean"),
    "number": (as_number, "a number or a text of one"),
    "boolean": (as_boolean, "true or false"),
    "date": (as_date, "a date or time as 2025-01-31 or 2025-01-31T12:00:00Z"),
    "list": (as_list, "a list"),
}
"""How an operand of each type is read, `None` if it cannot be; and what can, in words."""
