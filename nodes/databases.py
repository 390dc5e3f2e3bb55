"""The door to Postgres databases of a workflow's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """What one query may do and take."""

    read_only: bool
    seconds: float
    rows: int
    bytes: int
    """Of all rows together, as JSON."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a query gave, as JSON-like data."""

    rows: list[dict[str, Any]]
    count: int
    """How many rows it gave or changed; of one that was cut, how many are here."""
    is_cut: bool
    """Whether it gave more than was allowed."""


class Databases(Protocol):
    """Queries databases that can be reached by the rules for all that workflows connect to."""

    async def query(
        self, login: Mapping[str, str], statement: str, parameters: Sequence[Any], limits: QueryLimits
    ) -> QueryResult:
        """Run one statement, with `$1` … for its parameters.

        `login` has `host`, `port`, `database`, `username`, `password`, `sslmode`, or a `connection_string`.

        Raises:
            NodeError: It may not, or cannot, be done.
        """
        ...
