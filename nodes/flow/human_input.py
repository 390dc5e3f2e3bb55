"""Ask a person, and wait for the answer; its actions are the ports that the run goes on from.

With a deadline there is one port more, for when nobody has answered in time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from nodes.contract import Choice, NodeType, RunContext, port, setting
from nodes.mistakes import Keys, Mistakes, twice
from nodes.question import EXPIRED, Action, Field, Question

ANSWER = "answer"
TOO_LATE = "expired"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    question: Annotated[
        str,
        setting("message", "prompt", "text", description="What the person is asked."),
        msgspec.Meta(min_length=1),
    ]
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
        found = [*_wrong_actions(self), *_wrong_form(self)]
        if found:
            raise Mistakes(found)


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[tuple[Any, ...], port(many=True, description="Shown with the question.")] = ()


class Outputs(msgspec.Struct, frozen=True):
    answer: Annotated[
        Any,
        port(
            description="The answer: what was filled in, else the button's id, else any value; null if late."
        ),
    ]
    action: Annotated[
        str | None, port(description="The id of the button, or `expired`; null where there are none.")
    ]
    values: Annotated[dict[str, Any], port(description="What was filled in, by the names of the fields.")]


def actions(config: Config) -> list[str]:
    return [each if isinstance(each, str) else each.id for each in config.actions]


def _wrong_actions(config: Config) -> Iterator[tuple[str, Keys]]:
    ids = actions(config)
    at: list[Keys] = [
        ("actions", place) if isinstance(each, str) else ("actions", place, "id")
        for place, each in enumerate(config.actions)
    ]
    for place in twice(ids):
        yield f"two actions are called {ids[place]!r}; their names must differ", at[place]
    for place, id in enumerate(ids):
        if not id:
            yield "one of the actions has an empty name", at[place]
        if id == TOO_LATE and config.deadline is not msgspec.UNSET:
            message = f"an action is called {TOO_LATE!r}, as is the port for a deadline that has passed; "
            yield message + "call the action something else, or leave out 'deadline'", at[place]


def _wrong_form(config: Config) -> Iterator[tuple[str, Keys]]:
    names = [field.name for field in config.form]
    for place in twice(names):
        yield f"two form fields are called {names[place]!r}; their names must differ", ("form", place, "name")
    for place, field in enumerate(config.form):
        if not field.name:
            yield "one of the form fields has an empty name", ("form", place, "name")
        if field.type == "select" and not field.options:
            message = f"the form field {field.name!r} is a select, and has no 'options' to choose from"
            yield message, ("form", place)
        for at in twice(field.options):
            message = f"the form field {field.name!r} has the option {field.options[at]!r} twice"
            yield message, ("form", place, "options", at)


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


def instead(inputs: Inputs, port: str, ctx: RunContext) -> Outputs:
    return Outputs(None, port, {})


NODE = NodeType.step(
    run,
    "HumanInput",
    "Ask a person",
    icon="message-circle-question",
    examples=(
        {"question": "Refund {{ input.amount }} to {{ input.customer }}?", "actions": ["approve", "refuse"]},
        {
            "question": "Which address is right?",
            "form": [{"name": "address", "type": "textarea", "required": True}],
            "deadline": 86400,
        },
    ),
    outputs=Outputs,
    routes=routes,
    own_routes=(ANSWER, TOO_LATE),
    instead=instead,
    aliases=("HumanInputNode", "Approval", "HumanApproval"),
    effect=True,
    asks=True,
)
