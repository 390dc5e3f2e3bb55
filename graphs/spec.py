"""The saved workflow, as the editor writes it: shape only, and how it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from graphs.problems import Problems, pointer
from nodes.contract import WorkflowRef

MAX_NODES = 2_000
MAX_EDGES = 10_000
MAX_DEPTH = 100

DESCRIPTIVE = frozenset(
    {
        "displayName", "display_name", "description", "inputs", "outputs", "icon", "color", "colors",
        "metadata", "label", "category", "version", "tags", "documentation_url", "examples", "node_type",
        "_active_optional_fields",
    }
)  # fmt: skip
"""Keys of `node.data` that describe the node and never configure it."""

DECORATIVE = frozenset({"StickyNoteNode"})
"""Types of nodes that are only looked at."""

_SHAPES: Mapping[str, Mapping[str, tuple[type, bool]]] = {
    "nodes": {"id": (str, True), "type": (str, True), "data": (dict, False)},
    "edges": {
        "source": (str, True),
        "target": (str, True),
        "id": (str, False),
        "sourceHandle": (str, False),
        "targetHandle": (str, False),
    },
}
"""What an entry of either list holds: key -> its type, and whether it must be there."""

_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class NodeSpec(msgspec.Struct, frozen=True):
    """A box of the drawing."""

    id: str
    type: str
    """Empty where the node could not be read; it is kept as the end of its edges."""
    data: dict[str, Any] = {}
    index: int = 0
    """Its place in `nodes`."""
    drawn: dict[str, Any] | None = None
    """`data` as the drawing has it, where that is in an older version's words."""

    @property
    def name(self) -> str:
        name = self.data.get("name")
        return name if isinstance(name, str) and name.strip() else self.id

    @property
    def config(self) -> dict[str, Any]:
        """What may be configuration: `data` without the keys that describe the node."""
        return {key: value for key, value in self.data.items() if key not in DESCRIPTIVE and key != "name"}

    @property
    def at_data(self) -> str:
        """Where its settings are, or would be."""
        return self.at("data") if (self.data if self.drawn is None else self.drawn) else self.at()

    def at(self, *parts: str | int) -> str:
        if self.drawn is not None and len(parts) > 1 and parts[0] == "data":
            key = parts[1]
            if key not in self.drawn or self.drawn[key] != self.data.get(str(key)):
                return self.at_data  # what is said of it has another form in the drawing
        return pointer("nodes", self.index, *parts)


class EdgeSpec(msgspec.Struct, frozen=True):
    """An arrow of the drawing."""

    source: str
    target: str
    id: str = ""
    source_handle: str | None = None
    target_handle: str | None = None
    index: int = 0
    readable: bool = True

    @property
    def name(self) -> str:
        return self.id or f"{self.source}->{self.target}"

    def at(self, *parts: str | int) -> str:
        return pointer("edges", self.index, *parts)


class Saved(msgspec.Struct, frozen=True):
    """A saved workflow that others run, as it was when they were compiled."""

    id: str
    name: str
    version: str
    flow_data: dict[str, Any]


def ref_key(ref: WorkflowRef) -> str:
    """The key of `WorkflowSpec.subflows` that a reference means."""
    return f"{ref.workflow}@{ref.version}" if ref.version else ref.workflow


class WorkflowSpec(msgspec.Struct, frozen=True):
    """A drawing."""

    nodes: tuple[NodeSpec, ...]
    edges: tuple[EdgeSpec, ...] = ()
    settings: dict[str, Any] = {}
    subflows: dict[str, Saved] | None = None
    """The workflows that its steps run, by what they call them. Not drawn, but looked up; `None` if not."""
    readable: bool = True
    """Whether all of it had the right shape."""

    @property
    def version(self) -> str:
        """The SHA-256 of what the drawing means: not of positions, sizes, colours and descriptions."""
        meaning: dict[str, Any] = {
            "nodes": [[node.id, node.type, node.name, node.config] for node in self.nodes],
            "edges": [[e.source, e.source_handle, e.target, e.target_handle] for e in self.edges],
            "settings": self.settings,
        }
        if self.subflows:
            meaning["subflows"] = {key: each.version for key, each in self.subflows.items()}
        if not self.readable:  # what was left out must not make it the same as a drawing without it
            meaning["readable"] = False
        return hashlib.sha256(msgspec.json.encode(meaning, order="deterministic")).hexdigest()


