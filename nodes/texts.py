"""How a value reads inside a text."""

from __future__ import annotations

import json
from typing import Any


def to_text(value: Any) -> str:
    """Texts as they are, null as nothing, everything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
