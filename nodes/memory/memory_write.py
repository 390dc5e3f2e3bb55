"""Remember something for longer than a session: for a user, a customer, a whole organisation."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.long_term_memory import Memories
from nodes.texts import empty, written_or_arrived
from nodes.vectors import Embedder


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: Annotated[
        str | UnsetType,
        setting("memory", description="What to remember; left empty, what arrives.", left_empty=True),
    ] = UNSET
    place: Annotated[
        str,
        setting(
            "namespace",
            description="A path, such as users/{{ input.user }}; left empty, the workflow's own.",
        ),
    ] = ""
    key: Annotated[
        str,
        setting(description="What comes later under the same key takes its place; left empty, all is kept."),
    ] = ""
    metadata: Annotated[
        dict[str, Any], setting(description="What else is kept with it, as a JSON object.")
    ] = {}


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[
        tuple[Any, ...], port(many=True, description="What to remember; several are joined.")
    ] = ()


class Bindings(msgspec.Struct, frozen=True):
    embedder: Annotated[
        Embedder | None, port("embeddings", description="For memories that are found by their meaning.")
    ] = None


class Outputs(msgspec.Struct, frozen=True):
    text: Annotated[str, port("output", description="What is remembered now.")]
    key: Annotated[str, port(description="Under which key.")]


async def run(config: Config, inputs: Inputs, bindings: Bindings, ctx: RunContext) -> Outputs:
    text = written_or_arrived(config.text, inputs.input)
    if not text.strip():
        raise NodeError(f"there is nothing to remember: {empty('text', config.text)}", code="missing_value")
    key = await ctx.door(Memories).write(
        config.place, text, key=config.key or None, metadata=config.metadata, embedder=bindings.embedder
    )
    return Outputs(text, key)


NODE = NodeType.step(
    run,
    "MemoryWrite",
    "Remember",
    effect=True,
    icon="brain",
    examples=(
        {"place": "users/{{ input.user }}", "text": "{{ input.fact }}"},
        {"place": "users/{{ input.user }}", "key": "language", "text": "prefers German"},
    ),
)
