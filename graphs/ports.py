"""Which port an arrow means: the handle names of both editor generations, missing ones and guesses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec.structs import fields

from graphs.kinds import extra
from nodes.contract import NodeType

_NUMBERED = re.compile(r"(?:input|output)-(\d{1,4})")
PLAIN = (None, "", "input", "output")
"""Handles that say no more than which side of the node they are on."""

_SIDES = ("source", "target", "start", "end", "execute", "trigger")
"""Handles that some editors write on every node."""


@dataclass(frozen=True, slots=True)
class Port:
    """A named input, output or binding of a node type."""

    name: str
    kind: Any
    """The type of what goes through it."""
    many: bool
    required: bool
    also: tuple[str, ...]


def title(kind: type | None) -> str:
    """What a provider gives, in words."""
    names = {
        "ChatModel": "a chat model",
        "Tool": "a tool",
        "Memory": "a memory",
        "Embedder": "an embedder",
        "Reranker": "a reranker",
    }
    name = getattr(kind, "__name__", str(kind))
    return names.get(name, name)


@cache
def ports(struct: type[msgspec.Struct]) -> tuple[Port, ...]:
    """The data ports that the fields of `struct` are."""
    return tuple(
        Port(
            name=info.name,
            kind=_bare(info.type),
            many=extra(info.type, "many", False),
            required=info.required,
            also=extra(info.type, "also", ()),
        )
        for info in fields(struct)
    )


@cache
def binding_ports(struct: type[msgspec.Struct]) -> tuple[Port, ...]:
    """The ports that take what providers make."""
    hints = get_type_hints(struct, include_extras=True)
    found: list[Port] = []
    for info in fields(struct):
        hint = hints[info.name]
        bare = _bare(hint)
        many = get_origin(bare) is tuple
        kind = get_args(bare)[0] if many else bare
        found.append(Port(info.name, kind, many, info.required, extra(hint, "also", ())))
    return tuple(found)


def _bare(hint: Any) -> Any:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, UnionType):
        kept = [each for each in get_args(hint) if each is not NoneType]
        return kept[0] if len(kept) == 1 else Any
    return hint


def find(handle: str | None, known: tuple[Port, ...]) -> Port | None:
    """The port of `known` that `handle` names, by its name or another spelling of it."""
    for each in known:
        if handle == each.name:
            return each
    return next((each for each in known if handle in each.also), None)


def is_strange(handle: str | None, known: tuple[Port, ...]) -> bool:
    """Whether `handle` names none of `known`, nor merely a side of the node."""
    number = _NUMBERED.fullmatch(handle or "")
    if handle in PLAIN or handle in _SIDES or find(handle, known) is not None:
        return False
    return number is None or int(number[1]) >= len(known)


def is_counted(handle: str | None) -> bool:
    """Whether `handle` only says which one of the ports it is: `output-1`."""
    return _NUMBERED.fullmatch(handle or "") is not None


def guess(handle: str | None, known: tuple[Port, ...]) -> Port | None:
    """The port that a missing, plain or numbered handle means; the only one takes any handle."""
    if not known:
        return None
    if (port := find(handle, known)) is not None:
        return port
    if handle in PLAIN or len(known) == 1:
        return known[0]
    number = _NUMBERED.fullmatch(handle or "")
    return known[int(number[1])] if number and int(number[1]) < len(known) else None


def find_route(handle: str | None, node_type: NodeType, names: tuple[str, ...]) -> str | None:
    """The route of a router that `handle` names, or counts as editors do that know no names: `output-1`."""
    if handle in names:
        return handle
    alias = node_type.route_aliases.get(handle or "")
    if alias in names:
        return alias
    number = _NUMBERED.fullmatch(handle or "")
    if number and int(number[1]) < len(names):
        return names[int(number[1])]
    return names[0] if len(names) == 1 and handle in PLAIN else None
