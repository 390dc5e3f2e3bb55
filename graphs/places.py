"""Where everything of a picture is; a library finds that (graphlay, a layered layout)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import dist
from typing import Any, TypeAlias
from unicodedata import east_asian_width

import graphlay

from graphs.picture import Line, Picture, short

Point: TypeAlias = tuple[float, float]


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
"""With more lines than these it takes too long to make all of them pretty: 0.5 s for 150, 3 s for 400."""
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
        *(_node(text_width(each.label, 11) + 24, 30, each.parent) for each in picture.boxes),
        *(
            _node(max(96, text_width(text, 13) + 34, text_width(short(each.type), 10) + 34), HEIGHT, each.box)
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
        return toward(points[0], points[1], 16)
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
    """A line back is placed as if it led on: else the library winds it around boxes."""
    ends = [first + line.source, first + line.target]
    source, target = reversed(ends) if line.way == "back" else ends
    edge: dict[str, Any] = {"source": source, "target": target, "weight": 1.0}
    if line.label:
        edge["label_size"] = {"width": text_width(short(line.label), 10) + 8, "height": 14}
    return edge


def _rect(node: Mapping[str, Any]) -> Rect:
    width, height = node["size"]["width"], node["size"]["height"]
    return Rect(node["center"]["x"] - width / 2, node["center"]["y"] - height / 2, width, height)


def _straight(source: Rect, target: Rect) -> Sequence[Point]:
    return [
        (source.x + source.width / 2, source.bottom),
        (target.x + target.width / 2, target.y),
    ]


def text_width(text: str, size: float) -> float:
    """About how wide `text` is; the font is the viewer's."""
    wide = sum(east_asian_width(each) in "WF" or each > "\uffff" for each in text)
    return (len(text) * 0.62 + wide * 0.6) * size


def toward(start: Point, goal: Point, most: float) -> Point:
    part = min(most / max(dist(start, goal), 0.1), 0.5)
    return start[0] + (goal[0] - start[0]) * part, start[1] + (goal[1] - start[1]) * part
