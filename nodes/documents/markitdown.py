"""A tool of an editor that reads files of a cloud store; it is known here, and not supported."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from nodes.contract import NodeError, NodeType, Nothing, RunContext, Tool, port, setting

_WHY = (
    "MarkItDownTool is not supported: upload the file (POST /api/v1/files), read it with a DocumentLoader, "
    "and give the agent a retriever over its chunks"
)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bucket_name: Annotated[str, setting(description="Where the file is; without effect.")] = ""
    object_key: Annotated[str, setting(description="Which file it is; without effect.")] = ""
    llm_base_url: Annotated[str, setting(description="A model's server; without effect.")] = ""
    llm_model: Annotated[str, setting(description="A model that describes images; without effect.")] = ""
    max_file_size_mb: Annotated[float, setting(description="Largest file; without effect.")] = 100


class Outputs(msgspec.Struct, frozen=True):
    tool: Annotated[Any, port("output", description="Nothing: making it fails and says what to do instead.")]


def make(config: Config, bindings: Nothing, ctx: RunContext) -> Any:
    raise NodeError(f"{ctx.name!r}: {_WHY}", code="not_supported", is_final=True)


NODE = NodeType.provider(
    make,
    "MarkItDownTool",
    "MarkItDown (not supported)",
    gives=Tool,
    outputs=Outputs,
    aliases=("MarkItDown",),
    ignores=("llm_credential_id",),
    icon="file-x",
    examples=({"bucket_name": "papers", "object_key": "report.pdf"},),
)
