"""What a run's steps may use of the world besides HTTP and models: made for the run, when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID


class Visitor(NamedTuple):
    """For whom a door is opened: everything behind it is his organisation's."""

    org: UUID
    run: UUID
    workflow: UUID | None
    session: str | None
    learn: Callable[[str], None] = lambda _: None
    """Told of each secret that the run gets to know, so that its errors are shown without it."""


DoorMaker: TypeAlias = Callable[[Visitor], Any]
"""Makes what fulfils a protocol of `nodes` for one run."""


class Doors(Mapping[type[Any], Any]):
    """The doors of one run, by the protocol that each fulfils."""

    def __init__(self, makers: Mapping[type[Any], DoorMaker], visitor: Visitor) -> None:
        self._makers = makers
        self._visitor = visitor
        self._made: dict[type[Any], Any] = {}

    def __getitem__(self, kind: type[Any]) -> Any:
        if kind not in self._made:
            self._made[kind] = self._makers[kind](self._visitor)
        return self._made[kind]

    def __iter__(self) -> Iterator[type[Any]]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)
