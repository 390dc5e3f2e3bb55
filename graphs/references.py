"""What the paths in a drawing's templates mean: which step's output, by the names their authors gave."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from functools import cache

from graphs.plan import Part, Reference, Step
from graphs.ports import find, ports
from graphs.problems import Problems, listed
from graphs.spec import NodeSpec
from graphs.templates import Path

ROOTS = ("input", "trigger", "run")
"""What every path may start with, besides the steps' names."""

_UNSAFE = re.compile(r"[^0-9a-z_]")


class Names:
    """Finds nodes by id, by name, and by either in the editors' snake case."""

    def __init__(self, nodes: Iterable[NodeSpec]) -> None:
        self._spellings: tuple[dict[str, list[str]], ...] = ({}, {}, {}, {})
        self.known: list[str] = []
        for node in nodes:
            self.known.append(snake(node.name))
            for index, name in enumerate((node.id, node.name, snake(node.name), snake(node.id))):
                self._spellings[index].setdefault(name, []).append(node.id)

    def find(self, name: str) -> list[str]:
        """The ids of the nodes that `name` means; several when it is ambiguous."""
        for spelling in self._spellings[:2]:
            if name in spelling:
                return spelling[name]
        for spelling in self._spellings[2:]:
            if snake(name) in spelling:
                return spelling[snake(name)]
        return []


def snake(name: str) -> str:
    """`name` as templates write it: lower case, everything but letters, digits and `_` as `_`."""
    safe = _UNSAFE.sub("_", name.lower())
    return f"n_{safe}" if safe[:1].isdigit() else safe


def resolve_references(
    parts: Mapping[str, Part],
    steps: Mapping[str, Step],
    nodes: Mapping[str, NodeSpec],
    broken: Set[str],
    uncertain: Set[str],
    problems: Problems,
) -> tuple[dict[str, Part], dict[str, Step]]:
    """Give every path of `parts` and `steps` its meaning; one that has none is a problem.

    A path to one of the `broken` nodes is not judged, and before an `uncertain` one anything may have run.
    """
    scope = _Scope(steps, nodes, Names(nodes.values()), broken, problems)
    before = _ancestors(steps) | {id: set(steps) for id in uncertain}
    new_steps = {
        id: dataclasses.replace(step, references=scope.resolve(step, before[id]))
        for id, step in steps.items()
    }
    users = users_of(parts, steps)
    new_parts: dict[str, Part] = {}
    for part in parts.values():
        common = [before[user] for user in users.get(part.id, ())]
        known = set.intersection(*common) if common else set(steps)
        new_parts[part.id] = dataclasses.replace(part, references=scope.resolve(part, known))
    return new_parts, new_steps


def users_of(parts: Mapping[str, Part], steps: Mapping[str, Step]) -> dict[str, set[str]]:
    """Part -> the steps that use it, also through other parts."""
    users: dict[str, set[str]] = {}
    for step in steps.values():
        waiting = [id for ids in step.bindings.values() for id in ids]
        while waiting:
            part = waiting.pop()
            users.setdefault(part, set()).add(step.id)
            if part in parts:
                waiting += [id for ids in parts[part].bindings.values() for id in ids]
    return users


def _ancestors(steps: Mapping[str, Step]) -> dict[str, set[str]]:
    before: dict[str, set[str]] = {}
    for step in steps.values():
        before[step.id] = {each for source in step.sources for each in (source, *before[source])}
    return before


@dataclass(frozen=True, slots=True)
class _Scope:
    """What paths can mean in one drawing."""

    steps: Mapping[str, Step]
    nodes: Mapping[str, NodeSpec]
    names: Names
    broken: Set[str]
    problems: Problems

    def resolve(self, node: Step | Part, before: set[str]) -> dict[Path, Reference]:
        """The meaning of each path of `node`, which starts after the steps in `before`."""
        found: dict[Path, Reference] = {}

        @cache
        def can() -> list[str]:
            return [*ROOTS, *(snake(self.nodes[id].name) for id in self.nodes if id in before)]

        for path, at in dict.fromkeys(node.settings.paths):
            if path.root in ROOTS:
                found[path] = Reference(path.root, None, path.keys)
            elif (step := self._step(path, node.id, at, before, can)) is not None:
                reference = self._output(step, path, node.id, at)
                found |= {path: reference} if reference else {}
        return found

    def _step(
        self, path: Path, id: str, at: str, before: set[str], can: Callable[[], list[str]]
    ) -> str | None:
        """The step that `path` starts with, if its value is there when node `id` starts."""
        shown = f"'{{{{ {path.text} }}}}'"
        meant = self.names.find(path.root)
        if not meant:
            message = f"{shown} starts with {path.root!r}, which is no node; here it can be: {listed(can())}"
            hint = self.problems.did_you_mean(path.root, can())
            self.problems.error("unknown_reference", id, at, message, hint)
        elif len(meant) > 1:
            message = f"{shown} could mean {len(meant)} nodes of that name: {listed(meant)}"
            hint = f'write {{{{ ["{meant[0]}"] }}}} for the first'
            self.problems.error("ambiguous_reference", id, at, message, hint)
        elif meant[0] in self.broken:
            return None
        elif meant[0] not in self.steps:
            message = f"{shown}: {meant[0]!r} is not a step that runs, so it has no value"
            self.problems.error("unknown_reference", id, at, message)
        elif meant[0] not in before:
            message = f"{shown}: no arrows lead from {meant[0]!r} to {id!r}, so it need not have run by then"
            hint = f"draw an arrow from {meant[0]!r} to {id!r}"
            self.problems.error("reference_not_before", id, at, message, hint)
        else:
            return meant[0]
        return None

    def _output(self, step: str, path: Path, id: str, at: str) -> Reference | None:
        node_type = self.steps[step].type
        known = ports(node_type.outputs)
        first = path.keys[0] if path.keys else None
        if isinstance(first, str) and (port := find(first, known)) is not None:
            return Reference(step, port.name, path.keys[1:])
        if known and not (isinstance(first, str) and known[0].kind in (str, int, float, bool)):
            return Reference(step, known[0].name, path.keys)
        names = [each.name for each in known]
        what = f"{step!r} ({node_type.name}) has no output {first!r}"
        message = f"'{{{{ {path.text} }}}}': {what}; it has: {listed(names)}"
        hint = self.problems.did_you_mean(str(first), names)
        self.problems.error("unknown_reference", id, at, message, hint)
        return None
