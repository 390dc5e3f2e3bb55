"""The three plainest steps."""

from __future__ import annotations

from typing import Any

import pytest

from nodes.contract import Nothing
from nodes.flow import end, start
from nodes.text import template
from tests.nodes.contexts import context


@pytest.mark.parametrize(
    ("arrives", "given", "initial", "expected"),
    [
        (None, "hello", "", "hello"),
        (None, {"a": 1}, "unused", {"a": 1}),
        (None, None, "initial", "initial"),
        (None, None, "", ""),
        (None, "", "unused", ""),
        (None, 0, "unused", 0),
        (None, False, "unused", False),
        ({"payload": 1}, "hello", "unused", {"payload": 1}),
        ("", "hello", "unused", ""),
    ],
)
async def test_a_start_gives_what_arrives_else_the_input_else_its_own(
    arrives: Any, given: Any, initial: str, expected: Any
) -> None:
    config = start.Config(initial_input=initial)

    made = await start.run(config, start.Inputs(arrives), context(input=given))

    assert made == start.Outputs(expected)


@pytest.mark.parametrize(
    ("arrives", "expected"),
    [
        ((), None),
        (("one",), "one"),
        ((None,), None),
        (([],), []),
        (("one", 2), ["one", 2]),
        ((None, None), [None, None]),
    ],
)
async def test_an_end_gives_its_value_or_a_list_of_several(arrives: tuple[Any, ...], expected: Any) -> None:
    made = await end.run(Nothing(), end.Inputs(arrives), context())

    assert made == end.Outputs(expected)


async def test_a_template_gives_its_filled_text() -> None:
    made = await template.run(template.Config("Dear {{ name }}"), template.Inputs(("x",)), context())

    assert made == template.Outputs("Dear {{ name }}")


def test_only_a_start_begins_runs() -> None:
    assert [each.NODE.kind for each in (start, end, template)] == ["trigger", "step", "step"]
    assert [each.NODE.effect for each in (start, end, template)] == [False, False, False]
