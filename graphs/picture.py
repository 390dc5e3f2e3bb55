"""What a plan looks like: its steps, the arrows between them and the regions around them, as an SVG.

Everything that stands in a drawing may be somebody's attack on whoever looks at the picture: each text is
cleaned and escaped where it is written, and nothing of a drawing becomes a link, a style or an id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import dist
from types import MappingProxyType
from typing import Any, Literal, TypeAlias
from unicodedata import east_asian_width

import graphlay

from graphs.plan import Arc, Loop, Part, Plan, Region, Step
from graphs.regions import back_arcs
from graphs.summary import summary

Status: TypeAlias = Literal["succeeded", "failed", "skipped", "running", "waiting"]
Look: TypeAlias = Literal["step", "effect", "question", "router", "trigger", "part"]
Way: TypeAlias = Literal["on", "back", "binding"]
Point: TypeAlias = tuple[float, float]


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
    if step.type.asks:
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


# The places of all that


@dataclass(frozen=True, slots=True)
class Rect:
    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is, in the order of the picture."""

    boxes: Sequence[Rect]
    shapes: Sequence[Rect]
    lines: Sequence[tuple[Sequence[Point], Point | None]]
    """The corners of each line, and the middle of its label."""


HEIGHT = 46.0
MARGIN = 16.0
CAREFUL_UP_TO = 150
"""With more lines than these it takes too long to make all of them pretty: 0.3 s for 150, 3 s for 400."""
MOST_BENDS = 4_000
"""Of lines that pass by many rows of steps; the time to place them grows with the square of these."""
OPTIONS: Mapping[str, Any] = {
    "direction": "topbottom",
    "spacing": {"layer_gap": 46, "node_gap": 34, "compound_padding": 16, "compound_header": 18},
    "limits": {"max_dummies": MOST_BENDS},
}
QUICK: Mapping[str, Any] = {
    **OPTIONS,
    "effort": "fast",
    "coords": {"placement": "brandes_koepf"},
    "tuning": {"routing": {"port_relax_rounds": 0, "overlap_repair_rounds": 0}},
}


def places(picture: Picture, captions: Sequence[str]) -> Places:
    """Where `picture` shows everything; lines that are too many for a good place lead straight on."""
    every = range(len(picture.lines))
    try:
        return _places(picture, captions, every)
    except graphlay.GraphlayError:
        first: dict[int, int] = {}
        for at, line in enumerate(picture.lines):
            first.setdefault(line.target if line.way != "binding" else line.source, at)
        return _places(picture, captions, [at for at in first.values() if picture.lines[at].way != "back"])


def _places(picture: Picture, captions: Sequence[str], lines: Sequence[int]) -> Places:
    count = len(picture.boxes)
    nodes = [
        *(_node(_width(each.label, 11) + 24, 30, each.parent) for each in picture.boxes),
        *(
            _node(max(96, _width(text, 13) + 34, _width(short(each.type), 10) + 34), HEIGHT, each.box)
            for each, text in zip(picture.shapes, captions, strict=True)
        ),
    ]
    edges = [_edge(picture.lines[at], count) for at in lines]
    options = OPTIONS if len(edges) <= CAREFUL_UP_TO else QUICK
    found = graphlay.layout({"nodes": nodes, "edges": edges}, options=options).raw
    rects = [_rect(node) for node in found["nodes"]]
    placed: list[tuple[Sequence[Point], Point | None]] = []
    for line in picture.lines:
        points = _straight(rects[count + line.source], rects[count + line.target])
        placed.append((points, _label_place(line, picture, points, None)))
    for at, edge in zip(lines, found["edges"], strict=True):
        line, points = picture.lines[at], [(each["x"], each["y"]) for each in edge["points"]]
        points = points[::-1] if line.way == "back" else points
        placed[at] = points, _label_place(line, picture, points, edge["label_anchor"])
    return Places(rects[:count], rects[count:], placed)


