"""Node types are found, here and in the packages of others; what breaks the contract stops the start."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from graphs.compile import Compiler
from nodes import registry
from nodes.contract import NodeDefinitionError, NodeType, Nothing, RunContext, Tool
from nodes.flow import end
from nodes.text import template
from tests.server import drawing, edge, node


class Settings(msgspec.Struct, frozen=True):
    pass


class Given(msgspec.Struct, frozen=True):
    output: Any


async def good(config: Settings, inputs: Nothing, ctx: RunContext) -> Given:
    return Given(None)


def a_module(name: str, **values: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(values)
    return module


def a_type(name: str, *aliases: str, module: str = "acme_nodes.one") -> NodeType:
    async def run(config: Settings, inputs: Nothing, ctx: RunContext) -> Given:
        return Given(None)

    run.__module__ = module
    return NodeType.step(run, name, name, aliases=aliases)


def test_the_types_that_come_along() -> None:
    assert sorted(registry.discover().types) == [
        "Agent",
        "Aggregate",
        "AnthropicChat",
        "BufferMemory",
        "ChunkSplitter",
        "Classifier",
        "CodeNode",
        "CohereRerankerProvider",
        "ConditionNode",
        "ConversationMemory",
        "CryptographyNode",
        "DeleteDocuments",
        "DocumentLoader",
        "EmailSend",
        "EndNode",
        "ErrorTrigger",
        "Evaluate",
        "Extractor",
        "Filter",
        "GoogleChat",
        "HttpRequest",
        "HumanInput",
        "JsonParserNode",
        "Limit",
        "Loop",
        "MCPTools",
        "Map",
        "MarkItDownTool",
        "MemoryRead",
        "MemoryWrite",
        "Merge",
        "OllamaChat",
        "OpenAIChat",
        "OpenAICompatibleNode",
        "OpenAIEmbeddingsProvider",
        "PostgresQuery",
        "Prompt",
        "Reranker",
        "RespondToWebhook",
        "RetrieverProvider",
        "Search",
        "SetVariable",
        "Sort",
        "StartNode",
        "StringInputNode",
        "Subflow",
        "Switch",
        "TavilySearch",
        "Template",
        "TimerStart",
        "Value",
        "VectorStoreOrchestrator",
        "Wait",
        "WebScraper",
        "WebSearch",
        "WebhookTrigger",
    ]


def test_a_type_is_found_by_its_name_and_its_aliases() -> None:
    found = registry.discover()

    assert found.find("Template") is found.find("TextTemplate") is template.NODE
    assert found.find("template") is None
    assert found.find("") is None


def test_two_types_of_one_name_are_refused_and_both_modules_are_named() -> None:
    theirs = a_type("Template", module="acme_nodes.texts")

    with pytest.raises(
        NodeDefinitionError,
        match=r"^node type 'Template' is defined twice: nodes\.text\.template and acme_nodes\.texts$",
    ):
        registry.collect([template, a_module("acme_nodes.texts", NODE=theirs)])


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        (("One", "Same"), ("Two", "Same"), "Same"),
        (("One", "Two"), ("Two",), "Two"),
        (("One",), ("Two", "One"), "One"),
    ],
)
def test_an_alias_that_another_type_has_is_refused_and_both_modules_are_named(
    first: tuple[str, ...], second: tuple[str, ...], name: str
) -> None:
    one, two = a_type(*first, module="acme_nodes.one"), a_type(*second, module="acme_nodes.two")

    with pytest.raises(NodeDefinitionError) as refused:
        registry.collect([a_module("acme_nodes.one", NODE=one), a_module("acme_nodes.two", NODE=two)])

    assert str(refused.value).startswith(f"node type {name!r} is defined twice: ")
    assert {"acme_nodes.one", "acme_nodes.two"} <= set(str(refused.value).replace(",", " ").split())


def test_a_type_that_another_module_imports_is_still_one() -> None:
    found = registry.collect([end, a_module("other", NODE=end.NODE, again=end.NODE)])

    assert dict(found.types) == {"EndNode": end.NODE}


def test_the_registry_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        registry.discover().types["Mine"] = end.NODE  # type: ignore[index]


async def no_context(config: Settings, inputs: Nothing) -> Given:
    raise NotImplementedError


async def other_names(settings: Settings, inputs: Nothing, ctx: RunContext) -> Given:
    raise NotImplementedError


def not_async(config: Settings, inputs: Nothing, ctx: RunContext) -> Given:
    raise NotImplementedError


async def no_return(config: Settings, inputs: Nothing, ctx: RunContext):  # type: ignore[no-untyped-def]
    raise NotImplementedError


async def no_struct_back(config: Settings, inputs: Nothing, ctx: RunContext) -> str:
    raise NotImplementedError


async def no_annotation(config, inputs: Nothing, ctx: RunContext) -> Given:  # type: ignore[no-untyped-def]
    raise NotImplementedError


async def a_dict(config: dict[str, Any], inputs: Nothing, ctx: RunContext) -> Given:
    raise NotImplementedError


async def a_dict_arrives(config: Settings, inputs: dict[str, Any], ctx: RunContext) -> Given:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (no_context, "node 'Mine' needs 'no_context(config, inputs, ctx) or (config, inputs, bindings, ctx)'"
         ", not '(config, inputs)'"),
        (other_names, "node 'Mine' needs 'other_names(config, inputs, ctx) or "
         "(config, inputs, bindings, ctx)', not '(settings, inputs, ctx)'"),
        (not_async, "'run' of node 'Mine' must be 'async def'"),
        (no_return, "node 'Mine' must return a struct or name 'outputs'"),
        (no_struct_back, "node 'Mine' must return a struct or name 'outputs'"),
        (no_annotation, "'config' of node 'Mine' must be annotated with a struct"),
        (a_dict, "'config' of node 'Mine' must be annotated with a struct"),
        (a_dict_arrives, "'inputs' of node 'Mine' must be annotated with a struct"),
    ],
)  # fmt: skip
def test_a_step_that_breaks_the_contract_is_refused(run: Callable[..., Any], words: str) -> None:
    with pytest.raises(NodeDefinitionError) as refused:
        NodeType.step(run, "Mine", "Mine")

    assert str(refused.value) == f"{__name__}: {words}"


def test_a_provider_that_breaks_the_contract_is_refused() -> None:
    def make(config: Settings, ctx: RunContext) -> Any: ...

    with pytest.raises(NodeDefinitionError) as refused:
        NodeType.provider(make, "Mine", "Mine", gives=Tool, outputs=Given)

    assert str(refused.value) == (
        f"{__name__}: node 'Mine' needs 'make(config, bindings, ctx)', not '(config, ctx)'"
    )


GREET = '''
"""Greet somebody."""

from __future__ import annotations

import msgspec

from nodes.contract import NodeType, RunContext


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    who: str


class Inputs(msgspec.Struct, frozen=True):
    input: str = ""


class Outputs(msgspec.Struct, frozen=True):
    greeting: str


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    return Outputs(f"Hello {config.who}")


NODE = NodeType.step(run, "acme.greet", "Greet")
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Install a package of node types as pip would: `install(package, source of its module)`."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(package: str, source: str) -> None:
        folder, info = tmp_path / package / "texts", tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir(parents=True)
        info.mkdir()
        (tmp_path / package / "__init__.py").write_text("")
        (folder / "__init__.py").write_text("")
        (folder / "greet.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{registry.ENTRY_POINT_GROUP}]\nacme = {package}\n")

    yield put
    for name in [name for name in sys.modules if name.startswith("acme_of_a_test")]:
        del sys.modules[name]


def test_a_package_of_somebody_else_is_found_through_its_entry_point(
    install: Callable[[str, str], None],
) -> None:
    install("acme_of_a_test", GREET)

    found = registry.discover()

    assert found.find("acme.greet") is not None
    parts = [node("start", "StartNode"), node("greet", "acme.greet", who="{{ start }}")]
    plan = Compiler(found).check(drawing(*parts, edge("start", "greet"))).plan
    assert plan is not None
    assert plan.steps["greet"].type.where == "acme_of_a_test.texts.greet"


def test_a_package_that_takes_a_name_of_ours_stops_the_start(install: Callable[[str, str], None]) -> None:
    install("acme_of_a_test_2", GREET.replace("acme.greet", "StartNode"))

    with pytest.raises(NodeDefinitionError) as refused:
        registry.discover()

    assert str(refused.value) == (
        "node type 'StartNode' is defined twice: nodes.flow.start and acme_of_a_test_2.texts.greet"
    )


def test_a_package_that_cannot_be_imported_stops_the_start(install: Callable[[str, str], None]) -> None:
    install("acme_of_a_test_3", "import there_is_no_such_module\n")

    with pytest.raises(ModuleNotFoundError, match="there_is_no_such_module"):
        registry.discover()
