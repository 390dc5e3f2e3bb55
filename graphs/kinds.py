"""What a setting takes: its type looked into, and put in words."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import inspect as shapes
from msgspec.structs import fields as read_fields

from nodes.notes import note
from nodes.texts import to_text

fields = cache(read_fields)
"""Remembered, as every run of a step asks for them; and so is what is said of a type below."""

MOST_SHOWN = 80
"""The most characters of a value that a message shows."""


def convert(value: Any, kind: Any) -> Any:
    """Convert `value` as editors save it: numbers and booleans may be texts, lists and objects JSON texts."""
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        try:
            found = from_json(value)
        except ValueError:
            found = None
        if found is None:
            raise
        return msgspec.convert(found, kind, strict=False)


def from_json(value: Any) -> Any:
    """What a text of a JSON object or list holds; `None` for any other value.

    Raises:
        ValueError: It begins like one, but is none.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ValueError(f"it is not JSON: {exc}") from None


extra = note


def parts(kind: Any) -> Iterator[Any]:
    """The types of which a value of `kind` has one, without what is noted on them."""
    if get_origin(kind) is Annotated:
        yield from parts(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for each in get_args(kind):
            yield from parts(each)
    else:
        yield kind


@cache
def struct_in(kind: Any) -> type[msgspec.Struct] | None:
    """The struct that an object becomes where `kind` is taken."""
    structs = [each for each in parts(kind) if isinstance(each, type) and issubclass(each, msgspec.Struct)]
    return structs[0] if structs else None


@cache
def item_in(kind: Any) -> Any:
    """The type of a list's items where `kind` is taken; `None` if it takes no list, or one of anything."""
    for each in parts(kind):
        if get_origin(each) in (tuple, list, frozenset, set) and get_args(each)[0] is not Any:
            return get_args(each)[0]
    return None


@cache
def is_made_of_structs(kind: Any) -> bool:
    """Whether it is a struct, or a list of structs."""
    return struct_in(kind) is not None or (
        (item := item_in(kind)) is not None and struct_in(item) is not None
    )


@cache
def takes_texts(kind: Any) -> bool:
    return any(each in (str, Any) for each in parts(kind))


@cache
def takes_anything(kind: Any) -> bool:
    return any(each is Any for each in parts(kind))


@cache
def takes_only_texts(kind: Any) -> bool:
    return all(
        each in (str, NoneType, msgspec.UnsetType) or get_origin(each) is Literal for each in parts(kind)
    )


def choices(kind: Any) -> list[str]:
    """The texts of which one is allowed."""
    return [str(v) for each in parts(kind) if get_origin(each) is Literal for v in get_args(each)]


def shown(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value) if isinstance(value, str) else to_text(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def wanted(kind: Any) -> str:
    """What a field of `kind` takes, in words."""
    texts = [text for shape in _shapes(kind) if (text := _in_words(shape))]
    return " or ".join(dict.fromkeys(texts)) or "nothing"


@cache
def _shapes(kind: Any) -> tuple[shapes.Type, ...]:
    return tuple(_each(shapes.type_info(kind)))


def _each(shape: shapes.Type) -> Iterator[shapes.Type]:
    match shape:
        case shapes.UnionType(types=types):
            for each in types:
                yield from _each(each)
        case shapes.Metadata(type=inner):
            yield from _each(inner)
        case _:
            yield shape


def _in_words(shape: shapes.Type) -> str:
    match shape:
        case shapes.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}"
        case shapes.IntType() | shapes.FloatType():
            noun = "a whole number" if isinstance(shape, shapes.IntType) else "a number"
            return noun + _range(shape.ge, shape.le, shape.gt)
        case shapes.BoolType():
            return "true or false"
        case shapes.StrType():
            return "a non-empty text" if shape.min_length else "a text"
        case shapes.NoneType():
            return ""
        case shapes.ListType() | shapes.VarTupleType():
            return "a list" + _count(shape.min_length, shape.max_length)
        case _:
            return "any value" if isinstance(shape, shapes.AnyType) else "an object"


def _range(least: float | None, most: float | None, above: float | None) -> str:
    if above is not None:
        return f" above {above:.10g}" + (f", at most {most:.10g}" if most is not None else "")
    if least is not None and most is not None:
        return f" from {least:.10g} to {most:.10g}"
    if least is not None:
        return f" of at least {least:.10g}"
    return f" of at most {most:.10g}" if most is not None else ""


def _count(least: int | None, most: int | None) -> str:
    if least is not None and most is not None:
        return f" of {least} to {most}"
    if least is not None:
        return f" of at least {least}"
    return f" of at most {most}" if most is not None else ""
