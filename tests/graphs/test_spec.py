"""A version is what a drawing means: not where its boxes lie."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from graphs.problems import Problems
from graphs.spec import read

DRAWING: dict[str, Any] = {
    "nodes": [
        {"id": "a", "type": "Template", "position": {"x": 0, "y": 0}, "data": {"name": "a", "template": "x"}},
        {"id": "b", "type": "EndNode", "data": {}},
    ],
    "edges": [{"id": "e", "source": "a", "target": "b", "sourceHandle": "text", "targetHandle": None}],
    "viewport": {"x": 0, "y": 0, "zoom": 1},
}


def version(flow_data: Any) -> str:
    return read(flow_data, Problems()).version


def changed(change: Callable[[Any], object]) -> Any:
    flow_data = copy.deepcopy(DRAWING)
    change(flow_data)
    return flow_data


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["nodes"][0].update(position={"x": 9, "y": 9}, measured={"width": 1}, selected=True),
        lambda d: d["nodes"][0]["data"].update(displayName="A", icon={"name": "x"}, inputs=[], color="red"),
        lambda d: d["edges"][0].update(id="other", type="custom"),
        lambda d: d.update(viewport={"x": 5, "y": 5, "zoom": 2}, name="export"),
        lambda d: d["nodes"][0].update(data={"template": "x", "name": "a"}),
    ],
)
def test_what_only_looks_different_is_the_same_version(change: Any) -> None:
    assert version(changed(change)) == version(DRAWING)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["nodes"][0]["data"].update(template="y"),
        lambda d: d["nodes"][0]["data"].update(name="b"),
        lambda d: d["nodes"][0].update(type="EndNode"),
        lambda d: d["edges"][0].update(targetHandle="target"),
        lambda d: d["edges"].append({"source": "a", "target": "b", "sourceHandle": "x"}),
        lambda d: d.update(settings={"max_concurrency": 2}),
    ],
)
def test_what_means_something_else_is_another_version(change: Any) -> None:
    assert version(changed(change)) != version(DRAWING)
