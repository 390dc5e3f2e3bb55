"""Procrastinate's tables, as migrations beside ours."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import LiteralString

from procrastinate.schema import SchemaManager

PREFIX = "procrastinate "
"""Of the names under which its migrations are recorded."""


def queue_migrations(seen: Set[str]) -> list[tuple[str, LiteralString]]:
    """What a database that has `seen` some migrations lacks of Procrastinate's, as (name, SQL), in order.

    A new one gets the whole schema at once; that it has all the single steps too is recorded with them.
    """
    files = _files()
    steps = [(PREFIX + file.stem, file) for file in files]
    if not any(name.startswith(PREFIX) for name in seen):
        whole = SchemaManager.get_schema()
        return [(name, "SELECT" if file != files[-1] else whole) for name, file in steps]
    return [(name, file.read_text("utf-8")) for name, file in steps if name not in seen]


def queue_names() -> list[str]:
    """The names of all migrations of Procrastinate's, in order."""
    return [PREFIX + file.stem for file in _files()]


def _files() -> list[Path]:
    return sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))
