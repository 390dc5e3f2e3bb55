"""What a run's steps may use of the world besides HTTP and models: made for the run, when first asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from flowserver.db import persist


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
            self._made[kind] = Persistent(self._makers[kind](self._visitor))
        return self._made[kind]

    def __iter__(self) -> Iterator[type[Any]]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


class Persistent:
    """Passes calls on to `inner`; asks again what fails because the server's own database is away.

    Its methods raise `ServerTrouble` when the database stays away.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def ask(*values: Any, **more: Any) -> Any:
            return await persist(lambda: found(*values, **more))

        return ask
