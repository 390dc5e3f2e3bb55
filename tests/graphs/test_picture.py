"""Pictures show everything of a plan, the same each time, and nothing of a drawing but as text.

`UPDATE_PICTURES=1 pytest` writes `pictures/*`; look at the SVG, and read the diff like code.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from graphs.compile import Compiler
from graphs.mermaid import mermaid
from graphs.picture import Mark
from graphs.places import Rect
from graphs.plan import Arc, Plan, Region
from graphs.svg import svg
from nodes import registry
from tests.server import drawing, edge, node

FOLDER = Path(__file__).parent / "pictures"
CASES = sorted((Path(__file__).parent / "cases").glob("good_*.json"))
SVG = "{http://www.w3.org/2000/svg}"
NASTY = (
    "<script>alert(1)</script>",
    "]]>",
    '"--> click n0 href "javascript:alert(1)"',
    "'\" onload='alert(1)",
    "x\nclick n0 call alert()\nend",
    "`**bold**` #quot; &lt; [link](http://example.com) %% <br/>",
    "nul \x00 bell \x07 turn \u202e lone \ud800",
    "👩‍💻 größe 数据",
    "n" * 200,
)


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler(registry.discover())


ONE = drawing(node("only", "StartNode"))
AGENT = drawing(
    node("start", "StartNode"),
    node("agent", "Agent", name="Helper"),
    node("model", "OpenAIChat"),
    node("end", "EndNode"),
    edge("start", "agent"),
    edge("agent", "end"),
    edge("model", "agent", "llm", "llm"),
)
NESTED = drawing(
    node("start", "StartNode"),
    node("again", "Loop", max_rounds=10),
    node("rows", "Map", items=[[1], [2]]),
    node("cells", "Map", items="{{ rows.item }}"),
    node("cell", "Template", template="{{ cells.item }}"),
    node("after", "EndNode"),
    edge("start", "again"),
    edge("again", "rows", "body"),
    edge("rows", "cells", "item", "items"),
    edge("cells", "cell", "item"),
    edge("cell", "cells", None, "result"),
    edge("cells", "rows", "done", "result"),
    edge("rows", "again", "done"),
    edge("again", "after", "done"),
)
MARKS = {
    "start": Mark("succeeded"),
    "again": Mark("succeeded", 3),
    "rows": Mark("running", 2),
    "cells": Mark("failed", 4),
    "cell": Mark("skipped"),
    "after": Mark("waiting"),
}
PICTURES: Mapping[str, tuple[dict[str, Any], dict[str, Mark]]] = {
    "one": (ONE, {}),
    "agent": (AGENT, {}),
    "nested": (NESTED, {}),
    "nested_run": (NESTED, MARKS),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_as_it_was(name: str, compiler: Compiler) -> None:
    flow_data, marks = PICTURES[name]
    plan = planned(compiler, flow_data)

    drawn = {".svg": svg(plan, marks), ".mmd": mermaid(plan, marks)}

    for suffix, text in drawn.items():
        if os.environ.get("UPDATE_PICTURES"):
            (FOLDER / f"{name}{suffix}").write_text(text, encoding="utf-8")
        assert text == (FOLDER / f"{name}{suffix}").read_text(encoding="utf-8")


def test_every_file_belongs_to_a_picture() -> None:
    names = {each.name for each in FOLDER.iterdir()}

    assert names == {f"{name}{suffix}" for name in PICTURES for suffix in (".svg", ".mmd")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_every_step_part_and_arrow_is_shown_once(case: Path, compiler: Compiler) -> None:
    plan = planned(compiler, msgspec.json.decode(case.read_bytes()))

    root = ElementTree.fromstring(svg(plan))
    text = mermaid(plan)

    assert sorted(found(root, "data-step")) == sorted(plan.steps)
    assert sorted(found(root, "data-part")) == sorted(plan.parts)
    arcs = sum(len(step.arcs) for step in plan.steps.values())
    lines = found(root, "data-line")
    assert lines.count("on") + lines.count("back") >= arcs
    assert lines.count("binding") == sum(len(ids) for each in plan.nodes for ids in each.bindings.values())
    assert len(re.findall("^n.*->", text, re.MULTILINE)) == len(lines)
    assert len(re.findall(r"^ *n\d+[\[({]+\"", text, re.MULTILINE)) == len(plan.nodes)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_a_region_holds_its_own_steps_and_no_others(case: Path, compiler: Compiler) -> None:
    plan = planned(compiler, msgspec.json.decode(case.read_bytes()))
    regions = [plan.region, *(body.region for body in plan.maps.values())]
    loops = [chain[-1].steps for region in regions for chain in region.loops()]
    bodies = [body.steps for body in plan.maps.values() if body.steps]

    root = ElementTree.fromstring(svg(plan))

    shapes = {
        group.attrib["data-step"]: bounds(group)
        for group in root.iter(f"{SVG}g")
        if "data-step" in group.attrib
    }
    boxes = [rect_of(each) for each in root.iter(f"{SVG}rect") if "data-region" in each.attrib]
    inside = [frozenset(id for id, shape in shapes.items() if lies_in(shape, box)) for box in boxes]
    assert sorted(map(sorted, inside)) == sorted(map(sorted, [*loops, *bodies]))
    apart = [
        id for id, shape in shapes.items() for box in boxes if touches(shape, box) != lies_in(shape, box)
    ]
    assert apart == []


def test_a_region_within_another_lies_within_its_box(compiler: Compiler) -> None:
    root = ElementTree.fromstring(svg(planned(compiler, NESTED)))

    boxes = {
        each.attrib["data-region"]: rect_of(each)
        for each in root.iter(f"{SVG}rect")
        if "data-region" in each.attrib
    }

    assert list(boxes) == ["loop, at most 10 rounds", "for each item of rows", "for each item of cells"]
    outer, middle, inner = boxes.values()
    assert lies_in(middle, outer) and lies_in(inner, middle)


def test_names_are_nothing_but_text(compiler: Compiler) -> None:
    names = dict(enumerate(NASTY))
    nodes = [node(f"s{at}", "Template", template="x") for at in names]
    arrows = [edge("start", f"s{at}") for at in names]
    plan = renamed(planned(compiler, drawing(node("start", "StartNode"), *nodes, *arrows)), names)

    root = ElementTree.fromstring(svg(plan))
    text = mermaid(plan)

    assert {each.tag.removeprefix(SVG) for each in root.iter()} <= {
        *("svg", "g", "rect", "path", "polygon", "text", "title")
    }
    known = {
        "data-step",
        "data-look",
        "data-line",
        "xmlns",
        "font-family",
        "viewBox",
        "text-anchor",
        "font-size",
    }
    known |= {"x", "y", "width", "height", "rx", "d", "points", "fill", "fill-opacity"}
    known |= {"stroke", "stroke-width", "stroke-dasharray"}
    assert {name for each in root.iter() for name in each.attrib} <= known
    shown = [each.text or "" for each in root.iter(f"{SVG}text")]
    assert "<script>alert(1)</script>" in shown and "]]>" in shown and "👩‍💻 größe 数据" in shown
    assert "n" * 31 + "…" in shown and max(map(len, shown)) <= 32
    label = r'"(?:[\w #;,…×\u200d\ufffd\U0001f000-\U0001ffff]|<br/>)*"'
    line = re.compile(rf"flowchart TB|n\d+ --> n\d+|classDef [\w ,:#-]+|n\d+\(?\[{label}\]\)?")
    assert [each for each in text.splitlines() if not line.fullmatch(each)] == []


def test_ids_are_nothing_but_text_either(compiler: Compiler) -> None:
    ids = ['<b a="1">&', "a b", "x'y", "end", "click"]
    nodes = [node(id, "Template", name="same", template="x") for id in ids]
    plan = planned(compiler, drawing(node("start", "StartNode"), *nodes, *(edge("start", id) for id in ids)))

    root = ElementTree.fromstring(svg(plan))

    assert sorted(found(root, "data-step")) == sorted([*ids, "start"])
    titles = [each.text for each in root.iter(f"{SVG}title")]
    assert [title for title in titles if title in ids] == [id for id in plan.steps if id in ids]


def test_without_steps_to_show_a_mark_adds_only_the_legend(compiler: Compiler) -> None:
    plan = planned(compiler, ONE)

    drawn = ElementTree.fromstring(svg(plan, {"gone": Mark("failed")}))

    assert found(drawn, "data-legend") == ["failed"]
    assert found(drawn, "data-status") == []
    assert found(ElementTree.fromstring(svg(plan)), "data-legend") == []


def test_the_same_plan_gives_the_same_bytes(compiler: Compiler) -> None:
    for case in CASES:
        flow_data = msgspec.json.decode(case.read_bytes())

        first, second = planned(compiler, flow_data), planned(compiler, flow_data)

        assert (svg(first), mermaid(first)) == (svg(second), mermaid(second))


def chain(steps: int) -> list[tuple[int, int]]:
    return [(at, at + 1) for at in range(steps)]


def fan(steps: int) -> list[tuple[int, int]]:
    return [*((0, at) for at in range(1, steps)), *((at, steps) for at in range(1, steps))]


def tangle(steps: int) -> list[tuple[int, int]]:
    return [(at * 7919 % to, to) for to in range(1, steps) for at in {to * 31, to * 17, to * 101, to - 1}]


@pytest.mark.parametrize(
    "arrows",
    [chain(2000), fan(1000), tangle(1000)],
    ids=["chain of 2,000", "fan of 1,000", "tangle of 1,000"],
)
def test_a_large_plan_is_drawn_in_seconds(arrows: list[tuple[int, int]], compiler: Compiler) -> None:
    plan = large(
        planned(
            compiler, drawing(node("0", "StartNode"), node("1", "Template", template="x"), edge("0", "1"))
        ),
        arrows,
    )

    before = time.perf_counter()
    root = ElementTree.fromstring(svg(plan))
    mermaid(plan)
    took = time.perf_counter() - before

    assert sorted(found(root, "data-step")) == sorted(plan.steps)
    assert len(found(root, "data-line")) == len(arrows)
    assert took < 8, f"{took:.1f} s"


def planned(compiler: Compiler, flow_data: Any) -> Plan:
    checked = compiler.check(flow_data)
    assert checked.plan is not None, checked.problems
    return checked.plan


def renamed(plan: Plan, names: Mapping[int, str]) -> Plan:
    """`plan` with names that no compiler may be asked to take."""
    steps = {
        id: step if id == "start" else dataclasses.replace(step, name=names[int(id[1:])])
        for id, step in plan.steps.items()
    }
    return dataclasses.replace(plan, steps=steps)


def found(root: ElementTree.Element, attribute: str) -> list[str]:
    return [each.attrib[attribute] for each in root.iter() if attribute in each.attrib]


def rect_of(element: ElementTree.Element) -> Rect:
    return Rect(*(float(element.attrib[name]) for name in ("x", "y", "width", "height")))


def bounds(group: ElementTree.Element) -> Rect:
    """The outline of a step."""
    if (rect := group.find(f"{SVG}rect")) is not None:
        return rect_of(rect)
    polygon = group.find(f"{SVG}polygon")
    assert polygon is not None
    corners = [tuple(map(float, each.split(","))) for each in polygon.attrib["points"].split()]
    left, top = (min(each[axis] for each in corners) for axis in (0, 1))
    right, bottom = (max(each[axis] for each in corners) for axis in (0, 1))
    return Rect(left, top, right - left, bottom - top)


def lies_in(inner: Rect, outer: Rect) -> bool:
    return (
        outer.x < inner.x and outer.y < inner.y and inner.right < outer.right and inner.bottom < outer.bottom
    )


def touches(one: Rect, other: Rect) -> bool:
    return one.x < other.right and other.x < one.right and one.y < other.bottom and other.y < one.bottom


def large(plan: Plan, arrows: list[tuple[int, int]]) -> Plan:
    """A plan of so many steps, which a compiler might take longer for."""
    start, template = plan.steps.values()
    steps = {"0": start}
    for id in sorted({at for arrow in arrows for at in arrow} - {0}):
        steps[str(id)] = dataclasses.replace(template, id=str(id), name=f"step {id}", arcs=())
    leading: dict[int, list[Arc]] = {}
    for source, target in arrows:
        arc = Arc(str(source), "text", str(target), "values", f"{source}-{target}", "")
        leading.setdefault(target, []).append(arc)
    steps |= {str(to): dataclasses.replace(steps[str(to)], arcs=tuple(arcs)) for to, arcs in leading.items()}
    return dataclasses.replace(plan, steps=steps, region=Region(tuple(steps)))
