"""What a node author writes against: `NodeType`, `RunContext` and the words for ports and settings."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, TypeAlias, get_type_hints

import httpx
import msgspec

from nodes.mistakes import Keys
from nodes.question import Question

Kind: TypeAlias = Literal["step", "trigger", "provider"]


class NodeDefinitionError(TypeError):
    """A node module does not follow the node contract."""


class NodeError(Exception):
    """A step cannot do its work; `message` is shown to the workflow's author and must hold no secret.

    `code` is stable, for programs: `http_status`, `limit_exceeded`, `missing_value` ...
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "step_failed",
        retry_after: float | None = None,
        is_final: bool = False,
    ) -> None:
        """`retry_after`: the seconds that the other side asks to wait; `is_final`: trying again is no use."""
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.is_final = is_final
        super().__init__(message)


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No settings, no ports."""


class ChatModel(Protocol):
    """What an `llm` port carries: a LangChain `BaseChatModel`."""


class Tool(Protocol):
    """What a `tools` port carries: a LangChain `BaseTool`."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a `memory` port carries: where the conversation is kept, and how much of it is read."""

    channel: str
    """The id of the memory node: two steps that share the node share the conversation."""
    trim: Callable[[Sequence[Any]], list[Any]]
    """Choose from all kept LangChain messages, oldest first, those that a model is shown."""


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """What a model provider uses for settings that the drawing leaves out."""

    base_url: str | None = None
    api_key: str | None = None
    """Only ever sent to `base_url` (or the provider's own address when that is `None`)."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """The only door from a node to the world outside its inputs. It belongs to one step of one run."""

    step: str
    """The id of this node in the drawing."""
    name: str
    """The name its author gave it, or its id."""
    run_id: str
    input: Any
    """What the run was started with."""
    round: int
    """Which round of the innermost loop around this step it is, from 1; 0 outside loops."""
    idempotency_key: str
    """The same for every attempt of this step, round and item in this run; outbound requests carry it."""
    http: httpx.AsyncClient
    """Refuses private addresses and oversized answers; the only way to the network."""
    models: ModelDefaults
    emit: Callable[[str], None]
    """Stream a piece of partial text output."""
    ask: Callable[[Question], Any]
    """Stop the run, put a question to a person, return the accepted answer; such a step does nothing else."""
    recall: Callable[[Memory], list[Any]]
    """All messages kept for a memory, oldest first, before any trimming."""
    remember: Callable[[Memory, Sequence[Any]], None]
    """Add messages to a memory; they are kept if this step finishes."""
    set_variable: Callable[[str, Any], None]
    """Give a value to a variable of the workflow; its reducer says what becomes of the old one."""
    used: Callable[[Mapping[str, int]], None]
    """Report usage to be summed up: `input_tokens`, `output_tokens`, `model_calls`, `tool_calls`."""
    is_watched: Callable[[], bool] = lambda: True
    """Whether anybody may want partial output; where nobody does, a step need not ask for it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a router returns: the port it takes, its outputs, and the values that decided."""

    port: str
    outputs: msgspec.Struct
    because: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Items:
    """What a map returns: its body runs once for each of `values`."""

    values: Sequence[Any]
    max_concurrency: int
    on_error: Literal["stop", "keep", "drop"]
    """When an item fails: the map fails too, its result is the error, or there is no result of it."""


@dataclass(frozen=True, slots=True)
class Body:
    """What makes a step a map: the ports to and from the steps that it runs once per item."""

    gives: tuple[str, ...]
    """Outputs that only the body sees: the item first, then its index."""
    takes: str
    """The input that an item's result comes back to."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a step returns that runs another workflow: the input of that run."""

    input: Any


class WorkflowRef(msgspec.Struct, frozen=True):
    """Which workflow, and which version of it."""

    workflow: str
    """Its id or its name."""
    version: str | None = None
    """The version to stay with; `None` is the one that is published when the run starts."""


