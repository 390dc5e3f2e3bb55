"""One node by itself: its settings checked, and a drawing in which it runs alone on given values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from graphs.config import read_settings, spellings
from graphs.policy import read_policy
from graphs.ports import guess, ports
from graphs.problems import Problem, Problems, listed
from graphs.resolve import in_place
from graphs.spec import read
from nodes.contract import NodeType

GIVEN = "given_values"
"""The variable that holds what a node is tried with: as data, so that nothing in it is read as a template."""
TRIED = "tried"
"""The id of the node that is tried."""
_AT = "/nodes/0"


class CannotRunAlone(ValueError):
    """It is no step, or nothing can arrive where the trial says."""


class Bound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node that makes something for the one that is tried."""

    type: str
    """A provider, or a step that can be a tool."""
    config: dict[str, Any] = {}
    bindings: dict[str, list[Bound]] = {}
    """Its own ports for providers, and what is bound there."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a node is tried with."""

    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Input port -> what arrives there; a list at a port that takes many is several values. Without any, the
    run's input arrives."""
    bindings: Mapping[str, Sequence[Bound]] = field(default_factory=dict)
    steps: Mapping[str, Any] = field(default_factory=dict)
    """Name of an earlier step -> what `{{ name }}` shall mean."""
    vars: Mapping[str, Any] = field(default_factory=dict)
    """Variable -> its value."""


def check_alone(node_type: NodeType, config: Mapping[str, Any]) -> tuple[Problem, ...]:
    """What is wrong with settings of `node_type`, errors first; pointers lead into `{"config": …}`."""
    problems = Problems()
    node = {"id": node_type.name, "type": node_type.name, "data": config}
    for spec in read({"nodes": [node]}, problems).nodes:
        if spec.type:
            read_settings(spec, node_type, problems)
            if node_type.is_step:
                read_policy(spec, spellings(node_type), problems)
    return tuple(msgspec.structs.replace(each, where="") for each in told(in_place(problems.found)))


def told(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Problems of a drawing that `alone` has made, with pointers into what it was made of."""
    return tuple(map(_told, problems))


def _told(problem: Problem) -> Problem:
    pointer = ""
    if problem.pointer == _AT or problem.pointer.startswith(f"{_AT}/"):
        pointer = "/config" + problem.pointer.removeprefix(_AT).removeprefix("/data")
    return msgspec.structs.replace(problem, pointer=pointer)


def alone(node_type: NodeType, trial: Trial) -> dict[str, Any]:
    """A drawing that runs one step of `node_type` on what `trial` gives.

    Raises:
        CannotRunAlone: It is no step, or nothing can arrive where the trial says.
    """
    if node_type.kind == "provider":
        message = f"{node_type.name} is a provider and never runs; try a step that it is bound to"
        raise CannotRunAlone(message)
    draft = _Draft()
    draft.add(TRIED, node_type.name, trial.config)
    if node_type.kind == "trigger":
        if trial.inputs or trial.steps:
            raise CannotRunAlone(f"{node_type.name} begins a run, so only the run's 'input' arrives at it")
    elif ports(node_type.inputs):
        draft.lead_to(node_type, trial)
    draft.bind(TRIED, trial.bindings)
    variables = {name: {"initial": value} for name, value in trial.vars.items()}
    settings = {"variables": {**variables, GIVEN: {"initial": draft.given}}}
    return {"nodes": draft.nodes, "edges": draft.edges, "settings": settings}


@dataclass(slots=True)
class _Draft:
    """The drawing on its way."""

    nodes: list[dict[str, Any]] = field(default_factory=list)
    edges: list[dict[str, Any]] = field(default_factory=list)
    given: list[Any] = field(default_factory=list)

    def add(self, id: str, type: str, data: Mapping[str, Any]) -> None:
        self.nodes.append({"id": id, "type": type, "data": dict(data)})

    def join(self, source: str, target: str, port: str | None = None) -> None:
        self.edges.append({"source": source, "target": target, "targetHandle": port})

    def lead_to(self, node_type: NodeType, trial: Trial) -> None:
        """Draw what the tried node comes after: a start, the steps that it names, what arrives."""
        last = "try:start"
        self.add(last, "StartNode", {})
        for at, (name, value) in enumerate(trial.steps.items()):
            id = f"try:step:{at}"
            self.add(id, "Value", {"name": name, "value": self._path(_primary(value))})
            self.join(last, id)
            last = id
        arriving = list(_arriving(node_type, trial.inputs)) if trial.inputs else [(None, None)]
        for at, (port, value) in enumerate(arriving):
            id = f"try:input:{at}"
            self.add(id, "Value", {"value": self._path(value) if trial.inputs else "{{ input }}"})
            self.join(last, id)
            self.join(id, TRIED, port)

    def bind(self, owner: str, bindings: Mapping[str, Sequence[Bound]]) -> None:
        for port, bound in bindings.items():
            for at, each in enumerate(bound):
                id = f"{owner}:{port}:{at}"
                self.add(id, each.type, each.config)
                self.join(id, owner, port)
                self.bind(id, each.bindings)

    def _path(self, value: Any) -> str:
        self.given.append(value)
        return f"{{{{ vars.{GIVEN}[{len(self.given) - 1}] }}}}"


def _primary(value: Any) -> Any:
    """What an earlier step has given; `{"output": …}` is all that most of them give."""
    return value["output"] if isinstance(value, dict) and value.keys() == {"output"} else value


def _arriving(node_type: NodeType, inputs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    known = ports(node_type.inputs)
    for name, value in inputs.items():
        port = guess(name, known)
        if port is None:
            names = listed(each.name for each in known)
            raise CannotRunAlone(f"{node_type.name} has no input {name!r}; it has: {names}")
        for each in value if port.many and isinstance(value, list) else [value]:
            yield port.name, each
