"""A workflow that is known to compile. Made by `graphs.resolve`, used by `graphs.build`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import msgspec

from graphs.config import Settings
from graphs.templates import Path
from nodes.contract import Memory, NodeType

Durability: TypeAlias = Literal["sync", "exit"]


@dataclass(frozen=True, slots=True)
class Arc:
    """An arrow between two steps: it carries control, and the value of `port` to `input`."""

    source: str
    port: str
    """An output of the source; for a router, the route."""
    target: str
    input: str
    where: str
    """The edge's id, for messages."""
    pointer: str


@dataclass(frozen=True, slots=True)
class Reference:
    """What a template's path means: a root of the run, or an output of an earlier step."""

    root: str
    """`input`, `trigger`, `run`, or the id of a step."""
    port: str | None = None
    """The step's output; `None` for the roots of the run."""
    keys: tuple[str | int, ...] = ()


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
    arcs: tuple[Arc, ...] = ()
    """What leads to it, in edge order."""
    bindings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Binding port -> ids of `Part`s, in edge order."""
    references: Mapping[Path, Reference] = field(default_factory=dict)

    @property
    def is_root(self) -> bool:
        return not self.arcs

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(arc.source for arc in self.arcs))

    @property
    def routes(self) -> tuple[str, ...]:
        """For a router: the ports of which it takes one."""
        return routes(self.type, self.settings)


def routes(node_type: NodeType, settings: Settings) -> tuple[str, ...]:
    """The ports that a router with these settings has; none for other types."""
    if node_type.routes is None:
        return ()
    return tuple(node_type.routes(settings.provisional()))


@dataclass(frozen=True, slots=True)
class Plan:
    """A workflow that is known to compile."""

    version: str
    steps: Mapping[str, Step]
    """By id, every step after all that lead to it."""
    parts: Mapping[str, Part]
    """By id, every part after those it is bound to."""
    triggers: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    """Steps that can run at the same time, wave by wave."""
    durability: Durability

    @property
    def memories(self) -> tuple[str, ...]:
        """The ids of the nodes that keep a conversation."""
        return tuple(part.id for part in self.parts.values() if part.type.gives is Memory)

    @property
    def imports(self) -> frozenset[str]:
        """The modules that its steps and providers import when they first run."""
        nodes: list[Step | Part] = [*self.steps.values(), *self.parts.values()]
        return frozenset(module for node in nodes for module in node.type.imports)

    @property
    def secrets(self) -> frozenset[str]:
        """Every secret that stands in the drawing itself."""
        nodes: list[Step | Part] = [*self.steps.values(), *self.parts.values()]
        return frozenset(secret for node in nodes for secret in node.settings.secrets if len(secret) >= 4)

    def starts(self, trigger: str | None) -> str | None:
        """The trigger that a run begins with: `trigger`, else a StartNode, else the first in the drawing."""
        if trigger is not None or not self.triggers:
            return trigger
        plain = [each for each in self.triggers if self.steps[each].type.name == "StartNode"]
        return (plain or list(self.triggers))[0]


class PlanSummary(msgspec.Struct, frozen=True):
    """What a plan will do, for the editor."""

    version: str
    order: tuple[str, ...]
    parallel: tuple[tuple[str, ...], ...]
    """Waves of steps that can run at the same time."""
    triggers: tuple[str, ...]
    providers: tuple[str, ...]
    model_calls: int
    """The most calls of a chat model in one run."""
    durability: Durability


def summary(plan: Plan) -> PlanSummary:
    """Sum up `plan`."""
    calls = sum(
        step.type.model_calls(step.settings.ready)
        for step in plan.steps.values()
        if step.type.model_calls is not None and step.settings.ready is not None
    )
    return PlanSummary(
        version=plan.version,
        order=tuple(plan.steps),
        parallel=plan.levels,
        triggers=plan.triggers,
        providers=tuple(plan.parts),
        model_calls=calls,
        durability=plan.durability,
    )
