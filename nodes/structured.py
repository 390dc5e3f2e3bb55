"""Answers of models that fit a JSON schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from nodes.broken_calls import mended
from nodes.contract import NodeError, RunContext
from nodes.mistakes import Keys

ATTEMPTS = 3
"""How often a model is asked for an answer that fits."""
MOST_DEPTH = 50

_FENCED = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)


def as_schema(given: Mapping[str, Any] | str, setting: str) -> dict[str, Any]:
    """The schema of an object that a setting gives, as JSON or a text of it; `{}` where it is empty.

    Raises:
        NodeError: It is none.
    """
    found: Any = given
    if isinstance(given, str):
        try:
            found = msgspec.json.decode(given) if given.strip() else {}
        except (msgspec.DecodeError, RecursionError) as exc:
            raise NodeError(f"{setting!r} is not JSON: {exc}", code="bad_config") from None
    if not found:
        return {}
    if not isinstance(found, Mapping):
        raise NodeError(f"{setting!r} is no JSON schema: it must be an object", code="bad_config")
    schema = dict(found)
    if schema.get("type", "object") != "object":
        message = f"{setting!r} must be the schema of an object, not of {schema['type']!r}"
        raise NodeError(message, code="bad_config")
    _must_be_plain(schema, setting)
    return {"type": "object"} | schema


def schema_mistakes(given: Mapping[str, Any] | str, setting: str) -> Iterator[tuple[str, Keys]]:
    """What is wrong with a setting that holds a schema, as far as that is known before a run."""
    if "{{" not in str(given):
        try:
            as_schema(given, setting)
        except NodeError as exc:
            yield exc.message, (setting,)


def misfit(value: Any, schema: Mapping[str, Any]) -> str | None:
    """Why `value` does not fit, in a sentence; `None` if it does."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415  a tenth of a second
    from jsonschema.exceptions import best_match  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    # Its own registry would fetch what a schema refers to, from wherever that is.
    found = best_match(Draft202012Validator(schema, registry=Registry()).iter_errors(value))
    if found is None:
        return None
    where = "/".join(str(each) for each in found.absolute_path) or "the answer"
    return f"{where}: {found.message[:500]}"


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
        why = "it is no JSON object" if value is None else misfit(value, schema) or ""
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
    fenced = _FENCED.search(text)
    for each in (text, fenced[1] if fenced else "", text[text.find("{") : text.rfind("}") + 1]):
        try:
            return msgspec.json.decode(each, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            continue
    return None


def _must_be_plain(schema: dict[str, Any], setting: str) -> None:
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415

    for ref in _refs(schema, 0, setting):
        if not ref.startswith("#"):
            message = f"{setting!r} refers to {ref[:100]!r}; it may refer to its own parts only, with '#/…'"
            raise NodeError(message, code="bad_config")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as exc:
        where = "/".join(str(each) for each in exc.absolute_path)
        message = f"{setting!r} is no JSON schema: {where + ': ' if where else ''}{exc.message[:300]}"
        raise NodeError(message, code="bad_config") from None


def _refs(value: Any, depth: int, setting: str) -> Iterator[str]:
    if depth > MOST_DEPTH:
        raise NodeError(f"{setting!r} is nested more than {MOST_DEPTH} deep", code="bad_config")
    if isinstance(value, Mapping):
        for key in ("$ref", "$dynamicRef"):
            if isinstance(ref := value.get(key), str):
                yield ref
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for each in inner:
        yield from _refs(each, depth + 1, setting)
