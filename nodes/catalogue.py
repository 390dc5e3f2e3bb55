"""The catalogue: what an editor must know of each node type to show it, draw it and fill in its form."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import sys
from collections.abc import Mapping
from functools import cached_property
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec.structs import FieldInfo, fields

from nodes.contract import Kind, NodeType
from nodes.likeness import Said, likeness, words_of
from nodes.notes import described, note
from nodes.registry import Registry
from nodes.schemas import form_schema, parts, titled


class PortEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A port, as arrows name it."""

    name: str
    title: str
    description: str
    type: str
    """`any`, `text`, `number`, `boolean`, `list`, `object`; or what a provider makes, as `ChatModel`."""
    schema: dict[str, Any]
    """The JSON Schema of one value; empty where anything goes, and for what providers make."""
    required: bool
    many: bool
    """Whether it takes every value that arrives; any other takes one."""
    aliases: tuple[str, ...]


class RoutesEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of which a router takes one."""

    fixed: tuple[str, ...]
    """Those that it has, or may have, whatever its settings name."""
    by_settings: bool
    """Whether its settings name more of them."""
    aliases: dict[str, str]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A node type."""

    name: str
    title: str
    category: str
    description: str
    icon: str
    kind: Kind
    version: int
    """What a node that is drawn now carries as `type_version`."""
    config: dict[str, Any]
    """The JSON Schema of the settings; `x-also`, `x-when` and `x-template` say what that has no words for."""
    inputs: tuple[PortEntry, ...]
    bindings: tuple[PortEntry, ...]
    """Ports that take what providers make."""
    outputs: tuple[PortEntry, ...]
    """The first one is what a bare `{{ name }}` means. Arrows of a router leave by its routes instead."""
    routes: RoutesEntry | None
    gives: str | None
    """For a provider: the type of port that it fits."""
    is_tool: bool
    """Whether it can be bound to an agent's `tools`."""
    effect: bool
    """Whether running it does something outside, costs money or may wait."""
    asks: bool
    aliases: tuple[str, ...]
    examples: tuple[dict[str, Any], ...]


class Category(msgspec.Struct, frozen=True):
    """A shelf of the palette."""

    name: str
    title: str
    types: tuple[str, ...]


class Found(msgspec.Struct, frozen=True):
    """A node type that a search has found."""

    name: str
    title: str
    category: str
    description: str
    icon: str
    score: float
    """From 0 to 1; what fits best comes first."""


