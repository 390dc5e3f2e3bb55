"""A setting that its author left empty, and one that came to nothing in this run, are two things."""

from __future__ import annotations

import re
from typing import Any

import pytest
from msgspec import UNSET

from graphs.compile import Compiler
from graphs.kinds import fields
from graphs.runtime import StepFailed
from nodes import registry
from nodes.contract import NodeType
from nodes.notes import described, note
from tests.graphs import runs
from tests.server import drawing, edge, node

COMPILER = Compiler(registry.discover())
SECRET = "the whole of what arrives"


def fall_backs() -> list[Any]:
    """Every setting whose form says that what arrives is taken in its place."""
    return [
        pytest.param(each, info, id=f"{each.name}.{info.name}")
        for each in COMPILER.registry.types.values()
        for info in fields(each.config)
        if re.search(r"left (empty|out), (it is )?what arrive", described(info.type), re.I)
    ]


@pytest.mark.parametrize(("node_type", "info"), fall_backs())
def test_only_what_is_left_empty_gives_way_to_what_arrives(node_type: NodeType, info: Any) -> None:
    assert info.default is UNSET, "a value that came to nothing cannot be told from one that is left empty"


async def ran(type: str, given: Any, /, **config: Any) -> Any:
    plan = COMPILER.compile(
        drawing(
            node("start", "StartNode"),
            node("step", type, **config),
            node("after", "Value", value="{{ step }}"),
            edge("start", "step"),
            edge("step", "after"),
        )
    )
    return (await runs.run(plan, given)).outputs["after"]["output"]


@pytest.mark.parametrize("nothing", ["", None])
@pytest.mark.parametrize(
    ("type", "config", "expected"),
    [
        ("StringInputNode", {"text_input": "{{ input.q }}"}, ""),
        (
            "CryptographyNode",
            {"action": "hash", "hash_algorithm": "md5", "text_input": "{{ input.q }}"},
            "d41d8",
        ),
        ("Value", {"value": "{{ input.q }}"}, None),
    ],
)
async def test_what_came_to_nothing_counts(
    type: str, config: dict[str, Any], expected: Any, nothing: Any
) -> None:
    found = await ran(type, {"q": nothing, "secret": SECRET}, **config)

    assert SECRET not in str(found)
    assert str(found).startswith(expected) if expected is not None else found == nothing


@pytest.mark.parametrize("nothing", ["", None])
@pytest.mark.parametrize(
    ("operation", "value2", "way"),
    [
        ("is_empty", "", True),
        ("not_empty", "", False),
        ("equal", "", True),
        ("contains", "whole", False),
        ("regex", "whole", False),
    ],
)
async def test_a_condition_compares_an_empty_text(
    operation: str, value2: str, way: bool, nothing: Any
) -> None:
    plan = COMPILER.compile(
        drawing(
            node("start", "StartNode"),
            node("if", "ConditionNode", value1="{{ input.q }}", operation=operation, value2=value2),
            node("yes", "Value", value="yes"),
            node("no", "Value", value="no"),
            edge("start", "if"),
            edge("if", "yes", "true_output"),
            edge("if", "no", "false_output"),
        )
    )

    recording = await runs.run(plan, {"q": nothing, "secret": SECRET})

    assert recording.those("skipped") == (["no"] if way else ["yes"])


@pytest.mark.parametrize(
    ("type", "config", "message"),
    [
        ("JsonParserNode", {"template": "{{ input.q }}"}, "the text is empty, which is not JSON"),
        ("DocumentLoader", {"text": "{{ input.q }}"}, "there is nothing to load"),
        ("DocumentLoader", {"urls": "{{ input.q }}"}, "there is nothing to load"),
    ],
)
async def test_what_came_to_nothing_is_said_to_be_so(type: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(StepFailed) as failed:
        await ran(type, {"q": "", "secret": SECRET}, **config)

    assert message in failed.value.error["message"]
    assert SECRET not in str(failed.value.error)


@pytest.mark.parametrize("blank", ["", "  \n", None])
@pytest.mark.parametrize(
    ("type", "name"), [("StringInputNode", "text_input"), ("JsonParserNode", "template"), ("Sort", "items")]
)
async def test_what_is_blank_in_the_drawing_is_left_empty(type: str, name: str, blank: Any) -> None:
    assert await ran(type, "[1]", **{name: blank}) == ("[1]" if type == "StringInputNode" else [1])


@pytest.mark.parametrize(("value", "expected"), [(None, None), ("", ""), ([], []), ({}, {}), (0, 0)])
async def test_a_value_that_is_written_counts_whatever_it_is(value: Any, expected: Any) -> None:
    assert await ran("Value", {"secret": SECRET}, value=value) == expected


async def test_a_list_that_is_written_empty_is_an_empty_list() -> None:
    assert await ran("Sort", [2, 1], items=[]) == []
    assert await ran("Sort", [2, 1], items="{{ input[5] | default('[]') }}") == []


def test_every_setting_that_may_be_left_empty_is_unset_then() -> None:
    for each in COMPILER.registry.types.values():
        for info in fields(each.config):
            assert info.default is UNSET or not note(info.type, "left_empty", False), (each.name, info.name)
