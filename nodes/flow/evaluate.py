"""Check what a workflow has made: conditions on values of the run, which fail it or are reported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from nodes.conditions import Condition, explain, work_of
from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.isolated import isolated_if_heavy
from nodes.mistakes import Keys, Mistakes, twice

MOST_TOLD = 5
"""How many failed checks the message of a failure names."""


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that must be so."""

    condition: Annotated[
        Condition,
        msgspec.Meta(
            description="What must hold. Without `left` its comparisons compare what arrives, or what lies "
            "at their `path` in it."
        ),
    ]
    name: Annotated[
        str, msgspec.Meta(description="What is checked, in words; left empty, its number.", max_length=200)
    ] = ""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    checks: Annotated[
        Annotated[tuple[Check, ...], msgspec.Meta(min_length=1, max_length=200)],
        setting("assertions", "conditions", description="What must be so; all of them are tried."),
    ]
    on_failure: Annotated[
        Literal["fail", "report"],
        setting(
            template=False,
            description="When a check does not hold: the step fails as `check_failed`, or only its outputs "
            "say so.",
        ),
    ] = "fail"

    def __post_init__(self) -> None:
        if found := [*_same_names(self)]:
            raise Mistakes(found)


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[Any, port("actual", description="What is checked, if a check names nothing else.")] = (
        None
    )


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[Any, port(description="What arrived, passed on.")]
    passed: Annotated[bool, port(description="Whether every check holds.")]
    report: Annotated[
        list[dict[str, Any]],
        port(
            description="Of every check its `name`, whether it `holds`, and what was `compared`; or the "
            "`error` that kept it from being compared."
        ),
    ]
    failed: Annotated[int, port(description="How many checks do not hold.")]
    score: Annotated[float, port(description="The part of the checks that hold, from 0 to 1.")]


def _same_names(config: Config) -> Iterator[tuple[str, Keys]]:
    if not config.checks:  # a template whose value is not known yet
        return
    names = [each.name or f"check {at}" for at, each in enumerate(config.checks, 1)]
    for at in twice(names):
        yield f"two checks are called {names[at]!r}; their names must differ", ("checks", at, "name")


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    work = work_of((each.condition for each in config.checks), inputs.input)
    report = await isolated_if_heavy(ctx, work, _report, config.checks, inputs.input)
    failed = [each for each in report if not each["holds"]]
    if failed and config.on_failure == "fail":
        words = "; ".join(map(_in_words, failed[:MOST_TOLD]))
        more = f"; and {len(failed) - MOST_TOLD} more" if len(failed) > MOST_TOLD else ""
        message = f"{len(failed)} of {len(report)} checks failed: {words}{more}"
        raise NodeError(message, code="check_failed", is_final=True)
    score = (len(report) - len(failed)) / len(report)
    return Outputs(inputs.input, not failed, report, len(failed), score)


def _report(checks: tuple[Check, ...], subject: Any) -> list[dict[str, Any]]:
    return [_tried(each, at, subject) for at, each in enumerate(checks, 1)]


def _tried(check: Check, number: int, subject: Any) -> dict[str, Any]:
    name = check.name or f"check {number}"
    try:
        return {"name": name, **explain(check.condition, subject)}
    except NodeError as exc:
        return {"name": name, "holds": False, "error": exc.message}


def _in_words(tried: dict[str, Any]) -> str:
    if "error" in tried:
        return f"{tried['name']}: {tried['error']}"
    last = tried["compared"][-1] if tried["compared"] else {}
    found = [last.get("left"), last.get("operation"), last.get("right")]
    shown = [msgspec.json.encode(each).decode() if at != 1 else str(each) for at, each in enumerate(found)]
    return f"{tried['name']}: {' '.join(shown if 'right' in last else shown[:2])}"


NODE = NodeType.step(
    run,
    "Evaluate",
    "Check results",
    icon="clipboard-check",
    aliases=("EvaluateNode", "Assert"),
    examples=(
        {
            "checks": [
                {"name": "it greets", "condition": {"operation": "contains", "right": "Hello"}},
                {"name": "it is short", "condition": {"operation": "matches", "right": "^.{0,80}$"}},
            ]
        },
        {
            "checks": [{"condition": {"path": "total", "operation": "between", "right": [1, 100]}}],
            "on_failure": "report",
        },
    ),
)
