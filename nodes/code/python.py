"""Run a piece of Python in a sandbox: no files, no network, little time and memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from nodes.code_runner import CodeRunner
from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.mistakes import Keys

_MOST_CODE = 100_000
_NOT_ALLOWED = "code may not run on this server: its operator has to set FLOWSERVER_ALLOW_CODE"
_NO_JAVASCRIPT = "JavaScript is not supported: write the code in Python"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    code: Annotated[
        str,
        setting(
            verbatim=True,
            description="Python. What arrived is in 'node_data' and 'input', the run's own input in "
            "'run_input'. The result is the variable 'output' or 'result', or else the value of the last "
            "expression. {{ paths }} are not filled here: data must not become code.",
        ),
    ]
    language: Annotated[Literal["python", "javascript"], setting(description="Only Python is supported.")] = (
        "python"
    )
    timeout: Annotated[
        float,
        setting("timeout_seconds", description="Seconds that the code may take."),
        msgspec.Meta(ge=0.1, le=300),
    ] = 30.0
    continue_on_error: Annotated[
        bool, setting(description="Whether code that fails gives success: false, and fails nothing else.")
    ] = False
    enable_validation: Annotated[
        bool, setting(description="Of older drawings, without effect: code is always read before it runs.")
    ] = True


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[
        tuple[Any, ...],
        port("node_data", many=True, description="What the code works on; several arrive as a list."),
    ] = ()


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[Any, port("result", description="What the code gave, as JSON has it.")]
    printed: Annotated[str, port("stdout", "logs", description="What it printed.")]
    success: Annotated[bool, port(description="Whether it ran to its end.")]
    message: Annotated[str, port(description="Why it did not, if it may go on all the same.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    for message, keys in mistakes(config):
        raise NodeError(message, code="not_supported" if keys == ("language",) else "bad_code", is_final=True)
    if ctx.doors.get(CodeRunner) is None:
        raise NodeError(f"{ctx.name!r}: {_NOT_ALLOWED}", code="code_not_allowed", is_final=True)
    given = inputs.input[0] if len(inputs.input) == 1 else list(inputs.input) or ctx.input
    values = {"node_data": given, "input": given, "run_input": ctx.input}
    try:
        made = await ctx.door(CodeRunner).run(config.code, values, config.timeout)
    except NodeError as failed:
        if not config.continue_on_error:
            raise
        return Outputs(None, "", False, failed.message)
    return Outputs(made.output, made.printed, True, "")


def mistakes(config: Config) -> Iterator[tuple[str, Keys]]:
    """Code that cannot run at all."""
    if config.language == "javascript":
        yield _NO_JAVASCRIPT, ("language",)
    if config.code is not None and not config.code.strip():
        yield "there is no code", ("code",)
    if config.code is not None and len(config.code) > _MOST_CODE:
        yield f"the code has {len(config.code):,} characters; allowed are {_MOST_CODE:,}", ("code",)


NODE = NodeType.step(
    run,
    "CodeNode",
    "Python code",
    aliases=("Code", "PythonCode"),
    effect=True,
    mistakes=mistakes,
    doors=(CodeRunner,),
    icon="code",
    examples=(
        {"language": "python", "code": "output = {'total': sum(node_data['prices'])}", "timeout": 5},
        {"code": "[each['name'].upper() for each in node_data]"},
    ),
)
