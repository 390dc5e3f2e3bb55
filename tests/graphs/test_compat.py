"""Drawings that the editors really saved are accepted as they are, but for node types that are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from graphs.compile import Compiler
from nodes import registry

SAVED = Path(__file__).parents[3] / "shared" / "compat" / "workflows"
NAMES = [
    "kaiflow-basic-agent",
    "kaifusion-RAG-Usage-Flow",
    "kaifusion-Webhook-Template",
    "kaifusion-basic-agent",
    "kaifusion-rag-pipeline",
]
TYPES = registry.discover()

pytestmark = pytest.mark.skipif(not SAVED.is_dir(), reason=f"the editors' drawings are not in {SAVED}")


def saved(name: str) -> Any:
    return msgspec.json.decode((SAVED / f"{name}.json").read_bytes())["flow_data"]


def test_every_saved_drawing_is_tried() -> None:
    assert sorted(path.stem for path in SAVED.glob("*.json")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_drawing_has_no_errors_but_unknown_types(name: str) -> None:
    drawing = saved(name)
    unknown = [node for node in drawing["nodes"] if TYPES.find(node["type"]) is None]

    checked = Compiler(TYPES).check(drawing)

    errors = [problem for problem in checked.problems if problem.severity == "error"]
    assert [(each.code, each.where) for each in errors] == [("unknown_type", node["id"]) for node in unknown]
    assert (checked.plan is None) == bool(unknown)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_drawing_causes_no_noise(name: str) -> None:
    checked = Compiler(TYPES).check(saved(name))

    warnings = {problem.code for problem in checked.problems if problem.severity == "warning"}
    assert warnings <= {"credential_unavailable"}


@pytest.mark.parametrize("name", ["kaiflow-basic-agent", "kaifusion-basic-agent"])
def test_the_basic_agents_compile_to_start_agent_end(name: str) -> None:
    plan = Compiler(TYPES).compile(saved(name)).plan

    assert [step.type.name for step in plan.steps.values()] == [
        "StartNode",
        "Agent",
        "EndNode",
    ]
    assert sorted(part.type.name for part in plan.parts.values()) == ["BufferMemory", "OpenAIChat"]
    agent = next(step for step in plan.steps.values() if step.type.name == "Agent")
    assert sorted(agent.bindings) == ["llm", "memory"]
