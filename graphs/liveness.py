"""When a step runs: a decision diagram over what each router may choose, so that checks are exact.

A reduced ordered multi-valued decision diagram (Srinivasan et al., 1990): one variable per router with one
branch per route, and one for the trigger that starts the run. Nodes are numbered, equal ones are one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from graphs.plan import Arc, Step

NEVER, ALWAYS = 0, 1
MAX_SIZE = 50_000

Condition: TypeAlias = int
_START = ""


class TooComplex(Exception):
    """The diagram grew past `MAX_SIZE`."""


class Liveness:
    """The condition under which each step and arc is live."""

    def __init__(self, steps: Mapping[str, Step], triggers: Sequence[str]) -> None:
        """Work out every step's condition; `steps` in topological order.

        Raises:
            TooComplex: The drawing's conditions do not fit into `MAX_SIZE` nodes.
        """
        self._levels: dict[str, int] = {_START: 0}
        self._choices: list[tuple[str, Sequence[str]]] = [(_START, tuple(triggers))]
        for step in steps.values():
            if step.type.routes is not None:
                self._levels[step.id] = len(self._choices)
                self._choices.append((step.id, step.routes))
        self._nodes: list[tuple[int, tuple[int, ...]]] = [(len(self._choices), ()), (len(self._choices), ())]
        self._known: dict[tuple[int, tuple[int, ...]], int] = {}
        self._done: dict[tuple[str, int, int], int] = {}
        self._steps = steps
        self._conditions: dict[str, Condition] = {}
        for step in steps.values():
            self._conditions[step.id] = self._of_step(step, triggers)

    def step(self, id: str) -> Condition:
        return self._conditions[id]

    def arc(self, arc: Arc) -> Condition:
        source = self._steps[arc.source]
        condition = self._conditions[source.id]
        if source.type.routes is None:
            return condition
        return self._both("and", condition, self._takes(source.id, arc.port))

    def meet(self, first: Arc, second: Arc) -> bool:
        """Whether both can be live in one run."""
        return self._both("and", self.arc(first), self.arc(second)) != NEVER

    def without(self, here: str, needed: str) -> dict[str, str] | None:
        """Choices by which `here` runs and `needed` does not: router -> route; `None` when there are none."""
        gap = self._both("not", self._conditions[here], self._conditions[needed])
        if gap == NEVER:
            return None
        choices: dict[str, str] = {}
        while gap != ALWAYS:
            level, children = self._nodes[gap]
            router, names = self._choices[level]
            taken = next(index for index, child in enumerate(children) if child != NEVER)
            choices[router] = names[taken]
            gap = children[taken]
        return choices

    def _of_step(self, step: Step, triggers: Sequence[str]) -> Condition:
        if step.is_root and step.id not in triggers:
            return ALWAYS
        condition = self._takes(_START, step.id) if step.id in triggers else NEVER
        for arc in step.arcs:
            condition = self._both("or", condition, self.arc(arc))
        return condition

    def _takes(self, router: str, route: str) -> Condition:
        level = self._levels[router]
        return self._node(level, tuple(int(name == route) for name in self._choices[level][1]))

    def _node(self, level: int, children: tuple[int, ...]) -> int:
        if len(set(children)) == 1:
            return children[0]
        key = (level, children)
        if key not in self._known:
            if len(self._nodes) >= MAX_SIZE:
                raise TooComplex
            self._known[key] = len(self._nodes)
            self._nodes.append(key)
        return self._known[key]

    def _both(self, how: Literal["and", "or", "not"], first: int, second: int) -> int:
        """`first` and/or `second`; "not" is first and not second."""
        if (simple := _simple(how, first, second)) is not None:
            return simple
        key = (how, first, second)
        if key not in self._done:
            level = min(self._nodes[first][0], self._nodes[second][0])
            pairs = zip(self._children(first, level), self._children(second, level), strict=True)
            self._done[key] = self._node(level, tuple(self._both(how, a, b) for a, b in pairs))
        return self._done[key]

    def _children(self, node: int, level: int) -> tuple[int, ...]:
        own, children = self._nodes[node]
        return children if own == level else (node,) * len(self._choices[level][1])


def _simple(how: Literal["and", "or", "not"], first: int, second: int) -> int | None:
    if how == "and":
        if NEVER in (first, second):
            return NEVER
        return second if first == ALWAYS else first if second in (ALWAYS, first) else None
    if how == "or":
        if ALWAYS in (first, second):
            return ALWAYS
        return second if first == NEVER else first if second in (NEVER, first) else None
    if second == ALWAYS or first in (NEVER, second):
        return NEVER
    return first if second == NEVER else None
