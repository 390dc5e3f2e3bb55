"""Run another saved workflow, as one step of this one."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET

from nodes.contract import Call, NodeType, RunContext, WorkflowRef, port, setting


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    workflow: Annotated[
        Annotated[str, msgspec.Meta(min_length=1)],
        setting("workflow_id", template=False, description="The id or the name of a saved workflow."),
    ]
    workflow_version: Annotated[
        str | None,
        setting(
            "pinned_version",
            template=False,
            description="The version to stay with; left empty, the one that is current.",
        ),
    ] = None
    input: Annotated[Any, setting(description="The input of its run; left empty, what arrives here.")] = UNSET


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[
        Any, port(description="The input of the other workflow's run, if the setting gives none.")
    ] = None


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[Any, port(description="The output of the other workflow's run.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Call:
    return Call(inputs.input if config.input is UNSET else config.input)


NODE = NodeType.step(
    run,
    "Subflow",
    "Run a workflow",
    icon="workflow",
    examples=({"workflow": "approval", "input": {"amount": "{{ input.amount }}"}},),
    outputs=Outputs,
    calls=lambda config: WorkflowRef(config.workflow, config.workflow_version or None),
    aliases=("SubflowNode", "ExecuteWorkflow"),
)