Run: TypeAlias = Callable[..., Awaitable[Any]]
"""`async def run(config, inputs, bindings, ctx)`; leave out `bindings` where the type has none."""
Make: TypeAlias = Callable[..., Any]
"""`def make(config, bindings, ctx)`: the object that other nodes use."""
Routes: TypeAlias = Callable[[Any], Sequence[str]]


def setting(
    *also: str, secret: bool = False, template: bool = True, description: str | None = None
) -> msgspec.Meta:
    """Describe a field of `Config`, inside `Annotated`; limits go into a `msgspec.Meta` of their own.

    `also` lists other spellings found in saved drawings, `secret` keeps the value out of everything
    that leaves the server, `template=False` refuses `{{ … }}`, as the value is needed before a run.
    """
    return msgspec.Meta(description=description, extra={"also": also, "secret": secret, "template": template})


def port(*also: str, many: bool = False, description: str | None = None) -> msgspec.Meta:
    """Describe a port, inside `Annotated`: `also` lists other handle names of the editors.

    A port that is `many` takes every value that arrives, as a tuple in edge order; any other takes one.
    """
    return msgspec.Meta(description=description, extra={"also": also, "many": many})


@dataclass(frozen=True, slots=True)
class NodeType:
    """A node type as the compiler and the catalogue see it. Make it with `step` or `provider`."""

    name: str
    """The type's name in saved drawings, for ever."""
    title: str
    kind: Kind
    config: type[msgspec.Struct]
    inputs: type[msgspec.Struct]
    """Ports that carry data and control."""
    bindings: type[msgspec.Struct]
    """Ports that take what providers make."""
    outputs: type[msgspec.Struct]
    """Ports that give data; the first is the primary one, which a bare `{{ name }}` means."""
    act: Callable[..., Any]
    aliases: tuple[str, ...] = ()
    routes: Routes | None = None
    """For a router: config -> the ports of which it takes one. Its edges carry the primary output."""
    route_aliases: Mapping[str, str] = field(default_factory=dict)
    own_routes: tuple[str, ...] = ()
    """For a router: the ports that it may have whatever its settings name."""
    instead: Callable[[Any, str, RunContext], msgspec.Struct] | None = None
    """For a router: (inputs, port, ctx) -> what it gives by a port that a failure takes in its place."""
    ignores: tuple[str, ...] = ()
    """Config keys that editors save and that mean nothing here; they cause no warning."""
    tool: Make | None = None
    """`def tool(config, ctx)`: this step as an agent's tool, if it can be one."""
    effect: bool = False
    """Running it does something outside, costs money or may wait: it is not repeated lightly."""
    gives: type | None = None
    """For a provider: what its object is, as binding ports name it."""
    model_calls: Callable[[Any], int] | None = None
    """config -> the most model calls one run of the step makes."""
    imports: tuple[str, ...] = ()
    """Modules that it imports on first use; they are loaded beside the event loop before it runs."""
    asks: bool = False
    """It may put a question to a person; it comes after all else that can run."""
    body: Body | None = None
    """For a map, which returns `Items`."""
    calls: Callable[[Any], WorkflowRef] | None = None
    """For a step that runs another workflow and returns a `Call`: config -> which."""
    rounds: Callable[[Any], int] | None = None
    """For a step that counts a loop's rounds and ends it: config -> the most rounds."""
    sets: Callable[[Any], Mapping[str, Any]] | None = None
    """config -> the variables that it sets, and to what; `None` where that is not known before it runs."""
    mistakes: Callable[[Any], Iterable[tuple[str, Keys]]] | None = None
    """config -> what a run would fail by beyond its types, with the keys to it: asked when a drawing is
    checked, with the texts' `{{ … }}` still in them."""
    needs: tuple[str, ...] = ()
    """Settings that may be left empty for an agent's tool only."""
    hosts: Callable[[Any], Sequence[str]] | None = None
    """config -> the hosts that it talks to, as far as they are known before it runs."""

    @classmethod
    def step(
        cls,
        run: Run,
        name: str,
        title: str,
        *,
        trigger: bool = False,
        aliases: Sequence[str] = (),
        routes: Routes | None = None,
        route_aliases: Mapping[str, str] | None = None,
        own_routes: Sequence[str] = (),
        instead: Callable[[Any, str, RunContext], msgspec.Struct] | None = None,
        ignores: Sequence[str] = (),
        tool: Make | None = None,
        effect: bool = False,
        model_calls: Callable[[Any], int] | None = None,
        imports: Sequence[str] = (),
        outputs: type[msgspec.Struct] | None = None,
        asks: bool = False,
        body: Body | None = None,
        calls: Callable[[Any], WorkflowRef] | None = None,
        rounds: Callable[[Any], int] | None = None,
        sets: Callable[[Any], Mapping[str, Any]] | None = None,
        mistakes: Callable[[Any], Iterable[tuple[str, Keys]]] | None = None,
        needs: Sequence[str] = (),
        hosts: Callable[[Any], Sequence[str]] | None = None,
    ) -> Self:
        """Declare `async def run(config, inputs[, bindings], ctx)`; its annotations are the ports.

        A router returns a `Choice`, a map `Items`, a step that runs another workflow a `Call`; these name
        their `outputs` here.
        """
        hints = _signature(run, name, [["config", "inputs", "ctx"], ["config", "inputs", "bindings", "ctx"]])
        if not inspect.iscoroutinefunction(run):
            raise NodeDefinitionError(f"{run.__module__}: 'run' of node {name!r} must be 'async def'")
        given = outputs or hints.get("return")
        if not (isinstance(given, type) and issubclass(given, msgspec.Struct)):
            raise NodeDefinitionError(
                f"{run.__module__}: node {name!r} must return a struct or name 'outputs'"
            )
        return cls(
            name=name,
            title=title,
            kind="trigger" if trigger else "step",
            config=hints["config"],
            inputs=hints["inputs"],
            bindings=hints.get("bindings", Nothing),
            outputs=given,
            act=run,
            aliases=tuple(aliases),
            routes=routes,
            route_aliases=dict(route_aliases or {}),
            own_routes=tuple(own_routes),
            instead=instead,
            ignores=tuple(ignores),
            tool=tool,
            effect=effect,
            model_calls=model_calls,
            imports=tuple(imports),
            asks=asks,
            body=body,
            calls=calls,
            rounds=rounds,
            sets=sets,
            mistakes=mistakes,
            needs=tuple(needs),
            hosts=hosts,
        )

    @classmethod
    def provider(
        cls,
        make: Make,
        name: str,
        title: str,
        *,
        gives: type,
        outputs: type[msgspec.Struct],
        aliases: Sequence[str] = (),
        ignores: Sequence[str] = (),
        imports: Sequence[str] = (),
        hosts: Callable[[Any], Sequence[str]] | None = None,
    ) -> Self:
        """Declare `def make(config, bindings, ctx)`: an object for others, built once per run."""
        hints = _signature(make, name, [["config", "bindings", "ctx"]])
        return cls(
            name=name,
            title=title,
            kind="provider",
            config=hints["config"],
            inputs=Nothing,
            bindings=hints["bindings"],
            outputs=outputs,
            act=make,
            aliases=tuple(aliases),
            ignores=tuple(ignores),
            imports=tuple(imports),
            gives=gives,
            hosts=hosts,
        )

    @property
    def where(self) -> str:
        """The module that defines this type, for messages."""
        return self.act.__module__

    @property
    def is_step(self) -> bool:
        return self.kind in ("step", "trigger")


def _signature(function: Callable[..., Any], name: str, allowed: list[list[str]]) -> dict[str, Any]:
    found = list(inspect.signature(function).parameters)
    if found not in allowed:
        wanted = " or ".join(f"({', '.join(names)})" for names in allowed)
        raise NodeDefinitionError(
            f"{function.__module__}: node {name!r} needs '{function.__name__}{wanted}', "
            f"not '({', '.join(found)})'"
        )
    hints = get_type_hints(function, include_extras=True)
    for each in found[:-1]:
        if not (isinstance(kind := hints.get(each), type) and issubclass(kind, msgspec.Struct)):
            raise NodeDefinitionError(
                f"{function.__module__}: '{each}' of node {name!r} must be annotated with a struct"
            )
    return hints
