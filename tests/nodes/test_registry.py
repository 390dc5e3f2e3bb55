"""How node types are found, and what is refused when the server starts."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from nodes import registry
from nodes.contract import NodeDefinitionError, NodeType, Nothing, RunContext
from nodes.flow import end, start

BUILT_IN = {
    *("StartNode", "EndNode", "Template", "ConditionNode", "HumanInput", "HttpRequest"),
    *("OpenAIChat", "Agent", "BufferMemory"),
}


class Outputs(msgspec.Struct, frozen=True):
    text: str


async def run(config: Nothing, inputs: Nothing, ctx: RunContext) -> Outputs:
    return Outputs("x")


def module_with(*values: NodeType) -> ModuleType:
    module = ModuleType("m")
    for index, value in enumerate(values):
        setattr(module, f"NODE{index}", value)
    return module


def test_built_in_types_are_found_by_name_and_by_old_names() -> None:
    found = registry.discover()

    assert set(found.types) >= BUILT_IN
    assert found.find("ReactAgentNode") is found.types["Agent"]
    assert found.find("Nonsense") is None


@pytest.mark.parametrize(
    ("name", "aliases"), [("StartNode", ()), ("New", ("StartNode",)), ("New", ("Start",))]
)
def test_two_types_of_one_name_are_refused_with_both_modules(name: str, aliases: tuple[str, ...]) -> None:
    twin = NodeType.step(run, name, "Twin", aliases=aliases)

    with pytest.raises(
        NodeDefinitionError, match=r"is defined twice: .*(nodes\.flow\.start|test_registry)"
    ) as refused:
        registry.collect([module_with(start.NODE, end.NODE), module_with(twin)])

    assert "nodes.flow.start" in str(refused.value) and __name__.rpartition(".")[2] in str(refused.value)


async def wrong_names(config: Nothing, ctx: RunContext) -> Outputs:
    raise AssertionError


def not_async(config: Nothing, inputs: Nothing, ctx: RunContext) -> Outputs:
    raise AssertionError


async def no_struct(config: Nothing, inputs: Nothing, ctx: RunContext) -> str:
    raise AssertionError


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (wrong_names, r"needs '.*\(config, inputs, ctx\)"),
        (not_async, "must be 'async def'"),
        (no_struct, "must return a struct or name 'outputs'"),
    ],
)
def test_a_type_that_breaks_the_contract_is_refused_when_it_is_declared(function: Any, says: str) -> None:
    with pytest.raises(NodeDefinitionError, match=says):
        NodeType.step(function, "X", "X")


def test_another_package_brings_node_types_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "acme_nodes"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "hello.py").write_text(
        "import msgspec\n"
        "from nodes.contract import NodeType, Nothing, RunContext\n"
        "class Outputs(msgspec.Struct):\n    text: str\n"
        "async def run(config: Nothing, inputs: Nothing, ctx: RunContext) -> Outputs:\n"
        "    return Outputs('hi')\n"
        "NODE = NodeType.step(run, 'AcmeHello', 'Hello')\n"
    )
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flowserver.nodes]\nacme = acme_nodes\n")
    monkeypatch.syspath_prepend(tmp_path)

    found = registry.discover()

    assert found.types["AcmeHello"].where == "acme_nodes.hello"
    assert set(found.types) >= BUILT_IN
    for name in ("acme_nodes", "acme_nodes.hello"):
        monkeypatch.delitem(sys.modules, name)
