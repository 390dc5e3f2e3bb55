"""A plan as Mermaid text, for what shows Mermaid: Markdown on a forge, a wiki, a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from graphs.picture import (
    COLOURS,
    NO_MARKS,
    OF_PART,
    STROKES,
    Colours,
    Line,
    Look,
    Mark,
    Picture,
    Shape,
    caption,
    clean,
    picture,
    short,
    statuses,
)
from graphs.plan import Plan

OUTLINES: Mapping[Look, tuple[str, str]] = {
    "step": ("[", "]"),
    "effect": ("[", "]"),
    "question": ("[[", "]]"),
    "router": ("{{", "}}"),
    "trigger": ("([", "])"),
    "part": ("(", ")"),
}


def mermaid(plan: Plan, marks: Mapping[str, Mark] = NO_MARKS) -> str:
    """`plan` as a Mermaid flowchart, and with `marks` what became of its steps in a run."""
    seen = picture(plan)
    legend = statuses(marks)
    own = {at: marks[shape.id] for at, shape in enumerate(seen.shapes) if _is_marked(shape, marks)}
    return "\n".join(
        [
            "flowchart TB",
            *_shapes(seen, own),
            *(_arrow(line) for line in seen.lines),
            *(
                f"linkStyle {at} stroke:{STROKES['back'][0]},stroke-dasharray:7 4"
                for at, line in enumerate(seen.lines)
                if line.way == "back"
            ),
            "classDef effect stroke-width:3px",
            f"classDef part {_style(OF_PART)},stroke-dasharray:2 3",
            *(f"classDef {status} {_style(COLOURS[status])}" for status in legend),
            *_classes(seen, own),
            *(["subgraph legend"] if legend else []),
            *(f'  l{at}["{status}"]:::{status}' for at, status in enumerate(legend)),
            *(["end"] if legend else []),
            "",
        ]
    )


def _is_marked(shape: Shape, marks: Mapping[str, Mark]) -> bool:
    return shape.look != "part" and shape.id in marks


def _shapes(seen: Picture, marks: Mapping[int, Mark]) -> Iterator[str]:
    """Every shape within its boxes; the boxes stand one after another, each after the one around it."""
    inside: dict[int | None, list[str]] = {}
    for at, shape in enumerate(seen.shapes):
        left, right = OUTLINES[shape.look]
        lines = [caption(shape, marks.get(at)), short(shape.type)]
        lines += [short(shape.id)] if clean(shape.id) != clean(shape.name) else []
        label = "<br/>".join(_quoted(line) for line in lines)
        inside.setdefault(shape.box, []).append(f'n{at}{left}"{label}"{right}')
    for at in reversed(range(len(seen.boxes))):
        box = seen.boxes[at]
        block = [f'subgraph r{at}["{_quoted(box.label)}"]', *_deeper(inside.pop(at, [])), "end"]
        inside.setdefault(box.parent, []).extend(block)
    yield from inside.pop(None, [])


def _deeper(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _arrow(line: Line) -> str:
    stroke = "-.->" if line.way == "binding" else "-->"
    label = f'|"{_quoted(short(line.label))}"|' if line.label else ""
    return f"n{line.source} {stroke}{label} n{line.target}"


def _classes(seen: Picture, marks: Mapping[int, Mark]) -> Iterator[str]:
    """Who looks how, besides its outline."""
    found: dict[str, list[str]] = {}
    for at, shape in enumerate(seen.shapes):
        if shape.look in ("effect", "part"):
            found.setdefault(shape.look, []).append(f"n{at}")
        if at in marks:
            found.setdefault(marks[at].status, []).append(f"n{at}")
    for name, members in found.items():
        yield f"class {','.join(members)} {name}"


def _style(colours: Colours) -> str:
    return f"fill:{colours.fill},stroke:{colours.border},color:{colours.text}"


def _quoted(text: str) -> str:
    """`text` with all that could mean anything to Mermaid, to Markdown or to HTML as entity codes."""
    return "".join(
        each if each.isalnum() or each == " " or each > "\x7f" else f"#{ord(each)};" for each in text
    )
