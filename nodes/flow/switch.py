"""Take one of several ways: that of the first case that holds, or the way of none."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET

from nodes.conditions import MAX_TOLD, Condition, explain, work_of
from nodes.contract import Choice, NodeType, RunContext, port, setting
from nodes.isolated import isolated_if_heavy
from nodes.mistakes import Keys, Mistakes, twice

DEFAULT = "default"


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A way, and when it is taken."""

    port: Annotated[str, msgspec.Meta(min_length=1, description="The id of the way.")]
    condition: Annotated[Condition | None, msgspec.Meta(description="When the way is taken.")] = None
    equals: Annotated[Any, msgspec.Meta(description="In place of a condition: what the value equals.")] = (
        UNSET
    )

    def __post_init__(self) -> None:
        found: list[tuple[str, Keys]] = []
        if self.port == DEFAULT or "{{" in self.port:
            why = "the way of no case" if self.port == DEFAULT else "not known before the run"
            message = f"the port {self.port!r} is {why}; allowed is any other text of its own"
            found.append((message, ("port",)))
        if (self.condition is None) == (self.equals is UNSET):
            both = "neither" if self.condition is None else "both"
            found.append(
                (f"the case {self.port!r} has {both} of 'condition' and 'equals'; allowed is one", ())
            )
        if found:
            raise Mistakes(found)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cases: Annotated[
        Annotated[tuple[Case, ...], msgspec.Meta(min_length=1, max_length=100)],
        setting(description="The ways in order, each with its `condition` or the value that it `equals`."),
    ]
    value: Annotated[
        Any,
        setting(description="What cases compare that name no value of their own; left out, what arrives."),
    ] = UNSET

    def __post_init__(self) -> None:
        if self.cases is None:
            message = (
                "'cases' name ports and must be known before the run; allowed is {{ }} in their operands"
            )
            raise ValueError(message)
        ports = [case.port for case in self.cases]
        if again := twice(ports):
            words = "two cases have the port {!r}; their ports must differ"
            raise Mistakes([(words.format(ports[at]), ("cases", at, "port")) for at in again])


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[Any, port(description="What cases compare, and what is passed on.")] = None


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[Any, port(description="What arrived, passed on by the port that was chosen.")]
    case: Annotated[str, port(description="The port that was chosen.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Choice:
    subject = inputs.input if config.value is UNSET else config.value
    work = work_of(map(_condition, config.cases), subject)
    tried = await isolated_if_heavy(ctx, work, _tried, config.cases, subject)
    taken = tried[-1]["port"] if tried[-1]["holds"] else DEFAULT
    return Choice(taken, Outputs(inputs.input, taken), {"case": taken, "tried": tried[-MAX_TOLD:]})


def _tried(cases: tuple[Case, ...], subject: Any) -> list[dict[str, Any]]:
    """What was found of each case, up to the first that holds."""
    tried: list[dict[str, Any]] = []
    for case in cases:
        tried.append({"port": case.port, **explain(_condition(case), subject)})
        if tried[-1]["holds"]:
            break
    return tried


def instead(inputs: Inputs, port: str, ctx: RunContext) -> Outputs:
    return Outputs(inputs.input, port)


def _condition(case: Case) -> Condition:
    return case.condition or Condition(operation="equal", right=case.equals)


NODE = NodeType.step(
    run,
    "Switch",
    "Switch",
    icon="signpost",
    examples=(
        {"cases": [{"port": "urgent", "equals": "urgent"}, {"port": "later", "equals": "later"}]},
        {
            "value": "{{ input.total }}",
            "cases": [{"port": "large", "condition": {"operation": "greater", "right": 1000}}],
        },
    ),
    outputs=Outputs,
    routes=lambda config: [*(case.port for case in config.cases), DEFAULT],
    own_routes=(DEFAULT,),
    instead=instead,
    aliases=("SwitchNode",),
)
