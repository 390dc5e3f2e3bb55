"""What the paths in a drawing's templates mean: which step's output, by the names their authors gave."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache

from graphs.config import Settings
from graphs.kinds import shown
from graphs.options import VariableSpec, reduce
from graphs.plan import ERROR, Arc, Part, Reference, Step
from graphs.ports import Port, find, ports
from graphs.problems import Problems, listed
from graphs.regions import Shape, around
from graphs.spec import NodeSpec
from graphs.templates import Path
from nodes.contract import NodeError

ROOTS = ("input", "trigger", "run", "vars")
"""What every path may start with, besides the steps' names."""

FAILURE = Port(ERROR, dict, many=False, required=False, also=())
"""What a step gives by its error port: `{"code", "message", "step"}`."""

_UNSAFE = re.compile(r"[^0-9a-z_]")


class Names:
    """Finds nodes by id, by name, by either in the editors' snake case, and by what their type is called."""

    def __init__(self, nodes: Iterable[NodeSpec], called: Mapping[str, Sequence[str]]) -> None:
        """`called`: by a node's id, what templates may call it where no node has that name."""
        self._spellings: tuple[dict[str, list[str]], ...] = ({}, {}, {}, {}, {})
        self.written: dict[str, str] = {}
        """How templates write each node's name, by its id."""
        for node in nodes:
            self.written[node.id] = snake(node.name)
            for index, name in enumerate((node.id, node.name, snake(node.name), snake(node.id))):
                self._spellings[index].setdefault(name, []).append(node.id)
            for name in called.get(node.id, ()):
                self._spellings[-1].setdefault(name, []).append(node.id)

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
    shape: Shape,
    variables: Mapping[str, VariableSpec],
    nodes: Mapping[str, NodeSpec],
    lost: Mapping[str, Settings],
    broken: Set[str],
    uncertain: Set[str],
    problems: Problems,
) -> tuple[dict[str, Part], dict[str, Step]]:
    """Give every path of `parts` and `steps` its meaning; one that has none is a problem.

    A path to one of the `broken` nodes is not judged, and before an `uncertain` one anything may have run. Of
    the paths in `lost` settings, whose nodes are no steps, only what they name is looked up.
    """
    names = Names(nodes.values(), {id: step.type.called for id, step in steps.items()})
    scope = _Scope(steps, shape, Before(steps, shape), variables, nodes, names, broken, uncertain, problems)
    new_steps = {
        id: dataclasses.replace(step, references=scope.resolve(step, [id])) for id, step in steps.items()
    }
    for id, settings in lost.items():
        scope.look_up(id, settings)
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


class Before:
    """Which steps have run or been skipped when another starts; sets of steps are the bits of a number."""

    def __init__(self, steps: Mapping[str, Step], shape: Shape) -> None:
        self._place = {id: place for place, id in enumerate(steps)}
        self._around = around(shape.region, shape.maps)
        self._loops = {loops[-1].first: loops[-1] for loops in shape.loops}
        self._maps = shape.maps
        self._before: dict[str, int] = {}
        for step in steps.values():
            self._before[step.id] = self._of(step)

    def __call__(self, first: str, then: str) -> bool:
        return bool(self._before[then] >> self._place[first] & 1)

    def rounds(self, step: str, user: str) -> int:
        """How deep the innermost loop lies in which `step` comes after `user`, and so has last round's value.

        Counted from the map around `user`; 0 if there is none.
        """
        if step != user and not self(user, step):
            return 0
        mine, other = self._around.get(user, ()), self._around.get(step, ())
        shared = 0
        while shared < min(len(mine), len(other)) and mine[shared] == other[shared]:
            shared += 1
        in_map = max((at for at, id in enumerate(mine) if id in self._maps), default=-1)
        return max(shared - in_map - 1, 0)

    def maps(self, id: str) -> tuple[str, ...]:
        """The maps around a step, outermost first."""
        return tuple(each for each in self._around.get(id, ()) if each in self._maps)

    def _of(self, step: Step) -> int:
        found = [self._with(arc) for arc in step.arcs]
        before = found[0] if found else 0
        for each in found[1:]:  # a step that runs at the first live arrow knows nothing of the others
            before = before & each if step.policy.join == "any" else before | each
        for outer in self._around.get(step.id, ()):
            entered = self._loops[outer].sources if outer in self._loops else self._maps[outer].sources
            for source in entered:  # all of them are decided before a loop or a map begins
                before |= self._and_before(source)
        return before

    def _with(self, arc: Arc) -> int:
        before = self._and_before(arc.source)
        for outer in self._around.get(arc.source, ()):
            if outer in self._loops and arc.target not in self._loops[outer].steps:
                for id in self._loops[outer].steps:
                    before |= self._and_before(id)
        return before

    def _and_before(self, id: str) -> int:
        return self._before.get(id, 0) | 1 << self._place[id]


