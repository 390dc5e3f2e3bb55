"""What there is to see of a plan: its steps, the arrows between them and the regions around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from graphs.plan import Arc, Loop, Part, Plan, Region, Step
from graphs.regions import back_arcs
from graphs.summary import summary

Status: TypeAlias = Literal["succeeded", "failed", "skipped", "running", "waiting"]
Look: TypeAlias = Literal["step", "effect", "question", "router", "trigger", "part"]
Way: TypeAlias = Literal["on", "back", "binding"]


@dataclass(frozen=True, slots=True)
class Mark:
    """What became of a step in a run."""

    status: Status
    times: int = 1
    """How often it ran."""


@dataclass(frozen=True, slots=True)
class Colours:
    fill: str
    border: str
    text: str = "#111827"


COLOURS: Mapping[Status, Colours] = {
    "succeeded": Colours("#dcfce7", "#15803d"),
    "failed": Colours("#fee2e2", "#b91c1c"),
    "skipped": Colours("#f3f4f6", "#9ca3af", "#6b7280"),
    "running": Colours("#dbeafe", "#1d4ed8"),
    "waiting": Colours("#fef9c3", "#a16207"),
}
PLAIN = Colours("#ffffff", "#374151")
OF_PART = Colours("#faf5ff", "#7e22ce")
STROKES: Mapping[Way, tuple[str, str]] = {
    "on": ("#4b5563", "none"),
    "back": ("#c2410c", "7 4"),
    "binding": ("#7e22ce", "2 3"),
}
NO_MARKS: Mapping[str, Mark] = MappingProxyType({})
LONGEST = 32
LONGEST_TOOLTIP = 300


@dataclass(frozen=True, slots=True)
class Box:
    """A region: the steps of a loop or of a map."""

    label: str
    parent: int | None
    """The box around it, which comes before it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A step or a part."""

    id: str
    name: str
    type: str
    look: Look
    box: int | None
    """The innermost box around it."""


@dataclass(frozen=True, slots=True)
class Line:
    """An arrow between two shapes, which it knows by their place."""

    source: int
    target: int
    label: str
    way: Way


@dataclass(frozen=True, slots=True)
class Picture:
    """What there is to see, before it has a place."""

    boxes: tuple[Box, ...]
    shapes: tuple[Shape, ...]
    lines: tuple[Line, ...]


def picture(plan: Plan) -> Picture:
    """Everything that a picture of `plan` shows."""
    boxes: list[Box] = []
    holder: dict[str, int | None] = {}
    rounds = {loop.first: loop.max_rounds for loop in summary(plan).loops}

    def walk(region: Region, box: int | None) -> None:
        for item in region.items:
            if isinstance(item, Loop):
                boxes.append(Box(f"loop, at most {rounds[item.first]} rounds", box))
                walk(item.body, len(boxes) - 1)
                continue
            holder[item] = box
            if item in plan.maps and plan.maps[item].steps:
                boxes.append(Box(f"for each item of {short(plan.steps[item].name)}", box))
                walk(plan.maps[item].region, len(boxes) - 1)

    walk(plan.region, None)
    shapes = [
        *(_shape(step, _look(step), holder[id]) for id, step in plan.steps.items()),
        *(_shape(part, "part", None) for part in plan.parts.values()),
    ]
    return Picture(tuple(boxes), tuple(shapes), tuple(_lines(plan)))


def _shape(node: Step | Part, look: Look, box: int | None) -> Shape:
    return Shape(node.id, node.name, node.type.name, look, box)


def _look(step: Step) -> Look:
    if step.asks:
        return "question"
    if step.type.routes is not None:
        return "router"
    if step.type.kind == "trigger":
        return "trigger"
    return "effect" if step.type.effect else "step"


def _lines(plan: Plan) -> Iterator[Line]:
    steps = {id: at for at, id in enumerate(plan.steps)}
    parts = {id: at for at, id in enumerate(plan.parts, len(steps))}
    back = back_arcs(plan.region, plan.maps)
    forth = [arc for step in plan.steps.values() for arc in step.arcs if arc not in back]
    for arc in forth:
        yield Line(steps[arc.source], steps[arc.target], _label(arc, plan), "on")
    for arc in sorted(back, key=lambda arc: (steps[arc.source], steps[arc.target], arc.port, arc.pointer)):
        yield Line(steps[arc.source], steps[arc.target], _label(arc, plan), "back")
    for node in plan.nodes:
        user = steps[node.id] if isinstance(node, Step) else parts[node.id]
        for port, bound in node.bindings.items():
            yield from (Line(parts[id], user, port, "binding") for id in bound)


def _label(arc: Arc, plan: Plan) -> str:
    """The port of an arrow that is not always taken, or is not taken once; else nothing."""
    source, target = plan.steps[arc.source].type, plan.steps[arc.target].type
    if arc.special or source.routes is not None or source.body is not None:
        return arc.port
    return arc.input if target.body is not None and arc.input == target.body.takes else ""


def clean(text: str) -> str:
    """`text` on one line, without what a viewer would obey instead of showing it, and XML would refuse."""
    return "".join(
        each if each.isprintable() or each == "\N{ZERO WIDTH JOINER}" else "\N{REPLACEMENT CHARACTER}"
        for each in " ".join(text.split())
    )


def short(text: str, most: int = LONGEST) -> str:
    text = clean(text)
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def caption(shape: Shape, mark: Mark | None) -> str:
    """The shape's name and how often it ran."""
    return short(shape.name) + (f" ×{mark.times}" if mark is not None and mark.times > 1 else "")


def statuses(marks: Mapping[str, Mark]) -> list[Status]:
    """Those that the legend explains."""
    return [status for status in COLOURS if any(mark.status == status for mark in marks.values())]
