"""A switch takes the way of the first case that holds; its cases are checked before any run."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from graphs.compile import Compiler
from graphs.runtime import StepFailed
from nodes import registry
from nodes.conditions import Condition
from nodes.contract import Choice
from nodes.flow.switch import NODE, Case, Config, Inputs, Outputs, run
from tests.graphs import runs
from tests.nodes.contexts import context
from tests.server import drawing, edge, node

BIG = Case("big", Condition(operation="greater", right=10))
SOME = Case("some", Condition(operation="greater", right=1))


@pytest.mark.parametrize(
    ("config", "arrives", "port", "held"),
    [
        (Config((BIG, SOME)), 11, "big", [True]),
        (Config((BIG, SOME)), 5, "some", [False, True]),
        (Config((BIG, SOME)), 0, "default", [False, False]),
        (Config((Case("a", equals="x"), Case("b", equals=5))), "5", "b", [False, True]),
        (Config((Case("a", equals=None),)), None, "a", [True]),
        (Config((Case("a", equals="x"),), value="x"), "y", "a", [True]),
        (Config((Case("a", equals="x"),), value=""), "x", "default", [False]),
        (Config((Case("a", Condition(left=1, operation="equal", right=1)),), value=2), 3, "a", [True]),
    ],
)
async def test_the_first_case_that_holds_is_taken(
    config: Config, arrives: Any, port: str, held: list[bool]
) -> None:
    made = await run(config, Inputs(arrives), context())

    tried = made.because["tried"]
    assert (made.port, made.outputs, made.because["case"]) == (port, Outputs(arrives, port), port)
    assert [(each["port"], each["holds"]) for each in tried] == [
        (case.port, holds) for case, holds in zip(config.cases, held, strict=False)
    ]


async def test_its_reason_tells_what_was_compared() -> None:
    made = await run(Config((Case("a", equals="x"),)), Inputs("x"), context())

    compared = {"left": "x", "operation": "equal", "right": "x", "holds": True}
    assert made == Choice(
        "a",
        Outputs("x", "a"),
        {"case": "a", "tried": [{"port": "a", "holds": True, "compared": [compared]}]},
    )


def test_its_ways_are_its_cases_and_the_default() -> None:
    assert NODE.routes is not None
    assert list(NODE.routes(Config((BIG, SOME)))) == ["big", "some", "default"]


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        ({"cases": []}, "Expected `array` of length >= 1 - at `$.cases`"),
        ({"cases": [{"port": str(n), "equals": n} for n in range(101)]},
         "Expected `array` of length <= 100 - at `$.cases`"),
        ({"cases": [{"port": "", "equals": 1}]}, "Expected `str` of length >= 1 - at `$.cases[0].port`"),
        ({"cases": [{"port": "default", "equals": 1}]},
         "the port 'default' is the way of no case; allowed is any other text of its own - at `$.cases[0]`"),
        ({"cases": [{"port": "{{a}}", "equals": 1}]},
         "the port '{{a}}' is not known before the run; "
         "allowed is any other text of its own - at `$.cases[0]`"),
        ({"cases": [{"port": "a"}]},
         "the case 'a' has neither of 'condition' and 'equals'; allowed is one - at `$.cases[0]`"),
        ({"cases": [{"port": "a", "equals": 1, "condition": {"operation": "exists"}}]},
         "the case 'a' has both of 'condition' and 'equals'; allowed is one - at `$.cases[0]`"),
        ({"cases": [{"port": "a", "equals": 1}, {"port": "a", "equals": 2}]},
         "two cases have the port 'a'; their ports must differ"),
    ],
)  # fmt: skip
def test_cases_that_cannot_be_ways_are_refused(drawn: Any, words: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert(drawn, Config)

    assert str(refused.value) == words


def switching(**data: Any) -> dict[str, Any]:
    ports = ("a", "b", "default")
    parts = [node("start", "StartNode"), node("switch", "Switch", **data), edge("start", "switch")]
    parts += [node(f"take {port}", "Template", template=port) for port in ports]
    return drawing(*parts, *(edge("switch", f"take {port}", port) for port in ports))


def case(port: str, **condition: Any) -> dict[str, Any]:
    return {"port": port, "condition": condition}


OPEN_CASES = [
    case("a", all=[{"left": "{{ start.n }}", "operation": "greater", "right": "{{ start.least }}"}]),
    case("b", left="{{ start.name }}", operation="matches", right="^{{ start.pattern }}$"),
]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"n": 5, "least": "3", "name": "", "pattern": ""}, "a"),
        ({"n": 2, "least": "3", "name": "Ada", "pattern": "A.a"}, "b"),
        ({"n": 2, "least": "3", "name": "Bob", "pattern": "A.a"}, "default"),
    ],
)
async def test_a_run_takes_the_way_that_its_values_choose(given: dict[str, Any], taken: str) -> None:
    compiled = Compiler(registry.discover()).compile(switching(cases=OPEN_CASES))

    ran = await runs.run(compiled, given)

    assert ran.outputs["switch"] == {"output": given, "case": taken}
    assert [id for id in ran.those("finished") if id.startswith("take")] == [f"take {taken}"]


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({"n": "many", "least": 3}, "bad_operand",
         "the left operand of 'greater' is 'many'; allowed is a number or a text of one, "
         "or a date or time as 2025-01-31 or 2025-01-31T12:00:00Z"),
        ({"n": 2, "least": 3, "pattern": "("}, "bad_config",
         "'cases' at [1].condition: 'right' is not a pattern that RE2 reads: missing ): ^($"),
    ],
)  # fmt: skip
async def test_a_run_whose_values_cannot_be_compared_fails_in_words(
    given: dict[str, Any], code: str, words: str
) -> None:
    compiled = Compiler(registry.discover()).compile(switching(cases=OPEN_CASES))

    with pytest.raises(StepFailed) as failed:
        await runs.run(compiled, {"name": "", "pattern": "", **given})

    assert (failed.value.step, failed.value.code, failed.value.message) == ("switch", code, words)


X = "{{ start }}"


@pytest.mark.parametrize(
    ("type", "data", "problems"),
    [
        ("Switch", {"cases": [case("a", left=X, operation="equal", right=1, case_sensitive=X)]}, []),
        ("Switch", {"cases": [case("a", left=X, operation=X, right=1)]}, []),
        ("Switch", {"cases": [case("a", left=X, operation=X, right=1, type="number")]}, []),
        ("Switch", {"cases": [case("a", left=X, operation="equal", right=1, type=X)]}, []),
        ("Switch", {"cases": [case("a", left=X, operation="greater", right=1, rigth=X)]},
         [("cases/0/condition/rigth", "'cases' at [0].condition.rigth means nothing; there can be:")]),
        ("Switch", {"cases": [case("a", left=X, operation="equal", right=1), {"port": "b", "equal": 1}]},
         [("cases/1/equal", "'cases' at [1].equal means nothing; there can be: port, condition, equals")]),
        ("Switch", {"cases": [case("a", left=X, operation="equal", right=1, case_sensitive=X),
                              case("b", any=[{"operation": "exists"}, {"left": X, "operation": "equl"}])]},
         [("cases/1/condition/any/1/operation",
           "'cases' at [1].condition.any[1].operation is 'equl'; allowed is one of")]),
        ("Switch", {"cases": [{"port": X, "equals": 1}]},
         [("cases/0/port", "'cases' at [0]: the port '{{ start }}' is not known before the run; allowed")]),
        ("Switch", {"cases": X}, [("", "'cases' name ports and must be known before the run; allowed is")]),
        ("ConditionNode", {"condition": {"left": X, "operation": "equal"}},
         [("condition", "'condition': 'equal' needs a 'right' operand")]),
        ("ConditionNode", {"condition": {"left": 1, "operation": "equal"}},
         [("condition", "'condition': 'equal' needs a 'right' operand")]),
        ("ConditionNode", {"condition": {"left": X, "operation": "matches", "right": "(a"}},
         [("condition/right", "'condition': 'right' is not a pattern that RE2 reads: missing ): (a")]),
        ("ConditionNode", {"condition": X}, []),
        ("ConditionNode", {"condition": {"all": X}}, []),
        ("ConditionNode", {"condition": {"not": {"all": [X, {"operation": "equal", "right": X}]}}}, []),
        ("ConditionNode", {"condition": {"left": X, "operation": "exists"}, "value1": "x"},
         [("", "'condition' decides alone, but there is also 'value1'; allowed is one or the other")]),
        ("HumanInput", {"question": "?", "form": [{"name": X, "options": X, "required": X}]}, []),
        ("HumanInput", {"question": "?", "form": [{"name": X, "type": "date"}]},
         [("form/0/type", "'form' at [0].type is 'date'; allowed is one of boolean,")]),
    ],
)  # fmt: skip
def test_the_structure_of_settings_with_templates_is_checked_before_the_run(
    type: str, data: dict[str, Any], problems: list[tuple[str, str]]
) -> None:
    parts = [node("start", "StartNode"), node("it", type, **data), edge("start", "it")]

    found = Compiler(registry.discover()).check(drawing(*parts)).problems

    errors = [each for each in found if each.severity == "error"]
    assert [(each.pointer.removeprefix("/nodes/1/data").lstrip("/"), each.code) for each in errors] == [
        (at, "bad_config") for at, _ in problems
    ]
    assert [each.message[: len(words)] for each, (_, words) in zip(errors, problems, strict=True)] == [
        words for _, words in problems
    ]


def test_a_misspelt_operation_among_templates_has_a_hint() -> None:
    data = {"cases": [case("a", left=X, operation="not_eqal", right=1)]}
    parts = [node("start", "StartNode"), node("it", "Switch", **data), edge("start", "it")]

    found = Compiler(registry.discover()).check(drawing(*parts)).problems

    assert [each.hint for each in found if each.severity == "error"] == ["did you mean 'not_equal'?"]


def test_thousands_of_templates_in_one_setting_are_checked_in_a_moment() -> None:
    form = [{"name": f"{n} {X}", "required": X} for n in range(5_000)]
    parts = [
        node("start", "StartNode"),
        node("it", "HumanInput", question="?", form=form),
        edge("start", "it"),
    ]

    found = Compiler(registry.discover()).check(drawing(*parts)).problems

    assert [each for each in found if each.severity == "error"] == []
