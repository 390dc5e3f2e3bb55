"""Give a value to a variable of the workflow, declared in its settings with a reducer."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET

from nodes.contract import NodeType, RunContext, port, setting


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    variable: Annotated[
        Annotated[str, msgspec.Meta(min_length=1)],
        setting("variable_name", "key", template=False, description="The variable's name."),
    ]
    value: Annotated[Any, setting(description="The value; left empty, what arrives at the input.")] = UNSET


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[Any, port(description="The value, if the setting gives none.")] = None


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[Any, port(description="The value that was given.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    value = inputs.input if config.value is UNSET else config.value
    ctx.set_variable(config.variable, value)
    return Outputs(value)


NODE = NodeType.step(
    run,
    "SetVariable",
    "Set a variable",
    icon="variable",
    examples=({"variable": "total", "value": "{{ input.total }}"},),
    aliases=("SetVariableNode",),
    sets=lambda config: {config.variable: None if config.value is UNSET else config.value},
)
