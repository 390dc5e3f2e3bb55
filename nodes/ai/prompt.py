"""Ask a chat model once, without tools or memory; the answer is a text, or an object that fits a schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from nodes.answer_schemas import as_schema, schema_mistakes
from nodes.contract import ChatModel, NodeError, NodeType, RunContext, port, setting
from nodes.mistakes import Keys
from nodes.structured import ATTEMPTS, ask_for, count
from nodes.texts import empty, written_or_arrived


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    prompt: Annotated[
        str | UnsetType,
        setting(
            "user_prompt_template",
            "template",
            "text",
            description="What the model is asked; left empty, what arrives.",
            left_empty=True,
        ),
    ] = UNSET
    system_prompt: Annotated[
        str, setting("instructions", description="What the model is, and how it shall answer.")
    ] = ""
    output_schema: Annotated[
        dict[str, Any] | str,
        setting(
            "response_schema",
            "json_schema",
            description="The JSON schema of an object that the answer has to be; left empty, it is a text.",
        ),
    ] = ""


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[
        tuple[Any, ...], port(many=True, description="What the model is asked, if 'prompt' is empty.")
    ] = ()


class Bindings(msgspec.Struct, frozen=True):
    llm: Annotated[ChatModel, port("model", description="The model that answers.")]


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[Any, port(description="The answer: a text, or the object that 'output_schema' wants.")]


async def run(config: Config, inputs: Inputs, bindings: Bindings, ctx: RunContext) -> Outputs:
    from langchain_core.messages import HumanMessage, SystemMessage  # noqa: PLC0415  loaded with the first model

    text = written_or_arrived(config.prompt, inputs.input)
    if not text.strip():
        raise NodeError(f"there is nothing to ask: {empty('prompt', config.prompt)}", code="missing_value")
    messages = [SystemMessage(config.system_prompt)] if config.system_prompt else []
    asked = [*messages, HumanMessage(text)]
    if schema := as_schema(config.output_schema, "output_schema"):
        return Outputs(await ask_for(bindings.llm, asked, schema, ctx))
    return Outputs(await _text(bindings.llm, asked, ctx))


async def _text(model: Any, messages: list[Any], ctx: RunContext) -> str:
    if not ctx.is_watched():  # to stream an answer takes several times as long as to have it
        reply = await model.ainvoke(messages)
        ctx.emit(str(reply.text))
        count(reply, ctx)
        return str(reply.text)
    whole = None
    async for piece in model.astream(messages):
        ctx.emit(str(piece.text))
        whole = piece if whole is None else whole + piece
    if whole is None:
        return ""
    count(whole, ctx)
    return str(whole.text)


def mistakes(config: Config) -> Iterator[tuple[str, Keys]]:
    return schema_mistakes(config.output_schema, "output_schema")


NODE = NodeType.step(
    run,
    "Prompt",
    "Ask a model",
    effect=True,
    model_calls=lambda config: ATTEMPTS if config.output_schema else 1,
    mistakes=mistakes,
    aliases=("PromptNode", "LLMPrompt", "LLMChain"),
    icon="message-square-text",
    examples=(
        {"prompt": "Translate into French: {{ input }}"},
        {
            "prompt": "How does its author feel? {{ input }}",
            "output_schema": {"properties": {"mood": {"type": "string"}}, "required": ["mood"]},
        },
    ),
)
