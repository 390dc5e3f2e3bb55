"""What counts as an answer to a question."""

from __future__ import annotations

from typing import Any

import pytest

from nodes.question import Action, BadAnswer, Field, Question

FORM = (
    Field("name", required=True),
    Field("age", "number"),
    Field("sure", "boolean"),
    Field("size", "select", options=("s", "m")),
)
BUTTONS = (Action("yes"), Action("no"))


@pytest.mark.parametrize("answer", ["text", "", None, False, 0, {}, {"a": [1]}, []])
def test_an_open_question_takes_anything(answer: Any) -> None:
    assert Question({}).accept(answer) == answer


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ({"name": "Ada"}, {"name": "Ada"}),
        ({"name": "Ada", "age": 36.5, "sure": False, "size": "m"}, None),
        ({"name": "Ada", "age": None, "size": ""}, None),
    ],
)
def test_a_form_takes_its_fields(answer: Any, accepted: Any) -> None:
    assert Question({}, FORM).accept(answer) == (accepted or answer)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("Ada", "the form's values must be an object, not a text"),
        ({}, "field 'name' is required"),
        ({"name": ""}, "field 'name' is required"),
        ({"name": 1}, "field 'name' takes a text, not a number"),
        ({"name": "Ada", "age": True}, "field 'age' takes a number, not a boolean"),
        ({"name": "Ada", "sure": 1}, "field 'sure' takes a boolean, not a number"),
        ({"name": "Ada", "size": "xl"}, "field 'size' takes one of s, m, not 'xl'"),
        (
            {"name": "Ada", "colour": "red"},
            "the form has no field 'colour'; its fields: name, age, sure, size",
        ),
        ({"age": "x"}, "field 'name' is required; field 'age' takes a number, not a text"),
    ],
)
def test_a_form_names_every_value_that_does_not_fit(answer: Any, says: str) -> None:
    with pytest.raises(BadAnswer) as refused:
        Question({}, FORM).accept(answer)

    assert str(refused.value) == says


@pytest.mark.parametrize("answer", ["yes", {"action": "yes"}, {"action": "yes", "values": {}}])
def test_an_action_is_named_alone_or_with_values(answer: Any) -> None:
    assert Question({}, (), BUTTONS).accept(answer) == {"action": "yes", "values": {}}


def test_an_action_comes_with_the_forms_values() -> None:
    answer = {"action": "no", "values": {"name": "Ada"}}

    assert Question({}, FORM, BUTTONS).accept(answer) == answer


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("maybe", "'maybe' is not an action of this question; allowed: yes, no"),
        (None, "None is not an action"),
        (["yes"], "is not an action"),
        ({"values": {}}, "None is not an action"),
        ({"action": "yes", "note": "x"}, "an answer has the keys 'action' and 'values', not note"),
        ({"action": "yes", "values": {"x": 1}}, "the form has no field 'x'; its fields: none"),
        ({"action": "yes", "values": []}, "the form's values must be an object, not a list"),
    ],
)
def test_an_action_that_is_not_offered_is_refused(answer: Any, says: str) -> None:
    with pytest.raises(BadAnswer) as refused:
        Question({}, (), BUTTONS).accept(answer)

    assert says in str(refused.value)
