"""What a drawing does when it runs, where random drawings do not show it: words, types of ports, sizes."""

from __future__ import annotations

from typing import Any

import pytest

from graphs.compile import Checked, Compiler
from graphs.runtime import StepFailed
from nodes import registry
from nodes.flow.condition import FALSE, TRUE
from tests.graphs import node_types
from tests.graphs.runs import Recording, run
from tests.server import drawing, edge, node

TYPES = registry.collect([*registry.modules("nodes"), node_types])


def check(*parts: dict[str, Any]) -> Checked:
    return Compiler(TYPES).check(drawing(*parts))


async def ran(*parts: dict[str, Any], given: Any = None, trigger: str | None = None) -> Recording:
    return await run(Compiler(TYPES).compile(drawing(*parts)), given, trigger)


def condition(id: str, value: str = "yes", **data: Any) -> dict[str, Any]:
    return node(id, "ConditionNode", operation="contains", value1="{{ input }}", value2=value, **data)


async def test_a_skipped_step_says_which_router_chose_what_on_which_values() -> None:
    made = await ran(
        node("start", "StartNode"),
        condition("if", name="Is it urgent?"),
        node("page", "Echo"),
        node("after", "Echo"),
        edge("start", "if"),
        edge("if", "page", TRUE),
        edge("page", "after"),
        given="no",
    )

    values = {"value1": "no", "operation": "contains", "value2": "yes", "result": False}
    because = {
        "message": "'Is it urgent?' chose 'false_output', not 'true_output'",
        "routers": [{"step": "if", "chose": FALSE, "port": TRUE, "values": values}],
    }
    assert made.because == {"page": because, "after": because}


async def test_a_step_of_another_trigger_says_that_it_did_not_start_the_run() -> None:
    made = await ran(
        node("one", "StartNode", name="First"),
        node("two", "StartNode"),
        node("a", "Echo"),
        edge("one", "a"),
        given="x",
        trigger="two",
    )

    because = {"message": "'First' did not start this run", "routers": []}
    assert made.because == {"one": because, "a": because}


async def test_where_dead_branches_cross_the_reasons_do_not_multiply() -> None:
    ladder = [node("start", "StartNode"), condition("if"), condition("unless", "no")]
    ladder += [edge("start", "if"), edge("start", "unless")]
    left, right = ("if", TRUE), ("unless", TRUE)
    for rung in range(40):
        ladder += [node(f"left-{rung}", "Echo"), node(f"right-{rung}", "Echo")]
        ladder += [edge(source, f"left-{rung}", port) for source, port in (left, right)]
        ladder += [edge(source, f"right-{rung}", port) for source, port in (right, left)]
        left, right = (f"left-{rung}", "output"), (f"right-{rung}", "output")

    made = await ran(*ladder, given="neither")

    assert made.because["left-39"]["message"] == (
        "'if' chose 'false_output', not 'true_output'; 'unless' chose 'false_output', not 'true_output'"
    )
    assert [each["step"] for each in made.because["right-39"]["routers"]] == ["unless", "if"]


async def test_a_skipped_step_names_no_more_than_twenty_routers() -> None:
    routers = [f"if-{index:02}" for index in range(30)]

    made = await ran(
        *(condition(id) for id in routers),
        node("join", "Echo"),
        *(edge(id, "join", TRUE) for id in routers),
        given="no",
    )

    assert [each["step"] for each in made.because["join"]["routers"]] == routers[:20]
    assert made.because["join"]["message"].count(";") == 19


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"a": "End", "b": "Done"}, {"End": "x", "Done": "x"}),
        ({"a": "End", "b": "End"}, {"a": "x", "b": "x"}),
        ({"a": "b", "b": "b"}, {"a": "x", "b": "x"}),
        ({"a": "b", "b": "a"}, {"a": "x", "b": "x"}),
        ({"a": "End"}, "x"),
    ],
)
async def test_several_ends_give_an_object_by_their_names(names: dict[str, str], expected: Any) -> None:
    made = await ran(
        node("start", "StartNode"),
        *(node(id, "EndNode", name=name) for id, name in names.items()),
        *(edge("start", id) for id in names),
        given="x",
    )

    assert made.output == expected


async def test_values_are_fitted_to_the_types_of_their_ports() -> None:
    made = await ran(
        node("start", "StartNode"),
        node("number", "Template", template="41"),
        node("typed", "Typed"),
        edge("start", "typed", "output", "text"),
        edge("number", "typed", "text", "number"),
        edge("start", "typed", "output", "others"),
        edge("start", "number"),
        given={"a": [1]},
    )

    assert made.outputs["typed"] == {"total": 42, "text": '{"a": [1]}'}


