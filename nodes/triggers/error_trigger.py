"""Begin a run when a run of another workflow has failed."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from nodes.contract import NodeType, RunContext, port


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Inputs(msgspec.Struct, frozen=True):
    pass


class Outputs(msgspec.Struct, frozen=True):
    error_data: Annotated[
        Any,
        port(
            "output",
            description="What failed: 'error' with code and message, 'step', 'workflow', 'run', 'link'.",
        ),
    ] = None


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    return Outputs(ctx.input)


NODE = NodeType.step(
    run,
    "ErrorTrigger",
    "Error",
    trigger=True,
    aliases=("ErrorTriggerNode",),
    icon="siren",
    examples=({},),
)
