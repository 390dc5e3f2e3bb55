"""Recall what was remembered: what is nearest to a question, or newest."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from nodes.contract import NodeType, RunContext, port, setting
from nodes.long_term_memory import Memories
from nodes.texts import written_or_arrived
from nodes.vectors import Embedder


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    query: Annotated[
        str | UnsetType,
        setting(
            "question",
            description="What the memories shall be near to; left empty, what arrives.",
            left_empty=True,
        ),
    ] = UNSET
    place: Annotated[
        str,
        setting(
            "namespace",
            description="A path, such as users/{{ input.user }}, and all below; left empty, the workflow's.",
        ),
    ] = ""
    limit: Annotated[
        int, setting("k", "top_k", description="The most memories that it gives."), msgspec.Meta(ge=1, le=200)
    ] = 5
    score_threshold: Annotated[
        float,
        setting(description="The least similarity, from 0 for any to 1; counts with an embedder only."),
        msgspec.Meta(ge=0, le=1),
    ] = 0.0


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[
        tuple[Any, ...],
        port("query", many=True, description="What the memories shall be near to; several are joined."),
    ] = ()


class Bindings(msgspec.Struct, frozen=True):
    embedder: Annotated[
        Embedder | None,
        port("embeddings", description="Finds what is near; without it, the newest memories are given."),
    ] = None


class Outputs(msgspec.Struct, frozen=True):
    memories: Annotated[
        list[dict[str, Any]],
        port(
            "output", description="Each with its text, key, metadata, time and score, best or newest first."
        ),
    ]
    text: Annotated[str, port(description="Their texts in one, a line for each, as a prompt takes it.")]


async def run(config: Config, inputs: Inputs, bindings: Bindings, ctx: RunContext) -> Outputs:
    query = written_or_arrived(config.query, inputs.input)
    found = await ctx.door(Memories).read(
        config.place, query=query, limit=config.limit, embedder=bindings.embedder
    )
    kept = [each for each in found if each.score is None or each.score >= config.score_threshold]
    return Outputs(
        [msgspec.to_builtins(each) for each in kept],
        "\n".join(f"- {' '.join(each.text.split())}" for each in kept),
    )


NODE = NodeType.step(
    run,
    "MemoryRead",
    "Recall",
    effect=True,
    icon="brain-circuit",
    examples=({"place": "users/{{ input.user }}", "query": "{{ input.question }}"},),
)
