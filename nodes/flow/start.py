"""Begin a run with its input."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from nodes.contract import NodeType, RunContext, port, setting


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    initial_input: Annotated[str, setting(description="Used when a run is started without input.")] = ""


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[Any, port("trigger_data", description="What a trigger drawn before it brings.")] = None


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[Any, port(description="What the run was started with.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    given = inputs.input if inputs.input is not None else ctx.input
    return Outputs(config.initial_input if given is None else given)


NODE = NodeType.step(
    run,
    "StartNode",
    "Start",
    icon="play",
    trigger=True,
    aliases=("Start",),
    examples=({}, {"initial_input": "Hello"}),
)
