"""Settings as the compiler makes them of what a drawing says."""

from __future__ import annotations

from typing import Any

import msgspec

from graphs.config import read_settings
from graphs.problems import Problems
from graphs.spec import NodeSpec
from nodes.contract import NodeType


def configured(node_type: NodeType, /, **drawn: Any) -> Any:
    """The config of a node with this `data`; a problem fails the test."""
    problems = Problems()
    settings = read_settings(NodeSpec("n", node_type.name, drawn), node_type, problems)
    assert [each.message for each in problems.found] == []
    assert settings.ready is not None
    return settings.ready


def told_of(node_type: NodeType, /, **drawn: Any) -> list[tuple[str, str, str]]:
    """What a check says of a node with this `data`: severity, place, message."""
    problems = Problems()
    read_settings(NodeSpec("n", node_type.name, drawn), node_type, problems)
    return [(each.severity, each.pointer, each.message) for each in problems.found]


def assert_examples_fit(node_type: NodeType) -> None:
    """Each example of a node type can be drawn as it is, and everything says what it is for."""
    assert node_type.icon and node_type.examples
    for example in node_type.examples:
        assert [each for each in told_of(node_type, **example) if each[0] == "error"] == []
    for struct in (node_type.config, node_type.inputs, node_type.bindings, node_type.outputs):
        for info in msgspec.structs.fields(struct):
            metas = getattr(info.type, "__metadata__", ())
            assert any(meta.description for meta in metas), f"{node_type.name}: {info.name}"