def _label_place(
    line: Line, picture: Picture, points: Sequence[Point], anchor: Mapping[str, float] | None
) -> Point | None:
    """Where on the line its label stands; one that leads into a box carries it before the box's own label."""
    if not line.label:
        return None
    boxes = picture.shapes[line.source].box, picture.shapes[line.target].box
    if boxes[1] is not None and picture.boxes[boxes[1]].parent == boxes[0] and line.way == "on":
        return _toward(points[0], points[1], 16)
    middle = len(points) // 2
    (x0, y0), (x1, y1) = points[middle - 1], points[middle]
    goal = (anchor["x"], anchor["y"]) if anchor else ((x0 + x1) / 2, (y0 + y1) / 2)
    near = [_nearest(start, end, goal) for start, end in pairwise(points)]
    return min(near, key=lambda point: dist(point, goal))


def _nearest(start: Point, end: Point, goal: Point) -> Point:
    """The point between `start` and `end` that is the nearest to `goal`."""
    along = (end[0] - start[0], end[1] - start[1])
    square = along[0] ** 2 + along[1] ** 2 or 1
    part = ((goal[0] - start[0]) * along[0] + (goal[1] - start[1]) * along[1]) / square
    part = min(max(part, 0), 1)
    return start[0] + along[0] * part, start[1] + along[1] * part


def _node(width: float, height: float, parent: int | None) -> dict[str, Any]:
    node: dict[str, Any] = {"size": {"width": width, "height": height}, "shape": "box"}
    return node if parent is None else {**node, "parent": parent}


def _edge(line: Line, first: int) -> dict[str, Any]:
    """A line back is placed as if it led on: the library winds it around the boxes that it leaves otherwise."""
    ends = [first + line.source, first + line.target]
    source, target = reversed(ends) if line.way == "back" else ends
    edge: dict[str, Any] = {"source": source, "target": target, "weight": 1.0}
    if line.label:
        edge["label_size"] = {"width": _width(short(line.label), 10) + 8, "height": 14}
    return edge


def _rect(node: Mapping[str, Any]) -> Rect:
    width, height = node["size"]["width"], node["size"]["height"]
    return Rect(node["center"]["x"] - width / 2, node["center"]["y"] - height / 2, width, height)


def _straight(source: Rect, target: Rect) -> Sequence[Point]:
    return [
        (source.x + source.width / 2, source.bottom),
        (target.x + target.width / 2, target.y),
    ]


def _width(text: str, size: float) -> float:
    """About how wide `text` is; the font is the viewer's."""
    wide = sum(east_asian_width(each) in "WF" or each > "\uffff" for each in text)
    return (len(text) * 0.62 + wide * 0.6) * size


# The SVG


def svg(plan: Plan, marks: Mapping[str, Mark] = NO_MARKS) -> str:
    """A picture of `plan`, and with `marks` of what became of its steps in a run."""
    seen = picture(plan)
    found = [marks.get(shape.id) if shape.look != "part" else None for shape in seen.shapes]
    captions = [caption(shape, mark) for shape, mark in zip(seen.shapes, found, strict=True)]
    where = places(seen, captions)
    labels = [_label_rect(line, at) for line, (_, at) in zip(seen.lines, where.lines, strict=True) if at]
    frame = _around([*where.boxes, *where.shapes, *labels], [p for each, _ in where.lines for p in each])
    legend = statuses(marks)
    whole = Rect(
        frame.x,
        frame.y,
        max(frame.width, 96 * len(legend) + MARGIN),
        frame.height + (30 if legend else 0),
    )
    lines = list(zip(seen.lines, where.lines, strict=True))
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" font-family="system-ui, sans-serif" '
            f'viewBox="{_n(whole.x)} {_n(whole.y)} {_n(whole.width)} {_n(whole.height)}" '
            f'width="{_n(whole.width)}" height="{_n(whole.height)}">',
            f'<rect {_at(whole)} fill="#ffffff"/>',
            *(_box(box, rect) for box, rect in zip(seen.boxes, where.boxes, strict=True)),
            *(_arrow(line, points) for line, (points, _) in lines),
            *(_title(box, rect) for box, rect in zip(seen.boxes, where.boxes, strict=True)),
            *(
                part
                for shape, text, mark, rect in zip(seen.shapes, captions, found, where.shapes, strict=True)
                for part in _drawn(shape, text, mark, rect)
            ),
            *(_on_line(line, at) for line, (_, at) in lines if at),
            *(
                _explained(status, frame.x + MARGIN + 96 * at, frame.bottom)
                for at, status in enumerate(legend)
            ),
            "</svg>\n",
        ]
    )


