"""Random drawings do what the reference interpreter says, with the optimiser and without it.

`make fuzz` runs the same with fresh seeds for as long as is wanted, shrinks what it finds and names its seed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from graphs.compile import Compiled, Compiler
from graphs.large import LargeValues
from nodes import registry
from tests.graphs import node_types
from tests.graphs.drawings import Drawing, drawings, place
from tests.graphs.interpreter import Outcome
from tests.graphs.runs import Recording, Shelf, run

TYPES = registry.collect([*registry.modules("nodes"), node_types])
REPAIRABLE = {"reference_not_before", "unknown_reference", "maybe_unset"}
"""Mistakes in what a random drawing refers to: such a reference is left out."""

MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))
EXAMPLES = 520
COMMON = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=not MINUTES,
    # A failing drawing is shown as it was found: to shrink it by running it takes minutes.
    phases=[Phase.generate, Phase.shrink] if MINUTES else [Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.parametrize("part", range(4))
@pytest.mark.timeout(MINUTES * 60 + 900 if MINUTES else 240)
def test_a_run_does_what_the_interpreter_says(part: int, loop: asyncio.Runner) -> None:
    """In four parts, so that they can run beside each other; each with a seed of its own."""
    end = time.monotonic() + MINUTES * 60
    while True:
        number = int(os.environ.get("FUZZ_SEED", "0")) or int.from_bytes(os.urandom(4)) if MINUTES else part
        try:
            a_number_of_drawings(number, loop)
        except Exception as exc:
            exc.add_note(f"seen with FUZZ_SEED={number}")
            raise
        if time.monotonic() >= end:
            return


def a_number_of_drawings(number: int, loop: asyncio.Runner) -> None:
    """Compare so many drawings, made from the seed `number`."""
    seen = {"drawings": 0, "loops": 0, "maps": 0}

    @settings(COMMON)
    @given(drawing=drawings())
    def check(drawing: Drawing) -> None:
        if compare(drawing, loop):
            seen["drawings"] += 1
            seen["loops"] += bool(drawing.firsts)
            seen["maps"] += bool(drawing.maps)

    seed(number)(check)()

    assert seen["drawings"] >= EXAMPLES * 0.95  # nearly all of them mean something
    assert min(seen.values()) >= EXAMPLES * 0.2


def compare(drawing: Drawing, loop: asyncio.Runner) -> bool:
    """Run a drawing in both ways; whether it was one that runs."""
    if not repair(drawing):
        return False
    for fuse in (True, False):
        compiled = Compiler(TYPES, fuse=fuse).compile(drawing.flow_data)
        large = None if fuse else Forgetful(Shelf())
        actual = loop.run(run(compiled, large=large))
        expected = drawing.interpret(
            {id: found["output"] for id, found in actual.outputs.items() if "output" in found}
        )
        assert told(actual) == meant(drawing, expected), f"with fuse={fuse}: {drawing.flow_data}"
        assert untold(drawing, actual) == []
        assert shape(compiled) == (
            {k: sorted(v) for k, v in drawing.loops().items()},
            {k: sorted(v) for k, v in drawing.maps.items()},
        )
    return True


class Forgetful(LargeValues):
    """Every value that can be kept apart is, and is forgotten at once, as if another process went on."""

    async def lean(self, writes: Mapping[str, Any]) -> dict[str, Any]:
        self.known.clear()
        return await super().lean(writes)


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphs.large.LARGE", 1)


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


def untold(drawing: Drawing, actual: Recording) -> list[tuple[str, str, int]]:
    """Steps of failed items of which nothing has been told."""
    began = [*actual.those("started"), *actual.those("skipped")]
    return [
        (id, map, index)
        for map, index, status in actual.items
        if status != "succeeded"
        for id in drawing.maps[parts(map)[0]]
        if not any(parts(key)[0] == id and inside(key, map, index) for key in began)
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
