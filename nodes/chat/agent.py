"""Answer with a chat model that may call tools and remembers the conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
from msgspec import UNSET, UnsetType

from nodes.answer_schemas import as_schema, misfit, schema_mistakes
from nodes.broken_calls import mended, written_kind
from nodes.contract import ChatModel, Memory, NodeError, NodeType, RunContext, Tool, port, setting
from nodes.memories import remembered
from nodes.mistakes import Keys
from nodes.question import EXPIRED, Action, Field, Question
from nodes.structured import count
from nodes.texts import names_in, to_text, written_or_arrived
from nodes.tool_calls import called, every_tool, refused, tool_name

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AnyMessage
    from langchain_core.tools import BaseTool

EVERY = "*"
"""Stands for all tools in `approve_tools`."""
SCHEMA_NAME = "answer"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    system_prompt: Annotated[str, setting(description="What the model is, and how it shall answer.")] = ""
    prompt_instructions: Annotated[str, setting(description="Added to the system prompt.")] = ""
    prompt: Annotated[
        str | UnsetType,
        setting(
            "user_prompt_template",
            description="The user's message; left empty, what arrives.",
            left_empty=True,
        ),
    ] = UNSET
    max_iterations: Annotated[
        int, setting(description="The most calls of the model."), msgspec.Meta(ge=1, le=100)
    ] = 10
    enable_memory: Annotated[bool, setting(description="Whether a connected memory is used.")] = True
    enable_tools: Annotated[bool, setting(description="Whether connected tools are used.")] = True
    approve_tools: Annotated[
        tuple[str, ...] | str,
        setting(
            "require_approval",
            template=False,
            description="Names of tools that a person must approve before each call; * for all.",
        ),
    ] = ()
    approval_deadline: Annotated[
        Annotated[float, msgspec.Meta(ge=1, le=31_536_000)] | None,
        setting(description="Seconds; a call that nobody has approved by then is refused."),
    ] = None
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
        tuple[Any, ...], port("start", many=True, description="The user's message; several are joined.")
    ] = ()


class Bindings(msgspec.Struct, frozen=True):
    llm: Annotated[ChatModel, port("model", description="The model that answers.")]
    tools: Annotated[tuple[Tool, ...], port("tool", description="What the model may call.")] = ()
    memory: Annotated[Memory | None, port(description="Where the conversation is kept.")] = None


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[Any, port(description="The answer: a text, or the object that 'output_schema' wants.")]


@dataclass(slots=True)
class _Turn:
    """A conversation from a user's message to the answer, as far as it has come."""

    messages: list[AnyMessage]
    asked: int
    """The place of the user's message; what was remembered comes before it."""
    usage: dict[str, int] = field(default_factory=dict)
    decided: dict[str, str | None] = field(default_factory=dict)
    """The place of an open tool call -> why it was refused; `None` where it was approved. Not by the calls'
    ids: there are servers that give every call the same."""
    structured: Any = None

    @property
    def calls(self) -> int:
        """How often the model was called."""
        return self.usage.get("model_calls", 0)

    @property
    def open(self) -> list[dict[str, Any]]:
        """The tool calls that have no answer yet."""
        return _open(self.messages)

    def keep(self, place: str) -> dict[str, Any]:
        """All of it as JSON, with the place of the tool call that is asked about."""
        from langchain_core.messages import messages_to_dict  # noqa: PLC0415

        told = messages_to_dict(self.messages)
        return {
            "messages": told,
            "asked": self.asked,
            "usage": self.usage,
            "decided": self.decided,
            "place": place,
        }


def _open(messages: Sequence[AnyMessage]) -> list[dict[str, Any]]:
    """The tool calls of the last answer but for those that were answered because they are broken."""
    said = next((at for at in reversed(range(len(messages))) if messages[at].type != "tool"), 0)
    answered = {each.tool_call_id for each in messages[said + 1 :] if each.type == "tool"}
    calls: Any = getattr(messages[said], "tool_calls", ())
    return [each for each in calls if each["id"] not in answered]


