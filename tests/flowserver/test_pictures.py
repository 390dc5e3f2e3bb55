"""Pictures of workflows over HTTP and on the command line, coloured by what a run did."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import httpx
import msgspec
import pytest

from flowserver.__main__ import main
from tests.server import drawing, edge, node

FLOW = drawing(
    node("start", "StartNode"),
    node("if", "ConditionNode", value1="{{ input }}", operation="equal", value2="yes"),
    node("each", "Map", items=[1, 2, 3]),
    node("one", "Template", template="{{ each.item }}"),
    node("not", "Template", template="<b>no</b>", name="<script>alert(1)</script>"),
    node("ask", "HumanInput", question="Go on?"),
    edge("start", "if"),
    edge("if", "each", "true"),
    edge("if", "not", "false"),
    edge("each", "one", "item"),
    edge("one", "each"),
    edge("each", "ask", "done"),
)


async def test_a_workflow_has_a_picture_that_cannot_act(client: httpx.AsyncClient) -> None:
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": FLOW})).json()

    response = await client.get(f"/workflows/{saved['id']}/picture")

    assert response.headers["content-type"] == "image/svg+xml; charset=utf-8"
    assert "sandbox" in response.headers["content-security-policy"]
    tree = ElementTree.fromstring(response.text)
    assert "<script" not in response.text
    steps = [each.attrib["data-step"] for each in tree.iter() if "data-step" in each.attrib]
    assert sorted(steps) == sorted(each["id"] for each in FLOW["nodes"])


async def test_a_run_colours_it_with_what_became_of_each_step(client: httpx.AsyncClient) -> None:
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": FLOW})).json()
    run = (await client.post(f"/workflows/{saved['id']}/runs", json={"input": "yes"})).json()
    await client.put(
        f"/workflows/{saved['id']}", json={"flow_data": drawing(node("t", "Template", template="x"))}
    )

    found = await client.get(
        f"/workflows/{saved['id']}/picture", params={"run": run["id"], "format": "mermaid"}
    )

    assert found.headers["content-type"].startswith("text/vnd.mermaid")
    lines = [line.strip() for line in found.text.splitlines()]
    assert any("×3" in line and "one" in line for line in lines), "as it was drawn when it ran"
    for status in ("succeeded", "skipped", "waiting"):
        assert any(line.startswith("class ") and line.rstrip(";").endswith(status) for line in lines), status


async def test_a_run_of_another_workflow_colours_nothing(client: httpx.AsyncClient) -> None:
    one, two = [
        (await client.post("/workflows", json={"name": name, "flow_data": FLOW})).json() for name in "ab"
    ]
    run = (await client.post(f"/workflows/{one['id']}/runs", json={"input": "no"})).json()

    refused = await client.get(f"/workflows/{two['id']}/picture", params={"run": run["id"]})

    assert (refused.status_code, run["id"] in refused.text) == (422, True)


async def test_a_workflow_with_errors_has_no_picture_but_a_list_of_them(client: httpx.AsyncClient) -> None:
    flow = drawing(node("a", "Template"))
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": flow})).json()

    response = await client.get(f"/workflows/{saved['id']}/picture")

    assert response.status_code == 422
    assert [each["code"] for each in response.json()["problems"]] == ["missing_config"]


def test_the_command_draws_one_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "flow.json"
    file.write_bytes(msgspec.json.encode(FLOW))

    status = main(["picture", str(file), "--output", str(tmp_path / "flow.svg")])
    ElementTree.fromstring((tmp_path / "flow.svg").read_text("utf-8"))
    as_mermaid = main(["picture", str(file), "--mermaid"])

    assert (status, as_mermaid) == (0, 0)
    assert capsys.readouterr().out.startswith("flowchart")


def test_the_plan_of_a_drawing_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "flow.json"
    file.write_bytes(msgspec.json.encode(FLOW))

    status = main(["check", str(file), "--plan"])

    assert status == 0
    assert capsys.readouterr().out.splitlines() == [
        "no errors, no warnings",
        "order:       start, if, each, one, not, ask",
        "parallel:    each, not",
        "map:         each runs one once per item",
        "supersteps:  ask",
        "model calls: 0 at most",
        "hosts:       none known before it runs",
        "durability:  exit",
    ]
