"""Settings that were saved under an older version of their node type, brought up to what they mean now."""

from __future__ import annotations

from typing import Any

import msgspec

from graphs.kinds import shown
from graphs.problems import Problems
from graphs.spec import NodeSpec
from nodes.contract import NodeError, NodeType

VERSION = "type_version"
"""The key of `node.data` that says under which version of its type a node was saved. It is our own: the
`version` and `metadata.version` that editors write are those of other servers' types."""


def brought_up(node: NodeSpec, node_type: NodeType, problems: Problems) -> NodeSpec:
    """`node` with its settings in the words of the type's own version; what cannot be is a problem."""
    saved = _version(node, problems)
    if saved is None or saved == node_type.version:
        return node
    if saved > node_type.version:
        message = (
            f"{node.name!r} was saved by version {saved} of {node_type.name}, and this server knows only "
            f"version {node_type.version}"
        )
        problems.error("newer_version", node.id, node.at("data", VERSION), message, "update the server")
        return node
    if node_type.upgrade is None:
        return node
    config = {key: value for key, value in node.config.items() if key != VERSION}
    try:
        new = dict(node_type.upgrade(config, saved))
    except (ValueError, TypeError, LookupError, AttributeError, NodeError) as exc:
        message = (
            f"the settings of {node.name!r}, of version {saved} of {node_type.name}, cannot be read: {exc}"
        )
        problems.error("bad_config", node.id, node.at_data, message)
        return node
    told = {key: value for key, value in node.data.items() if key not in config and key != VERSION}
    return msgspec.structs.replace(node, data=told | new, drawn=node.data)


def _version(node: NodeSpec, problems: Problems) -> int | None:
    found: Any = node.data.get(VERSION)
    if found in (None, ""):
        return 1
    if isinstance(found, str) and found.isascii() and found.isdecimal() and len(found) < 10:
        found = int(found)
    if isinstance(found, int) and not isinstance(found, bool) and found >= 1:
        return found
    message = f"{VERSION!r} is {shown(found)}; allowed is a whole number from 1"
    problems.error("bad_config", node.id, node.at("data", VERSION), message)
    return None
