"""What a node author writes against: `NodeType`, `RunContext` and the words for ports and settings."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias, get_type_hints

import msgspec

from nodes.context import (
    ChatModel,
    Memory,
    ModelDefaults,
    NodeError,
    RunContext,
    ServerTrouble,
    Tool,
)
from nodes.hooks import Hook
from nodes.mistakes import Keys
from nodes.timing import Timing

__all__ = [
    "Body",
    "Call",
    "ChatModel",
    "Choice",
    "Items",
    "Kind",
    "Make",
    "Memory",
    "ModelDefaults",
    "NodeDefinitionError",
    "NodeError",
    "NodeType",
    "Nothing",
    "Routes",
    "Run",
    "RunContext",
    "ServerTrouble",
    "Tool",
    "WorkflowRef",
    "port",
    "setting",
]

Kind: TypeAlias = Literal["step", "trigger", "provider"]


class NodeDefinitionError(TypeError):
    """A node module does not follow the node contract."""


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No settings, no ports."""


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
"""`def make(config, bindings, ctx)`, or `async def`: the object that other nodes use."""
Routes: TypeAlias = Callable[[Any], Sequence[str]]


def setting(
    *also: str,
    secret: bool = False,
    template: bool = True,
    verbatim: bool = False,
    description: str | None = None,
    when: Mapping[str, Sequence[Any]] | None = None,
    credential: bool = False,
    left_empty: bool = False,
) -> msgspec.Meta:
    """Describe a field of `Config`, inside `Annotated`; limits go into a `msgspec.Meta` of their own.

    `also` lists other spellings found in saved drawings, `secret` keeps the value out of everything
    that leaves the server, `template=False` refuses `{{ … }}`, as the value is needed before a run; with
    `verbatim` it is no template at all, but taken as it is.
    `when` says for which values of other fields it means anything: forms show it only then.
    `credential` says that it holds the id of one: see `nodes.credentials`.
    With `left_empty` a blank text or null in the drawing is the same as none: the field is `UNSET`, its
    default, then and only then. What a template came to counts, however empty it is.
    """
    extra = {
        "also": also,
        "secret": secret,
        "template": template,
        "verbatim": verbatim,
        "when": dict(when or {}),
        "credential": credential,
        "left_empty": left_empty,
    }
    return msgspec.Meta(description=description, extra=extra)


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
    """`def tool(config, ctx)`, or `async def`: this step as an agent's tool, if it can be one."""
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
    may_ask: Callable[[Any], bool] | None = None
    """The same, where that is up to its settings: config -> whether it may."""
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
    facts: Callable[[Any], Mapping[str, Any]] | None = None
    """config -> what it means for things that a server keeps, by setting, for the server's own checks."""
    hook: Callable[[Any], Hook] | None = None
    """For a trigger that others call: config -> how."""
    hook_secret: Callable[[Any], str | None] | None = None
    """config -> the secret of its callers that stands in the drawing, if one does."""
    timing: Callable[[Any], Timing | None] | None = None
    """For a trigger that fires by the clock: config -> when; `None` where it does not."""
    timing_input: Callable[[Any], Any] | None = None
    """config -> what its runs start with."""
    called: tuple[str, ...] = ()
    """What templates may call such a step where no node has that name."""
    answers: bool = False
    """It answers whoever waits for the run outside."""
    doors: tuple[type[Any], ...] = ()
    """What it cannot do without that a server may keep closed; there a drawing is warned of."""
    falls_back: bool = False
    """A key of its own, or of the server, serves where its credential is not there."""
    icon: str = ""
    """The name of a Lucide icon, as palettes of editors show it."""
    version: int = 1
    """Grows when saved settings change their meaning; `upgrade` brings older ones up."""
    examples: tuple[Mapping[str, Any], ...] = ()
    """Settings that somebody may start from; each fits `config`."""
    upgrade: Callable[[Mapping[str, Any], int], Mapping[str, Any]] | None = None
    """(saved settings, the version they were saved under) -> the same in this version's words."""

    def __post_init__(self) -> None:
        if "/" in self.name or not self.name:
            raise NodeDefinitionError(f"{self.where}: a node type cannot be called {self.name!r}")
        if self.version < 1 or (self.version > 1 and self.upgrade is None):
            found = f"{self.where}: version {self.version} of node {self.name!r}"
            raise NodeDefinitionError(f"{found} needs an 'upgrade' from older ones")

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
        may_ask: Callable[[Any], bool] | None = None,
        body: Body | None = None,
        calls: Callable[[Any], WorkflowRef] | None = None,
        rounds: Callable[[Any], int] | None = None,
        sets: Callable[[Any], Mapping[str, Any]] | None = None,
        mistakes: Callable[[Any], Iterable[tuple[str, Keys]]] | None = None,
        needs: Sequence[str] = (),
        hosts: Callable[[Any], Sequence[str]] | None = None,
        facts: Callable[[Any], Mapping[str, Any]] | None = None,
        hook: Callable[[Any], Hook] | None = None,
        hook_secret: Callable[[Any], str | None] | None = None,
        timing: Callable[[Any], Timing | None] | None = None,
        timing_input: Callable[[Any], Any] | None = None,
        called: Sequence[str] = (),
        answers: bool = False,
        doors: Sequence[type[Any]] = (),
        icon: str = "",
        version: int = 1,
        examples: Sequence[Mapping[str, Any]] = (),
        upgrade: Callable[[Mapping[str, Any], int], Mapping[str, Any]] | None = None,
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
            may_ask=may_ask,
            body=body,
            calls=calls,
            rounds=rounds,
            sets=sets,
            mistakes=mistakes,
            needs=tuple(needs),
            hosts=hosts,
            facts=facts,
            hook=hook,
            hook_secret=hook_secret,
            timing=timing,
            timing_input=timing_input,
            called=tuple(called),
            answers=answers,
            doors=tuple(doors),
            icon=icon,
            version=version,
            examples=tuple(examples),
            upgrade=upgrade,
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
        facts: Callable[[Any], Mapping[str, Any]] | None = None,
        hook: Callable[[Any], Hook] | None = None,
        hook_secret: Callable[[Any], str | None] | None = None,
        timing: Callable[[Any], Timing | None] | None = None,
        timing_input: Callable[[Any], Any] | None = None,
        answers: bool = False,
        mistakes: Callable[[Any], Iterable[tuple[str, Keys]]] | None = None,
        falls_back: bool = False,
        icon: str = "",
        version: int = 1,
        examples: Sequence[Mapping[str, Any]] = (),
        upgrade: Callable[[Mapping[str, Any], int], Mapping[str, Any]] | None = None,
    ) -> Self:
        """Declare `def make(config, bindings, ctx)`, or `async def`: an object for others, once per run."""
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
            facts=facts,
            hook=hook,
            hook_secret=hook_secret,
            timing=timing,
            timing_input=timing_input,
            answers=answers,
            mistakes=mistakes,
            falls_back=falls_back,
            icon=icon,
            version=version,
            examples=tuple(examples),
            upgrade=upgrade,
        )

    @property
    def category(self) -> str:
        """Which shelf of the palette it lies on: the folder that its module is in."""
        return self.where.rsplit(".", 2)[-2]

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
