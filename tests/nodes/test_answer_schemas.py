"""JSON schemas of drawings: what they may be, and that no schema and no value holds the server up."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from nodes.answer_schemas import MOST_CHARACTERS, as_schema, misfit, schema_mistakes
from nodes.contract import NodeError, RunContext
from nodes.isolated import Isolation
from tests.nodes.contexts import context
from tests.workshop import isolation


@pytest.fixture
async def ctx() -> AsyncIterator[RunContext]:
    async with isolation() as (door, _):
        yield context(doors={Isolation: door})


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


DOUBLING = of(a={"$ref": "#/$defs/d0"}) | {
    "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}
    | {"d40": {"type": "string"}}
}


@pytest.mark.parametrize(
    ("schema", "value", "why"),
    [
        (of(a={"pattern": "^(a+)+$"}), {"a": "a" * 5_000}, None),
        (of(a={"pattern": "^(a+)+$"}), {"a": "a" * 5_000 + "!"}, "does not match '^(a+)+$'"),
        (of(a={"pattern": "^(a|aa)+$"}), {"a": "a" * 100 + "!"}, "does not match"),
        (of(a={"pattern": "^(a{1,300}){1,3}$"}), {"a": "a" * 100 + "!"}, "does not match"),
        (of(a={"pattern": r"^\u0041\u{42}?\\u0041$"}), {"a": "A\\u0041"}, None),
        ({"patternProperties": {"^(x+)+$": {"type": "integer"}}}, {"x" * 60 + "!": "s"}, None),
        ({"patternProperties": {"^x": {"type": "integer"}}}, {"xa": "s"}, "xa: 's' is not of type 'integer'"),
        (
            {"patternProperties": {"^x": {}}, "properties": {"b": {}}, "additionalProperties": False},
            {"xa": 1, "b": 2, "c": 3},
            "the answer: Additional properties are not allowed ('c' was unexpected)",
        ),
        ({"additionalProperties": {"type": "integer"}}, {"c": "s"}, "c: 's' is not of type 'integer'"),
        (of(a={"$ref": "#/$defs/n"}) | {"$defs": {"n": {"type": "integer"}}}, {"a": "s"}, "a: 's' is not"),
        (of(a={"uniqueItems": True}), {"a": [1, 2, 1]}, "has non-unique elements"),
        (of(a={"pattern": "x"}), {"a": 5}, None),
    ],
)
async def test_values_are_checked(ctx: RunContext, schema: Any, value: Any, why: str | None) -> None:
    checked = as_schema(schema, "output_schema")

    found = await misfit(ctx, value, checked)

    assert found is None if why is None else why in (found or "")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        pytest.param(DOUBLING, {"a": "x"}, id="references-that-double"),
        pytest.param(
            of(a={"uniqueItems": True}), {"a": [{"n": n} for n in range(20_000)]}, id="unique-items"
        ),
        pytest.param(
            of(a={"items": {"anyOf": [{"const": n} for n in range(1_500)]}}),
            {"a": [-1] * 20_000},
            id="many-ways-for-many-items",
        ),
    ],
)
async def test_what_takes_too_long_is_ended_elsewhere(
    ctx: RunContext, schema: Any, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodes.answer_schemas.SECONDS", 1)

    with pytest.raises(NodeError) as failed:
        await misfit(ctx, value, as_schema(schema, "output_schema"))

    assert failed.value.code == "too_complex"


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (of(a={"pattern": "(?=a)b"}), "the pattern '(?=a)b' is not a pattern that RE2 reads"),
        (of(a={"pattern": r"(a)\1"}), "not a pattern that RE2 reads"),
        (of(a={"pattern": "("}), "not a pattern that RE2 reads"),
        ({"patternProperties": {"[": {}}}, "the pattern '['"),
        (of(a={"pattern": "a" * 3_000}), "a pattern of 3000 characters"),
        (of(a={"description": "d" * MOST_CHARACTERS}), f"it may have {MOST_CHARACTERS}"),
        (of(a={"$ref": "https://example.com/x"}), "it may refer to its own parts only"),
        (of(a={"type": "nonsense"}), "properties/a/type: 'nonsense' is not valid"),
        (
            json.loads('{"properties": {"a": ' + '{"items": ' * 60 + "{}" + "}" * 62),
            "nested more than 50 deep",
        ),
    ],
)
def test_what_is_no_schema_is_named_before_a_run(schema: Any, words: str) -> None:
    [(message, keys)] = schema_mistakes(schema, "output_schema")

    assert message.startswith("'output_schema' ") and words in message
    assert keys == ("output_schema",)
