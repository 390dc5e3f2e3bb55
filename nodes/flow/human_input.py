"""Ask a person, and wait for the answer; its actions are the ports that the run goes on from."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from nodes.contract import Choice, NodeType, RunContext, port, setting
from nodes.question import Action, Field, Question

ANSWER = "answer"


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

    def __post_init__(self) -> None:
        for what, names in (("actions", actions(self)), ("form fields", [field.name for field in self.form])):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"two {what} are called {twice[0]!r}; their names must differ")
            if "" in names:
                raise ValueError(f"one of the {what} has an empty name")


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[tuple[Any, ...], port(many=True, description="Shown with the question.")] = ()


class Outputs(msgspec.Struct, frozen=True):
    answer: Any
    action: str | None
    values: dict[str, Any]


def actions(config: Config) -> list[str]:
    return [each if isinstance(each, str) else each.id for each in config.actions]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Choice:
    shown = inputs.input[0] if len(inputs.input) == 1 else list(inputs.input) or None
    buttons = tuple(Action(each) if isinstance(each, str) else each for each in config.actions)
    payload = {"question": config.question, "input": shown}
    answer = ctx.ask(Question(payload, config.form, buttons))
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
    routes=lambda config: actions(config) or [ANSWER],
    aliases=("HumanInputNode", "Approval", "HumanApproval"),
    effect=True,
)
