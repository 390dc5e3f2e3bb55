"""Answer with a chat model that may call tools and remembers the conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec

from nodes.contract import ChatModel, Memory, NodeError, NodeType, RunContext, Tool, port, setting
from nodes.texts import to_text

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AnyMessage


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    system_prompt: str = ""
    prompt_instructions: Annotated[str, setting(description="Added to the system prompt.")] = ""
    prompt: Annotated[
        str, setting("user_prompt_template", description="The user's message; left empty, what arrives.")
    ] = ""
    max_iterations: Annotated[
        int, setting(description="The most calls of the model."), msgspec.Meta(ge=1, le=100)
    ] = 10
    enable_memory: bool = True
    enable_tools: bool = True


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[
        tuple[Any, ...], port("start", many=True, description="The user's message; several are joined.")
    ] = ()


class Bindings(msgspec.Struct, frozen=True):
    llm: Annotated[ChatModel, port("model")]
    tools: Annotated[tuple[Tool, ...], port("tool")] = ()
    memory: Memory | None = None


class Outputs(msgspec.Struct, frozen=True):
    output: str


async def run(config: Config, inputs: Inputs, bindings: Bindings, ctx: RunContext) -> Outputs:
    from langchain_core.messages import AIMessage, HumanMessage  # noqa: PLC0415  loaded with the first agent

    message = HumanMessage(
        config.prompt or "\n\n".join(map(to_text, inputs.input)), id=f"{ctx.run_id}:{ctx.step}:in"
    )
    memory = bindings.memory if config.enable_memory else None
    history = memory.trim(ctx.recall(memory)) if memory else []
    made = await _converse(config, bindings, [*history, message], ctx)
    replies = [each for each in made if isinstance(each, AIMessage)]
    _count(replies, ctx)
    answer = str(replies[-1].text) if replies else ""
    if memory:
        ctx.remember(memory, [message, AIMessage(answer, id=f"{ctx.run_id}:{ctx.step}:out")])
    return Outputs(answer)


async def _converse(
    config: Config, bindings: Bindings, messages: list[AnyMessage], ctx: RunContext
) -> list[AnyMessage]:
    """Let the model and its tools talk; return what they added."""
    from langchain.agents.middleware.model_call_limit import ModelCallLimitExceededError  # noqa: PLC0415
    from langchain_core.messages import AIMessage, AIMessageChunk  # noqa: PLC0415

    system = "\n\n".join(text for text in (config.system_prompt, config.prompt_instructions) if text)
    tools = bindings.tools if config.enable_tools else ()
    agent = _agent(config.max_iterations, tools) if tools else _plain_agent(config.max_iterations)
    given = {"messages": messages}
    how = {
        "recursion_limit": 10 * config.max_iterations + 10,
        # It keeps no checkpoints, so it must not wait for one, as the run around it may do.
        "configurable": {"__pregel_durability": "async"},
    }
    talk = _Talk(cast("BaseChatModel", bindings.llm), system)
    try:
        if not ctx.is_watched():  # to stream an answer takes several times as long as to have it
            state = await agent.ainvoke(given, how, context=talk)
            for each in state["messages"][len(messages) :]:
                if isinstance(each, AIMessage):
                    ctx.emit(str(each.text))
        else:
            state = {}
            async for mode, part in agent.astream(
                given, how, context=talk, stream_mode=["messages", "values"]
            ):
                if mode == "values":
                    state = part
                elif isinstance(part[0], AIMessageChunk) and isinstance(text := part[0].text, str):
                    ctx.emit(text)
    except ModelCallLimitExceededError:
        message = f"no final answer after {config.max_iterations} calls of the model ('max_iterations')"
        raise NodeError(message, code="limit_exceeded") from None
    return list(state["messages"][len(messages) :])


@dataclass(frozen=True, slots=True)
class _Talk:
    """What a conversation brings to its agent."""

    model: BaseChatModel
    system: str


@lru_cache(100)
def _plain_agent(max_iterations: int) -> Any:
    """An agent without tools, made once: to make it takes as long as to stream a dozen tokens."""
    return _agent(max_iterations, ())


def _agent(max_iterations: int, tools: Sequence[Tool]) -> Any:
    """An agent whose model, and what that is told first, come with each conversation as a `_Talk`."""
    from langchain.agents import create_agent  # noqa: PLC0415
    from langchain.agents.middleware import ModelCallLimitMiddleware, wrap_model_call  # noqa: PLC0415
    from langchain_core.language_models import FakeListChatModel  # noqa: PLC0415
    from langchain_core.messages import SystemMessage  # noqa: PLC0415

    @wrap_model_call
    async def talk(request: Any, handler: Any) -> Any:
        given: _Talk = request.runtime.context
        told = SystemMessage(given.system) if given.system else None
        return await handler(request.override(model=given.model, system_message=told))

    limit: Any = ModelCallLimitMiddleware(run_limit=max_iterations, exit_behavior="error")
    return create_agent(
        FakeListChatModel(responses=[]),  # takes the place that each conversation's own model will have
        cast("Any", list(tools)),
        middleware=[limit, talk],
        context_schema=_Talk,
        checkpointer=False,  # the step is what is kept; its inner turns would cost a checkpoint each
    )


def _count(replies: list[Any], ctx: RunContext) -> None:
    ctx.used({"model_calls": len(replies), "tool_calls": sum(len(each.tool_calls) for each in replies)})
    for usage in (each.usage_metadata for each in replies if each.usage_metadata):
        ctx.used({key: usage[key] for key in ("input_tokens", "output_tokens")})


NODE = NodeType.step(
    run,
    "Agent",
    "Agent",
    effect=True,
    imports=("langchain.agents.middleware.model_call_limit", "langchain.agents"),
    model_calls=lambda config: int(config.max_iterations),
    aliases=("ReactAgent", "ReactAgentNode", "AgentNode"),
    ignores=("agent_type", "temperature", "tools", "verbose"),
)
