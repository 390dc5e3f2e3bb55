"""What holds of every node type there is, whatever it is given."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import fields

from graphs.alone import Trial, alone, check_alone
from graphs.compile import Compiler
from graphs.ports import ports
from graphs.problems import InvalidWorkflow
from graphs.runtime import StepFailed
from nodes import registry
from nodes.contract import NodeType
from nodes.notes import note
from tests.graphs import runs

REGISTRY = registry.discover()
COMPILER = Compiler(REGISTRY)
TYPES = sorted(REGISTRY.types)
DEEP: Any = {}
for _ in range(60):
    DEEP = {"a": [DEEP]}
JUNK: list[Any] = [
    None, True, False, 0, -1, 10**30, 1e308, 1.5, "", " ", "text", "x" * 20_000, "\x00", "\u2028", "{", "[",
    "[]", "{}", '{"a": 1}', "{{ input }}", "{{", "{{ nobody.x }}", "{% raw %}", "${{ input }}", "'; --",
    "../../etc/passwd", "file:///etc/passwd", "http://169.254.169.254/", "٣", "1e999", "NaN", "-0",
    [], {}, [None], [[]], [{}], {"": None}, ["x"] * 500, DEEP, {"operation": "equal"}, [{"port": "x"}],
    [{"path": "["}], {"__class__": "x"},
]  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
def test_junk_in_any_setting_is_a_problem_or_nothing_and_has_its_place(name: str) -> None:
    node_type = REGISTRY.types[name]
    for info in fields(node_type.config):
        for junk in JUNK:
            config = {**(node_type.examples[0] if node_type.examples else {}), info.encode_name: junk}

            for problem in check_alone(node_type, config):
                assert problem.pointer.startswith("/config")
                assert len(problem.message) < 2_000


@pytest.mark.parametrize("name", TYPES)
def test_junk_in_all_settings_at_once_is_told(name: str) -> None:
    node_type = REGISTRY.types[name]
    for junk in JUNK:
        assert isinstance(
            check_alone(node_type, {info.name: junk for info in fields(node_type.config)}), tuple
        )


CANARY = "CNRY-5b1f"


@pytest.mark.parametrize("name", TYPES)
def test_no_problem_shows_what_a_secret_setting_holds(name: str) -> None:
    node_type = REGISTRY.types[name]
    for info in fields(node_type.config):
        if not note(info.type, "secret", False):
            continue
        for junk in (CANARY, [CANARY], {"a": CANARY}, f"{{{{ {CANARY}", f"[{CANARY}", f"{CANARY}\n{CANARY}"):
            config = {**(node_type.examples[0] if node_type.examples else {}), info.encode_name: junk}

            said = [f"{each.message} {each.hint}" for each in check_alone(node_type, config)]

            assert [each for each in said if CANARY in each] == [], junk


def pure(node_type: NodeType) -> bool:
    """Whether it computes and does nothing else."""
    return node_type.kind == "step" and not node_type.effect and node_type.calls is None


@pytest.mark.parametrize("name", [each for each in TYPES if pure(REGISTRY.types[each])])
async def test_junk_at_any_port_gives_outputs_or_a_failure_with_a_code(name: str) -> None:
    node_type = REGISTRY.types[name]
    for example in node_type.examples[:1] or ({},):
        for port in ports(node_type.inputs):
            for junk in JUNK:
                trial = Trial(example, {port.name: junk}, vars={"total": 0})
                try:
                    compiled = COMPILER.compile(alone(node_type, trial))
                    made = (await runs.run(compiled, {"orders": [], "lines": [], "name": junk})).outputs
                except InvalidWorkflow as exc:
                    assert all(problem.code != "internal" for problem in exc.problems)
                except StepFailed as exc:
                    assert exc.code != "step_failed", exc.message  # it says by name what is wrong
                    assert len(exc.message) < 2_000
                else:
                    msgspec.json.encode(made)
