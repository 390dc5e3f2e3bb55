"""Give a text that is written here, or what arrives as a text."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from nodes.contract import NodeType, RunContext, port, setting
from nodes.document_values import document
from nodes.texts import written_or_arrived


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text_input: Annotated[
        str | UnsetType,
        setting(
            "text",
            "textInput",
            "value",
            description="A text with {{ paths }}; left empty, what arrives.",
            left_empty=True,
        ),
    ] = UNSET


class Inputs(msgspec.Struct, frozen=True):
    input_data: Annotated[
        tuple[Any, ...],
        port("input", many=True, description="What is taken where no text is written; several are joined."),
    ] = ()


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[str, port("text", description="The text.")]
    text_stats: Annotated[dict[str, int], port(description="How many characters, words and lines it has.")]
    validation_status: Annotated[
        dict[str, Any], port(description="Whether there is any text: is_valid, and a message if not.")
    ]
    documents: Annotated[list[dict[str, Any]], port("document", description="The text as a document.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    text = written_or_arrived(config.text_input, inputs.input_data)
    stats = {"characters": len(text), "words": len(text.split()), "lines": len(text.splitlines())}
    status: dict[str, Any] = {"is_valid": bool(text.strip())}
    if not text.strip():
        status["message"] = "the text is empty"
    return Outputs(text, stats, status, [document(text, {"source": ctx.name})] if text.strip() else [])


NODE = NodeType.step(
    run,
    "StringInputNode",
    "Text",
    aliases=("StringInput", "TextInput"),
    icon="type",
    examples=({"text_input": "Hello, {{ input }}!"},),
)