async def run(config: Config, inputs: Inputs, bindings: Bindings, ctx: RunContext) -> Outputs:
    tools = every_tool(bindings.tools) if config.enable_tools else []
    held = _held(config, tools)
    memory = bindings.memory if config.enable_memory else None
    turn = _taken_up(ctx) or await _begun(config, inputs, memory, ctx)
    schema = as_schema(config.output_schema, "output_schema")
    agent = _Agent(cast("BaseChatModel", bindings.llm), config, tools, held, schema, ctx)
    while True:
        await _carry_out(turn, held, tools, config, ctx)
        await agent.converse(turn)
        if not turn.open and not await agent.must_answer_again(turn):
            break
    answer = str(turn.messages[-1].text) if len(turn.messages) > turn.asked + 1 else ""
    if schema:
        answer = to_text(turn.structured)
        ctx.emit(answer)
    if memory:
        from langchain_core.messages import AIMessage  # noqa: PLC0415

        said = AIMessage(answer, id=f"{ctx.idempotency_key}:out")
        ctx.remember(memory, [turn.messages[turn.asked], said])
    return Outputs(turn.structured if schema else answer)


async def _begun(config: Config, inputs: Inputs, memory: Memory | None, ctx: RunContext) -> _Turn:
    from langchain_core.messages import HumanMessage  # noqa: PLC0415  loaded with the first agent

    text = written_or_arrived(config.prompt, inputs.input)
    history = await remembered(memory, ctx) if memory else []
    return _Turn([*history, HumanMessage(text, id=f"{ctx.idempotency_key}:in")], len(history))


# Approval: the step asks, and goes on from what it has kept with the question


def _held(config: Config, tools: Sequence[BaseTool]) -> frozenset[str]:
    """The names of the tools whose calls a person must approve."""
    asked = set(names_in(config.approve_tools))
    known = {each.name for each in tools}
    if EVERY in asked:
        return frozenset(known)
    spelled = {name: tool_name(name, name) if name not in known else name for name in asked}
    if missing := sorted(name for name, as_called in spelled.items() if as_called not in known):
        message = f"'approve_tools' names {missing[0]!r}; its tools: {', '.join(sorted(known)) or 'none'}"
        raise NodeError(message, code="bad_config", is_final=True)
    return frozenset(spelled.values())


def _taken_up(ctx: RunContext) -> _Turn | None:
    """The conversation that goes on: with an answer, or with a question that has none yet."""
    from langchain_core.messages import messages_from_dict  # noqa: PLC0415

    answers = ctx.answers()
    again = ctx.asked()  # a question that is newer than any answer
    if again is None and not answers:
        return None
    answer, kept = (None, again) if again is not None else answers[-1]
    messages = cast("list[AnyMessage]", messages_from_dict(kept["messages"]))
    turn = _Turn(messages, kept["asked"], dict(kept["usage"]), dict(kept["decided"]))
    if again is None:
        turn.decided[kept["place"]] = _refusal(answer)
    ctx.used(turn.usage)
    return turn


def _refusal(answer: Any) -> str | None:
    if answer == EXPIRED:
        return "nobody has approved this call in time"
    if answer["action"] == "approve":
        return None
    reason = answer["values"].get("reason")
    return f"a person has refused this call{': ' + reason if reason else ''}"


def _ask(turn: _Turn, place: str, config: Config, ctx: RunContext) -> None:
    call = turn.open[int(place)]
    payload = {
        "question": f"May {ctx.name} call {call['name']}?",
        "tool": call["name"],
        "arguments": call["args"],
        "call": call["id"],
        "text": str(turn.messages[-1].text),
    }
    form = (Field("reason", "textarea", "Reason"),)
    actions = (Action("approve", "Approve"), Action("reject", "Reject"))
    ctx.ask(Question(payload, form, actions, config.approval_deadline, kept=turn.keep(place)))


