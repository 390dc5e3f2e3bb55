"""Providers that are made asynchronously."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
import pytest

from graphs.compile import Compiler
from graphs.runtime import StepFailed
from nodes.contract import ChatModel, NodeError, NodeType, Nothing, RunContext, port
from nodes.registry import Registry, discover
from tests.graphs.runs import run
from tests.server import drawing, edge, node

MADE: list[str] = []


class Given(msgspec.Struct, frozen=True):
    llm: Any = None


class Used(msgspec.Struct, frozen=True):
    llm: ChatModel


class Out(msgspec.Struct, frozen=True):
    text: Annotated[str, port()]


async def make(config: Nothing, bindings: Nothing, ctx: RunContext) -> Any:
    await asyncio.sleep(0)
    MADE.append(ctx.step)
    if ctx.step == "broken":
        raise NodeError("it cannot be made", code="no_provider", is_final=True)
    return f"object {len(MADE)}"


async def use(config: Nothing, inputs: Nothing, bindings: Used, ctx: RunContext) -> Out:
    return Out(str(bindings.llm))


SLOW = NodeType.provider(make, "Slow", "Slow", gives=ChatModel, outputs=Given)
USE = NodeType.step(use, "Use", "Use", effect=True)
KNOWN = discover()
TYPES = Registry({**KNOWN.types, "Slow": SLOW, "Use": USE}, KNOWN.aliases)


async def test_steps_that_run_together_share_what_is_made_once() -> None:
    MADE.clear()
    flow = drawing(
        node("p", "Slow"),
        *(node(id, "Use") for id in ("a", "b", "c")),
        *(edge("p", id, "llm", "llm") for id in ("a", "b", "c")),
    )

    found = await run(Compiler(TYPES).compile(flow))

    assert found.output == {"a": "object 1", "b": "object 1", "c": "object 1"}
    assert MADE == ["p"]


async def test_one_that_cannot_be_made_fails_the_step_that_needs_it() -> None:
    flow = drawing(node("broken", "Slow"), node("a", "Use"), edge("broken", "a", "llm", "llm"))

    with pytest.raises(StepFailed) as failed:
        await run(Compiler(TYPES).compile(flow))

    assert (failed.value.step, failed.value.code) == ("a", "no_provider")
