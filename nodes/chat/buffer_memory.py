"""Keep a session's conversation, and show all or the last of it to the model."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from nodes.contract import Memory, NodeType, Nothing, RunContext, port, setting
from nodes.memories import last_exchanges


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    limit: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        setting(description="How many of the last exchanges the model is shown; left empty, all."),
    ] = None


class Outputs(msgspec.Struct, frozen=True):
    memory: Annotated[Any, port("output", description="The conversation, for an agent.")]


def make(config: Config, bindings: Nothing, ctx: RunContext) -> Memory:
    return Memory(ctx.step, list if config.limit is None else last_exchanges(config.limit))


NODE = NodeType.provider(
    make,
    "BufferMemory",
    "Conversation memory",
    gives=Memory,
    outputs=Outputs,
    aliases=("BufferMemoryNode",),
    ignores=(
        "memory_key",
        "input_key",
        "output_key",
        "return_messages",
        "session_mode",
        "session_id",
        "user_id",
    ),
    icon="database",
    examples=({}, {"limit": 5}),
)