def _box(box: Box, rect: Rect) -> str:
    return (
        f'<rect data-region="{escape(box.label)}" {_at(rect)} rx="8" fill="#64748b" fill-opacity="0.07" '
        'stroke="#94a3b8"/>'
    )


def _title(box: Box, rect: Rect) -> str:
    """The label of a box, above the lines that enter it."""
    back = Rect(rect.x + 5, rect.y + 5, _width(box.label, 11) + 6, 16)
    text = _text(rect.x + 8, rect.y + 17, box.label, 11, "#475569", "start")
    return f'<rect {_at(back)} rx="3" fill="#f1f5f9" fill-opacity="0.9"/>{text}'


def _drawn(shape: Shape, text: str, mark: Mark | None, rect: Rect) -> Iterator[str]:
    colours = COLOURS[mark.status] if mark else OF_PART if shape.look == "part" else PLAIN
    status = f' data-status="{mark.status}"' if mark else ""
    name = "part" if shape.look == "part" else "step"
    yield f'<g data-{name}="{_attribute(shape.id)}" data-look="{shape.look}"{status}>'
    if hint := _hint(shape, mark):
        yield f"<title>{escape(hint)}</title>"
    yield from _outline(shape.look, rect, f'fill="{colours.fill}" stroke="{colours.border}"')
    middle = rect.x + rect.width / 2
    yield _text(middle, rect.y + 20, text, 13, colours.text)
    yield _text(middle, rect.y + 35, short(shape.type), 10, "#6b7280")
    yield "</g>"


def _hint(shape: Shape, mark: Mark | None) -> str:
    """What the shape itself does not say, for whoever points at it."""
    name, id = short(shape.name, LONGEST_TOOLTIP), short(shape.id, LONGEST_TOOLTIP)
    long = [name] if name != short(shape.name) else []
    other = [id] if shape.id != shape.name else []
    return " · ".join([*long, *other, *([mark.status] if mark else [])])


def _outline(look: Look, rect: Rect, paint: str) -> Iterator[str]:
    left, right, top, bottom = rect.x, rect.right, rect.y, rect.bottom
    match look:
        case "router":
            middle = _n((top + bottom) / 2)
            points = f"{_n(left)},{middle} {_n(left + 12)},{_n(top)} {_n(right - 12)},{_n(top)} "
            points += f"{_n(right)},{middle} {_n(right - 12)},{_n(bottom)} {_n(left + 12)},{_n(bottom)}"
            yield f'<polygon points="{points}" {paint} stroke-width="1.5"/>'
        case "trigger":
            yield f'<rect {_at(rect)} rx="{_n(rect.height / 2)}" {paint} stroke-width="1.5"/>'
        case "question":
            inner = Rect(left + 4, top + 4, rect.width - 8, rect.height - 8)
            yield f'<rect {_at(rect)} rx="6" {paint} stroke-width="1.5"/>'
            yield f'<rect {_at(inner)} rx="3" {paint} fill-opacity="0" stroke-width="1"/>'
        case "effect":
            yield f'<rect {_at(rect)} rx="6" {paint} stroke-width="3"/>'
        case "part":
            yield f'<rect {_at(rect)} rx="14" {paint} stroke-width="1.5" stroke-dasharray="2 3"/>'
        case _:
            yield f'<rect {_at(rect)} rx="6" {paint} stroke-width="1.5"/>'


