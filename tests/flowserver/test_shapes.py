"""Loops, maps and workflows within workflows on a real server: questions inside, kills, failures, limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from flowserver.app import create_app
from flowserver.settings import Settings
from graphs.regions import MOST_NESTED
from tests.flowserver.test_crash import follow, stuck
from tests.server import drawing, edge, events_of, node, server_process, serving, told
from tests.web_server import Raw, Reply, Request, WebServer, reply_json

Client = httpx.AsyncClient


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as web:
        yield web


@pytest.fixture
async def allowing(settings: Settings, dsn: str, web: WebServer) -> AsyncIterator[Client]:
    """A client of a server whose workflows may reach `web`."""
    allowed = msgspec.structs.replace(settings, outbound_allow=(web.door,))
    async with serving(create_app(allowed, dsn)) as client:
        yield client


def within(event: dict[str, Any]) -> list[Any]:
    """Where a step ran, shortly: `[["each", 2]]`."""
    return [
        [each["step"], *(each[kind] for kind in ("round", "item") if kind in each)]
        for each in event.get("within", ())
    ]


async def run(client: Client, flow_data: dict[str, Any], **more: Any) -> dict[str, Any]:
    response = await client.post("/runs", json={"flow_data": flow_data, **more})
    assert response.status_code in (200, 202), response.text
    return dict(response.json())


async def resume(
    client: Client, run: dict[str, Any], question: dict[str, Any], answer: Any
) -> dict[str, Any]:
    """Answer a question; the run when it has ended or asks again."""
    body = {"question_id": question["id"], "answer": answer}
    response = await client.post(f"/runs/{run['id']}/resume", json=body)
    assert response.status_code == 202, response.text
    async with asyncio.timeout(30):
        async with client.stream(
            "GET", f"/runs/{run['id']}/events", params={"after": run["last_seq"]}
        ) as stream:
            async for _ in stream.aiter_bytes():
                pass
    return dict((await client.get(f"/runs/{run['id']}")).json())


async def events(client: Client, run: dict[str, Any]) -> list[dict[str, Any]]:
    return events_of((await client.get(f"/runs/{run['id']}/events", params={"after": 0})).text)


def asking_map(*more: dict[str, Any]) -> dict[str, Any]:
    return drawing(
        node("start", "StartNode"),
        node("each", "Map", items="{{ input }}"),
        node("ask", "HumanInput", question="Is {{ each.item }} good?", actions=["yes", "no"]),
        node("kept", "Template", template="{{ each.item }}"),
        node("left", "Template", template="not {{ each.item }}"),
        node("end", "EndNode"),
        edge("start", "each"),
        edge("each", "ask", "item"),
        edge("ask", "kept", "yes"),
        edge("ask", "left", "no"),
        edge("kept", "each"),
        edge("left", "each"),
        edge("each", "end", "done"),
        *more,
    )


async def test_the_questions_of_a_maps_items_are_all_open_and_answered_one_by_one(client: Client) -> None:
    waiting = await run(client, asking_map(), input=["a", "b", "c"])

    questions = waiting["questions"]
    assert waiting["status"] == "waiting"
    assert [within(each) for each in questions] == [[["each", 0]], [["each", 1]], [["each", 2]]]
    assert [each["payload"]["question"] for each in questions] == [f"Is {x} good?" for x in "abc"]
    waiting = await resume(client, waiting, questions[1], "no")
    assert [each["id"] for each in waiting["questions"]] == [questions[0]["id"], questions[2]["id"]]
    waiting = await resume(client, waiting, questions[2], "yes")
    ended = await resume(client, waiting, questions[0], "yes")
    assert (ended["status"], ended["output"]) == ("succeeded", ["a", "not b", "c"])
    seen = told(await events(client, ended))
    assert seen.count("step.started ask") == seen.count("step.finished ask") == 3
    assert seen.count("step.started each") == 1


async def test_a_question_in_a_loop_is_asked_once_per_round(client: Client) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("draft", "Template", template="{{ input }}, draft {{ ask.values.n | default('0') }}"),
        node(
            "ask", "HumanInput", question="Good? {{ draft }}", form=[{"name": "n"}], actions=["again", "good"]
        ),
        node("end", "EndNode"),
        edge("start", "draft"),
        edge("draft", "ask"),
        edge("ask", "draft", "again"),
        edge("ask", "end", "good"),
    )
    waiting = await run(client, flow, input="Hi")
    for number in ("1", "2"):
        first = waiting["questions"][0]
        waiting = await resume(client, waiting, first, {"action": "again", "values": {"n": number}})
        again = await client.post(
            f"/runs/{waiting['id']}/resume", json={"question_id": first["id"], "answer": {"action": "good"}}
        )
        assert again.status_code == 409

    assert within(waiting["questions"][0]) == [["draft", 3]]
    assert waiting["questions"][0]["payload"]["question"] == "Good? Hi, draft 2"
    ended = await resume(client, waiting, waiting["questions"][0], {"action": "good", "values": {"n": "x"}})
    assert (ended["status"], ended["output"]) == ("succeeded", {"n": "x"})
    found = await events(client, ended)
    assert [within(each) for each in found if each["event"] == "step.started" and each["step"] == "ask"] == [
        [["draft", number]] for number in (1, 2, 3)
    ]


async def test_a_workflow_within_a_workflow_asks_and_its_events_say_where_they_are(client: Client) -> None:
    inner = drawing(
        node("begin", "StartNode"),
        node("ask", "HumanInput", question="For {{ input }}?"),
        node("end", "EndNode"),
        edge("begin", "ask"),
        edge("ask", "end"),
    )
    outer = drawing(
        node("start", "StartNode"),
        node("sub", "Subflow", workflow="inner", input="{{ start }}!"),
        node("again", "Subflow", workflow="inner"),
        node("end", "EndNode"),
        edge("start", "sub"),
        edge("sub", "again"),
        edge("again", "end"),
    )
    await client.post("/workflows", json={"name": "inner", "flow_data": inner})
    saved = (await client.post("/workflows", json={"name": "outer", "flow_data": outer})).json()
    assert saved["problems"] == []

    waiting = (await client.post(f"/workflows/{saved['id']}/runs", json={"input": "A"})).json()
    assert waiting["questions"][0]["payload"]["question"] == "For A!?"
    changed = drawing(node("t", "Template", template="changed"))
    found = (await client.get("/workflows", params={"name": "inner"})).json()["items"][0]
    await client.put(f"/workflows/{found['id']}", json={"flow_data": changed})
    waiting = await resume(client, waiting, waiting["questions"][0], "one")
    ended = await resume(client, waiting, waiting["questions"][0], "two")

    assert (ended["status"], ended["output"]) == ("succeeded", "two"), "it goes on with what it began with"
    seen = await events(client, ended)
    assert [
        within(each) for each in seen if each.get("step") == "ask" and each["event"] == "step.started"
    ] == [
        [["sub"]],
        [["again"]],
    ]
    later = (await client.post(f"/workflows/{saved['id']}/runs", json={"input": "A"})).json()
    assert later["output"] == "changed"


async def test_workflows_that_run_each_other_are_refused(client: Client) -> None:
    def calls(name: str) -> dict[str, Any]:
        return drawing(
            node("start", "StartNode"), node("sub", "Subflow", workflow=name), edge("start", "sub")
        )

    await client.post("/workflows", json={"name": "a", "flow_data": calls("b")})
    made = (await client.post("/workflows", json={"name": "b", "flow_data": calls("a")})).json()

    assert [each["code"] for each in made["problems"]] == ["broken_workflow"], "there was no 'b' yet"
    found = (await client.get(f"/workflows/{made['id']}")).json()
    assert [each["code"] for each in found["problems"]] == ["workflow_cycle"]
    refused = await client.post(f"/workflows/{made['id']}/runs", json={})
    assert refused.status_code == 422


async def test_flt_11_a_kill_inside_a_map_repeats_no_item_that_was_done(dsn: str, tmp_path: Path) -> None:
    began = asyncio.Event()
    async with WebServer() as web:
        allow = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
        for item in range(6):
            web.on(f"/a/{item}", Reply(body=b"a"))
            web.on(f"/b/{item}", *([stuck(began)] if item == 3 else []), Reply(body=f"b{item}".encode()))
        flow = drawing(
            node("start", "StartNode"),
            node("each", "Map", items="{{ input }}", max_concurrency=1),
            node("a", "HttpRequest", url=web.url("/a/{{ each.item }}"), method="POST", max_retries=0),
            node("b", "HttpRequest", url=web.url("/b/{{ each.item }}"), method="POST", max_retries=0),
            node("end", "EndNode"),
            edge("start", "each"),
            edge("each", "a", "item"),
            edge("a", "b"),
            edge("b", "each", "content", "result"),
            edge("each", "end", "done"),
        )
        async with server_process(dsn, tmp_path, allow) as server:
            body = {"flow_data": flow, "mode": "background", "input": list(range(6))}
            id = (await server.client.post("/runs", json=body)).json()["id"]
            await asyncio.wait_for(began.wait(), 30)
            await server.kill()
        async with server_process(dsn, tmp_path, allow) as server:
            whole = await follow(server.client, id, 0)

    assert whole[-1]["output"] == [f"b{item}" for item in range(6)]
    paths = [request.path for request in web.requests]
    assert sorted(set(paths)) == sorted(f"/{x}/{item}" for x in "ab" for item in range(6))
    assert {path for path in paths if paths.count(path) > 1} == {"/b/3"}
    statuses = [(each["item"], each["status"]) for each in whole if each["event"] == "item.finished"]
    assert sorted(statuses) == [(item, "succeeded") for item in range(6)]


async def test_a_server_that_stops_hands_over_between_the_steps_of_an_item(dsn: str, tmp_path: Path) -> None:
    """Inside the graph of an item too the run goes back into the queue, and nothing is done twice."""
    began, go = asyncio.Event(), asyncio.Event()

    async def held(request: Request, writer: asyncio.StreamWriter) -> None:
        began.set()
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")

    async with WebServer() as web:
        allow = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
        for item in range(3):
            web.on(f"/a/{item}", Raw(held) if item == 1 else Reply(body=b"a"))
            web.on(f"/b/{item}", Reply(body=f"b{item}".encode()))
        flow = drawing(
            node("start", "StartNode"),
            node("each", "Map", items=[0, 1, 2], max_concurrency=1),
            node("a", "HttpRequest", url=web.url("/a/{{ each.item }}"), method="POST", max_retries=0),
            node("b", "HttpRequest", url=web.url("/b/{{ each.item }}"), method="POST", max_retries=0),
            edge("start", "each"),
            edge("each", "a", "item"),
            edge("a", "b"),
            edge("b", "each", "content", "result"),
        )
        async with server_process(dsn, tmp_path, allow) as server:
            body = {"flow_data": flow, "mode": "background"}
            id = (await server.client.post("/runs", json=body)).json()["id"]
            await asyncio.wait_for(began.wait(), 30)
            stopping = asyncio.create_task(server.stop())
            await server_refuses(server.client)
            go.set()
            assert await stopping == 0
        async with server_process(dsn, tmp_path, allow) as server:
            whole = await follow(server.client, id, 0)

    assert (whole[-1]["event"], whole[-1]["output"]) == ("run.succeeded", ["b0", "b1", "b2"])
    assert sorted(request.path for request in web.requests) == sorted(
        f"/{x}/{n}" for x in "ab" for n in range(3)
    )
    assert not [each for each in whole if each["event"] in ("step.failed", "run.failed")]


async def server_refuses(client: Client) -> None:
    """Return when the server has begun to stop."""
    async with asyncio.timeout(20):
        while True:
            try:
                await client.get("/../../health/live")
            except httpx.TransportError:
                return
            await asyncio.sleep(0.05)


async def test_a_kill_inside_a_loop_goes_on_in_the_same_round(dsn: str, tmp_path: Path) -> None:
    began = asyncio.Event()
    async with WebServer() as web:
        allow = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
        url = web.on(
            "/", Reply(body=b"1"), Reply(body=b"2"), stuck(began), Reply(body=b"3"), Reply(body=b"4")
        )
        flow = drawing(
            node("start", "StartNode"),
            node("call", "HttpRequest", url=url, method="POST", max_retries=0),
            node("if", "ConditionNode", value1="{{ call.content }}", operation="equal", value2="4"),
            node("end", "EndNode"),
            edge("start", "call"),
            edge("call", "if", "content"),
            edge("if", "call", "false_output"),
            edge("if", "end", "true_output"),
        )
        async with server_process(dsn, tmp_path, allow) as server:
            body = {"flow_data": flow, "mode": "background"}
            id = (await server.client.post("/runs", json=body)).json()["id"]
            await asyncio.wait_for(began.wait(), 30)
            await server.kill()
        async with server_process(dsn, tmp_path, allow) as server:
            whole = await follow(server.client, id, 0)

    assert (whole[-1]["event"], whole[-1]["output"]) == ("run.succeeded", "4")
    assert len(web.requests) == 5
    finished = [within(each) for each in whole if each["event"] == "step.finished" and each["step"] == "call"]
    assert finished == [[["call", number]] for number in (1, 2, 3, 4)]
    keys = [request.headers["idempotency-key"] for request in web.requests]
    assert keys[2] == keys[3]
    assert len(set(keys)) == 4


async def test_an_error_port_joins_a_live_branch_and_the_run_says_it_had_errors(
    allowing: Client, web: WebServer
) -> None:
    url = web.on("/", Reply(500, b"no"))
    flow = drawing(
        node("start", "StartNode"),
        node(
            "call",
            "HttpRequest",
            url=url,
            max_retries=0,
            fail_on_error=True,
            retry={"attempts": 2, "delay": 0},
        ),
        node("other", "Template", template="other"),
        node("both", "Merge"),
        edge("start", "call"),
        edge("start", "other"),
        edge("call", "both", "error"),
        edge("other", "both"),
    )

    ended = await run(allowing, flow)

    assert (ended["status"], ended["had_errors"]) == ("succeeded", True)
    assert [each["code"] if isinstance(each, dict) else each for each in ended["output"]] == [
        "http_status",
        "other",
    ]
    failures = [each for each in await events(allowing, ended) if each["event"] == "step.failed"]
    assert [(each["will_retry"], each.get("goes_on", False)) for each in failures] == [
        (True, False),
        (False, True),
    ]


async def test_a_failing_step_goes_on_with_its_default_and_another_kills_the_run(
    allowing: Client, web: WebServer
) -> None:
    url = web.on("/", Reply(500, b"no"))
    flow = drawing(
        node("start", "StartNode"),
        node(
            "call",
            "HttpRequest",
            url=url,
            max_retries=0,
            fail_on_error=True,
            on_error="default",
            default="nothing",
        ),
        edge("start", "call"),
    )

    ended = await run(allowing, flow)

    assert (ended["status"], ended["had_errors"], ended["output"]) == ("succeeded", True, "nothing")
    flow["nodes"][1]["data"].pop("on_error")
    flow["nodes"][1]["data"].pop("default")
    failed = await run(allowing, flow)
    assert (failed["status"], failed["error"]["code"], failed["had_errors"]) == (
        "failed",
        "http_status",
        False,
    )


@pytest.mark.parametrize(
    ("limits", "named"), [({"steps": 20}, "steps"), ({"output_bytes": 40}, "output_bytes")]
)
async def test_a_run_that_uses_up_a_limit_ends_by_its_name(
    client: Client, limits: dict[str, Any], named: str
) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("loop", "Loop", max_rounds=1000),
        node("t", "Template", template="round {{ loop.round }}"),
        edge("start", "loop"),
        edge("loop", "t", "body"),
        edge("t", "loop"),
    )

    by_request = await run(client, flow, limits=limits)
    by_drawing = await run(client, flow | {"settings": {"limits": limits}})

    for ended in (by_request, by_drawing):
        assert ended["status"] == "failed"
        assert (ended["error"]["code"], ended["error"]["limit"]) == ("limit_exceeded", named)


async def test_values_that_grow_from_step_to_step_end_their_run_and_nothing_else(client: Client) -> None:
    """Each Merge collects what the ten before it give, which doubles."""
    merges = [node(f"m{number}", "Merge") for number in range(23)]
    arrows = [edge(f"m{a}", f"m{b}") for a in range(23) for b in range(a + 1, min(23, a + 11))]
    flow = drawing(node("start", "StartNode"), *merges, edge("start", "m0"), *arrows)

    growing = asyncio.create_task(run(client, flow, input="x" * 100))
    other = drawing(node("start", "StartNode"), node("t", "Template", template="hi"), edge("start", "t"))
    others = [await run(client, other) for _ in range(20)]
    ended = await growing

    assert [each["output"] for each in others] == ["hi"] * 20
    assert ended["status"] == "failed"
    assert ended["error"]["code"] in {"unsafe_output", "limit_exceeded"}


@pytest.mark.parametrize("limits", [None, {"output_bytes": 10_000_000}])
async def test_no_run_gives_more_than_the_operator_lets_it(
    settings: Settings, dsn: str, limits: dict[str, Any] | None
) -> None:
    steps = [node(f"t{number}", "Template", template="{{ input }}") for number in range(5)]
    arrows = [edge(a["id"], b["id"]) for a, b in pairwise([{"id": "start"}, *steps])]
    flow = drawing(node("start", "StartNode"), *steps, *arrows)
    narrow = msgspec.structs.replace(settings, max_output_bytes=10_000)

    async with serving(create_app(narrow, dsn)) as client:
        ended = await run(client, flow, input="x" * 3_000, **({"limits": limits} if limits else {}))

    assert (ended["status"], ended["error"]["limit"]) == ("failed", "output_bytes")
    assert ended["error"]["message"].startswith("the run may have 10000 output bytes, and this would be 12")


async def test_a_run_that_takes_too_long_is_ended_also_in_the_middle_of_a_step(
    allowing: Client, web: WebServer
) -> None:
    began = asyncio.Event()
    flow = drawing(
        node("start", "StartNode"),
        node("call", "HttpRequest", url=web.on("/", stuck(began)), max_retries=0),
        edge("start", "call"),
    )

    ended = await run(allowing, flow, limits={"seconds": 0.5})

    assert began.is_set()
    assert (ended["status"], ended["error"]["limit"]) == ("failed", "seconds")


async def test_variables_are_shared_summed_and_kept_for_the_session(client: Client) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("each", "Map", items="{{ input }}"),
        node("add", "SetVariable", variable="sum", value="{{ each.item }}"),
        node("end", "Template", template="{{ vars.sum }} {{ vars.last }}"),
        node("keep", "SetVariable", variable="last", value="{{ run.id }}"),
        edge("start", "each"),
        edge("each", "add", "item"),
        edge("add", "each"),
        edge("each", "end", "done"),
        edge("end", "keep"),
    ) | {
        "settings": {
            "variables": {
                "sum": {"initial": 0, "reducer": "add", "persistent": True},
                "last": {"initial": "none"},
            }
        }
    }
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": flow})).json()
    assert saved["problems"] == []

    outputs = []
    for _ in range(2):
        body = {"input": [1, 2, 3], "session_id": "s"}
        ended = (await client.post(f"/workflows/{saved['id']}/runs", json=body)).json()
        texts = [each for each in await events(client, ended) if each.get("step") == "end"]
        outputs.append(texts[-1]["outputs"]["text"])

    assert outputs == ["6 none", "12 none"]


async def test_the_plan_of_a_workflow_can_be_read(client: Client) -> None:
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": asking_map()})).json()

    found = (await client.get(f"/workflows/{saved['id']}/plan")).json()

    assert found["problems"] == []
    assert found["plan"]["maps"] == [{"step": "each", "steps": ["ask", "kept", "left"]}]
    assert found["plan"]["order"] == ["start", "each", "ask", "kept", "left", "end"]
    assert found["plan"]["durability"] == "sync"


async def test_a_map_drops_or_keeps_items_that_fail(allowing: Client, web: WebServer) -> None:
    def answer(request: Request) -> Reply:
        return reply_json({}, 500) if request.path == "/1" else Reply(body=request.path.encode())

    for item in range(3):
        web.on(f"/{item}", answer)
    flow = drawing(
        node("start", "StartNode"),
        node("each", "Map", items=[0, 1, 2], on_item_error="drop"),
        node("get", "HttpRequest", url=web.url("/{{ each.item }}"), max_retries=0),
        node("end", "Template", template="{{ each.done | json }} {{ each.errors[0].index }}"),
        edge("start", "each"),
        edge("each", "get", "item"),
        edge("get", "each", "content", "result"),
        edge("each", "end", "done"),
    )

    dropped = await run(allowing, flow)
    flow["nodes"][1]["data"]["on_item_error"] = "stop"
    stopped = await run(allowing, flow)

    assert (dropped["output"], dropped["had_errors"]) == ('["/0","/2"] 1', True)
    assert (stopped["status"], stopped["error"]["step"], stopped["error"]["item"]) == ("failed", "each", 1)


async def test_a_question_in_a_map_in_a_loop_is_asked_for_each_item_of_each_round(client: Client) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("loop", "Loop", max_rounds=2),
        node("each", "Map", items=["a", "b"]),
        node("ask", "HumanInput", question="{{ loop.round }} {{ each.item }}?", actions=["yes", "no"]),
        node("good", "Template", template="{{ each.item }}{{ loop.round }}"),
        node("end", "EndNode"),
        edge("start", "loop"),
        edge("loop", "each", "body"),
        edge("each", "ask", "item"),
        edge("ask", "good", "yes"),
        edge("good", "each"),
        edge("each", "loop", "done"),
        edge("loop", "end", "done"),
    )
    waiting = await run(client, flow)

    asked = []
    while waiting["status"] == "waiting":
        question = waiting["questions"][-1]
        asked.append((question["payload"]["question"], within(question)))
        answer = "no" if question["payload"]["question"] == "2 a?" else "yes"
        waiting = await resume(client, waiting, question, answer)

    assert asked == [
        ("1 b?", [["loop", 1], ["each", 1]]),
        ("1 a?", [["loop", 1], ["each", 0]]),
        ("2 b?", [["loop", 2], ["each", 1]]),
        ("2 a?", [["loop", 2], ["each", 0]]),
    ]
    assert (waiting["status"], waiting["output"]) == ("succeeded", [None, "b2"])


async def test_what_fails_in_a_map_in_another_workflow_goes_on_by_that_steps_error_port(
    client: Client,
) -> None:
    inner = drawing(
        node("begin", "StartNode"),
        node("each", "Map", items="{{ input }}"),
        node("check", "Merge", mode="combine"),
        node("end", "EndNode"),
        edge("begin", "each"),
        edge("each", "check", "item"),
        edge("check", "each"),
        edge("each", "end", "done"),
    )
    outer = drawing(
        node("start", "StartNode"),
        node("sub", "Subflow", workflow="inner"),
        node("sad", "Template", template="sad: {{ sub.error.step }} {{ sub.error.code }}"),
        node("glad", "Template", template="glad: {{ sub | json }}"),
        edge("start", "sub"),
        edge("sub", "glad"),
        edge("sub", "sad", "error"),
    )
    await client.post("/workflows", json={"name": "inner", "flow_data": inner})

    good = await run(client, outer, input=[{"a": 1}, {"b": 2}])
    bad = await run(client, outer, input=[{"a": 1}, "no object"])

    assert (good["output"], good["had_errors"]) == ('glad: [{"a":1},{"b":2}]', False)
    assert (bad["status"], bad["output"], bad["had_errors"]) == ("succeeded", "sad: sub bad_input", True)
    failed = [each["step"] for each in await events(client, bad) if each["event"] == "step.failed"]
    assert failed == ["check", "each", "sub"]


async def test_maps_as_deep_as_allowed_ask_and_go_on(client: Client) -> None:
    ids = [f"m{number}" for number in range(MOST_NESTED)]
    flow = drawing(
        node("start", "StartNode"),
        *(node(id, "Map", items=[1]) for id in ids),
        node("ask", "HumanInput", question="This deep?"),
        edge("start", ids[0]),
        *(edge(outer, inner, "item") for outer, inner in pairwise([*ids, "ask"])),
        edge("ask", ids[-1], "answer", "result"),
        *(edge(inner, outer, "done", "result") for outer, inner in pairwise(ids)),
    )

    waiting = await run(client, flow)
    ended = await resume(client, waiting, waiting["questions"][0], "yes")

    assert within(waiting["questions"][0]) == [[id, 0] for id in ids]
    assert ended["status"] == "succeeded"
    assert msgspec.json.encode(ended["output"]) == b"[" * MOST_NESTED + b'"yes"' + b"]" * MOST_NESTED


async def test_a_failed_item_tells_of_the_steps_that_it_did_not_come_to(client: Client) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("each", "Map", items=[1, "two"], on_item_error="keep"),
        node("if", "ConditionNode", condition={"operation": "greater", "right": 0}),
        node("more", "Template", template="{{ each.item }}"),
        node("less", "Template", template="x"),
        node("inner", "Map", items=[1]),
        node("deep", "Template", template="y"),
        node("end", "EndNode"),
        edge("start", "each"),
        edge("each", "if", "item"),
        edge("if", "more", "true_output"),
        edge("if", "less", "false_output"),
        edge("more", "inner"),
        edge("inner", "deep", "item"),
        edge("deep", "inner", "text", "result"),
        edge("inner", "each", "done", "result"),
        edge("each", "end", "done"),
    )

    ended = await run(client, flow)

    seen = await events(client, ended)
    skipped = [each for each in seen if each["event"] == "step.skipped" and within(each) == [["each", 1]]]
    assert ended["output"][0] == ["y"]
    assert [each["step"] for each in skipped] == ["more", "less", "inner", "deep"]
    assert {each["because"]["message"] for each in skipped} == {"item 1 failed at 'if'"}


async def test_an_address_that_is_refused_is_not_tried_again(client: Client) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("call", "HttpRequest", url="http://10.0.0.1/", retry={"attempts": 3, "delay": 0}),
        edge("start", "call"),
    )

    ended = await run(client, flow)

    assert (ended["status"], ended["error"]["code"]) == ("failed", "url_not_allowed")
    assert told(await events(client, ended)).count("step.started call") == 1


async def test_steps_that_fail_at_the_same_moment_fail_the_run_once(allowing: Client, web: WebServer) -> None:
    """The first cancels the others, perhaps in the middle of writing down that they began."""
    calls = [
        node(f"call{n}", "HttpRequest", url=web.on(f"/{n}", Reply(500)), max_retries=0) for n in range(4)
    ]
    flow = drawing(node("start", "StartNode"), *calls, *(edge("start", each["id"]) for each in calls))

    for _ in range(5):
        ended = await run(allowing, flow)

        assert (ended["status"], ended["error"]["code"]) == ("failed", "http_status")
        seen = await events(allowing, ended)
        assert [each["seq"] for each in seen] == list(range(1, len(seen) + 1))
        assert f"step.failed {ended['error']['step']}" in told(seen)
        assert told(seen).count("run.failed") == 1
