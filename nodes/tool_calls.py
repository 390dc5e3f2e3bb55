"""Calls that a model makes of its tools: made, told, and answered also where they fail."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nodes.contract import NodeError, RunContext, ServerTrouble

if TYPE_CHECKING:
    from langchain_core.messages import ToolMessage
    from langchain_core.tools import BaseTool

MOST_FOR_MODEL = 50_000
"""Characters of a tool's answer that a model is shown."""
MOST_OF_ERROR = 2_000


def tool_name(name: str, otherwise: str) -> str:
    """A node's name as models may call it."""
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", name).strip("_")[:64] or otherwise


def every_tool(bound: Iterable[Any]) -> list[BaseTool]:
    """The tools behind a port: a provider may give several.

    Raises:
        NodeError: Two have one name, so that a model could not say which it means.
    """
    found: list[Any] = []
    for each in bound:
        found += each if isinstance(each, list | tuple) else [each]
    names = [each.name for each in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        message = f"two tools are called {twice[0]!r}; give their nodes names that differ"
        raise NodeError(message, code="bad_config", is_final=True)
    return found


async def called(
    call: Mapping[str, Any], make: Callable[[], Awaitable[Any]], ctx: RunContext
) -> ToolMessage | Any:
    """Let `make` make a tool call, and tell of it; a failure is an answer that the model has to deal with."""
    from langgraph.errors import GraphBubbleUp  # noqa: PLC0415  loaded with the first agent

    ctx.used({"tool_calls": 1})
    told = {"call": call["id"], "tool": call["name"]}
    ctx.tell("tool.called", told | {"arguments": call["args"]})
    began = time.perf_counter()
    try:
        answer = await make()
    except (GraphBubbleUp, ServerTrouble):
        raise
    except NodeError as exc:
        answer = refused(call, f"{exc.code}: {exc.message}")
    except Exception as exc:  # whatever a tool raises is the model's to deal with
        answer = refused(call, ctx.redact(f"{type(exc).__name__}: {exc}")[:MOST_OF_ERROR])
    failed = getattr(answer, "status", None) == "error"
    said = getattr(answer, "content", None)
    ms = round((time.perf_counter() - began) * 1000)
    ctx.tell("tool.returned", told | {"ms": ms, "error" if failed else "result": said})
    return answer


def refused(call: Mapping[str, Any], why: str) -> ToolMessage:
    """The answer to a call that came to nothing."""
    from langchain_core.messages import ToolMessage  # noqa: PLC0415

    return ToolMessage(why, tool_call_id=call["id"], name=call["name"], status="error")
