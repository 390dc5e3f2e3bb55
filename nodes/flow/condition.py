"""Take one of two ways by comparing two texts, or by a structured condition."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec
from msgspec import UNSET, UnsetType

from nodes.comparisons import pattern
from nodes.conditions import Condition, explain, work_of
from nodes.contract import Choice, NodeError, NodeType, RunContext, port, setting
from nodes.isolated import isolated_if_heavy
from nodes.texts import written_or_arrived

Operation: TypeAlias = Literal[
    "equal",
    "not_equal",
    "contains",
    "not_contains",
    "starts_with",
    "ends_with",
    "regex",
    "is_empty",
    "not_empty",
]
TRUE, FALSE = "true_output", "false_output"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    operation: Annotated[
        Operation, setting(template=False, description="How the two texts are compared.")
    ] = "equal"
    value1: Annotated[
        str | UnsetType,
        setting(description="The left side; left empty, what arrives at the input.", left_empty=True),
    ] = UNSET
    value2: Annotated[
        str,
        setting(
            description="The right side; for `regex` an RE2 pattern.",
            when={"operation": [each for each in get_args(Operation) if not each.endswith("_empty")]},
        ),
    ] = ""
    case_sensitive: Annotated[bool, setting(description="Whether `Yes` and `yes` are different texts.")] = (
        False
    )
    data_type: Annotated[
        Literal["string"], setting(description="Of older drawings: texts are all that is compared.")
    ] = "string"
    condition: Annotated[
        Condition | None,
        setting(description="Decides in place of the two values; without `left`, what arrives is compared."),
    ] = None

    def __post_init__(self) -> None:
        if self.condition is not None:
            if both := [name for name in ("value1", "value2") if getattr(self, name)]:
                named = " and ".join(map(repr, both))
                message = f"'condition' decides alone, but there is also {named}; allowed is one or the other"
                raise NodeError(message, code="bad_config")
        elif self.operation == "regex" and "{{" not in self.value2:
            try:
                pattern(self.value2, self.case_sensitive)
            except ValueError as exc:
                raise NodeError(f"'value2' is {exc}", code="bad_config") from None


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[Any, port(description="What is compared, and passed on.")] = None


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[Any, port(description="What arrived, passed on by the port that was chosen.")]
    result: Annotated[bool, port(description="Whether it holds.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Choice:
    if config.condition is not None:
        condition, subject = config.condition, inputs.input
        because = await isolated_if_heavy(ctx, work_of([condition], subject), explain, condition, subject)
        holds = because["holds"]
    else:
        left = written_or_arrived(config.value1, [inputs.input])
        right, operation = config.value2, config.operation
        condition = Condition(
            left=left, operation=operation, right=right, type="text", case_sensitive=config.case_sensitive
        )
        found = await isolated_if_heavy(ctx, work_of([condition]), explain, condition, None)
        holds = found["holds"]
        because = {"value1": left[:500], "operation": operation, "value2": right[:500], "result": holds}
    return Choice(TRUE if holds else FALSE, Outputs(inputs.input, holds), because)


def instead(inputs: Inputs, port: str, ctx: RunContext) -> Outputs:
    return Outputs(inputs.input, port == TRUE)


NODE = NodeType.step(
    run,
    "ConditionNode",
    "Condition",
    icon="split",
    examples=(
        {"operation": "contains", "value2": "urgent"},
        {"condition": {"path": "total", "operation": "greater", "right": 100}},
    ),
    outputs=Outputs,
    routes=lambda config: (TRUE, FALSE),
    own_routes=(TRUE, FALSE),
    instead=instead,
    route_aliases={"true": TRUE, "false": FALSE, "output-0": TRUE, "output-1": FALSE},
    aliases=("Condition",),
)
