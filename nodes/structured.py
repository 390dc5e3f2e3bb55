"""Answers of models that fit a JSON schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nodes.answer_schemas import misfit
from nodes.broken_calls import mended
from nodes.contract import NodeError, RunContext
from nodes.fences import inner_fence, unfenced

ATTEMPTS = 3
"""How often a model is asked for an answer that fits."""


async def ask_for(
    model: Any,
    messages: Sequence[Any],
    schema: Mapping[str, Any],
    ctx: RunContext,
    *,
    name: str = "answer",
    attempts: int = ATTEMPTS,
) -> dict[str, Any]:
    """What a model answers, in the form of `schema`: as a tool call, or as JSON where it knows no tools.

    Raises:
        NodeError: It gave nothing that fits, however often it was asked: `bad_answer`.
    """
    from langchain_core.messages import HumanMessage, ToolMessage  # noqa: PLC0415

    described = {"title": name, "description": schema.get("description") or "Give the answer."}
    asked = model.bind_tools([{**schema, **described}], tool_choice=name)
    talk, why = list(messages), "nothing"
    for _ in range(attempts):
        reply, broken = mended(await asked.ainvoke(talk))
        count(reply, ctx)
        ids = {each.tool_call_id for each in broken}
        calls = [each for each in reply.tool_calls if each["id"] not in ids]
        call = next(iter(calls), None)
        value = call["args"] if call else _json_in(str(reply.text))
        why = "it is no JSON object" if value is None else await misfit(ctx, value, schema) or ""
        if value is not None and not why:
            return dict(value)
        said = f"The answer does not fit the schema: {why}. Answer again, as the schema says."
        talk += [reply, *broken, ToolMessage(said, tool_call_id=call["id"]) if call else HumanMessage(said)]
        talk += [ToolMessage("not used", tool_call_id=each["id"]) for each in calls[1:]]
    raise NodeError(f"the model gave no answer that fits the schema: {why}", code="bad_answer")


def count(reply: Any, ctx: RunContext) -> dict[str, int]:
    """Report what a model's answer took; what that was."""
    usage = reply.usage_metadata or {}
    used = {"model_calls": 1} | {
        key: usage[key] for key in ("input_tokens", "output_tokens") if usage.get(key)
    }
    ctx.used(used)
    return used


def _json_in(text: str) -> dict[str, Any] | None:
    bare = unfenced(text)
    for each in (bare, inner_fence(bare) or "", text[text.find("{") : text.rfind("}") + 1]):
        try:
            return msgspec.json.decode(each, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            continue
    return None
