"""Fill a text with values of the run: `Dear {{ input.name }}, {{ agent.output }}`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from nodes.contract import NodeType, RunContext, port, setting


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    template: Annotated[str, setting("text", description="A text with {{ paths }}.")]


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[
        tuple[Any, ...], port(many=True, description="What must have arrived before the text is filled.")
    ] = ()


class Outputs(msgspec.Struct, frozen=True):
    text: Annotated[str, port("output", description="The text, filled.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    return Outputs(config.template)


NODE = NodeType.step(
    run,
    "Template",
    "Text template",
    icon="text-cursor-input",
    aliases=("TemplateNode", "TextTemplate"),
    examples=({"template": "Dear {{ input.name }}, your order {{ input.order | json }} is on its way."},),
)
