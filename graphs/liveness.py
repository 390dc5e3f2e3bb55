"""When a step runs: a decision diagram over what each router may choose, so that checks are exact.

A reduced ordered multi-valued decision diagram (Srinivasan et al., 1990): one variable per router with one
branch per route, and one for the trigger that starts the run. Nodes are numbered, equal ones are one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

from graphs.plan import ERROR, LIMIT, Arc, Loop, Step

NEVER, ALWAYS = 0, 1
MAX_SIZE = 50_000

Condition: TypeAlias = int
_START = ""


class TooComplex(Exception):
    """The diagram grew past `MAX_SIZE`."""


class Liveness:
    """The condition under which each step and arc is live; inside a loop, in its last round."""

    def __init__(
        self, steps: Mapping[str, Step], triggers: Sequence[str], loops: Sequence[tuple[Loop, ...]] = ()
    ) -> None:
        """Work out every step's condition; `steps` in topological order, outer `loops` before inner ones.

        Raises:
            TooComplex: The drawing's conditions do not fit into `MAX_SIZE` nodes.
        """
        self._steps = steps
        self._around: dict[str, tuple[Loop, ...]] = {}
        for chain in loops:  # a loop comes before those inside it
            self._around |= dict.fromkeys(chain[-1].steps, chain)
        self._limited = {
            arc.source for step in steps.values() for arc in step.arcs if arc.special and arc.port == LIMIT
        }
        # Later routers come first in the diagram: what is known of an earlier step is then a part of what is
        # known of a later one: a chain of a thousand conditions takes a thousand nodes, not half a million.
        self._choices = [*reversed(list(self._found_choices())), (_START, tuple(triggers))]
        self._levels = {choice: level for level, (choice, _) in enumerate(self._choices)}
        self._nodes: list[tuple[int, tuple[int, ...]]] = [(len(self._choices), ()), (len(self._choices), ())]
        self._known: dict[tuple[int, tuple[int, ...]], int] = {}
        self._done: dict[tuple[str, int, int], int] = {}
        self._conditions: dict[str, Condition] = {}
        self._back: dict[str, Condition] = {}
        for step in steps.values():
            self._conditions[step.id] = self._of_step(step, triggers)

    def _found_choices(self) -> Iterator[tuple[str, Sequence[str]]]:
        """What can go one way or another, in the order of the steps."""
        for step in self._steps.values():
            loops = self._around.get(step.id, ())
            if loops and loops[-1].first == step.id and self._entering(loops[-1]):
                yield _again(step.id), ("once", "again")
            if step.ways:
                yield step.id, step.ways

    def step(self, id: str) -> Condition:
        return self._conditions[id]

    def arc(self, arc: Arc) -> Condition:
        """When `arc` is live. One that leaves a loop is live when the loop has ended."""
        source = self._steps[arc.source]
        left = [loop for loop in self._around.get(source.id, ()) if arc.target not in loop.steps]
        loop = self._around[source.id][-1] if source.id in self._around else None
        if arc.special and arc.port == LIMIT and loop is not None and loop.first == source.id:
            condition = self.back(loop)
            left = [each for each in left if each is not loop]
        else:
            condition = self._conditions.get(source.id, ALWAYS)  # unknown in a loop that is not understood
            if source.ways:
                condition = self._both("and", condition, self._takes(source.id, _way(source, arc)))
        for loop in reversed(left):
            if loop.first not in self._limited:
                condition = self._both("not", condition, self.back(loop))
        return condition

    def back(self, loop: Loop) -> Condition:
        """When an arrow leads back at the end of a round."""
        if loop.first not in self._back:
            condition = NEVER
            for arc in loop.back:
                condition = self._both("or", condition, self.arc(arc))
            self._back[loop.first] = condition
        return self._back[loop.first]

    def ends(self, loop: Loop) -> bool:
        """Whether there is a way out of `loop`, once it has been entered."""
        if loop.first in self._limited:
            return True
        entered = self._conditions[loop.first]
        for id in loop.steps:
            entered = self._both("or", entered, self._conditions[id])
        return entered == NEVER or self._both("not", entered, self.back(loop)) != NEVER

    def meet(self, first: Arc, second: Arc) -> bool:
        """Whether both can be live in one run, and one round."""
        return self._both("and", self.arc(first), self.arc(second)) != NEVER

    def without(self, here: str, needed: str, port: str | None = None) -> dict[str, str] | None:
        """Choices by which `here` runs and `needed` gives no `port`: router -> route, if there are any."""
        gives = self._conditions[needed]
        if self._steps[needed].policy.on_error == "port" and needed != here:
            fails = self._takes(needed, ERROR)
            gives = self._both("and" if port == ERROR else "not", gives, fails)
        gap = self._both("not", self._conditions[here], gives)
        return None if gap == NEVER else self._example(gap)

    def _example(self, condition: Condition) -> dict[str, str]:
        """The fewest choices by which `condition` holds, in the order of the steps."""
        needed: list[float] = [math.inf, 0]
        for _, children in self._nodes[2 : condition + 1]:  # a node comes after its children
            needed.append(1 + min(needed[child] for child in children))
        choices: dict[str, str] = {}
        while condition != ALWAYS:
            level, children = self._nodes[condition]
            router, names = self._choices[level]
            taken = min(range(len(children)), key=lambda index: needed[children[index]])
            choices[router] = names[taken]
            condition = children[taken]
        return dict(reversed(choices.items()))

    def _of_step(self, step: Step, triggers: Sequence[str]) -> Condition:
        if step.is_root and step.id not in triggers:
            return ALWAYS
        condition = self._takes(_START, step.id) if step.id in triggers else NEVER
        for arc in step.arcs:
            condition = self._both("or", condition, self.arc(arc))
        loops = self._around.get(step.id, ())
        if loops and loops[-1].first == step.id:
            condition = self._both("or", condition, self._again(loops[-1]))
        return condition

    def _again(self, loop: Loop) -> Condition:
        """When a loop that was entered in its middle may have come round to its first step."""
        condition = NEVER
        for arc in self._entering(loop):
            condition = self._both("or", condition, self.arc(arc))
        if condition == NEVER:
            return NEVER
        return self._both("and", condition, self._takes(_again(loop.first), "again"))

    def _entering(self, loop: Loop) -> list[Arc]:
        """The arrows that lead from outside into the middle of `loop`."""
        inside = [self._steps[id] for id in loop.steps if id != loop.first]
        return [arc for step in inside for arc in step.arcs if arc.source not in loop.steps]

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
            children: list[int] = []
            # A loop, as a comprehension would take a frame more of Python's stack for each router.
            for left, right in zip(self._children(first, level), self._children(second, level), strict=True):
                children.append(self._both(how, left, right))
            self._done[key] = self._node(level, tuple(children))
        return self._done[key]

    def _children(self, node: int, level: int) -> tuple[int, ...]:
        own, children = self._nodes[node]
        return children if own == level else (node,) * len(self._choices[level][1])


def _again(first: str) -> str:
    return f"{first} again"


def _way(step: Step, arc: Arc) -> str:
    """The way of `step` that makes `arc` live."""
    return arc.port if step.routes or arc.special else ""


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
