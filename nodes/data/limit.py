"""Keep the first or the last items of a list, or a part of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET

from nodes.contract import NodeType, RunContext, port, setting
from nodes.lists import MAX_ITEMS, items_of


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    count: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=MAX_ITEMS)],
        setting("limit", "max_items", "maxItems", description="The most items to keep."),
    ] = 10
    skip: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=MAX_ITEMS)],
        setting("offset", description="How many items to leave out before those."),
    ] = 0
    keep: Annotated[
        Literal["first", "last"],
        setting(description="From which end it counts; the order of the list stays."),
    ] = "first"
    items: Annotated[
        Any, setting("list", description="The list; left empty, what arrives at the input.", left_empty=True)
    ] = UNSET


class Inputs(msgspec.Struct, frozen=True):
    items: Annotated[Any, port("input", description="The list, if the setting does not give it.")] = None


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[list[Any], port("items", "kept", description="The items that are kept.")]
    rest: Annotated[list[Any], port(description="All other items, in the order of the list.")]
    total: Annotated[int, port(description="How many items the list had.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    items = items_of(config.items, inputs.items)
    if config.keep == "first":
        begin = min(config.skip, len(items))
        end = min(begin + config.count, len(items))
    else:
        end = max(len(items) - config.skip, 0)
        begin = max(end - config.count, 0)
    return Outputs(items[begin:end], items[:begin] + items[end:], len(items))


NODE = NodeType.step(
    run,
    "Limit",
    "Limit a list",
    icon="list-end",
    aliases=("LimitNode",),
    examples=({"count": 5}, {"count": 20, "skip": 40}, {"count": 3, "keep": "last"}),
)
