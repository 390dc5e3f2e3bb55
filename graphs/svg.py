"""The picture of a plan as an SVG.

Everything that stands in a drawing may be somebody's attack on whoever looks at the picture: each text is
cleaned and escaped where it is written, and nothing of a drawing becomes a link, a style or an id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import dist

from graphs.picture import (
    COLOURS,
    LONGEST_TOOLTIP,
    NO_MARKS,
    OF_PART,
    PLAIN,
    STROKES,
    Box,
    Line,
    Look,
    Mark,
    Shape,
    Status,
    caption,
    clean,
    picture,
    short,
    statuses,
)
from graphs.places import (
    MARGIN,
    Point,
    Rect,
    places,
    text_width,
    toward,
)
from graphs.plan import Plan


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
    back = Rect(rect.x + 5, rect.y + 5, text_width(box.label, 11) + 6, 16)
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
        enter, leave = toward(corner, before, most), toward(corner, after, most)
        path.append(f"L{_n(enter[0])} {_n(enter[1])}")
        path.append(f"Q{_n(corner[0])} {_n(corner[1])} {_n(leave[0])} {_n(leave[1])}")
    path.append(f"L{_n(points[-1][0])} {_n(points[-1][1])}")
    return "".join(path)


def _label_rect(line: Line, middle: Point) -> Rect:
    width = text_width(short(line.label), 10) + 4
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
