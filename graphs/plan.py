"""A workflow that is known to compile. Made by `graphs.resolve`, used by `graphs.build`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from graphs.config import Settings
from graphs.options import AS_THE_SERVER_SAYS, NO_LIMITS, Limits, Retention
from graphs.policy import PLAIN, Policy
from graphs.templates import Path
from nodes.contract import Memory, NodeType

Durability: TypeAlias = Literal["sync", "exit"]

ERROR = "error"
"""The port that any step may have: it is taken when the step fails."""
LIMIT = "limit"
"""The port of a loop's first step: it is taken when the loop has had all rounds that it may have."""
MOST_ROUNDS = 10_000
"""More rounds than any loop may have."""


@dataclass(frozen=True, slots=True)
class Arc:
    """An arrow between two steps: it carries control, and the value of `port` to `input`."""

    source: str
    port: str
    """An output of the source; for a router, the route; or `ERROR`, or `LIMIT`."""
    target: str
    input: str
    where: str
    """The edge's id, for messages."""
    pointer: str
    special: bool = False
    """Whether the port is `ERROR` or `LIMIT` as every step has it, not one of the type's own."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What a template's path means: a root of the run, a variable, or an output of another step."""

    root: str
    """`input`, `trigger`, `run`, `vars`, or the id of a step."""
    port: str | None = None
    """The step's output; `None` for the roots of the run."""
    keys: tuple[str | int, ...] = ()
    rounds: int = 0
    """Not 0: the step comes later in a loop that both are in, and its value is that of the round before. The
    loop is the one at this depth around the reader."""


@dataclass(frozen=True, slots=True)
class Part:
    """A node whose object other nodes use: a provider, or a step that serves as a tool."""

    id: str
    name: str
    type: NodeType
    settings: Settings
    bindings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    references: Mapping[Path, Reference] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """A node of the drawing, ready to run."""

    id: str
    name: str
    type: NodeType
    settings: Settings
    policy: Policy = PLAIN
    arcs: tuple[Arc, ...] = ()
    """What leads to it, in edge order; not what leads back to it."""
    bindings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Binding port -> ids of `Part`s, in edge order."""
    references: Mapping[Path, Reference] = field(default_factory=dict)
    sources: tuple[str, ...] = field(init=False)
    """The steps that lead to it."""
    waits_for: tuple[str, ...] = field(init=False)
    """Those of them that have to be decided before it can be."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(dict.fromkeys(arc.source for arc in self.arcs)))
        object.__setattr__(self, "waits_for", self.sources if self.policy.join == "all" else ())

    @property
    def is_root(self) -> bool:
        return not self.arcs

    @property
    def asks(self) -> bool:
        """Whether it may put a question to a person."""
        may = self.type.may_ask
        return self.type.asks or (may is not None and may(self.settings.provisional()))

    @property
    def routes(self) -> tuple[str, ...]:
        """For a router: the ports of which it takes one."""
        return routes(self.type, self.settings)

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways that its run can go, where there are several: its routes, and failing with a port."""
        own = self.routes
        return (*(own or ("",)), ERROR) if self.policy.on_error == "port" else own


def routes(node_type: NodeType, settings: Settings) -> tuple[str, ...]:
    """The ports that a router with these settings has; none for other types."""
    if node_type.routes is None:
        return ()
    return tuple(node_type.routes(settings.provisional()))


@dataclass(frozen=True, slots=True)
class Loop:
    """Steps that arrows lead round and round: a region of its own, once per round."""

    first: str
    """The step that every round begins with; the loop is known by its id."""
    body: Region
    back: tuple[Arc, ...]
    """The arrows that lead back to the first step."""
    most: int
    """The most rounds."""
    steps: frozenset[str]
    """All steps inside, also those of loops and maps in it."""
    sources: tuple[str, ...]
    """The steps outside that lead into it: they are decided before it begins."""


@dataclass(frozen=True, slots=True)
class Region:
    """Steps and loops, each after all that lead to it."""

    items: tuple[str | Loop, ...]

    def loops(self) -> Iterator[tuple[Loop, ...]]:
        """Every loop with those around it, outermost first."""
        for item in self.items:
            if isinstance(item, Loop):
                yield (item,)
                for inner in item.body.loops():
                    yield (item, *inner)


@dataclass(frozen=True, slots=True)
class MapBody:
    """The steps that a map runs once per item."""

    region: Region
    returns: tuple[Arc, ...]
    """The arrows that bring an item's result back to the map."""
    steps: frozenset[str]
    """All steps inside, also those of maps in it."""
    sources: tuple[str, ...]
    """The steps outside that lead into it."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A value that the steps of a run share under a name."""

    name: str
    initial: Any
    reducer: str
    persistent: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """A workflow that is known to compile."""

    version: str
    steps: Mapping[str, Step]
    """By id, every step after all that lead to it; arrows back left aside."""
    parts: Mapping[str, Part]
    """By id, every part after those it is bound to."""
    triggers: tuple[str, ...]
    region: Region
    """The steps and loops that no map runs."""
    maps: Mapping[str, MapBody]
    """By the id of the map."""
    variables: Mapping[str, Variable] = field(default_factory=dict)
    children: Mapping[str, Plan] = field(default_factory=dict)
    """The workflows that its steps run, by the step's id."""
    max_concurrency: int = 16
    limits: Limits = NO_LIMITS
    retention: Retention = AS_THE_SERVER_SAYS

    @property
    def depth(self) -> int:
        """How deep loops, maps and workflows lie in each other."""

        def of(region: Region) -> int:
            inside = (1 + of(item.body) if isinstance(item, Loop) else step(item) for item in region.items)
            return max(inside, default=0)

        def step(id: str) -> int:
            mapped = 1 + of(self.maps[id].region) if id in self.maps else 0
            return max(mapped, 1 + self.children[id].depth if id in self.children else 0)

        return of(self.region)

    @property
    def memories(self) -> tuple[str, ...]:
        """The ids of the nodes that keep a conversation."""
        return tuple(part.id for part in self.parts.values() if part.type.gives is Memory)

    @property
    def imports(self) -> frozenset[str]:
        """The modules that its steps and providers import when they first run."""
        own = {module for node in self.nodes for module in node.type.imports}
        return frozenset(own.union(*(child.imports for child in self.children.values())))

    @property
    def secrets(self) -> frozenset[str]:
        """Every secret that stands in the drawing itself."""
        own = {secret for node in self.nodes for secret in node.settings.secrets if len(secret) >= 4}
        return frozenset(own.union(*(child.secrets for child in self.children.values())))

    @property
    def nodes(self) -> list[Step | Part]:
        return [*self.steps.values(), *self.parts.values()]

    def starts(self, trigger: str | None) -> str | None:
        """The trigger that a run begins with: `trigger`, else a StartNode, else the first in the drawing."""
        if trigger is not None or not self.triggers:
            return trigger
        plain = [each for each in self.triggers if self.steps[each].type.name == "StartNode"]
        return (plain or list(self.triggers))[0]
