"""SQL lives in `.sql` files next to this one. A query is a `-- name --` line and what follows it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from typing import LiteralString, cast

_NAME = re.compile(r"^-- (\w+) --$", re.MULTILINE)


def queries(file: str) -> Mapping[str, LiteralString]:
    """Return the queries of `sql/<file>.sql` by name."""
    return split((resources.files(__name__) / f"{file}.sql").read_text("utf-8"))


def split(text: str) -> Mapping[str, LiteralString]:
    """The queries of a file's `text` by name."""
    _, *parts = _NAME.split(text)
    # The files ship with the code, so their text is as trusted as a literal.
    return {
        name: cast(LiteralString, body.strip()) for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


def migrations() -> list[tuple[str, LiteralString]]:
    """Every migration as (name, SQL), in the order they are applied."""
    files = (resources.files(__name__) / "migrations").iterdir()
    return sorted((file.name, file.read_text("utf-8")) for file in files if file.name.endswith(".sql"))
