"""A question to a person, and what counts as an answer to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

FieldType: TypeAlias = Literal["text", "textarea", "number", "boolean", "select"]

EXPIRED = b"expired"
"""What a step gets when nobody has answered in time. Bytes: no answer can be that, as JSON has none."""


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One field of a question's form."""

    name: Annotated[str, msgspec.Meta(description="The key of the answer's values that it fills.")]
    type: Annotated[FieldType, msgspec.Meta(description="What can be put in.")] = "text"
    label: Annotated[str, msgspec.Meta(description="What stands beside it; left empty, its name.")] = ""
    required: Annotated[bool, msgspec.Meta(description="Whether it must be filled in.")] = False
    options: Annotated[
        tuple[str, ...], msgspec.Meta(description="For a `select`: the texts of which one is chosen.")
    ] = ()


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the buttons under a question; its id is the port that the run goes on from."""

    id: Annotated[str, msgspec.Meta(description="The port that the run goes on from.")]
    label: Annotated[str, msgspec.Meta(description="What the button says; left empty, its id.")] = ""


class Question(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a waiting run asks.

    Without form and actions any JSON value answers it. With a form the answer is an object of the form's
    fields. With actions it is the id of one, or `{"action": id, "values": {…}}` when there is a form too.
    """

    payload: dict[str, Any]
    form: tuple[Field, ...] = ()
    actions: tuple[Action, ...] = ()
    seconds: float | None = None
    """How long it may stay open; `None` is for ever."""
    until: str | None = None
    """In place of `seconds`: until when, as an RFC 3339 time; if that has passed, it expires at once."""
    pause: bool = False
    """Nobody is asked: the run goes on at the deadline. An answer that names it ends it sooner."""
    kept: Any = None
    """What the step has to know when it goes on, as JSON; it comes back with the answer, and is not shown."""

    def accept(self, answer: Any) -> Any:
        """Return `answer` in its full form, `{"action", "values"}` where there are actions.

        Raises:
            BadAnswer: With what was found and what is allowed.
        """
        if not self.actions:
            return self._values(answer) if self.form else answer
        action, values = answer, {}
        if isinstance(answer, Mapping):
            unknown = sorted(set(answer) - {"action", "values"})
            if unknown:
                raise BadAnswer(f"an answer has the keys 'action' and 'values', not {', '.join(unknown)}")
            action, values = answer.get("action"), answer.get("values", {})
        allowed = [each.id for each in self.actions]
        if action not in allowed:
            raise BadAnswer(f"{action!r} is not an action of this question; allowed: {', '.join(allowed)}")
        return {"action": action, "values": self._values(values)}

    def _values(self, values: Any) -> dict[str, Any]:
        if not isinstance(values, Mapping):
            raise BadAnswer(f"the form's values must be an object, not {_kind(values)}")
        names = [field.name for field in self.form]
        if unknown := sorted(set(values) - set(names)):
            raise BadAnswer(f"the form has no field {unknown[0]!r}; its fields: {', '.join(names) or 'none'}")
        wrong = [text for field in self.form if (text := _mistake(field, values))]
        if wrong:
            raise BadAnswer("; ".join(wrong))
        return dict(values)


class BadAnswer(ValueError):
    """The answer does not fit the question."""


_TYPES: dict[FieldType, tuple[type, ...]] = {
    "text": (str,),
    "textarea": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "select": (str,),
}


def _mistake(field: Field, values: Mapping[str, Any]) -> str | None:
    value = values.get(field.name)
    if value is None or value == "":
        return f"field {field.name!r} is required" if field.required else None
    fits = isinstance(value, _TYPES[field.type]) and (field.type == "boolean" or not isinstance(value, bool))
    if not fits:
        return f"field {field.name!r} takes a {field.type}, not {_kind(value)}"
    if field.type == "select" and value not in field.options:
        return f"field {field.name!r} takes one of {', '.join(field.options)}, not {value!r}"
    return None


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a text"}
    return names.get(type(value), "a list" if isinstance(value, list | tuple) else "an object")