async def _carry_out(
    turn: _Turn, held: frozenset[str], tools: Sequence[BaseTool], config: Config, ctx: RunContext
) -> None:
    """Make the tool calls that were held back, once all of them are decided."""
    calls = turn.open
    for place, call in enumerate(calls):
        if call["name"] in held and str(place) not in turn.decided:
            _ask(turn, str(place), config, ctx)
    known = {each.name: each for each in tools}
    answers = []
    for place, call in enumerate(calls):
        if (why := turn.decided.get(str(place))) is not None:
            ctx.tell("tool.refused", {"call": call["id"], "tool": call["name"], "because": why})
            answers.append(refused(call, why))
        elif call["name"] not in known:
            answers.append(refused(call, f"there is no tool {call['name']!r}"))
        else:
            turn.usage["tool_calls"] = turn.usage.get("tool_calls", 0) + 1
            answers.append(await called(call, _making(known[call["name"]], call), ctx))
    turn.messages += answers
    turn.decided.clear()  # what comes next is to be decided anew


def _making(tool: BaseTool, call: Mapping[str, Any]) -> Callable[[], Any]:
    return lambda: tool.ainvoke({**call, "type": "tool_call"})


# The conversation itself: LangChain's agent


@dataclass(frozen=True, slots=True)
class _Talk:
    """What a conversation brings to its agent."""

    model: BaseChatModel
    system: str
    ctx: RunContext
    usage: dict[str, int]
    written: Any
    """The tool calls of the model's answers as they were streamed, if they are."""


@dataclass(frozen=True, slots=True)
class _Agent:
    """A model with its tools, for one step."""

    model: BaseChatModel
    config: Config
    tools: Sequence[BaseTool]
    held: frozenset[str]
    schema: dict[str, Any]
    ctx: RunContext

    async def converse(self, turn: _Turn) -> None:
        """Let the model and its tools talk until there is an answer, or a call that has to be approved."""
        from langchain.agents.middleware.model_call_limit import ModelCallLimitExceededError  # noqa: PLC0415

        left = self.config.max_iterations - turn.calls
        try:
            if left < 1:
                raise ModelCallLimitExceededError(turn.calls, turn.calls, None, self.config.max_iterations)
            state = await self._state_after(turn, left)
        except ModelCallLimitExceededError:
            most = self.config.max_iterations
            message = f"no final answer after {most} calls of the model ('max_iterations')"
            raise NodeError(message, code="limit_exceeded") from None
        turn.messages = list(state["messages"])
        turn.structured = state.get("structured_response")

    async def must_answer_again(self, turn: _Turn) -> bool:
        """Whether the answer does not fit the schema; the model is told so."""
        from langchain_core.messages import HumanMessage  # noqa: PLC0415

        if not self.schema or (why := await misfit(self.ctx, turn.structured, self.schema)) is None:
            return False
        turn.messages.append(HumanMessage(f"The answer does not fit: {why}. Answer again."))
        return True

    async def _state_after(self, turn: _Turn, left: int) -> Mapping[str, Any]:
        config, ctx = self.config, self.ctx
        plain = not self.tools and not self.schema
        agent = _plain_agent(left) if plain else _agent(left, self.tools, self.held, self.schema)
        system = "\n\n".join(text for text in (config.system_prompt, config.prompt_instructions) if text)
        how: Any = {
            "recursion_limit": 10 * config.max_iterations + 10,
            # It keeps no checkpoints, so it must not wait for one, as the run around it may do.
            "configurable": {"__pregel_durability": "async"},
        }
        model, written = self.model, None
        if ctx.is_watched() and not plain:
            written = written_kind()()
            model = model.model_copy(update={"callbacks": [written]})
        talk = _Talk(model, system, ctx, turn.usage, written)
        given = {"messages": turn.messages}
        if not ctx.is_watched():  # to stream an answer takes several times as long as to have it
            state = await agent.ainvoke(given, how, context=talk)
            self._emit_whole(state["messages"][len(turn.messages) :])
            return cast("Mapping[str, Any]", state)
        state = {}
        async for mode, part in agent.astream(given, how, context=talk, stream_mode=["messages", "values"]):
            if mode == "values":
                state = part
            else:
                self._emit_piece(*part)
        return cast("Mapping[str, Any]", state)

    def _emit_whole(self, made: Sequence[Any]) -> None:
        for each in made:
            if each.type == "ai":
                self.ctx.emit(str(each.text))

    def _emit_piece(self, piece: Any, about: Mapping[str, Any]) -> None:
        from langchain_core.messages import AIMessageChunk  # noqa: PLC0415

        if about.get("langgraph_node") == "model" and isinstance(piece, AIMessageChunk):
            self.ctx.emit(str(piece.text))


