"""Run another saved workflow, as one step of this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET

from nodes.contract import Call, NodeError, NodeType, RunContext, WorkflowRef, port, setting
from nodes.texts import to_text
from nodes.tool_calls import MOST_FOR_MODEL, tool_name

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool


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
    input: Annotated[
        Any,
        setting(description="The input of its run; left empty, what arrives here, or what an agent gives."),
    ] = UNSET
    tool_description: Annotated[
        str, setting(description="As a tool: tells the model what the workflow is for, and what it takes.")
    ] = ""


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[
        Any, port(description="The input of the other workflow's run, if the setting gives none.")
    ] = None


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[Any, port(description="The output of the other workflow's run.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Call:
    return Call(inputs.input if config.input is UNSET else config.input)


def tool(config: Config, ctx: RunContext) -> BaseTool:
    """The workflow as an agent's tool: its result is the answer."""
    from langchain_core.tools import StructuredTool  # noqa: PLC0415  loaded with the first agent

    async def run_it(input: Any = None) -> str:
        if ctx.call is None:
            raise NodeError("this server cannot run workflows as tools", code="unavailable", is_final=True)
        output = await ctx.call(input if config.input is UNSET else config.input)
        return to_text(output)[:MOST_FOR_MODEL]

    takes = {"input": {"description": "The input of the workflow: a text, or a JSON value."}}
    return StructuredTool(
        name=tool_name(ctx.name, "workflow"),
        description=config.tool_description or f"Run the workflow {config.workflow!r}",
        args_schema={"type": "object", "properties": takes if config.input is UNSET else {}},
        coroutine=run_it,
    )


NODE = NodeType.step(
    run,
    "Subflow",
    "Run a workflow",
    icon="workflow",
    examples=({"workflow": "approval", "input": {"amount": "{{ input.amount }}"}},),
    outputs=Outputs,
    tool=tool,
    calls=lambda config: WorkflowRef(config.workflow, config.workflow_version or None),
    aliases=("SubflowNode", "ExecuteWorkflow"),
)
