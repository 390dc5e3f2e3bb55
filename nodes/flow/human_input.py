"""Ask a person, and wait for the answer; its actions are the ports that the run goes on from.

With a deadline there is one port more, for when nobody has answered in time.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from nodes.contract import Choice, NodeType, RunContext, port, setting
from nodes.question import EXPIRED, Action, Field, Question

ANSWER = "answer"
TOO_LATE = "expired"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    question: Annotated[str, setting("message", "prompt", "text"), msgspec.Meta(min_length=1)]
    form: Annotated[
        tuple[Field, ...],
        setting("fields", description="Fields to be filled in: name, type, label, options."),
    ] = ()
    actions: Annotated[
        tuple[str | Action, ...],
        setting("options", "buttons", template=False, description="Ids of the buttons; each one is a port."),
    ] = ()
    deadline: Annotated[
        Annotated[float, msgspec.Meta(ge=1, le=31_536_000)] | msgspec.UnsetType | None,
        setting(
            "timeout",
            "expires_in",
            template=False,
            description="Seconds; then the run goes on by the port 'expired'.",
        ),
    ] = msgspec.UNSET
    """Unset there is no such port. It is there for `None`, a deadline that the run does not know or need.

    No template yet: before a run, `Settings.provisional` gives one that is to be filled like one left out, so
    the port would be missing, and with `answer` alone an arrow from `expired` would be taken for one from it.
    """

    def __post_init__(self) -> None:
        for what, names in (("actions", actions(self)), ("form fields", [field.name for field in self.form])):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"two {what} are called {twice[0]!r}; their names must differ")
            if "" in names:
                raise ValueError(f"one of the {what} has an empty name")
        if self.deadline is not msgspec.UNSET and TOO_LATE in actions(self):
            raise ValueError(
                f"an action is called {TOO_LATE!r}, as is the port for a deadline that has passed; "
                "call the action something else, or leave out 'deadline'"
            )


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[tuple[Any, ...], port(many=True, description="Shown with the question.")] = ()


class Outputs(msgspec.Struct, frozen=True):
    answer: Any
    action: str | None
    values: dict[str, Any]


def actions(config: Config) -> list[str]:
    return [each if isinstance(each, str) else each.id for each in config.actions]


def routes(config: Config) -> list[str]:
    ways = actions(config) or [ANSWER]
    return ways if config.deadline is msgspec.UNSET else [*ways, TOO_LATE]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Choice:
    shown = inputs.input[0] if len(inputs.input) == 1 else list(inputs.input) or None
    buttons = tuple(Action(each) if isinstance(each, str) else each for each in config.actions)
    payload = {"question": config.question, "input": shown}
    seconds = None if config.deadline is msgspec.UNSET else config.deadline
    answer = ctx.ask(Question(payload, config.form, buttons, seconds))
    if isinstance(answer, bytes) and answer == EXPIRED:
        return Choice(TOO_LATE, Outputs(None, TOO_LATE, {}), {"action": TOO_LATE})
    if not buttons:
        values = answer if config.form else {}
        return Choice(ANSWER, Outputs(answer, None, values), {"answer": answer})
    action, values = answer["action"], answer["values"]
    return Choice(action, Outputs(values or action, action, values), {"action": action})


NODE = NodeType.step(
    run,
    "HumanInput",
    "Ask a person",
    outputs=Outputs,
    routes=routes,
    aliases=("HumanInputNode", "Approval", "HumanApproval"),
    effect=True,
    asks=True,
)