@dataclass(frozen=True, slots=True)
class _Scope:
    """What paths can mean in one drawing."""

    steps: Mapping[str, Step]
    shape: Shape
    before: Before
    variables: Mapping[str, VariableSpec]
    nodes: Mapping[str, NodeSpec]
    names: Names
    broken: Set[str]
    uncertain: Set[str]
    problems: Problems

    def resolve(self, node: Step | Part, users: Sequence[str]) -> dict[Path, Reference]:
        """The meaning of each path of `node`; its value must be there when each of `users` starts."""
        certain = [id for id in users if id not in self.uncertain]

        @cache
        def can() -> list[str]:
            """What a path may start with here."""
            known = [id for id in self.steps if all(self._sees(user, id) for user in certain)]
            return [*ROOTS, *(self.names.written[id] for id in known)]

        found: dict[Path, Reference] = {}
        self._sets(node)
        for path, at in dict.fromkeys(node.settings.paths):
            if path.root in ROOTS:
                self._root(path, node.id, at)
                found[path] = Reference(path.root, None, path.keys)
            elif (step := self._step(path, node.id, at, can)) is not None:
                late = next((id for id in certain if not self._sees(id, step)), None)
                rounds = min((self.before.rounds(step, id) for id in certain), default=0)
                if late and not (rounds and path.optional):
                    self._not_there(path, step, late, node.id, at)
                elif reference := self._output(step, certain, path, node.id, at):
                    found[path] = dataclasses.replace(reference, rounds=rounds if late else 0)
        return found

    def look_up(self, id: str, settings: Settings) -> None:
        """Find what the paths in settings name and there is nowhere in the drawing."""
        for path, at in dict.fromkeys(settings.paths):
            if path.root in ROOTS:
                self._root(path, id, at)
                continue
            step = self._step(path, id, at, lambda: [*ROOTS, *self.names.written.values()])
            if step is not None and self.steps[step].type.body is None:
                self._output(step, [], path, id, at)

    def _sees(self, user: str, step: str) -> bool:
        """Whether `step` has been decided when `user` starts, and is no item's own business."""
        if step in self.before.maps(user):
            return True
        mine, other = self.before.maps(user), self.before.maps(step)
        return self.before(step, user) and mine[: len(other)] == other

    def _sets(self, node: Step | Part) -> None:
        if node.type.sets is None or not node.settings.valid:
            return
        where = self.nodes[node.id]
        for name, value in node.type.sets(node.settings.provisional()).items():
            at = where.at("data", "variable") if "variable" in where.config else where.at_data
            if (variable := self.variables.get(name)) is None:
                message = f"{name!r} is no variable of this workflow; its variables: {listed(self.variables)}"
                self._unknown_variable(name, message, node.id, at)
            elif variable.initial is not None and value is not None:
                try:
                    reduce(variable.reducer, variable.initial, [value])
                except NodeError as exc:
                    message = f"{name!r} begins with {shown(variable.initial)}: {exc.message}"
                    self.problems.error("bad_config", node.id, at, message)

    def _unknown_variable(self, name: str, message: str, id: str, at: str) -> None:
        hint = self.problems.did_you_mean(name, self.variables)
        hint = hint or "declare it in the workflow's settings, under 'variables'"
        self.problems.error("unknown_variable", id, at, message, hint)

    def _root(self, path: Path, id: str, at: str) -> None:
        name = path.keys[0] if path.keys and path.root == "vars" else None
        if name is not None and name not in self.variables:
            message = (
                f"{path}: {name!r} is no variable of this workflow; its variables: {listed(self.variables)}"
            )
            self._unknown_variable(str(name), message, id, at)

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
        inside = [id for id in self.before.maps(step) if id not in self.before.maps(user)]
        if self.before.rounds(step, user):
            why = f"{step!r} comes later in the same loop as {whom}, so in the first round it has no value"
            hint = f"write {{{{ {path.text} | default('…') }}}} for that case"
        elif step == user:
            why = f"{step!r} has no output before it has run"
        elif inside:
            why = f"{step!r} runs once per item of the map {inside[0]!r}, and {whom} is outside"
            hint = f"lead its result back to {inside[0]!r}, and use what that gives"
        elif self.before(user, step):
            why = f"{step!r} runs only after {whom}"
        else:
            why = f"no arrows lead from {step!r} to {whom}, so it need not have run by then"
            hint = f"draw an arrow from {step!r} to {user!r}"
        self.problems.error("reference_not_before", id, at, f"{path}: {why}", hint)

    def _output(self, step: str, users: Sequence[str], path: Path, id: str, at: str) -> Reference | None:
        node_type = self.steps[step].type
        known = self._visible(step, users)
        first = path.keys[0] if path.keys else None
        port = find(first, known) if isinstance(first, str) else None
        output, keys = (port, path.keys[1:]) if port else (known[0] if known else None, path.keys)
        hidden = None
        if port is None and isinstance(first, str):
            hidden = find(first, ports(node_type.outputs))
        if output and not hidden and not (keys and output.kind in (str, int, float, bool)):
            return Reference(step, output.name, keys)
        names = [each.name for each in known]
        if hidden and node_type.body is not None:
            where = "inside" if hidden.name in node_type.body.gives else "behind"
            what = f"{step!r} ({node_type.name}) has {hidden.name!r} only {where} it"
            what = f"{what}; here it has: {listed(names)}"
            hint = None
        elif port:
            what = f"output {port.name!r} of {step!r} ({node_type.name}) has no {keys[0]!r} in it"
            what += "; it is a text" if port.kind is str else "; it is a single value"
            hint = None
        else:
            what = f"{step!r} ({node_type.name}) has no output {first!r}; it has: {listed(names)}"
            hint = self.problems.did_you_mean(str(first), names)
        self.problems.error("unknown_reference", id, at, f"{path}: {what}", hint)
        return None

    def _visible(self, step: str, users: Sequence[str]) -> tuple[Port, ...]:
        """The outputs of `step` that its users can see; those of a map are others inside than behind it."""
        known = ports(self.steps[step].type.outputs)
        body = self.steps[step].type.body
        if body is not None:
            inside = any(step in self.before.maps(user) for user in users)
            known = tuple(port for port in known if (port.name in body.gives) == inside)
        if self.steps[step].policy.on_error == "port" and all(port.name != ERROR for port in known):
            known = (*known, FAILURE)
        return known
