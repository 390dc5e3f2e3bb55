"""Random drawings do what the reference interpreter says, with the optimiser and without it.

`make fuzz` runs the same with a fresh seed for as long as is wanted, and shrinks what it finds.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from graphs.compile import Compiled, Compiler
from nodes import registry
from tests.graphs import node_types
from tests.graphs.drawings import Drawing, drawings, place
from tests.graphs.interpreter import Outcome
from tests.graphs.runs import Recording, run

TYPES = registry.collect([*registry.modules("nodes"), node_types])
REPAIRABLE = {"reference_not_before", "unknown_reference", "maybe_unset"}
"""Mistakes in what a random drawing refers to: such a reference is left out."""

FUZZ = int(os.environ.get("FUZZ_EXAMPLES", "0"))
EXAMPLES = FUZZ or 520
COMMON = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=not FUZZ,
    # A failing drawing is shown as it was found: to shrink it by running it takes minutes.
    phases=[Phase.generate, Phase.shrink] if FUZZ else [Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.parametrize("part", range(4))
@pytest.mark.timeout(FUZZ or 240)
def test_a_run_does_what_the_interpreter_says(part: int, loop: asyncio.Runner) -> None:
    """In four parts, so that they can run beside each other; each with a seed of its own."""
    seen = {"drawings": 0, "loops": 0, "maps": 0}

    @settings(COMMON)
    @given(drawing=drawings())
    def check(drawing: Drawing) -> None:
        if compare(drawing, loop):
            seen["drawings"] += 1
            seen["loops"] += bool(drawing.firsts)
            seen["maps"] += bool(drawing.maps)

    seed((FUZZ and int.from_bytes(os.urandom(4))) + part)(check)()

    assert seen["drawings"] >= EXAMPLES * 0.95  # nearly all of them mean something
    assert min(seen.values()) >= EXAMPLES * 0.2


def compare(drawing: Drawing, loop: asyncio.Runner) -> bool:
    """Run a drawing in both ways; whether it was one that runs."""
    if not repair(drawing):
        return False
    for fuse in (True, False):
        compiled = Compiler(TYPES, fuse=fuse).compile(drawing.flow_data)
        actual = loop.run(run(compiled))
        expected = drawing.interpret(
            {id: found["output"] for id, found in actual.outputs.items() if "output" in found}
        )
        assert told(actual) == meant(drawing, expected), f"with fuse={fuse}: {drawing.flow_data}"
        assert shape(compiled) == (
            {k: sorted(v) for k, v in drawing.loops().items()},
            {k: sorted(v) for k, v in drawing.maps.items()},
        )
    return True


def repair(drawing: Drawing) -> bool:
    """Take out the references that the checks refuse; whether nothing else is wrong."""
    for _ in range(3):
        problems = [p for p in Compiler(TYPES).check(drawing.flow_data).problems if p.severity == "error"]
        for problem in problems:
            if problem.code in REPAIRABLE:
                drawing.uses.pop(problem.where, None)
        if not problems:
            return True
        if {problem.code for problem in problems} - REPAIRABLE:
            return False
    return False


def told(actual: Recording) -> dict[str, Any]:
    """What a run has told, but for what happened beside the failure of an item."""
    failed = [(key, index) for key, index, status in actual.items if status != "succeeded"]
    return {
        "started": outside(sorted(actual.those("started")), failed),
        "skipped": outside(sorted(actual.those("skipped")), failed),
        "failed": outside(sorted(actual.those("failed")), failed),
        "items": outside(sorted(actual.items), failed),
        "outputs": {key: value for key, value in actual.outputs.items() if outside([key], failed)},
    }


def meant(drawing: Drawing, expected: Outcome) -> dict[str, Any]:
    items = sorted((place(id, within), index, status) for id, within, index, status in expected.items)
    failed = [(key, index) for key, index, status in items if status != "succeeded"]
    return {
        "started": outside(sorted(place(*each) for each in expected.came), failed),
        "skipped": outside(sorted(place(*each) for each in expected.skipped), failed),
        "failed": outside(sorted(place(*each) for each in expected.failed), failed),
        "items": outside(items, failed),
        "outputs": {
            key: dict(made.values)
            for each, made in expected.ran.items()
            if outside([key := place(*each)], failed)
        },
    }


def outside(found: list[Any], failed: list[tuple[str, int]]) -> list[Any]:
    """Those of `found` that are in no failed item: there, what runs beside the failure is open."""
    return [
        each
        for each in found
        if not any(inside(each if isinstance(each, str) else each[0], map, index) for map, index in failed)
    ]


def inside(key: str, map: str, index: int) -> bool:
    around = parts(map)
    return parts(key)[1:][: len(around)] == [*around[1:], ["item", around[0], index]]


def parts(key: str) -> list[Any]:
    """Step, then what it is in, outermost first."""
    return list(msgspec.json.decode(key)) if key.startswith("[") else [key]


def shape(compiled: Compiled) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    plan = compiled.plan
    regions = [plan.region, *(body.region for body in plan.maps.values())]
    loops = {chain[-1].first: sorted(chain[-1].steps) for region in regions for chain in region.loops()}
    return loops, {id: sorted(body.steps) for id, body in plan.maps.items()}