class Catalogue:
    """The entries of every installed node type."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """All of them, by category and title."""
        made = map(entry, self.registry.types.values())
        return tuple(sorted(made, key=lambda each: (each.category, each.title, each.name)))

    @cached_property
    def encoded(self) -> bytes:
        """All of them as a JSON list."""
        return msgspec.json.encode(self.entries)

    @cached_property
    def tag(self) -> str:
        """Another one for another catalogue."""
        return hashlib.sha256(self.encoded).hexdigest()[:32]

    @property
    def categories(self) -> tuple[Category, ...]:
        found: dict[str, list[str]] = {}
        for each in self.entries:
            found.setdefault(each.category, []).append(each.name)
        return tuple(Category(name, titled(name), tuple(types)) for name, types in found.items())

    def get(self, name: str) -> Entry | None:
        """The entry of the type that is called `name`, or was in older drawings."""
        found = self.registry.find(name)
        return None if found is None else next((e for e in self.entries if e.name == found.name), None)

    def near(self, name: str) -> list[str]:
        """Types with names much like `name`."""
        lower = {each.lower(): each for each in [*self.registry.types, *self.registry.aliases]}
        near = difflib.get_close_matches(name.lower()[:100], lower, n=3, cutoff=0.6)
        return list(dict.fromkeys(lower[each] for each in near))

    def search(self, text: str) -> list[Found]:
        """What fits all words of `text`, best first; by names and descriptions, typos forgiven."""
        words = words_of(text[:200])[:10]
        scored = [(likeness(words, _said_of(each)), each) for each in self.entries]
        found = [
            Found(e.name, e.title, e.category, e.description, e.icon, round(score, 3))
            for score, e in scored
            if score > 0
        ]
        return sorted(found, key=lambda each: (-each.score, each.title))


def entry(node_type: NodeType) -> Entry:
    """What the catalogue says of `node_type`."""
    routes = None
    if node_type.routes is not None:
        named = node_type.own_routes
        routes = RoutesEntry(
            fixed=named, by_settings=_names_routes(node_type), aliases=dict(node_type.route_aliases)
        )
    gives = node_type.gives.__name__ if node_type.gives else None
    return Entry(
        name=node_type.name,
        title=node_type.title,
        category=node_type.category,
        description=description(node_type),
        icon=node_type.icon,
        kind=node_type.kind,
        version=node_type.version,
        config=form_schema(node_type.config, node_type.title, description(node_type)),
        inputs=_ports(node_type.inputs),
        bindings=_bindings(node_type.bindings),
        outputs=_ports(node_type.outputs, gives),
        routes=routes,
        gives=gives,
        is_tool=node_type.tool is not None,
        effect=node_type.effect,
        asks=node_type.asks,
        aliases=node_type.aliases,
        examples=tuple(dict(each) for each in node_type.examples),
    )


def _said_of(each: Entry) -> Said:
    aliases = " ".join(each.aliases)
    names = (each.name, each.title, *each.aliases)
    texts = (
        (0.9, each.name),
        (0.85, each.title),
        (0.8, aliases),
        (0.6, each.category),
        (0.5, each.description),
    )
    return Said(names, texts)


def description(node_type: NodeType) -> str:
    """The first paragraph of its module's docstring."""
    module = sys.modules.get(node_type.where)
    text = inspect.cleandoc((module.__doc__ if module else None) or "")
    return " ".join(text.partition("\n\n")[0].split())


def _ports(struct: type[msgspec.Struct], gives: str | None = None) -> tuple[PortEntry, ...]:
    return tuple(_port(info, gives) for info in fields(struct))


def _port(info: FieldInfo, gives: str | None) -> PortEntry:
    kinds = [each for each in parts(info.type) if each is not NoneType]
    many = note(info.type, "many", False)
    kind = kinds[0] if len(kinds) == 1 else Any
    if many:
        kind = get_args(kind)[0] if get_args(kind) else Any
    return PortEntry(
        name=info.name,
        title=titled(info.name),
        description=described(info.type),
        type=gives or _sort(kind),
        schema={} if gives else _schema(kind),
        required=info.required,
        many=many,
        aliases=tuple(note(info.type, "also", ())),
    )


def _schema(kind: Any) -> dict[str, Any]:
    try:
        return msgspec.json.schema(kind)
    except TypeError:  # a class of its own, which has no form in JSON
        return {}


def _bindings(struct: type[msgspec.Struct]) -> tuple[PortEntry, ...]:
    hints = get_type_hints(struct, include_extras=True)
    found = []
    for info in fields(struct):
        hint = hints[info.name]
        kind = next(each for each in parts(hint) if each is not NoneType)
        many = get_origin(kind) is tuple
        found.append(
            PortEntry(
                name=info.name,
                title=titled(info.name),
                description=described(hint),
                type=getattr(get_args(kind)[0] if many else kind, "__name__", "any"),
                schema={},
                required=info.required,
                many=many,
                aliases=tuple(note(hint, "also", ())),
            )
        )
    return tuple(found)


def _sort(kind: Any) -> str:
    kind = get_origin(kind) or kind
    if kind in _SORTS:
        return _SORTS[kind]
    return "object" if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else "any"


_SORTS: Mapping[Any, str] = {
    str: "text",
    int: "number",
    float: "number",
    bool: "boolean",
    list: "list",
    tuple: "list",
    dict: "object",
    Literal: "text",
}


def _names_routes(node_type: NodeType) -> bool:
    """Whether settings can name ports of their own, as those of an example do."""
    if node_type.routes is None or not node_type.own_routes:
        return node_type.routes is not None
    made = [msgspec.convert(each, node_type.config) for each in node_type.examples]
    return any(set(node_type.routes(each)) - set(node_type.own_routes) for each in made)
