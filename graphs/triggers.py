"""What a drawing wants to be started by, besides somebody's request: webhooks and the clock."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from graphs.config import read_settings
from graphs.problems import Problems
from graphs.spec import read
from nodes.contract import NodeError
from nodes.hooks import Hook
from nodes.registry import Registry
from nodes.timing import Timing


class DrawnHook(NamedTuple):
    """A webhook in a drawing."""

    step: str
    hook: Hook
    secret: str | None
    """What stands in the drawing as its callers' secret."""


class DrawnTiming(NamedTuple):
    """A schedule in a drawing."""

    step: str
    name: str
    timing: Timing
    input: Any


def triggers_of(flow_data: Any, registry: Registry) -> tuple[list[DrawnHook], list[DrawnTiming]]:
    """The webhooks and schedules of a drawing, in its order; what is drawn wrongly is left out."""
    hooks: list[DrawnHook] = []
    timings: list[DrawnTiming] = []
    for node in read(flow_data, Problems()).nodes:
        node_type = registry.find(node.type)
        if node_type is None or (node_type.hook is None and node_type.timing is None):
            continue
        settings = read_settings(node, node_type, Problems())
        if not settings.valid:
            continue
        try:
            config = settings.provisional()
            if node_type.hook is not None:
                secret = node_type.hook_secret(config) if node_type.hook_secret else None
                hooks.append(DrawnHook(node.id, node_type.hook(config), secret))
            elif node_type.timing is not None and (timing := node_type.timing(config)) is not None:
                given = node_type.timing_input(config) if node_type.timing_input else None
                timings.append(DrawnTiming(node.id, node.name, timing, given))
        except (ValueError, NodeError, msgspec.ValidationError):
            continue  # checking the drawing says so
    return hooks, timings
