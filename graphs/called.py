"""Which other workflows a drawing runs; known before they are looked up, and so before it can be resolved."""

from __future__ import annotations

from typing import Any

from graphs.config import read_settings
from graphs.problems import Problems
from graphs.spec import read
from nodes.contract import WorkflowRef
from nodes.registry import Registry


def called_by(flow_data: Any, registry: Registry) -> list[WorkflowRef]:
    """The workflows that steps of a drawing run, in the drawing's order, each once."""
    found: dict[WorkflowRef, None] = {}
    for node in read(flow_data, Problems()).nodes:
        node_type = registry.find(node.type)
        if node_type is not None and node_type.calls is not None:
            settings = read_settings(node, node_type, Problems())
            if settings.valid:
                found[node_type.calls(settings.provisional())] = None
    return list(found)
