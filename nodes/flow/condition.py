"""Take one of two ways by comparing two texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import re2

from nodes.contract import Choice, NodeError, NodeType, RunContext, port, setting
from nodes.texts import to_text

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
    operation: Annotated[Operation, setting(template=False)] = "equal"
    value1: Annotated[str, setting(description="The left side; left empty, what arrives at the input.")] = ""
    value2: Annotated[str, setting(description="The right side; for `regex` an RE2 pattern.")] = ""
    case_sensitive: bool = False
    data_type: Literal["string"] = "string"

    def __post_init__(self) -> None:
        if self.operation == "regex" and "{{" not in self.value2:
            _pattern(self.value2, self.case_sensitive)


class Inputs(msgspec.Struct, frozen=True):
    input: Any = None


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[Any, port(description="What arrived, passed on by the port that was chosen.")]
    result: bool


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Choice:
    left = config.value1 or to_text(inputs.input)
    holds = OPERATIONS[config.operation](left, config.value2, config.case_sensitive)
    because = {"value1": left[:500], "operation": config.operation, "value2": config.value2[:500]}
    return Choice(TRUE if holds else FALSE, Outputs(inputs.input, holds), because | {"result": holds})


def _fold(text: str, exact: bool) -> str:
    return text if exact else text.casefold()


def _compare(test: Callable[[str, str], bool]) -> Callable[[str, str, bool], bool]:
    return lambda left, right, exact: test(_fold(left, exact), _fold(right, exact))


def _pattern(pattern: str, exact: bool) -> Any:
    """RE2 matches in linear time, whatever the pattern."""
    options = re2.Options()
    options.case_sensitive = exact
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as exc:
        reason = exc.args[0].decode() if isinstance(exc.args[0], bytes) else str(exc)
        raise NodeError(f"'value2' is not a pattern that RE2 reads: {reason}", code="bad_config") from None


def _matches(left: str, right: str, exact: bool) -> bool:
    return _pattern(right, exact).search(left) is not None


OPERATIONS: Mapping[Operation, Callable[[str, str, bool], bool]] = {
    "equal": _compare(lambda left, right: left == right),
    "not_equal": _compare(lambda left, right: left != right),
    "contains": _compare(lambda left, right: right in left),
    "not_contains": _compare(lambda left, right: right not in left),
    "starts_with": _compare(lambda left, right: left.startswith(right)),
    "ends_with": _compare(lambda left, right: left.endswith(right)),
    "regex": _matches,
    "is_empty": lambda left, right, exact: not left.strip(),
    "not_empty": lambda left, right, exact: bool(left.strip()),
}

NODE = NodeType.step(
    run,
    "ConditionNode",
    "Condition",
    outputs=Outputs,
    routes=lambda config: (TRUE, FALSE),
    route_aliases={"true": TRUE, "false": FALSE, "output-0": TRUE, "output-1": FALSE},
    aliases=("Condition",),
)
