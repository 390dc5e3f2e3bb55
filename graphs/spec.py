"""The saved workflow, as the editor writes it: shape only, and how it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from graphs.problems import Problems, pointer

T = TypeVar("T", bound=msgspec.Struct)

MAX_NODES = 2_000
MAX_EDGES = 10_000

DESCRIPTIVE = frozenset(
    {
        "displayName", "display_name", "description", "inputs", "outputs", "icon", "color", "colors",
        "metadata", "label", "category", "version", "tags", "documentation_url", "examples", "node_type",
        "_active_optional_fields",
    }
)  # fmt: skip
"""Keys of `node.data` that describe the node and never configure it."""


class NodeSpec(msgspec.Struct, frozen=True):
    """A box of the drawing."""

    id: str
    type: str
    data: dict[str, Any] = {}
    index: int = 0
    """Its place in `nodes`."""

    @property
    def name(self) -> str:
        name = self.data.get("name")
        return name if isinstance(name, str) and name.strip() else self.id

    @property
    def config(self) -> dict[str, Any]:
        """What may be configuration: `data` without the keys that describe the node."""
        return {key: value for key, value in self.data.items() if key not in DESCRIPTIVE and key != "name"}

    def at(self, *parts: str | int) -> str:
        return pointer("nodes", self.index, *parts)


class EdgeSpec(msgspec.Struct, frozen=True, rename="camel"):
    """An arrow of the drawing."""

    source: str
    target: str
    id: str = ""
    source_handle: str | None = None
    target_handle: str | None = None
    index: int = 0

    @property
    def name(self) -> str:
        return self.id or f"{self.source}->{self.target}"

    def at(self, *parts: str | int) -> str:
        return pointer("edges", self.index, *parts)


class WorkflowSpec(msgspec.Struct, frozen=True):
    """A drawing."""

    nodes: tuple[NodeSpec, ...]
    edges: tuple[EdgeSpec, ...] = ()
    settings: dict[str, Any] = {}

    @property
    def version(self) -> str:
        """The SHA-256 of what the drawing means: not of positions, sizes, colours and descriptions."""
        meaning = {
            "nodes": [[node.id, node.type, node.name, node.config] for node in self.nodes],
            "edges": [[e.source, e.source_handle, e.target, e.target_handle] for e in self.edges],
            "settings": self.settings,
        }
        return hashlib.sha256(msgspec.json.encode(meaning, order="deterministic")).hexdigest()


def read(flow_data: Any, problems: Problems) -> WorkflowSpec:
    """Read a drawing from decoded JSON; a part that has the wrong shape is a problem and is left out."""
    if not isinstance(flow_data, Mapping):
        problems.error("bad_shape", "", "", f"a workflow is an object with 'nodes', not {_kind(flow_data)}")
        return WorkflowSpec(())
    nodes = _nodes(_items(flow_data, "nodes", MAX_NODES, problems), problems)
    edges = _edges(_items(flow_data, "edges", MAX_EDGES, problems), problems)
    settings = flow_data.get("settings") or {}
    if not isinstance(settings, dict):
        problems.error("bad_shape", "", "/settings", f"'settings' is an object, not {_kind(settings)}")
        settings = {}
    if not nodes and not problems.errors:
        problems.error("empty_workflow", "", "/nodes", "the workflow has no nodes; draw at least one step")
    return WorkflowSpec(tuple(nodes), tuple(edges), settings)


def _items(flow_data: Mapping[str, Any], key: str, most: int, problems: Problems) -> list[Any]:
    found = flow_data.get(key)
    if found is None:
        if key == "nodes":
            problems.error("bad_shape", "", "/nodes", "the workflow has no 'nodes' list")
        return []
    if not isinstance(found, list):
        problems.error("bad_shape", "", f"/{key}", f"'{key}' is a list, not {_kind(found)}")
        return []
    if len(found) > most:
        problems.error(
            "too_large", "", f"/{key}", f"{len(found)} {key} are too many; at most {most} are allowed"
        )
        return []
    return found


def _nodes(items: list[Any], problems: Problems) -> list[NodeSpec]:
    nodes: dict[str, NodeSpec] = {}
    for index, item in enumerate(items):
        if (node := _part(item, NodeSpec, "nodes", index, problems)) is None:
            continue
        if not node.id or not node.type:
            key = "type" if node.id else "id"
            problems.error("bad_shape", node.id, node.at(key), f"a node needs a non-empty '{key}'")
        elif node.id in nodes:
            first = nodes[node.id].index
            problems.error(
                "duplicate_id",
                node.id,
                node.at("id"),
                f"two nodes have the id {node.id!r}: nodes {first} and {index}",
            )
        else:
            nodes[node.id] = node
    return list(nodes.values())


def _edges(items: list[Any], problems: Problems) -> list[EdgeSpec]:
    found = (_part(item, EdgeSpec, "edges", index, problems) for index, item in enumerate(items))
    return [edge for edge in found if edge is not None]


def _part(item: Any, kind: type[T], key: str, index: int, problems: Problems) -> T | None:
    where = str(item.get("id") or "") if isinstance(item, Mapping) else ""
    if not isinstance(item, Mapping):
        problems.error(
            "bad_shape", where, pointer(key, index), f"an entry of '{key}' is an object, not {_kind(item)}"
        )
        return None
    known = {name: item[name] for name in kind.__struct_encode_fields__ if item.get(name) is not None}
    try:
        return msgspec.convert(known | {"index": index}, kind)
    except msgspec.ValidationError as exc:
        message, _, path = str(exc).partition(" - at `$")
        inner = path.rstrip("`").replace(".", "/").replace("[", "/").replace("]", "")
        problems.error("bad_shape", where, pointer(key, index) + inner, message)
        return None


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)
