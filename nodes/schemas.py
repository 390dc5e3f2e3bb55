"""The settings of a node type as JSON Schema, of which a form can be made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo, fields

from nodes.notes import described, note


def titled(name: str) -> str:
    """`name` as a form shows it: `max_rounds` as `Max rounds`."""
    words = [_SHORT.get(word, word) for word in name.split("_") if word]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


_SHORT = {
    each.lower(): each
    for each in (
        "AI",
        "API",
        "CORS",
        "HTTP",
        "IPs",
        "MCP",
        "ID",
        "IDs",
        "JSON",
        "LLM",
        "SSL",
        "URL",
        "URLs",
        "TLS",
    )
}


def form_schema(config: type[msgspec.Struct], title: str, description: str) -> dict[str, Any]:
    """The JSON Schema of `config`, with what a form needs beyond that.

    `writeOnly` marks secrets, `x-credential` what takes the id of a credential, `x-also` lists other
    spellings of a key, `x-when` for which values of other settings one means anything, `x-template` whether
    it may hold `{{ paths }}`.
    """
    (whole,), components = msgspec.json.schema_components((config,), ref_template="#/$defs/{name}")
    name = whole["$ref"].rpartition("/")[2]
    for struct in structs(config):
        _complete(components.get(struct.__name__), struct)
    schema: dict[str, Any] = components[name] | {"title": title, "description": description}
    rest = {key: value for key, value in components.items() if key != name}
    return schema | ({"$defs": rest} if rest else {})


def structs(kind: Any) -> Iterable[type[msgspec.Struct]]:
    """Every struct that a value of `kind` may be or hold."""
    found: dict[type[msgspec.Struct], None] = {}
    waiting = [kind]
    while waiting:
        each = waiting.pop()
        if isinstance(each, type) and issubclass(each, msgspec.Struct):
            if each not in found:
                found[each] = None
                waiting += [info.type for info in fields(each)]
        else:
            waiting += [part for part in get_args(each) if not isinstance(part, msgspec.Meta)]
    return found


def _complete(schema: dict[str, Any] | None, struct: type[msgspec.Struct]) -> None:
    """Add to the schema of `struct` what msgspec does not say."""
    if schema is None:
        return
    schema["description"] = " ".join(schema.get("description", "").split())
    for info in fields(struct):
        found = schema["properties"][info.encode_name]
        found.setdefault("title", titled(info.encode_name))
        if text := described(info.type):
            found["description"] = text
        if choices := _choices(info.type):
            _in_order(found, choices)
        found |= _beyond_schema(info)


def _beyond_schema(info: FieldInfo) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if note(info.type, "secret", False):
        said |= {"writeOnly": True, "format": "password"}
    if note(info.type, "credential", False):
        said["x-credential"] = True
    if also := note(info.type, "also", ()):
        said["x-also"] = list(also)
    if when := note(info.type, "when", {}):
        said["x-when"] = {name: list(values) for name, values in when.items()}
    if (takes_paths := note(info.type, "template", None)) is not None:
        said["x-template"] = takes_paths
    return said


def _choices(kind: Any) -> list[Any]:
    """The values of which one is allowed, as they stand in the code: msgspec puts them by the alphabet."""
    found: list[Any] = []
    for each in parts(kind):
        if get_origin(each) is Literal:
            found += get_args(each)
        elif get_origin(each) is tuple:
            found += [value for inner in get_args(each) for value in _choices(inner)]
    return found


def _in_order(schema: dict[str, Any], choices: Sequence[Any]) -> None:
    if "enum" in schema:
        schema["enum"] = [value for value in choices if value in schema["enum"]]
    for each in (*schema.get("anyOf", ()), *filter(None, [schema.get("items")])):
        _in_order(each, choices)


def parts(kind: Any) -> Iterator[Any]:
    """The types of which a value of `kind` has one."""
    if get_origin(kind) is Annotated:
        yield from parts(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for each in get_args(kind):
            yield from parts(each)
    else:
        yield kind
