"""Go round: run the body again while a condition holds, and at most so many times."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from nodes.conditions import Condition, explain, work_of
from nodes.contract import Choice, NodeType, RunContext, port, setting
from nodes.isolated import isolated_if_heavy

BODY, DONE, LIMIT = "body", "done", "limit"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    condition: Annotated[
        Condition | None,
        setting("while", description="The body runs while it holds; left empty, it always does."),
    ] = None
    max_rounds: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=10_000)],
        setting("max_iterations", description="How often the body may run; then the loop takes `limit`."),
    ] = 10


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[
        Any, port(description="What the loop begins with; in later rounds what the body brings.")
    ] = None


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[Any, port(description="What arrived, passed on by the port that was chosen.")]
    round: Annotated[
        int, port(description="Which round the body begins, from 1; at the end how many there were.")
    ]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Choice:
    had = max(ctx.round - 1, 0)
    because: dict[str, Any] = {"rounds": had, "max_rounds": config.max_rounds}
    if config.condition is not None:
        condition, subject = config.condition, inputs.input
        because |= await isolated_if_heavy(ctx, work_of([condition], subject), explain, condition, subject)
        if not because["holds"]:
            return Choice(DONE, Outputs(inputs.input, had), because)
    if had < config.max_rounds:
        return Choice(BODY, Outputs(inputs.input, had + 1), because)
    # Without a condition, so many rounds are what was asked for.
    return Choice(LIMIT if config.condition else DONE, Outputs(inputs.input, had), because)


def instead(inputs: Inputs, port: str, ctx: RunContext) -> Outputs:
    had = max(ctx.round - 1, 0)
    return Outputs(inputs.input, had + 1 if port == BODY else had)


NODE = NodeType.step(
    run,
    "Loop",
    "Loop",
    icon="repeat",
    examples=(
        {"max_rounds": 3},
        {"max_rounds": 5, "condition": {"operation": "not_equal", "right": "ok"}},
    ),
    outputs=Outputs,
    routes=lambda config: (BODY, DONE, LIMIT),
    own_routes=(BODY, DONE, LIMIT),
    instead=instead,
    aliases=("LoopNode",),
    ignores=("loop_condition",),  # of older drawings, where it says "continue" and means nothing
    rounds=lambda config: config.max_rounds,
)
