"""The catalogue over HTTP, and one node checked and tried by itself."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from flowserver.app import create_app
from flowserver.settings import Settings
from tests.openai_server import OpenAIServer
from tests.server import events_of, serving, told

Client = httpx.AsyncClient


async def tried(client: Client, type: str, **body: Any) -> dict[str, Any]:
    response = await client.post(f"/nodes/{type}/try", json=body)
    assert response.status_code in (200, 202), response.text
    return dict(response.json())


async def test_every_type_is_listed_and_not_sent_again_to_who_has_it(client: Client) -> None:
    first = await client.get("/nodes")
    again = await client.get("/nodes", headers={"If-None-Match": f'W/{first.headers["etag"]}, "x"'})
    other = await client.get("/nodes", headers={"If-None-Match": '"x"'})

    assert {"HttpRequest", "Filter", "Agent"} <= {each["name"] for each in first.json()["items"]}
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert (other.status_code, other.content) == (200, first.content)


async def test_a_type_tells_its_settings_ports_and_routes(client: Client) -> None:
    switch = (await client.get("/nodes/SwitchNode")).json()
    request = (await client.get("/nodes/HttpRequest")).json()

    assert (switch["name"], switch["category"], switch["version"]) == ("Switch", "flow", 1)
    assert switch["routes"] == {"fixed": ["default"], "by_settings": True, "aliases": {}}
    assert switch["config"]["required"] == ["cases"]
    assert request["routes"] is None
    assert (request["is_tool"], request["effect"], request["kind"]) == (True, True, "step")
    token = request["config"]["properties"]["auth_token"]
    assert (token["writeOnly"], token["format"], token["x-also"]) == (True, "password", ["api_key_value"])
    assert token["x-when"] == {"auth_type": ["bearer", "api_key"]}
    assert request["config"]["properties"]["method"]["enum"][:2] == ["GET", "POST"]
    assert request["config"]["properties"]["timeout"]["maximum"] == 3600
    (status,) = [each for each in request["outputs"] if each["name"] == "status_code"]
    assert (status["type"], status["schema"]) == ("number", {"type": "integer"})


async def test_ports_for_providers_say_what_fits_there(client: Client) -> None:
    agent = (await client.get("/nodes/Agent")).json()
    model = (await client.get("/nodes/OpenAIChat")).json()

    assert {each["name"]: (each["type"], each["many"], each["required"]) for each in agent["bindings"]} == {
        "llm": ("ChatModel", False, True),
        "tools": ("Tool", True, False),
        "memory": ("Memory", False, False),
    }
    assert (model["gives"], model["outputs"][0]["type"]) == ("ChatModel", "ChatModel")


@pytest.mark.parametrize("call", [("GET", ""), ("POST", "/check"), ("POST", "/try")])
async def test_an_unknown_type_is_not_there_and_near_names_are_told(
    client: Client, call: tuple[str, str]
) -> None:
    method, end = call
    response = await client.request(method, f"/nodes/HttpReqest{end}", json={} if method == "POST" else None)

    assert response.status_code == 404
    assert response.json()["detail"].startswith(
        "there is no node type 'HttpReqest'; did you mean HttpRequest"
    )


async def test_the_shelves(client: Client) -> None:
    items = (await client.get("/nodes/categories")).json()["items"]

    found = {each["name"]: each["types"] for each in items}
    assert {"Filter", "Sort", "Limit", "Aggregate"} <= set(found["data"])
    assert [each["title"] for each in items if each["name"] == "flow"] == ["Flow"]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("HttpRequest", "HttpRequest"),
        ("http request", "HttpRequest"),
        ("htpp reqest", "HttpRequest"),
        ("sort", "Sort"),
        ("ForEach", "Map"),
        ("openai", "OpenAIChat"),
        ("sum average", "Aggregate"),
        ("ask a person", "HumanInput"),
        ("Conditon", "ConditionNode"),
    ],
)
async def test_a_search_finds_by_name_title_alias_and_in_spite_of_typos(
    client: Client, text: str, first: str
) -> None:
    found = (await client.get("/nodes/search", params={"q": text})).json()["items"]

    assert found[0]["name"] == first
    assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)


@pytest.mark.parametrize("text", ["", "zzzzqqq", "日本", "%", "'"])
async def test_a_search_may_find_nothing(client: Client, text: str) -> None:
    assert (await client.get("/nodes/search", params={"q": text})).json()["items"] == []


async def test_a_check_names_every_mistake_at_its_place_in_the_request(client: Client) -> None:
    config = {"url": "ftp://x", "metod": "GET", "timeout": 0, "retry": 99, "name": "Call", "icon": "x"}

    response = await client.post("/nodes/HttpRequest/check", json={"config": config})

    found = [(each["severity"], each["code"], each["pointer"]) for each in response.json()["problems"]]
    assert sorted(found) == [
        ("error", "bad_config", "/config/retry"),
        ("error", "bad_config", "/config/timeout"),
        ("error", "bad_config", "/config/url"),
        ("warning", "unknown_config", "/config/metod"),
    ]


@pytest.mark.parametrize(
    ("type", "config"),
    [
        ("HttpRequest", {"url": "https://example.com/{{ agent.output }}"}),
        ("OpenAIChat", {"model_name": "gpt-4o"}),
        ("Agent", {}),
        ("StartNode", {}),
    ],
)
async def test_a_check_of_good_settings_finds_nothing(
    client: Client, type: str, config: dict[str, Any]
) -> None:
    response = await client.post(f"/nodes/{type}/check", json={"config": config})

    assert response.json() == {"problems": []}


async def test_junk_as_settings_is_told_and_breaks_nothing(client: Client) -> None:
    deep: Any = 1
    for _ in range(120):
        deep = [deep]

    too_deep = await client.post("/nodes/Filter/check", json={"config": {"condition": deep}})
    no_object = await client.post("/nodes/Filter/check", json={"config": []})
    unknown = await client.post("/nodes/Filter/check", json={"settings": {}})

    assert [each["code"] for each in too_deep.json()["problems"]] == ["too_large"]
    assert (no_object.status_code, unknown.status_code) == (400, 400)


async def test_a_step_is_tried_on_what_arrives_as_a_real_run(client: Client) -> None:
    config = {"condition": {"path": "n", "operation": "greater", "right": 1}}

    made = await tried(client, "Filter", config=config, inputs={"items": [{"n": 1}, {"n": 2}]})

    assert (made["status"], made["output"], made["workflow_id"]) == ("succeeded", [{"n": 2}], None)
    assert made["trigger"]["type"] == "try"
    page = await client.get(f"/runs/{made['id']}/events", headers={"Accept": "application/json"})
    (finished,) = [each for each in page.json()["items"] if told([each]) == ["step.finished tried"]]
    assert finished["outputs"] == {"output": [{"n": 2}], "rejected": [{"n": 1}], "count": 1}


async def test_without_inputs_the_runs_input_arrives(client: Client) -> None:
    assert (await tried(client, "Limit", config={"count": 1}, input=[7, 8]))["output"] == [7]
    assert (await tried(client, "StartNode", input={"a": 1}))["output"] == {"a": 1}
    assert (await tried(client, "StartNode", config={"initial_input": "hi"}))["output"] == "hi"


async def test_several_values_arrive_at_a_port_that_takes_many(client: Client) -> None:
    made = await tried(client, "Merge", config={"mode": "collect"}, inputs={"input": [1, None, "{{ x }}"]})

    assert made["output"] == [1, None, "{{ x }}"]


async def test_paths_mean_what_the_trial_says_they_mean(client: Client) -> None:
    template = "{{ agent.output }} {{ agent }} {{ search.documents[0].text }} {{ vars.tone }} {{ input.n }}"

    made = await tried(
        client,
        "Template",
        config={"template": template},
        steps={"agent": {"output": "{{ hi }}"}, "search": {"documents": [{"text": "found"}]}},
        vars={"tone": "calm"},
        input={"n": 5},
    )

    assert made["output"] == "{{ hi }} {{ hi }} found calm 5"


async def test_an_agent_is_tried_with_the_model_that_is_bound_to_it(settings: Settings, dsn: str) -> None:
    async with OpenAIServer("Good day") as openai:
        theirs = msgspec.structs.replace(settings, outbound_allow=("127.0.0.1",))
        model = {"type": "OpenAIChat", "config": {"base_url": openai.url, "model": "fake"}}
        async with serving(create_app(theirs, dsn)) as client:
            made = await tried(client, "Agent", inputs={"input": "Hello"}, bindings={"llm": [model]})

    assert (made["status"], made["output"]) == ("succeeded", "Good day")
    assert made["usage"]["model_calls"] == 1


async def test_a_trial_may_be_streamed_and_its_failure_is_a_failed_run(client: Client) -> None:
    body = {"config": {"figures": ["sum"]}, "inputs": {"items": ["x"]}, "mode": "stream"}

    response = await client.post("/nodes/Aggregate/try", json=body)

    events = events_of(response.text)
    assert events[-1]["event"] == "run.failed"
    assert events[-1]["error"]["code"] == "bad_input"


async def test_a_question_is_asked_and_answered(client: Client) -> None:
    made = await tried(client, "HumanInput", config={"question": "Well?"})

    assert made["status"] == "waiting"
    answered = await client.post(f"/runs/{made['id']}/resume", json={"answer": "yes"})
    assert answered.status_code == 202


async def test_settings_that_do_not_compile_are_refused_with_pointers_into_the_request(
    client: Client,
) -> None:
    response = await client.post("/nodes/Template/try", json={"config": {"template": "{{ nobody }}"}})

    assert response.status_code == 422
    (problem,) = response.json()["problems"]
    assert (problem["code"], problem["pointer"]) == ("unknown_reference", "/config/template")


@pytest.mark.parametrize(
    ("type", "body", "words"),
    [
        ("OpenAIChat", {}, "OpenAIChat is a provider and never runs; try a step that it is bound to"),
        ("StartNode", {"inputs": {"input": 1}}, "StartNode begins a run, so only the run's 'input' arrives"),
        ("HumanInput", {"inputs": {"x": 1}, "config": {"question": "?"}}, None),
        ("Map", {"inputs": {"nope": 1}}, "Map has no input 'nope'; it has: items, result"),
    ],
)
async def test_what_cannot_be_tried_says_why(
    client: Client, type: str, body: dict[str, Any], words: str | None
) -> None:
    response = await client.post(f"/nodes/{type}/try", json=body)

    if words is None:  # its only input takes any handle
        assert response.status_code == 202
    else:
        assert (response.status_code, response.json()["detail"][: len(words)]) == (422, words)


async def test_the_same_trial_is_not_run_twice_under_one_key(client: Client) -> None:
    body = {"config": {"value": 1}}

    first = await client.post("/nodes/Value/try", json=body, headers={"Idempotency-Key": "one"})
    again = await client.post("/nodes/Value/try", json=body, headers={"Idempotency-Key": "one"})

    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"


async def test_nobody_tries_anything_without_a_key(client: Client) -> None:
    for method, path in (("GET", "/nodes"), ("POST", "/nodes/Value/try"), ("POST", "/nodes/Value/check")):
        response = await client.request(
            method, path, json={} if method == "POST" else None, headers={"Authorization": "Bearer wrong"}
        )
        assert response.status_code == 401, path
