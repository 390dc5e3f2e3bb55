"""How a value reads inside a text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import UnsetType


def to_text(value: Any) -> str:
    """Texts as they are, null as nothing, everything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def written_or_arrived(written: str | UnsetType, arrived: Iterable[Any], *, between: str = "\n\n") -> str:
    """The text of a setting; or what arrived, if its author left it empty: not if it came to nothing."""
    return between.join(map(to_text, arrived)) if isinstance(written, UnsetType) else written


def empty(setting: str, written: str | UnsetType) -> str:
    """Why there is no text, in words."""
    if isinstance(written, UnsetType):
        return f"{setting!r} is empty, and no text has arrived"
    return f"{setting!r} has come to an empty text"


def names_in(value: str | Sequence[str]) -> list[str]:
    """The names of a list, which may be a text: with commas, or as JSON."""
    if not isinstance(value, str):
        found: Any = value
    elif value.lstrip().startswith("["):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            found = [value]
    else:
        found = value.split(",")
    return [name for each in found if (name := str(each).strip())]
