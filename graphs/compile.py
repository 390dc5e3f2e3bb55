"""The whole way of a drawing: saved JSON -> spec -> plan -> graph."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from graphs.build import Graph, build
from graphs.plan import Durability, Plan
from graphs.problems import InvalidWorkflow, Problem, Problems
from graphs.resolve import in_place, resolve
from graphs.schedule import schedule
from graphs.spec import read
from nodes.registry import Registry


@dataclass(frozen=True, slots=True)
class Compiled:
    """A drawing that runs."""

    version: str
    plan: Plan
    graph: Graph
    durability: Durability
    """How often its state is saved, if nobody wishes otherwise."""
    warnings: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of a drawing without building it; `plan` is `None` when an error was found."""

    version: str
    problems: tuple[Problem, ...]
    plan: Plan | None


class Compiler:
    """Compiles drawings, and remembers the graphs of the last `keep` versions."""

    def __init__(self, registry: Registry, keep: int = 256, *, fuse: bool = True) -> None:
        """Without `fuse` every step gets a superstep of its own: slower, and the same."""
        self.registry = registry
        self._keep = keep
        self._fuse = fuse
        self._known: OrderedDict[str, Compiled] = OrderedDict()

    def check(self, flow_data: Any) -> Checked:
        """Find every problem of a drawing, errors first."""
        problems = Problems()
        spec = read(flow_data, problems)
        version = spec.version
        known = self.known(version)
        if known is not None and not problems.found and not known.warnings:
            return Checked(version, (), known.plan)  # warnings name edges, whose ids are not in the version
        try:
            plan = resolve(spec, self.registry, problems)
        except InvalidWorkflow as exc:
            return Checked(version, exc.problems, None)
        return Checked(version, tuple(in_place(problems.found)), plan)

    def compile(self, flow_data: Any) -> Compiled:
        """Make the graph of a drawing.

        Raises:
            InvalidWorkflow: With every problem found.
        """
        problems = Problems()
        spec = read(flow_data, problems)
        version = spec.version
        if not problems.errors and (known := self.known(version)) is not None:
            return known
        plan = resolve(spec, self.registry, problems)
        _must_be_whole(plan, problems)
        planned = schedule(plan, fuse=self._fuse)
        compiled = Compiled(
            version, plan, build(plan, planned), planned.durability, tuple(in_place(problems.found))
        )
        self._known[version] = compiled
        if len(self._known) > self._keep:
            self._known.popitem(last=False)
        return compiled

    def known(self, version: str) -> Compiled | None:
        """The graph of `version` if it is remembered."""
        if version in self._known:
            self._known.move_to_end(version)
        return self._known.get(version)


def _must_be_whole(plan: Plan, problems: Problems) -> None:
    for step in plan.nodes:
        if step.type.calls is not None and step.id not in plan.children:
            message = f"{step.name!r} runs another workflow, which was not looked up"
            problems.error("unknown_workflow", step.id, "", message)
            raise InvalidWorkflow(in_place(problems.found))
