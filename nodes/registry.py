"""Find every node type: walk `nodes` and each package named by a `flowserver.nodes` entry point."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import MappingProxyType, ModuleType
from typing import Any

from nodes.contract import NodeDefinitionError, NodeType

ENTRY_POINT_GROUP = "flowserver.nodes"


@dataclass(frozen=True, slots=True)
class Registry:
    """Every installed node type, by name and by the other names that saved drawings use."""

    types: Mapping[str, NodeType]
    aliases: Mapping[str, NodeType]
    closed: frozenset[type[Any]] = frozenset()
    """The doors that this server keeps closed: types that need one are known, and fail when they run."""

    def find(self, name: str) -> NodeType | None:
        return self.types.get(name) or self.aliases.get(name)


def discover() -> Registry:
    """Return every installed node type.

    Raises:
        NodeDefinitionError: Two types share a name, or a module does not follow the contract.
    """
    packages = ["nodes", *(point.value for point in entry_points(group=ENTRY_POINT_GROUP))]
    return collect(module for package in packages for module in modules(package))


def modules(package: str) -> Iterator[ModuleType]:
    root = importlib.import_module(package)
    yield root
    for info in pkgutil.walk_packages(getattr(root, "__path__", ()), f"{package}."):
        yield importlib.import_module(info.name)


def collect(found: Iterable[ModuleType]) -> Registry:
    """Index the node types defined in `found`; two of the same name are an error."""
    types: dict[str, NodeType] = {}
    aliases: dict[str, NodeType] = {}
    for module in found:
        for value in vars(module).values():
            if isinstance(value, NodeType):
                _add(types, value.name, value)
                for alias in value.aliases:
                    _add(aliases, alias, value)
    for alias in aliases.keys() & types.keys():
        _add(types, alias, aliases[alias])
    return Registry(MappingProxyType(types), MappingProxyType(aliases))


def _add(index: dict[str, NodeType], name: str, value: NodeType) -> None:
    known = index.setdefault(name, value)
    if known is not value:
        raise NodeDefinitionError(f"node type {name!r} is defined twice: {known.where} and {value.where}")
