"""Make a value: a text, a list or an object, put together from what the run has so far."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET

from nodes.contract import NodeType, RunContext, port, setting


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    value: Annotated[
        Any,
        setting(
            "fields",
            description="The value, with {{ paths }} in its texts. A text that is one path alone becomes the "
            "value that is found there. Left out, what arrives.",
        ),
    ] = UNSET


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[Any, port(description="Passed on if the setting gives no value.")] = None


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[Any, port("value", description="The value.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    return Outputs(inputs.input if config.value is UNSET else config.value)


NODE = NodeType.step(
    run,
    "Value",
    "Make a value",
    icon="braces",
    aliases=("ValueNode", "SetFields"),
    examples=(
        {"value": {"name": "{{ input.customer.name }}", "lines": "{{ input.lines }}"}},
        {"value": ["red", "green", "blue"]},
    ),
)
