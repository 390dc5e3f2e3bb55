"""Which credentials the nodes of a drawing name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from graphs.kinds import extra, fields
from graphs.problems import Problem, Problems
from graphs.spec import read
from nodes.registry import Registry


@dataclass(frozen=True, slots=True)
class Named:
    """A credential that a node names."""

    id: str
    node: str
    name: str
    """Of the node."""
    pointer: str
    is_needed: bool
    """Whether nothing else serves where it is not there."""

    def is_unknown(self) -> Problem:
        """What there is to say of it when nobody knows it."""
        message = f"{self.name!r} names the credential {self.id!r}, and there is none of that id"
        hint = "choose one of your credentials, or make one"
        if not self.is_needed:
            message += "; the node's own key is used, or the server's, if there is one"
        severity: Literal["error", "warning"] = "error" if self.is_needed else "warning"
        return Problem("unknown_credential", severity, self.node, self.pointer, message, hint)


def named_credentials(flow_data: Any, registry: Registry) -> list[Named]:
    """The credentials that nodes name whose types use them, in the drawing's order."""
    return list(_named(flow_data, registry))


def _named(flow_data: Any, registry: Registry) -> Iterator[Named]:
    for node in read(flow_data, Problems()).nodes:
        node_type = registry.find(node.type)
        if node_type is None:
            continue
        for info in fields(node_type.config):
            if not extra(info.type, "credential", False):
                continue
            keys = [key for key in (info.name, *extra(info.type, "also", ())) if node.data.get(key)]
            if keys and isinstance(id := node.data[keys[0]], str):
                needed = not node_type.falls_back
                yield Named(id, node.id, node.name, node.at("data", keys[0]), needed)
