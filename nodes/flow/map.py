"""Run the steps between `item` and `result` once per item of a list, several at a time."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET

from nodes.contract import Body, Items, NodeError, NodeType, RunContext, port, setting
from nodes.texts import to_text


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    items: Annotated[
        Any,
        setting("list", description="The list; left empty, what arrives at the input.", left_empty=True),
    ] = UNSET
    max_concurrency: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=1000)],
        setting("concurrency", description="How many items are worked on at the same time."),
    ] = 10
    on_item_error: Annotated[
        Literal["stop", "keep", "drop"],
        setting(
            "error_mode",
            template=False,
            description="When an item fails: the map fails, the error is its result, or it has no result.",
        ),
    ] = "stop"
    max_items: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=10_000)],
        setting(description="The longest list that it takes; a longer one fails the step."),
    ] = 1_000


class Inputs(msgspec.Struct, frozen=True):
    items: Annotated[Any, port("input", description="The list, if the setting does not give it.")] = None
    result: Annotated[Any, port("results", description="What the body makes of an item comes back here.")] = (
        None
    )


class Outputs(msgspec.Struct, frozen=True):
    item: Annotated[Any, port("body", description="Begins the body: one item of the list.")]
    index: Annotated[int, port(description="For the body: the item's place in the list, from 0.")]
    done: Annotated[
        list[Any], port("output", "results", description="The results, in the order of the list.")
    ]
    errors: Annotated[list[Any], port(description="Of items that failed: their index and error.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Items:
    values = inputs.items if config.items is UNSET else config.items
    if isinstance(values, str) and values.lstrip()[:1] == "[":
        try:
            values = msgspec.json.decode(values)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise NodeError(
                f"the items begin like a JSON list, but are none: {exc}", code="bad_input"
            ) from None
    if not isinstance(values, list | tuple):
        raise NodeError(f"the items are a list, not {to_text(values)[:100]!r}", code="bad_input")
    if len(values) > config.max_items:
        message = f"{len(values)} items are more than 'max_items' allows: {config.max_items}"
        raise NodeError(message, code="limit_exceeded", is_final=True)
    return Items(values, config.max_concurrency, config.on_item_error)


NODE = NodeType.step(
    run,
    "Map",
    "For each item",
    icon="list-checks",
    examples=({"items": "{{ input.orders }}"}, {"max_concurrency": 3, "on_item_error": "drop"}),
    outputs=Outputs,
    body=Body(gives=("item", "index"), takes="result"),
    aliases=("MapNode", "ForEach"),
)
