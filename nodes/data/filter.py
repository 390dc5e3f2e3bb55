"""Keep those items of a list for which a condition holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET

from nodes.conditions import Condition, holds, work_of
from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.isolated import LIGHT, isolated_if_heavy
from nodes.lists import items_of


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    condition: Annotated[
        Condition,
        setting(
            "where",
            "filter",
            description="What must hold of an item. Its comparisons compare the item, or what lies at their "
            "`path` in it.",
        ),
    ]
    on_mismatch: Annotated[
        Literal["drop", "fail"],
        setting(
            template=False,
            description="When an item cannot be compared, as a null that should be greater than 5: it is not "
            "kept, or the step fails.",
        ),
    ] = "drop"
    items: Annotated[
        Any, setting("list", description="The list; left empty, what arrives at the input.", left_empty=True)
    ] = UNSET


class Inputs(msgspec.Struct, frozen=True):
    items: Annotated[Any, port("input", description="The list, if the setting does not give it.")] = None


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[
        list[Any], port("items", "kept", description="The items that are kept, in the order of the list.")
    ]
    rejected: Annotated[list[Any], port(description="All other items, in the order of the list.")]
    count: Annotated[int, port(description="How many items are kept.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    items = items_of(config.items, inputs.items)
    kept = await isolated_if_heavy(ctx, _work(config, items), _kept, config, items)
    output = [item for item, is_kept in zip(items, kept, strict=True) if is_kept]
    rejected = [item for item, is_kept in zip(items, kept, strict=True) if not is_kept]
    return Outputs(output, rejected, len(output))


def _work(config: Config, items: Sequence[Any]) -> int:
    found = 0
    for item in items:
        found += work_of([config.condition], item)
        if found > LIGHT:
            break
    return found


def _kept(config: Config, items: Sequence[Any]) -> list[bool]:
    """Of each item whether it is kept."""
    found: list[bool] = []
    for at, item in enumerate(items):
        try:
            found.append(holds(config.condition, item))
        except NodeError as exc:
            if config.on_mismatch == "fail" or exc.code != "bad_operand":
                raise NodeError(f"item {at}: {exc.message}", code=exc.code, is_final=exc.is_final) from None
            found.append(False)
    return found


NODE = NodeType.step(
    run,
    "Filter",
    "Filter a list",
    icon="funnel",
    aliases=("FilterNode",),
    examples=(
        {"condition": {"path": "age", "operation": "greater_or_equal", "right": 18}},
        {
            "condition": {
                "all": [
                    {"path": "status", "operation": "equal", "right": "open"},
                    {"not": {"path": "owner.name", "operation": "is_empty"}},
                ]
            }
        },
    ),
)
