"""How a value reads inside a text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def to_text(value: Any) -> str:
    """Texts as they are, null as nothing, everything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


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
