"""Keep a session's conversation, and show the model its end, by exchanges, by tokens, or with a summary."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec

from nodes.contract import ChatModel, Memory, NodeError, NodeType, RunContext, port, setting
from nodes.memories import last_exchanges, within_tokens

_TASK = (
    "Sum up the conversation below for somebody who goes on with it. Keep names, numbers, decisions, "
    "and what is still open. Answer with the summary only, in the language of the conversation."
)
_LONGEST = 100_000
"""Characters of a conversation that are summed up in one go."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mode: Annotated[
        Literal["window", "tokens", "summary"],
        setting(
            "memory_type",
            "strategy",
            template=False,
            description="The last 'k' exchanges are shown, or the last 'max_tokens' tokens, or the last 'k' "
            "exchanges with a summary of what was before.",
        ),
    ] = "window"
    k: Annotated[
        int,
        setting(
            "window_size",
            "limit",
            description="How many of the last exchanges are shown.",
            when={"mode": ("window", "summary")},
        ),
        msgspec.Meta(ge=1, le=1000),
    ] = 5
    max_tokens: Annotated[
        int,
        setting(
            "max_token_limit",
            "token_limit",
            description="About how many tokens of the end are shown.",
            when={"mode": ("tokens",)},
        ),
        msgspec.Meta(ge=50, le=2_000_000),
    ] = 2000


class Bindings(msgspec.Struct, frozen=True):
    llm: Annotated[ChatModel | None, port("model", description="Writes the summary, in mode 'summary'.")] = (
        None
    )


class Outputs(msgspec.Struct, frozen=True):
    memory: Annotated[Any, port("output", description="The conversation, for an agent.")]


def make(config: Config, bindings: Bindings, ctx: RunContext) -> Memory:
    if config.mode == "tokens":
        return Memory(ctx.step, within_tokens(config.max_tokens))
    if config.mode == "window":
        return Memory(ctx.step, last_exchanges(config.k))
    if bindings.llm is None:
        message = f"{ctx.name!r} needs a chat model at its port 'llm' to write summaries"
        raise NodeError(message, code="missing_input", is_final=True)
    return Memory(ctx.step, last_exchanges(config.k), _writer(bindings.llm, ctx))


def _writer(model: Any, ctx: RunContext) -> Callable[[str, Sequence[Any]], Awaitable[str]]:
    async def sum_up(so_far: str, messages: Sequence[Any]) -> str:
        from langchain_core.messages import HumanMessage, SystemMessage  # noqa: PLC0415

        said = [f"Summary so far: {so_far}"] if so_far else []
        said += [f"{each.type}: {each.text}" for each in messages]
        reply = await model.ainvoke([SystemMessage(_TASK), HumanMessage("\n\n".join(said)[-_LONGEST:])])
        used = reply.usage_metadata or {}
        ctx.used(
            {"model_calls": 1} | {key: used[key] for key in ("input_tokens", "output_tokens") if key in used}
        )
        return str(reply.text).strip() or so_far

    return sum_up


NODE = NodeType.provider(
    make,
    "ConversationMemory",
    "Conversation memory with a limit",
    gives=Memory,
    outputs=Outputs,
    aliases=("ConversationMemoryNode",),
    ignores=(
        *(
            "memory_key",
            "input_key",
            "output_key",
            "return_messages",
            "session_mode",
            "session_id",
            "user_id",
        ),
        *("ai_prefix", "human_prefix", "persist", "auto_save", "save_interval"),
    ),
    icon="history",
    examples=({"k": 5}, {"mode": "tokens", "max_tokens": 4000}, {"mode": "summary", "k": 3}),
)
