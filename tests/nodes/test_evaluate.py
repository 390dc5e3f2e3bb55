"""Checks of what a workflow has made: all are tried, and what does not hold is named."""

from __future__ import annotations

from typing import Any

import pytest

from graphs.alone import check_alone
from graphs.compile import Compiler
from graphs.kinds import convert
from graphs.runtime import StepFailed
from nodes import registry
from nodes.contract import NodeError
from nodes.flow.evaluate import NODE, Config, Inputs, Outputs, run
from tests.graphs import runs
from tests.nodes.contexts import context
from tests.server import drawing, edge, node

GREETS = {"name": "it greets", "condition": {"operation": "contains", "right": "Hello"}}
SHORT = {"name": "it is short", "condition": {"operation": "matches", "right": "^.{0,8}$"}}
OLD = {"condition": {"path": "age", "operation": "greater", "right": 17}}


async def evaluated(*checks: Any, input: Any = None, **more: Any) -> Outputs:
    return await run(convert({"checks": checks, **more}, Config), Inputs(input), context())


async def test_what_holds_is_passed_on_with_its_report() -> None:
    made = await evaluated(GREETS, SHORT, input="Hello")

    assert (made.output, made.passed, made.failed, made.score) == ("Hello", True, 0, 1.0)
    assert [(each["name"], each["holds"]) for each in made.report] == [
        ("it greets", True),
        ("it is short", True),
    ]


async def test_what_does_not_hold_fails_the_step_and_is_named_with_what_was_found() -> None:
    with pytest.raises(NodeError) as failed:
        await evaluated(GREETS, SHORT, OLD, input="Goodbye")

    assert (failed.value.code, failed.value.is_final) == ("check_failed", True)
    assert failed.value.message == (
        '2 of 3 checks failed: it greets: "Goodbye" contains "Hello"; '
        "check 3: the left operand of 'greater' is null; allowed is a number or a text of one, or a date or "
        "time as 2025-01-31 or 2025-01-31T12:00:00Z"
    )


async def test_a_report_tells_instead_of_failing() -> None:
    made = await evaluated(GREETS, OLD, input={"age": 18}, on_failure="report")

    assert (made.passed, made.failed, made.score) == (False, 1, 0.5)
    assert made.report[0]["error"].startswith("the left operand of 'contains' is ")
    assert made.report[1]["holds"]


async def test_of_many_failures_a_few_are_named() -> None:
    with pytest.raises(NodeError) as failed:
        await evaluated(*[{"condition": {"left": "x" * 5000, "operation": "is_empty"}}] * 9)

    assert failed.value.message.startswith("9 of 9 checks failed: check 1: ")
    assert failed.value.message.endswith("; and 4 more")
    assert len(failed.value.message) < 1000


@pytest.mark.parametrize(
    "input", [None, "", [], {}, "\x00", "{{ input }}", [[]] * 1000, 10**400, float("nan")]
)
async def test_anything_may_arrive(input: Any) -> None:
    checks = [
        {"condition": {"operation": operation, "right": 1}} for operation in ("equal", "greater", "includes")
    ]

    made = await evaluated(*checks, {"condition": {"operation": "exists"}}, input=input, on_failure="report")

    assert len(made.report) == 4


async def test_a_failed_check_fails_the_run_that_it_tests() -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("greet", "Template", template="Hi {{ start }}"),
        node("check", "Evaluate", checks=[{"condition": {"left": "{{ greet }}", **GREETS["condition"]}}]),  # type: ignore[dict-item]
        edge("start", "greet"),
        edge("greet", "check"),
    )
    compiled = Compiler(registry.discover()).compile(flow)

    with pytest.raises(StepFailed) as failed:
        await runs.run(compiled, "Ada")

    assert failed.value.code == "check_failed"
    assert failed.value.message == '1 of 1 checks failed: check 1: "Hi Ada" contains "Hello"'


@pytest.mark.parametrize(
    ("config", "pointer", "words"),
    [
        ({}, "/config", "needs 'checks'"),
        ({"checks": []}, "/config/checks", "'checks' is a list of 0; allowed is a list of 1 to 200"),
        ({"checks": [{}]}, "/config/checks/0", "needs 'condition'"),
        ({"checks": [GREETS, GREETS]}, "/config/checks/1/name", "two checks are called 'it greets'"),
        ({"checks": [OLD], "on_failure": "maybe"}, "/config/on_failure", "allowed is one of fail, report"),
        ({"checks": "junk"}, "/config/checks", "'checks' is 'junk'; allowed is a list of 1 to 200"),
    ],
)
def test_mistakes_are_told_when_the_node_is_checked(config: Any, pointer: str, words: str) -> None:
    problem = check_alone(NODE, config)[0]

    assert problem.pointer == pointer
    assert words in problem.message
