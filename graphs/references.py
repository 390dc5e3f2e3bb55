"""What the paths in a drawing's templates mean: which step's output, by the names their authors gave."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
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
        self.written: dict[str, str] = {}
        """How templates write each node's name, by its id."""
        for node in nodes:
            self.written[node.id] = snake(node.name)
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
    names = Names(nodes.values())
    scope = _Scope(steps, names, _ancestors(steps), broken, uncertain, problems)
    new_steps = {
        id: dataclasses.replace(step, references=scope.resolve(step, [id])) for id, step in steps.items()
    }
    users = users_of(parts, steps)
    new_parts = {
        id: dataclasses.replace(part, references=scope.resolve(part, users.get(id, [])))
        for id, part in parts.items()
    }
    return new_parts, new_steps


def users_of(parts: Mapping[str, Part], steps: Mapping[str, Step]) -> dict[str, list[str]]:
    """Part -> the steps that use it, also through other parts."""
    users: dict[str, list[str]] = {}
    for step in steps.values():
        waiting = [id for ids in step.bindings.values() for id in ids]
        seen: set[str] = set()
        while waiting:
            if (part := waiting.pop()) not in seen:
                seen.add(part)
                users.setdefault(part, []).append(step.id)
                waiting += (
                    [id for ids in parts[part].bindings.values() for id in ids] if part in parts else []
                )
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
    names: Names
    before: Mapping[str, Set[str]]
    """Step -> the steps that have run or been skipped when it starts."""
    broken: Set[str]
    uncertain: Set[str]
    problems: Problems

    def resolve(self, node: Step | Part, users: Sequence[str]) -> dict[Path, Reference]:
        """The meaning of each path of `node`; its value must be there when each of `users` starts."""
        certain = [id for id in users if id not in self.uncertain]

        @cache
        def can() -> list[str]:
            """What a path may start with here."""
            known = frozenset(self.steps).intersection(*(self.before[id] for id in certain))
            return [*ROOTS, *(name for id, name in self.names.written.items() if id in known)]

        found: dict[Path, Reference] = {}
        for path, at in dict.fromkeys(node.settings.paths):
            if path.root in ROOTS:
                found[path] = Reference(path.root, None, path.keys)
            elif (step := self._step(path, node.id, at, can)) is None:
                continue
            elif late := next((id for id in certain if step not in self.before[id]), None):
                self._not_there(path, step, late, node.id, at)
            elif reference := self._output(step, path, node.id, at):
                found[path] = reference
        return found

    def _step(self, path: Path, id: str, at: str, can: Callable[[], list[str]]) -> str | None:
        """The step that `path` starts with."""
        meant = self.names.find(path.root)
        if not meant:
            message = f"{path} starts with {path.root!r}, which is no node; here it can be: {listed(can())}"
            hint = self.problems.did_you_mean(path.root, can())
            self.problems.error("unknown_reference", id, at, message, hint)
        elif len(meant) > 1:
            message = f"{path} could mean {len(meant)} nodes of that name: {listed(meant)}"
            hint = f'write {{{{ ["{meant[0]}"] }}}} for the first'
            self.problems.error("ambiguous_reference", id, at, message, hint)
        elif meant[0] in self.steps:
            return meant[0]
        elif meant[0] not in self.broken:
            message = f"{path}: {meant[0]!r} is not a step that runs, so it has no value"
            self.problems.error("unknown_reference", id, at, message)
        return None

    def _not_there(self, path: Path, step: str, user: str, id: str, at: str) -> None:
        """Say why `step` has no value yet when `user`, to which node `id` belongs, starts."""
        whom = repr(user) if user == id else f"{user!r}, which uses {id!r}"
        hint = None
        if step == user:
            why = f"{step!r} has no output before it has run"
        elif user in self.before[step]:
            why = f"{step!r} runs only after {whom}"
        else:
            why = f"no arrows lead from {step!r} to {whom}, so it need not have run by then"
            hint = f"draw an arrow from {step!r} to {user!r}"
        self.problems.error("reference_not_before", id, at, f"{path}: {why}", hint)

    def _output(self, step: str, path: Path, id: str, at: str) -> Reference | None:
        node_type = self.steps[step].type
        known = ports(node_type.outputs)
        first = path.keys[0] if path.keys else None
        port = find(first, known) if isinstance(first, str) else None
        output, keys = (port, path.keys[1:]) if port else (known[0] if known else None, path.keys)
        if output and not (keys and output.kind in (str, int, float, bool)):
            return Reference(step, output.name, keys)
        names = [each.name for each in known]
        if port:
            what = f"output {port.name!r} of {step!r} ({node_type.name}) has no {keys[0]!r} in it"
            what += "; it is a text" if port.kind is str else "; it is a single value"
            hint = None
        else:
            what = f"{step!r} ({node_type.name}) has no output {first!r}; it has: {listed(names)}"
            hint = self.problems.did_you_mean(str(first), names)
        self.problems.error("unknown_reference", id, at, f"{path}: {what}", hint)
        return None