def read(flow_data: Any, problems: Problems) -> WorkflowSpec:
    """Read a drawing from decoded JSON; what has the wrong shape is a problem, and is read in part."""
    if not isinstance(flow_data, Mapping):
        problems.error("bad_shape", "", "", f"a workflow is an object with 'nodes', not {_kind(flow_data)}")
        return WorkflowSpec((), readable=False)
    nodes = _nodes(_items(flow_data, "nodes", MAX_NODES, problems), problems)
    edges = _edges(_items(flow_data, "edges", MAX_EDGES, problems), problems)
    if not nodes:
        edges = []  # each would be wrong for the same reason
        if not problems.errors:
            message = "the workflow has no nodes; draw at least one step"
            problems.error("empty_workflow", "", "/nodes", message)
    settings = _settings(flow_data, problems)
    subflows = _subflows(flow_data, problems)
    return WorkflowSpec(tuple(nodes), tuple(edges), settings, subflows, readable=not problems.errors)


def read_inside(flow_data: Any, outer: WorkflowSpec, problems: Problems) -> WorkflowSpec:
    """Read the drawing of a workflow that one of `outer` runs; it knows the same other workflows."""
    return msgspec.structs.replace(read(flow_data, problems), subflows=outer.subflows)


def _subflows(flow_data: Mapping[str, Any], problems: Problems) -> dict[str, Saved] | None:
    found = flow_data.get("subflows")
    if found is None:
        return None
    try:
        return msgspec.convert(found, dict[str, Saved])
    except msgspec.ValidationError as exc:
        problems.error("bad_shape", "", "/subflows", f"'subflows' are saved workflows by name: {exc}")
        return {}


def _settings(flow_data: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    settings = flow_data.get("settings") or {}
    if not isinstance(settings, dict):
        problems.error("bad_shape", "", "/settings", f"'settings' is an object, not {_kind(settings)}")
        return {}
    return settings if _is_shallow(settings, "settings", "", "/settings", problems) else {}


def _items(flow_data: Mapping[str, Any], key: str, most: int, problems: Problems) -> list[Any]:
    found = flow_data.get(key)
    if found is None:
        if key == "nodes":
            problems.error("bad_shape", "", "", "the workflow has no list 'nodes'")
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
        if _fits(item, "nodes", index, problems):
            node = NodeSpec(item["id"], item["type"], item.get("data") or {}, index)
        else:
            node = NodeSpec(_text(item, "id"), "", index=index)
        if not node.id or node.type in DECORATIVE:
            continue
        if node.id in nodes:
            first = nodes[node.id].index
            message = f"two nodes have the id {node.id!r}: nodes {first} and {index}"
            problems.error("duplicate_id", node.id, node.at("id"), message)
        else:
            nodes[node.id] = node
    return list(nodes.values())


def _edges(items: list[Any], problems: Problems) -> list[EdgeSpec]:
    return [
        EdgeSpec(
            _text(item, "source"),
            _text(item, "target"),
            _text(item, "id"),
            _text(item, "sourceHandle") or None,
            _text(item, "targetHandle") or None,
            index,
            readable=_fits(item, "edges", index, problems),
        )
        for index, item in enumerate(items)
    ]


def _fits(item: Any, key: str, index: int, problems: Problems) -> bool:
    """Whether an entry has the shape of a node or an edge; what is wrong is in `problems`."""
    if not isinstance(item, Mapping):
        message = f"an entry of '{key}' is an object, not {_kind(item)}"
        problems.error("bad_shape", "", pointer(key, index), message)
        return False
    before = problems.errors
    for name, (kind, required) in _SHAPES[key].items():
        found = item.get(name)
        wrong = None
        if found is None:
            wrong = f"the {key[:-1]} has no {name!r}" if required else None
        elif not isinstance(found, kind):
            wrong = f"{name!r} is {_KINDS[kind]}, not {_kind(found)}"
        elif required and not found:
            wrong = f"{name!r} is empty"
        if wrong:
            at = pointer(key, index) if found is None else pointer(key, index, name)
            problems.error("bad_shape", _text(item, "id"), at, wrong)
    if problems.errors > before:
        return False
    where, at = _text(item, "id"), pointer(key, index, "data")
    return _is_shallow(item.get("data"), "data", where, at, problems) if key == "nodes" else True


def _is_shallow(value: Any, name: str, where: str, at: str, problems: Problems) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, dict | list)]
        if not level:
            return True
    problems.error("too_large", where, at, f"{name!r} is nested deeper than {MAX_DEPTH} levels")
    return False


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _text(item: Any, key: str) -> str:
    found = item.get(key) if isinstance(item, Mapping) else None
    return found if isinstance(found, str) else ""


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)