@lru_cache(100)
def _plain_agent(most: int) -> Any:
    """An agent without tools, made once: to make it takes as long as to stream a dozen tokens."""
    return _agent(most, (), frozenset(), {})


def _agent(most: int, tools: Sequence[BaseTool], held: frozenset[str], schema: Mapping[str, Any]) -> Any:
    """An agent whose model, and what that is told first, come with each conversation as a `_Talk`."""
    from langchain.agents import create_agent  # noqa: PLC0415
    from langchain.agents.middleware import (  # noqa: PLC0415
        ModelCallLimitMiddleware,
        after_model,
        wrap_model_call,
        wrap_tool_call,
    )
    from langchain.agents.structured_output import ToolStrategy  # noqa: PLC0415
    from langchain_core.language_models import FakeListChatModel  # noqa: PLC0415
    from langchain_core.messages import SystemMessage  # noqa: PLC0415

    @wrap_model_call
    async def talk(request: Any, handler: Any) -> Any:
        given: _Talk = request.runtime.context
        told = SystemMessage(given.system) if given.system else None
        response = await handler(request.override(model=given.model, system_message=told))
        for each in response.result:
            if each.type == "ai":
                for name, amount in count(each, given.ctx).items():
                    given.usage[name] = given.usage.get(name, 0) + amount
        return _mended(response, given)

    @wrap_tool_call
    async def use(request: Any, handler: Any) -> Any:
        given: _Talk = request.runtime.context
        given.usage["tool_calls"] = given.usage.get("tool_calls", 0) + 1
        return await called(request.tool_call, lambda: handler(request), given.ctx)

    @after_model(can_jump_to=["end"])
    def hold(state: Any, runtime: Any) -> dict[str, Any] | None:
        return {"jump_to": "end"} if any(each["name"] in held for each in _open(state["messages"])) else None

    limit: Any = ModelCallLimitMiddleware(run_limit=most, exit_behavior="error")
    described = {"title": SCHEMA_NAME, "description": "Give the final answer."} | dict(schema)
    return create_agent(
        FakeListChatModel(responses=[]),  # takes the place that each conversation's own model will have
        cast("Any", list(tools)),
        middleware=[limit, talk, *([use] if tools else []), *([hold] if held else [])],
        response_format=ToolStrategy(cast("Any", described)) if schema else None,
        context_schema=_Talk,
        checkpointer=False,  # the step is what is kept; its inner turns would cost a checkpoint each
    )


def _mended(response: Any, talk: _Talk) -> Any:
    """A model's answer in which calls that cannot be made are answered."""
    from langchain.agents.middleware.types import ModelResponse  # noqa: PLC0415

    said = response.result[0]
    message, errors = mended(said, talk.written.take() if talk.written else ())
    if message is said:
        return response
    answered = {each.tool_call_id for each in errors}
    for call in message.tool_calls:
        if call["name"] == SCHEMA_NAME and call["id"] not in answered:
            errors.append(refused(call, "not taken, as it was empty or beside a broken call; answer again"))
    for each in errors:
        about = {"call": each.tool_call_id, "tool": each.name, "because": each.content}
        talk.ctx.tell("tool.refused", about)
    # A structured answer in the response was made of a broken call, or of one beside it.
    return ModelResponse(result=[message, *errors])


def mistakes(config: Config) -> Iterator[tuple[str, Keys]]:
    return schema_mistakes(config.output_schema, "output_schema")


NODE = NodeType.step(
    run,
    "Agent",
    "Agent",
    effect=True,
    may_ask=lambda config: bool(config.approve_tools),
    imports=("langchain.agents.middleware.model_call_limit", "langchain.agents"),
    model_calls=lambda config: int(config.max_iterations),
    mistakes=mistakes,
    aliases=("ReactAgent", "ReactAgentNode", "AgentNode"),
    ignores=("agent_type", "temperature", "tools", "verbose"),
    icon="bot",
    examples=(
        {"system_prompt": "You answer briefly.", "max_iterations": 5},
        {"approve_tools": ["*"], "approval_deadline": 3600},
    ),
)
