"""What counts as an answer, and what a step that asks makes of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nodes.contract import Choice
from nodes.flow.human_input import NODE, Config, Inputs, Outputs, run
from nodes.question import EXPIRED, Action, BadAnswer, Field, FieldType, Question
from tests.nodes.contexts import context

FORM = (
    Field("why", required=True),
    Field("amount", "number"),
    Field("urgent", "boolean"),
    Field("size", "select", options=("S", "L")),
)
BUTTONS = (Action("approve", "Yes"), Action("reject"))


@pytest.mark.parametrize("answer", [None, "", "yes", 5, [1, {"a": None}], {"anything": True}])
def test_a_plain_question_takes_any_answer(answer: Any) -> None:
    assert Question({}).accept(answer) == answer


@pytest.mark.parametrize(
    "answer",
    [
        {"why": "because"},
        {"why": "because", "amount": 1.5, "urgent": False, "size": "L"},
        {"why": "0", "amount": 0},
        {"why": "x", "amount": None, "size": ""},
    ],
)
def test_a_form_takes_an_object_of_its_fields(answer: dict[str, Any]) -> None:
    assert Question({}, FORM).accept(answer) == answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("because", "the form's values must be an object, not a text"),
        (None, "the form's values must be an object, not null"),
        (["why"], "the form's values must be an object, not a list"),
        ({}, "field 'why' is required"),
        ({"why": ""}, "field 'why' is required"),
        ({"why": None}, "field 'why' is required"),
        ({"who": 1, "what": 1}, "the form has no field 'what'; its fields: why, amount, urgent, size"),
        ({"why": 5}, "field 'why' takes a text, not a number"),
        ({"why": "x", "amount": "5"}, "field 'amount' takes a number, not a text"),
        ({"why": "x", "amount": True}, "field 'amount' takes a number, not a boolean"),
        ({"why": "x", "urgent": 1}, "field 'urgent' takes a boolean, not a number"),
        ({"why": "x", "size": "XL"}, "field 'size' takes one of S, L, not 'XL'"),
        ({"why": "x", "size": ["S"]}, "field 'size' takes a select, not a list"),
        ({"amount": {}, "urgent": []}, "field 'why' is required; field 'amount' takes a number, not an object"
         "; field 'urgent' takes a boolean, not a list"),
    ],
)  # fmt: skip
def test_an_answer_that_does_not_fit_the_form_is_refused_with_every_reason(answer: Any, words: str) -> None:
    with pytest.raises(BadAnswer) as refused:
        Question({}, FORM).accept(answer)

    assert str(refused.value) == words


@pytest.mark.parametrize(
    ("answer", "full"),
    [
        ("approve", {"action": "approve", "values": {}}),
        ({"action": "reject"}, {"action": "reject", "values": {}}),
        ({"action": "reject", "values": {}}, {"action": "reject", "values": {}}),
    ],
)
def test_a_button_is_answered_by_its_id(answer: Any, full: dict[str, Any]) -> None:
    assert Question({}, actions=BUTTONS).accept(answer) == full


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("Approve", "'Approve' is not an action of this question; allowed: approve, reject"),
        (None, "None is not an action of this question; allowed: approve, reject"),
        (["approve"], "['approve'] is not an action of this question; allowed: approve, reject"),
        ({}, "None is not an action of this question; allowed: approve, reject"),
        (
            {"action": "approve", "value": 1, "x": 2},
            "an answer has the keys 'action' and 'values', not value, x",
        ),
        ({"action": "approve", "values": {"a": 1}}, "the form has no field 'a'; its fields: none"),
        ({"action": "approve", "values": "x"}, "the form's values must be an object, not a text"),
    ],
)
def test_an_answer_that_is_no_button_is_refused(answer: Any, words: str) -> None:
    with pytest.raises(BadAnswer) as refused:
        Question({}, actions=BUTTONS).accept(answer)

    assert str(refused.value) == words


def test_buttons_under_a_form_take_both() -> None:
    question = Question({}, FORM, BUTTONS)

    accepted = question.accept({"action": "approve", "values": {"why": "x"}})

    assert accepted == {"action": "approve", "values": {"why": "x"}}
    with pytest.raises(BadAnswer, match="field 'why' is required"):
        question.accept("approve")


def test_an_accepted_answer_is_accepted_again() -> None:
    question = Question({}, FORM, BUTTONS)
    accepted = question.accept({"action": "reject", "values": {"why": "x", "amount": 2}})

    assert question.accept(accepted) == accepted


@pytest.mark.parametrize("kind", ["text", "textarea", "number", "boolean", "select"])
def test_a_field_that_is_not_required_may_be_left_out(kind: FieldType) -> None:
    assert Question({}, (Field("a", kind),)).accept({}) == {}


def test_what_is_empty_is_not_told() -> None:
    assert msgspec.to_builtins(Question({"question": "?"})) == {"payload": {"question": "?"}}


async def asked(config: Config, answer: Any, *inputs: Any) -> tuple[Question, Choice]:
    questions: list[Question] = []

    def ask(question: Question) -> Any:
        questions.append(question)
        return question.accept(answer)

    made = await run(config, Inputs(inputs), context(ask=ask))
    (question,) = questions
    return question, made


async def test_a_step_asks_its_question_with_what_has_arrived() -> None:
    question, made = await asked(Config("Your name?"), "Ada", "one", 2)

    assert question == Question({"question": "Your name?", "input": ["one", 2]})
    assert made == Choice("answer", Outputs("Ada", None, {}), {"answer": "Ada"})


async def test_a_form_gives_its_values() -> None:
    question, made = await asked(Config("?", form=FORM), {"why": "x"}, "draft")

    assert question == Question({"question": "?", "input": "draft"}, FORM)
    assert made == Choice("answer", Outputs({"why": "x"}, None, {"why": "x"}), {"answer": {"why": "x"}})


async def test_a_button_is_the_way_the_run_goes_on() -> None:
    question, made = await asked(Config("?", actions=("approve", Action("reject", "No"))), "reject")

    assert question == Question(
        {"question": "?", "input": None}, (), (Action("approve"), Action("reject", "No"))
    )
    assert made == Choice("reject", Outputs("reject", "reject", {}), {"action": "reject"})


async def test_a_button_with_a_form_gives_both() -> None:
    config = Config("?", form=FORM, actions=("approve",))

    _, made = await asked(config, {"action": "approve", "values": {"why": "x"}})

    assert made == Choice("approve", Outputs({"why": "x"}, "approve", {"why": "x"}), {"action": "approve"})


async def test_a_question_with_a_deadline_says_how_long_it_may_stay_open() -> None:
    question, made = await asked(Config("?", deadline=60), "in time")

    assert question == Question({"question": "?", "input": None}, seconds=60)
    assert made == Choice("answer", Outputs("in time", None, {}), {"answer": "in time"})


async def test_a_deadline_that_a_run_leaves_empty_is_none() -> None:
    question, _ = await asked(Config("?", deadline=None), "some day")

    assert question == Question({"question": "?", "input": None})


@pytest.mark.parametrize("settings", [{}, {"form": FORM}, {"actions": ("yes",)}])
async def test_a_question_that_nobody_answered_in_time_has_its_own_way(settings: dict[str, Any]) -> None:
    config = Config("?", deadline=1, **settings)

    made = await run(config, Inputs(()), context(ask=lambda question: EXPIRED))

    assert made == Choice("expired", Outputs(None, "expired", {}), {"action": "expired"})


def test_no_answer_can_say_that_the_time_was_over() -> None:
    said = msgspec.json.decode(msgspec.json.encode(EXPIRED))

    assert Question({}).accept(said) != EXPIRED


def test_its_ways_are_its_buttons() -> None:
    assert NODE.routes is not None
    assert list(NODE.routes(Config("?", actions=("a", Action("b"))))) == ["a", "b"]
    assert list(NODE.routes(Config("?"))) == ["answer"]


def test_with_a_deadline_there_is_a_way_more() -> None:
    assert NODE.routes is not None
    assert list(NODE.routes(Config("?", actions=("a",), deadline=1))) == ["a", "expired"]
    assert list(NODE.routes(Config("?", deadline=None))) == ["answer", "expired"]
    assert list(NODE.routes(Config("?", actions=("expired",)))) == ["expired"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"actions": ("a", Action("a"))}, "two actions are called 'a'; their names must differ"),
        ({"actions": ("",)}, "one of the actions has an empty name"),
        ({"form": (Field("f"), Field("f"))}, "two form fields are called 'f'; their names must differ"),
        ({"form": (Field(""),)}, "one of the form fields has an empty name"),
        (
            {"actions": ("go", Action("expired")), "deadline": 1},
            "an action is called 'expired', as is the port for a deadline that has passed; "
            "call the action something else, or leave out 'deadline'",
        ),
    ],
)
def test_names_must_differ(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="^" + words + "$"):
        Config("?", **settings)
