"""Adds to a message about a wrong value what its place would take: fields, or values of an enumeration."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args, get_type_hints

import msgspec.inspect as types
from litestar.params import QueryParameter

from flowserver.http.parameters import instead

_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_NO_MEMBER = re.compile(r"Invalid enum value '?(.*?)'?$", re.DOTALL)
_STEP = re.compile(r"\[(.*?)\]|\.?([^.\[\]]+)")


def expected(handler: Callable[..., Any], key: str, message: str) -> str:
    """The end of a message about the value at `key`, such as `hook.methods[0]`; empty if nothing is known."""
    if found := _UNKNOWN_FIELD.fullmatch(message):
        fields = [field.encode_name for struct in _structs(_at(handler, key)) for field in struct.fields]
        return instead(found[1], fields) if fields else ""
    if found := _NO_MEMBER.fullmatch(message):
        values = [value for each in _at(handler, key) for value in _values(each)]
        return instead(found[1], values) if values else ""
    return ""


def _at(handler: Callable[..., Any], key: str) -> list[types.Type]:
    """The types that a value at `key` may have: of a query parameter or in the body."""
    hints = get_type_hints(handler, include_extras=True)
    for argument, hint in hints.items():
        names = {meta.name or argument for meta in get_args(hint)[1:] if isinstance(meta, QueryParameter)}
        if key in names:
            return list(_flat(_type(hint)))
    if "data" not in hints:
        return []
    found = list(_flat(_type(hints["data"])))
    for index, name in () if key == "data" else _STEP.findall(key):
        found = [each for outer in found for inner in _inside(outer, index, name) for each in _flat(inner)]
    return found


def _type(hint: Any) -> types.Type:
    return types.type_info(get_args(hint)[0])


def _flat(one: types.Type) -> Iterator[types.Type]:
    """The members of a union, and what metadata is about."""
    if isinstance(one, types.UnionType):
        for each in one.types:
            yield from _flat(each)
    elif isinstance(one, types.Metadata):
        yield from _flat(one.type)
    else:
        yield one


def _inside(outer: types.Type, index: str, name: str) -> Iterator[types.Type]:
    match outer:
        case types.StructType() if name:
            yield from (field.type for field in outer.fields if field.encode_name == name)
        case types.DictType():
            yield outer.value_type
        case types.ListType() | types.VarTupleType() if not name:
            yield outer.item_type
        case types.TupleType() if index.isdecimal() and int(index) < len(outer.item_types):
            yield outer.item_types[int(index)]


def _structs(found: Sequence[types.Type]) -> list[types.StructType]:
    return [each for each in found if isinstance(each, types.StructType)]


def _values(one: types.Type) -> list[str]:
    match one:
        case types.LiteralType():
            return [str(value) for value in one.values]
        case types.EnumType():
            return [str(member.value) for member in one.cls]
    return []
