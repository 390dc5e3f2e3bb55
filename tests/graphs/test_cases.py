"""Every `cases/*.json` compiles to, or is refused with, exactly what its `.txt` says.

`UPDATE_CASES=1 pytest` writes the `.txt`; read the diff like code, as the author of the drawing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from graphs.compile import Checked, Compiler
from graphs.plan import Plan
from graphs.summary import summary
from nodes import registry

FOLDER = Path(__file__).parent / "cases"
CASES = sorted(FOLDER.glob("*.json"))
GOOD = [
    case
    for case in CASES
    if (text := case.with_suffix(".txt")).exists()
    and "durability" in text.read_text()
    and not case.stem.startswith("not_checked")  # the workflows that it runs have to be looked up first
]


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler(registry.discover())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_case(case: Path, compiler: Compiler) -> None:
    expected = case.with_suffix(".txt")

    actual = describe(compiler.check(msgspec.json.decode(case.read_bytes())))

    if os.environ.get("UPDATE_CASES"):
        expected.write_text(actual)
    assert actual == expected.read_text()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_every_pointer_leads_into_the_drawing(case: Path, compiler: Compiler) -> None:
    drawing = msgspec.json.decode(case.read_bytes())

    checked = compiler.check(drawing)

    assert [each for each in checked.problems if not leads(each.pointer, drawing)] == []


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.stem)
def test_what_checks_also_compiles_with_the_same_words(case: Path, compiler: Compiler) -> None:
    drawing = msgspec.json.decode(case.read_bytes())
    checked = compiler.check(drawing)

    compiled = compiler.compile(drawing)

    assert (compiled.version, compiled.warnings) == (checked.version, checked.problems)
    assert compiler.check(drawing).problems == checked.problems


def test_every_answer_belongs_to_a_case() -> None:
    answers = {each.stem for each in FOLDER.glob("*.txt")}

    assert answers == {case.stem for case in CASES}


def describe(checked: Checked) -> str:
    lines = [str(problem) for problem in checked.problems]
    return "".join(f"{line}\n" for line in lines + (planned(checked.plan) if checked.plan else []))


def planned(plan: Plan) -> list[str]:
    found = summary(plan)
    return [
        *(f"wave: {', '.join(wave)}" for wave in found.parallel),
        *(
            f"loop: {', '.join(loop.steps)}; begins with {loop.first}, at most {loop.max_rounds} rounds, "
            f"then {', '.join(loop.exits) or 'nothing'}"
            for loop in found.loops
        ),
        *(f"map: {each.step} of {', '.join(each.steps) or 'nothing'}" for each in found.maps),
        f"parts: {', '.join(found.providers) or 'none'}",
        f"durability: {found.durability}",
    ]


def leads(pointer: str, drawing: Any) -> bool:
    """Whether a JSON pointer leads to something."""
    found = drawing
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(key)] if isinstance(found, list) else found[key]
        except (LookupError, TypeError, ValueError):
            return False
    return True
