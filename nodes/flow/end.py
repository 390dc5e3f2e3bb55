"""End a path of the workflow; what arrives is the run's output."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from nodes.contract import NodeType, Nothing, RunContext, port


class Inputs(msgspec.Struct, frozen=True):
    target: Annotated[
        tuple[Any, ...], port("input", many=True, description="One value, or several as a list.")
    ] = ()


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[
        Any, port(description="What arrived: one value as it is, several as a list, nothing as null.")
    ]


async def run(config: Nothing, inputs: Inputs, ctx: RunContext) -> Outputs:
    return Outputs(inputs.target[0] if len(inputs.target) == 1 else list(inputs.target) or None)


NODE = NodeType.step(run, "EndNode", "End", icon="flag", examples=({},), aliases=("End",))