def _arrow(line: Line, points: Sequence[Point]) -> str:
    colour, dashes = STROKES[line.way]
    (x0, y0), (x1, y1) = points[-2], points[-1]
    length = max(dist(points[-2], points[-1]), 0.1)
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    head = [
        (x1, y1),
        (x1 - 8 * dx - 4 * dy, y1 - 8 * dy + 4 * dx),
        (x1 - 8 * dx + 4 * dy, y1 - 8 * dy - 4 * dx),
    ]
    path = _rounded([*points[:-1], (x1 - 6 * dx, y1 - 6 * dy)])
    corners = " ".join(f"{_n(x)},{_n(y)}" for x, y in head)
    return (
        f'<g data-line="{line.way}"><path d="{path}" fill="none" stroke="{colour}" stroke-width="1.4" '
        f'stroke-dasharray="{dashes}"/><polygon points="{corners}" fill="{colour}"/></g>'
    )


def _rounded(points: Sequence[Point], most: float = 6) -> str:
    """A path through `points`, its corners rounded."""
    path = [f"M{_n(points[0][0])} {_n(points[0][1])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        enter, leave = _toward(corner, before, most), _toward(corner, after, most)
        path.append(f"L{_n(enter[0])} {_n(enter[1])}")
        path.append(f"Q{_n(corner[0])} {_n(corner[1])} {_n(leave[0])} {_n(leave[1])}")
    path.append(f"L{_n(points[-1][0])} {_n(points[-1][1])}")
    return "".join(path)


def _toward(start: Point, goal: Point, most: float) -> Point:
    part = min(most / max(dist(start, goal), 0.1), 0.5)
    return start[0] + (goal[0] - start[0]) * part, start[1] + (goal[1] - start[1]) * part


def _label_rect(line: Line, middle: Point) -> Rect:
    width = _width(short(line.label), 10) + 4
    return Rect(middle[0] - width / 2, middle[1] - 7, width, 14)


def _on_line(line: Line, middle: Point) -> str:
    text = _text(middle[0], middle[1] + 3.5, short(line.label), 10, STROKES[line.way][0])
    return f'<rect {_at(_label_rect(line, middle))} rx="2" fill="#ffffff" fill-opacity="0.85"/>{text}'


def _around(rects: Sequence[Rect], points: Sequence[Point]) -> Rect:
    """The frame of the picture."""
    left = min([*(each.x for each in rects), *(x for x, _ in points)], default=0) - MARGIN
    top = min([*(each.y for each in rects), *(y for _, y in points)], default=0) - MARGIN
    right = max([*(each.right for each in rects), *(x for x, _ in points)], default=0) + MARGIN
    bottom = max([*(each.bottom for each in rects), *(y for _, y in points)], default=0) + MARGIN
    return Rect(left, top, right - left, bottom - top)


def _explained(status: Status, x: float, top: float) -> str:
    colours = COLOURS[status]
    swatch = Rect(x, top + 2, 14, 14)
    return (
        f'<g data-legend="{status}"><rect {_at(swatch)} rx="3" fill="{colours.fill}" '
        f'stroke="{colours.border}"/>{_text(x + 20, top + 13, status, 11, colours.text, "start")}</g>'
    )


def _text(x: float, y: float, text: str, size: int, colour: str, anchor: str = "middle") -> str:
    return (
        f'<text x="{_n(x)}" y="{_n(y)}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _attribute(text: str) -> str:
    """`text` as it is, for programs; only what XML cannot hold is replaced."""
    kept = (each if each.isprintable() or each in "\t\n\r" else clean(each) or " " for each in text)
    return escape("".join(kept)).replace("\t", "&#9;").replace("\n", "&#10;").replace("\r", "&#13;")


def _at(rect: Rect) -> str:
    return f'x="{_n(rect.x)}" y="{_n(rect.y)}" width="{_n(rect.width)}" height="{_n(rect.height)}"'


def _n(number: float) -> str:
    """A number without digits that nobody sees."""
    return f"{round(number, 1) + 0.0:.1f}".removesuffix(".0")
