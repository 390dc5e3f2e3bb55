"""A merge makes one value of everything that arrives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.compile import Compiler
from nodes import registry
from nodes.contract import NodeError
from nodes.flow.merge import Config, Inputs, Outputs, run
from tests.graphs import runs
from tests.nodes.contexts import context
from tests.server import drawing, edge, node

ADA, BOB = {"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"}


@pytest.mark.parametrize(
    ("config", "arrives", "expected"),
    [
        (Config(), (), []),
        (Config(), (1, None, [2]), [1, None, [2]]),
        (Config("first"), (), None),
        (Config("first"), (None, None), None),
        (Config("first"), (None, 0, 1), 0),
        (Config("combine"), (), {}),
        (Config("combine"), ({"a": 1, "b": {"x": 1}}, {"b": {"y": 2}}), {"a": 1, "b": {"y": 2}}),
        (Config("by_key", "id"), (), []),
        (Config("by_key", "id"), ([ADA, BOB], [{"id": 2, "age": 7}]), [ADA, BOB | {"age": 7}]),
        (Config("by_key", "id"), ([BOB], [ADA]), [BOB, ADA]),
        (Config("by_key", "id"), ([ADA, {"id": 1, "name": "Eve"}], []), [{"id": 1, "name": "Eve"}]),
        (Config("by_key", "id"), ([{"id": 1}, {"id": "1"}],), [{"id": 1}, {"id": "1"}]),
        (Config("by_key", "id"), ([{"id": 1}], [{"id": True}]), [{"id": 1}, {"id": True}]),
        (Config("by_key", "id"), ([{"id": 1, "a": 1}], [{"id": 1.0, "b": 2}]), [{"id": 1.0, "a": 1, "b": 2}]),
        (Config("by_key", "id", "inner"), ([ADA, BOB], [{"id": 2, "age": 7}]), [BOB | {"age": 7}]),
        (Config("by_key", "id", "inner"), ([ADA, ADA], []), []),
        (Config("by_key", "id", "inner"), ([ADA],), [ADA]),
    ],
)  # fmt: skip
async def test_what_arrives_becomes_one_value(
    config: Config, arrives: tuple[Any, ...], expected: Any
) -> None:
    assert await run(config, Inputs(arrives), context()) == Outputs(expected)


@pytest.mark.parametrize(
    ("config", "arrives", "words"),
    [
        (Config("combine"), ({}, "text"), "input 2 is 'text'; allowed is an object"),
        (Config("combine"), (None,), "input 1 is null; allowed is an object"),
        (Config("by_key", "id"), ([], {"id": 1}), "input 2 is {'id': 1}; allowed is a list of objects"),
        (Config("by_key", "id"), ([ADA, 5],), "item 1 of input 1 is 5; allowed is an object"),
        (
            Config("by_key", "id"),
            ([], [ADA, {"name": "x", "age": 1}]),
            "item 1 of input 2 has no field 'id', by which it is joined; its fields: 'name', 'age'",
        ),
        (
            Config("by_key", "id"),
            ([{"id": None}],),
            "'id' of item 0 of input 1 is null; allowed is a text, a number, true or false",
        ),
    ],
)  # fmt: skip
async def test_what_cannot_be_merged_is_named(config: Config, arrives: tuple[Any, ...], words: str) -> None:
    with pytest.raises(NodeError) as refused:
        await run(config, Inputs(arrives), context())

    assert (refused.value.code, str(refused.value)) == ("bad_input", words)


def test_a_join_needs_its_key() -> None:
    with pytest.raises(ValueError, match=r"^the mode 'by_key' needs 'key', the name of the field"):
        Config("by_key")


ROWS = st.lists(st.fixed_dictionaries({"id": st.integers(0, 5)}, optional={"a": st.text(), "b": st.text()}))


@given(inputs=st.lists(ROWS, min_size=1, max_size=3).map(tuple))
async def test_a_join_has_every_key_once_and_changes_no_input(inputs: tuple[list[Any], ...]) -> None:
    before = [[dict(item) for item in items] for items in inputs]

    outer = (await run(Config("by_key", "id"), Inputs(inputs), context())).output
    inner = (await run(Config("by_key", "id", "inner"), Inputs(inputs), context())).output

    keys = [{item["id"] for item in items} for items in inputs]
    assert [each["id"] for each in outer] == list(
        dict.fromkeys(item["id"] for items in inputs for item in items)
    )
    assert inner == [each for each in outer if each["id"] in set.intersection(*keys)]
    assert list(inputs) == before


async def test_only_what_is_alive_is_merged_in_the_order_of_its_arrows() -> None:
    parts = [
        node("start", "StartNode"),
        node("way", "Switch", cases=[{"port": "a", "equals": 1}, {"port": "b", "equals": 2}]),
        *(node(id, "Template", template=id) for id in ("x", "y", "z")),
        node("merge", "Merge"),
        *[edge("start", "way"), edge("way", "x", "a"), edge("way", "y", "b"), edge("start", "z")],
        *[edge("z", "merge"), edge("y", "merge"), edge("x", "merge")],
    ]
    compiled = Compiler(registry.discover()).compile(drawing(*parts))

    assert (await runs.run(compiled, 1)).outputs["merge"] == {"output": ["z", "x"]}
    assert (await runs.run(compiled, 2)).outputs["merge"] == {"output": ["z", "y"]}
