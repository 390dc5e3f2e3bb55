"""Settings that were saved under an older version of their type mean what they meant then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from graphs.alone import check_alone
from graphs.compile import Compiler
from nodes import registry
from nodes.contract import NodeDefinitionError, NodeType
from nodes.registry import Registry
from tests.graphs import runs
from tests.nodes.old_types import CLOCK
from tests.server import drawing, edge, node

GOLDEN = Path(__file__).parent / "upgrades"
CASES = sorted(GOLDEN.glob("*/v*.json"))
TYPES = {**registry.discover().types, "Clock": CLOCK}
COMPILER = Compiler(Registry({**registry.discover().types, "Clock": CLOCK}, registry.discover().aliases))


def clock(**data: Any) -> dict[str, Any]:
    return drawing(node("start", "StartNode"), node("clock", "Clock", **data), edge("start", "clock"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name} {case.stem}")
def test_each_golden_file_comes_out_as_it_says(case: Path) -> None:
    node_type, golden = TYPES[case.parent.name], json.loads(case.read_text())
    assert node_type.upgrade is not None

    for saved, expected in ((each["saved"], each["becomes"]) for each in golden):
        before = json.dumps(saved)
        assert node_type.upgrade(saved, int(case.stem[1:])) == expected
        assert json.dumps(saved) == before
        assert [
            each for each in check_alone(node_type, {**expected, "type_version": node_type.version})
        ] == []


def test_every_older_version_has_a_golden_file() -> None:
    wanted = {f"{each.name}/v{version}" for each in TYPES.values() for version in range(1, each.version)}

    assert wanted == {f"{case.parent.name}/{case.stem}" for case in CASES}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"interval": 2000, "quiet": True}, {"every_seconds": 2.0, "sound": "silent"}),
        ({"interval": "1500"}, {"every_seconds": 1.5, "sound": "tick"}),
        ({"type_version": 1, "interval": 2000}, {"every_seconds": 2.0, "sound": "tick"}),
        ({"type_version": 2, "interval": 2, "quiet": "true"}, {"every_seconds": 2.0, "sound": "silent"}),
        ({"type_version": "3", "interval": 2, "sound": "bell"}, {"every_seconds": 2.0, "sound": "bell"}),
        ({"type_version": None, "interval": 2000}, {"every_seconds": 2.0, "sound": "tick"}),
        ({"version": 7, "metadata": {"version": "2.1"}, "interval": 2000},
         {"every_seconds": 2.0, "sound": "tick"}),
    ],
)  # fmt: skip
async def test_a_run_has_the_settings_in_their_new_words(data: Mapping[str, Any], expected: Any) -> None:
    compiled = COMPILER.compile(clock(**data))

    made = (await runs.run(compiled, "x")).outputs["clock"]["output"]

    assert made == {**expected, "text": ""}


async def test_templates_are_brought_up_like_other_texts() -> None:
    compiled = COMPILER.compile(clock(text="{{ start }}!", quiet=True))

    assert (await runs.run(compiled, "x")).outputs["clock"]["output"]["text"] == "x!"


@pytest.mark.parametrize(
    ("data", "code", "pointer", "words"),
    [
        ({"type_version": 4}, "newer_version", "/nodes/1/data/type_version",
         "'clock' was saved by version 4 of Clock, and this server knows only version 3"),
        ({"type_version": 0}, "bad_config", "/nodes/1/data/type_version", "'type_version' is 0; allowed is"),
        ({"type_version": "two"}, "bad_config", "/nodes/1/data/type_version", "'type_version' is 'two'"),
        ({"type_version": True}, "bad_config", "/nodes/1/data/type_version", "'type_version' is true"),
        ({"type_version": 1.5}, "bad_config", "/nodes/1/data/type_version", "'type_version' is 1.5"),
        ({"type_version": [1]}, "bad_config", "/nodes/1/data/type_version", "'type_version' is [1]"),
        ({"interval": "junk"}, "bad_config", "/nodes/1/data",
         "the settings of 'clock', of version 1 of Clock, cannot be read: could not convert"),
        ({"interval": [1]}, "bad_config", "/nodes/1/data", "the settings of 'clock', of version 1"),
        ({"interval": 1}, "bad_config", "/nodes/1/data", "'every_seconds' is 0.001; allowed is a number"),
        ({"quiet": True, "text": "{{ nobody }}"}, "unknown_reference", "/nodes/1/data/text", "{{ nobody }}"),
    ],
)  # fmt: skip
def test_what_cannot_be_brought_up_is_a_problem_at_its_place(
    data: Mapping[str, Any], code: str, pointer: str, words: str
) -> None:
    (problem,) = COMPILER.check(clock(**data)).problems

    assert (problem.code, problem.pointer) == (code, pointer)
    assert words in problem.message


def test_the_drawings_version_tells_one_node_version_from_another() -> None:
    assert COMPILER.check(clock()).version != COMPILER.check(clock(type_version=3)).version


def test_a_type_that_was_never_changed_takes_the_key_and_refuses_newer_ones() -> None:
    assert check_alone(TYPES["Limit"], {"type_version": 1}) == ()
    assert [each.code for each in check_alone(TYPES["Limit"], {"type_version": 2})] == ["newer_version"]


def test_a_changed_type_must_say_how_older_settings_are_brought_up() -> None:
    with pytest.raises(NodeDefinitionError, match=r"version 2 of node 'Mine' needs an 'upgrade' from older"):
        NodeType.step(CLOCK.act, "Mine", "Mine", version=2)


@pytest.mark.parametrize("name", ["", "a/b"])
def test_a_name_that_no_address_can_hold_is_refused(name: str) -> None:
    with pytest.raises(NodeDefinitionError, match="cannot be called"):
        NodeType.step(CLOCK.act, name, "Mine")
