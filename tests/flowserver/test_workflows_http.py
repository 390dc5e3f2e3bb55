"""Saving, reading, changing and checking workflows over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.server import drawing, node

Client = httpx.AsyncClient

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.json"))
DRAWN = {
    "nodes": [
        {
            "id": "t-1",
            "type": "Template",
            "position": {"x": 1.5, "y": -2},
            "measured": {"width": 10, "height": 20},
            "data": {"name": "t", "template": "x \u0000 ü", "icon": {"name": "a"}, "unknown": [1, None]},
        }
    ],
    "edges": [],
    "viewport": {"x": 0, "y": 0, "zoom": 1},
}


async def save(client: Client, flow_data: Any = DRAWN, name: str = "w") -> Any:
    return await client.post("/workflows", json={"name": name, "flow_data": flow_data})


async def test_what_the_editor_sent_comes_back_unchanged(client: Client) -> None:
    saved = await save(client)

    read = await client.get(f"/workflows/{saved.json()['id']}")

    assert saved.status_code == 201
    assert saved.headers["location"] == f"/api/v1/workflows/{saved.json()['id']}"
    assert json.dumps(read.json()["flow_data"]) == json.dumps(DRAWN)
    assert [each["code"] for each in read.json()["problems"]] == ["unknown_config"]


async def test_moving_a_box_makes_no_new_version(client: Client) -> None:
    saved = (await save(client)).json()
    moved = json.loads(json.dumps(DRAWN))
    moved["nodes"][0]["position"] = {"x": 99, "y": 99}
    changed = json.loads(json.dumps(moved))
    changed["nodes"][0]["data"]["template"] = "y"

    after_move = (await client.put(f"/workflows/{saved['id']}", json={"flow_data": moved})).json()
    after_change = (await client.put(f"/workflows/{saved['id']}", json={"flow_data": changed})).json()

    assert after_move["version"] == saved["version"]
    assert after_move["flow_data"] == moved
    assert after_change["version"] != saved["version"]
    assert (saved["revision"], after_move["revision"], after_change["revision"]) == (1, 2, 3)


async def test_if_match_keeps_one_change_from_overwriting_another(client: Client) -> None:
    saved = await save(client)
    path = f"/workflows/{saved.json()['id']}"
    match = {"If-Match": saved.headers["etag"]}

    first = await client.put(path, json={"name": "first"}, headers=match)
    second = await client.put(path, json={"name": "second"}, headers=match)
    stale_delete = await client.delete(path, headers=match)
    nonsense = await client.put(path, json={"name": "x"}, headers={"If-Match": "one"})
    unconditional = await client.put(path, json={"description": "d"})

    assert (first.status_code, first.headers["etag"]) == (200, '"2"')
    assert second.status_code == stale_delete.status_code == 412
    assert nonsense.status_code == 422
    assert (unconditional.json()["name"], unconditional.json()["description"]) == ("first", "d")


async def test_a_deleted_workflow_is_gone_and_its_runs_stay(client: Client) -> None:
    id = (await save(client, drawing(node("t", "Template", template="x")))).json()["id"]
    run = (await client.post(f"/workflows/{id}/runs", json={})).json()

    gone = await client.delete(f"/workflows/{id}")

    assert gone.status_code == 204
    assert (await client.get(f"/workflows/{id}")).status_code == 404
    assert (await client.delete(f"/workflows/{id}")).status_code == 404
    assert (await client.get(f"/runs/{run['id']}")).json()["output"] == "x"


async def test_workflows_are_listed_newest_first_in_pages(client: Client) -> None:
    names = [f"w{i}" for i in range(5)]
    for name in names:
        await save(client, name=name)

    first = (await client.get("/workflows?limit=2")).json()
    second = (await client.get(f"/workflows?limit=2&cursor={first['next']}")).json()
    third = (await client.get(f"/workflows?limit=2&cursor={second['next']}")).json()

    pages = (first, second, third)
    assert [item["name"] for page in pages for item in page["items"]] == names[::-1]
    assert third["next"] is None
    assert "flow_data" not in first["items"][0]


async def test_workflows_are_found_by_name(client: Client) -> None:
    for name in ("a", "b", "a"):
        await save(client, name=name)

    found = (await client.get("/workflows", params={"name": "a"})).json()["items"]

    assert [item["name"] for item in found] == ["a", "a"]


async def test_a_drawing_with_errors_can_be_saved_but_not_run(client: Client) -> None:
    saved = await save(client, drawing(node("x", "Nonsense")))

    refused = await client.post(f"/workflows/{saved.json()['id']}/runs", json={})

    assert saved.status_code == 201
    assert [each["code"] for each in saved.json()["problems"]] == ["unknown_type"]
    assert refused.status_code == 422
    assert refused.json()["problems"] == saved.json()["problems"]


async def test_check_names_every_mistake_and_keeps_nothing(client: Client) -> None:
    broken = drawing(node("a", "Agent", max_iterations=0), node("b", "Nonsense"))

    found = (await client.post("/workflows/check", json={"flow_data": broken})).json()

    assert [(each["code"], each["where"], each["pointer"]) for each in found["problems"]] == [
        ("bad_config", "a", "/nodes/0/data/max_iterations"),
        ("unknown_type", "b", "/nodes/1/type"),
        ("missing_input", "a", "/nodes/0"),
    ]
    assert found["problems"][0]["message"] == (
        "'max_iterations' is 0; allowed is a whole number from 1 to 100"
    )
    assert found["plan"] is None
    assert (await client.get("/workflows")).json()["items"] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
async def test_the_examples_have_no_problems_and_a_plan(client: Client, example: Path) -> None:
    found = await client.post("/workflows/check", json={"flow_data": json.loads(example.read_text())})

    assert found.json()["problems"] == []
    assert found.json()["plan"]["order"][0] == "start"


async def test_somebody_elses_workflow_is_not_there(client: Client) -> None:
    assert (await client.get(f"/workflows/{uuid4()}")).status_code == 404
    assert (await client.put(f"/workflows/{uuid4()}", json={"name": "x"})).status_code == 404
    assert (await client.get("/workflows/not-a-uuid")).status_code == 404