async def test_a_value_that_does_not_fit_its_port_fails_the_step() -> None:
    with pytest.raises(StepFailed) as failed:
        await ran(
            node("start", "StartNode"),
            node("typed", "Typed"),
            edge("start", "typed", "output", "text"),
            edge("start", "typed", "output", "number"),
            given="many",
        )

    assert failed.value.error == {
        "code": "bad_input",
        "step": "typed",
        "message": "the input 'number' cannot take what arrived: Expected `int`, got `str`",
    }


async def test_a_required_input_to_which_a_dead_arrow_leads_fails_the_step() -> None:
    with pytest.raises(StepFailed) as failed:
        await ran(
            condition("if"),
            node("typed", "Typed"),
            edge("if", "typed", TRUE, "text"),
            edge("if", "typed", FALSE, "number"),
            given="no",
        )

    assert failed.value.error == {
        "code": "missing_value",
        "step": "typed",
        "message": "nothing has arrived at the input 'text'",
    }


def test_a_required_input_without_an_arrow_is_a_problem() -> None:
    checked = check(node("start", "StartNode"), node("t", "Typed"), edge("start", "t", "output", "more"))

    assert [str(each) for each in checked.problems] == [
        "error: t: 't' (Typed) needs an arrow to its input 'text' [missing_input] at /nodes/1",
        "error: t: 't' (Typed) needs an arrow to its input 'number' [missing_input] at /nodes/1",
    ]


def test_an_input_that_is_not_there_is_a_problem_that_lists_those_that_are() -> None:
    checked = check(
        node("start", "StartNode"), node("t", "Typed"), edge("start", "t", "output", "txt") | {"id": "e1"}
    )

    assert [str(each) for each in checked.problems] == [
        "error: e1: 't' (Typed) has no input 'txt'; it has: text, number, more (did you mean 'text'?) "
        "[unknown_port] at /edges/0/targetHandle",
    ]


def test_numbered_handles_mean_the_ports_in_their_order() -> None:
    plan = check(
        node("start", "StartNode"),
        node("t", "Typed"),
        node("end", "EndNode"),
        edge("start", "t", "output-0", "input-0"),
        edge("start", "t", None, "input-1"),
        edge("t", "end", "output-1"),
    ).plan

    assert plan is not None
    assert [(arc.port, arc.input) for arc in plan.steps["t"].arcs] == [
        ("output", "text"),
        ("output", "number"),
    ]
    assert [(arc.port, arc.input) for arc in plan.steps["end"].arcs] == [("text", "target")]


def pairs(count: int) -> list[dict[str, Any]]:
    """A join that lives if both routers of some pair say yes: its condition doubles with every pair."""
    numbers = range(count)
    return [
        node("start", "StartNode"),
        *(condition(f"a{number}") for number in numbers),
        *(condition(f"b{number}") for number in numbers),
        node("join", "Echo", uses=["{{ b0 }}"]),
        *(edge("start", f"a{number}") for number in numbers),
        *(edge(f"a{number}", f"b{number}", TRUE) for number in numbers),
        *(edge(f"b{number}", "join", TRUE) for number in numbers),
    ]


def chain(count: int) -> list[dict[str, Any]]:
    """Routers in a row, and a step after the last that uses what the others made."""
    return [
        *(condition(f"if-{number}") for number in range(count)),
        node("last", "Echo", uses=["{{ ['if-0'] }}"]),
        *(edge(f"if-{number}", f"if-{number + 1}", TRUE) for number in range(count - 1)),
        edge(f"if-{count - 1}", "last", FALSE),
    ]


def test_a_drawing_with_more_routers_than_can_be_checked_says_so_and_compiles() -> None:
    checked = check(*pairs(20))

    assert [str(each) for each in checked.problems] == [
        "warning: workflow: the drawing has too many routers for an exact check of its joins and references "
        "[not_checked] at /"
    ]
    assert checked.plan is not None


def test_a_drawing_with_many_routers_is_still_checked() -> None:
    (problem,) = check(*pairs(10)).problems

    assert problem.code == "maybe_unset"
    assert problem.message.startswith(
        "'{{ b0 }}': 'b0' does not run when 'a0' takes 'false_output' and 'a9' takes 'true_output'"
    )
    assert check(*chain(600)).problems == ()


async def test_a_provider_is_made_once_in_a_run_unless_its_settings_depend_on_it() -> None:
    made = await ran(
        node("start", "StartNode"),
        node("fixed", "Giver", text="same"),
        node("open", "Giver", text="{{ input }}"),
        node("a", "User"),
        node("b", "User"),
        edge("start", "a"),
        edge("start", "b"),
        *(edge(giver, user) for giver in ("fixed", "open") for user in ("a", "b")),
        given="new",
    )

    assert made.outputs["a"]["output"] == made.outputs["b"]["output"] == ["same", "new"]
    assert sorted(made.those("finished")) == ["a", "b", "fixed", "open", "open", "start"]
