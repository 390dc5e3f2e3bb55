"""The server dies by SIGKILL, or is stopped, and nothing is lost: real processes on a real database."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from tests.server import ServerProcess, drawing, edge, events_of, node, server_process, told
from tests.web_server import Raw, Reply, Request, WebServer


def flow(url: str) -> dict[str, Any]:
    """Two effects one after the other, with pure steps around; the second is slow."""
    return drawing(
        node("start", "StartNode"),
        node("first", "HttpRequest", url=f"{url}/first", method="POST", max_retries=0),
        node("note", "Template", template="first said {{ first.content }}"),
        node("slow", "HttpRequest", url=f"{url}/slow", method="POST", max_retries=0),
        node("end", "Template", template="{{ note }}, slow said {{ slow.content }}"),
        edge("start", "first"),
        edge("first", "note"),
        edge("note", "slow"),
        edge("slow", "end"),
    )


def stuck(began: asyncio.Event) -> Raw:
    """An answer that never comes."""

    async def write(request: Request, writer: asyncio.StreamWriter) -> None:
        began.set()
        await asyncio.Event().wait()

    return Raw(write)


async def watch_until(server: ServerProcess, run: str, step: str) -> list[dict[str, Any]]:
    """The events up to the start of `step`, read from the open stream."""
    seen: list[dict[str, Any]] = []
    async with server.client.stream("GET", f"/runs/{run}/events") as response:
        text = ""
        async for piece in response.aiter_text():
            text += piece
            complete, _, _ = text.rpartition("\n\n")
            seen = events_of(complete)
            if f"step.started {step}" in told(seen):
                return seen
    raise AssertionError(f"the stream ended before {step} started: {told(seen)}")


async def follow(client: httpx.AsyncClient, run: str, after: int) -> list[dict[str, Any]]:
    response = await client.get(f"/runs/{run}/events", headers={"Last-Event-ID": str(after)})
    return events_of(response.text)


async def test_a_background_run_goes_on_after_kill_9_and_its_watcher_misses_nothing(
    dsn: str, tmp_path: Path
) -> None:
    began = asyncio.Event()
    async with WebServer() as web:
        allow = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
        web.on("/first", Reply(body=b"one"))
        web.on("/slow", stuck(began), Reply(body=b"two"))
        async with server_process(dsn, tmp_path, allow) as server:
            body = {"flow_data": flow(web.url("").rstrip("/")), "mode": "background"}
            run = (await server.client.post("/runs", json=body)).json()["id"]
            before = await watch_until(server, run, "slow")
            await asyncio.wait_for(began.wait(), 30)
            await server.kill()

        async with server_process(dsn, tmp_path, allow) as server:
            after = await follow(server.client, run, before[-1]["seq"])
            whole = await follow(server.client, run, 0)

    assert whole == before + after
    assert [event["seq"] for event in whole] == list(range(1, len(whole) + 1))
    assert whole[-1]["event"] == "run.succeeded"
    assert whole[-1]["output"] == "first said one, slow said two"
    for step in ("start", "first", "note"):
        assert told(whole).count(f"step.started {step}") == 1, step
    assert [event["attempt"] for event in whole if event.get("step") == "slow" and "attempt" in event] == [
        1,
        2,
    ]
    assert [request.path for request in web.requests] == ["/first", "/slow", "/slow"]
    keys = [request.headers["idempotency-key"] for request in web.requests]
    assert keys[0] != keys[1] == keys[2]


async def test_with_exit_durability_a_kill_repeats_only_what_was_not_done(dsn: str, tmp_path: Path) -> None:
    """One effect: the compiler chooses `exit`, and steps without effects are computed again in silence."""
    began = asyncio.Event()
    async with WebServer() as web:
        allow = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
        web.on("/slow", stuck(began), Reply(body=b"done"))
        only_one = drawing(
            node("start", "StartNode"),
            node("text", "Template", template="about {{ input }}"),
            node(
                "slow",
                "HttpRequest",
                url=web.url("/slow"),
                method="POST",
                content_type="text",
                body="{{ text }}",
                max_retries=0,
            ),
            edge("start", "text"),
            edge("text", "slow"),
        )
        async with server_process(dsn, tmp_path, allow) as server:
            body = {"flow_data": only_one, "mode": "background", "input": "x"}
            run = (await server.client.post("/runs", json=body)).json()["id"]
            await asyncio.wait_for(began.wait(), 30)
            await server.kill()

        async with server_process(dsn, tmp_path, allow) as server:
            events = await follow(server.client, run, 0)

    assert told(events).count("step.started text") == told(events).count("step.finished text") == 1
    assert told(events).count("step.started slow") == 2
    assert events[-1]["output"] == "done"


async def test_another_server_takes_over_while_the_first_is_dead(dsn: str, tmp_path: Path) -> None:
    began = asyncio.Event()
    async with WebServer() as web:
        allow = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
        web.on("/first", Reply(body=b"one"))
        web.on("/slow", stuck(began), Reply(body=b"two"))
        async with (
            server_process(dsn, tmp_path, allow) as first,
            server_process(dsn, tmp_path, allow) as second,
        ):
            body = {"flow_data": flow(web.url("").rstrip("/")), "mode": "stream"}
            streaming = asyncio.create_task(first.client.post("/runs", json=body))
            await asyncio.wait_for(began.wait(), 30)
            run = (await second.client.get("/runs?status=running")).json()["items"][0]["id"]
            await first.kill()
            await asyncio.gather(streaming, return_exceptions=True)
            events = await follow(second.client, run, 0)

    assert events[-1]["output"] == "first said one, slow said two"
    assert [event["attempt"] for event in events if event["event"] == "run.started"] == [1, 2]


async def test_a_question_survives_a_restart_and_takes_one_answer(dsn: str, tmp_path: Path) -> None:
    ask = drawing(
        node("start", "StartNode"),
        node("before", "Template", template="for {{ input }}"),
        node("ask", "HumanInput", question="Shall we?"),
        node("end", "Template", template="{{ before }}: {{ ask.answer }}"),
        edge("start", "before"),
        edge("before", "ask"),
        edge("ask", "end"),
    )
    async with server_process(dsn, tmp_path) as server:
        waiting = (await server.client.post("/runs", json={"flow_data": ask, "input": "Ada"})).json()
        assert await server.stop() == 0

    async with server_process(dsn, tmp_path) as server:
        path = f"/runs/{waiting['id']}"
        body = {"question_id": waiting["questions"][0]["id"], "answer": "of course"}
        first = await server.client.post(f"{path}/resume", json=body)
        second = await server.client.post(f"{path}/resume", json=body)
        events = await follow(server.client, waiting["id"], waiting["last_seq"])

    assert waiting["status"] == "waiting"
    assert (first.status_code, second.status_code) == (202, 409)
    assert events[-1]["output"] == "for Ada: of course"
    assert "step.started before" not in told(events)


async def test_an_answered_run_goes_on_although_the_server_died_right_after_the_answer(
    dsn: str, tmp_path: Path
) -> None:
    began = asyncio.Event()
    async with WebServer() as web:
        allow = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
        web.on("/slow", stuck(began), Reply(body=b"sent"))
        ask = drawing(
            node("ask", "HumanInput", question="Shall we?"),
            node(
                "slow",
                "HttpRequest",
                url=web.url("/slow"),
                method="POST",
                content_type="text",
                body="{{ ask.answer }}",
                max_retries=0,
            ),
            edge("ask", "slow"),
        )
        async with server_process(dsn, tmp_path, allow) as server:
            waiting = (await server.client.post("/runs", json={"flow_data": ask})).json()
            await server.client.post(f"/runs/{waiting['id']}/resume", json={"answer": "go"})
            await asyncio.wait_for(began.wait(), 30)
            await server.kill()

        async with server_process(dsn, tmp_path, allow) as server:
            events = await follow(server.client, waiting["id"], 0)

    assert events[-1]["output"] == "sent"
    assert told(events).count("run.waiting") == told(events).count("step.finished ask") == 1
    assert [request.body for request in web.requests] == [b"go", b"go"]


async def test_a_run_whose_processes_keep_dying_fails_and_says_so(dsn: str, tmp_path: Path) -> None:
    async with WebServer() as web:
        began = asyncio.Event()
        allow = {"FLOWSERVER_OUTBOUND_ALLOW": web.door, "FLOWSERVER_MAX_ATTEMPTS": "2"}
        web.on("/first", Reply())
        web.on("/slow", stuck(began))
        body = {"flow_data": flow(web.url("").rstrip("/")), "mode": "background"}
        run = ""
        for _ in range(2):
            async with server_process(dsn, tmp_path, allow) as server:
                run = run or (await server.client.post("/runs", json=body)).json()["id"]
                await asyncio.wait_for(began.wait(), 30)
                began.clear()
                await server.kill()

        async with server_process(dsn, tmp_path, allow) as server:
            events = await follow(server.client, run, 0)

    assert events[-1]["event"] == "run.failed"
    assert events[-1]["error"]["code"] == "poisoned"


async def test_a_stopped_server_hands_its_runs_over_without_counting_the_attempt(
    dsn: str, tmp_path: Path
) -> None:
    began = asyncio.Event()
    async with WebServer() as web:
        allow = {"FLOWSERVER_OUTBOUND_ALLOW": web.door, "FLOWSERVER_GRACE_SECONDS": "0.2"}
        web.on("/first", Reply(body=b"one"))
        web.on("/slow", stuck(began), Reply(body=b"two"))
        async with server_process(dsn, tmp_path, allow) as server:
            body = {"flow_data": flow(web.url("").rstrip("/")), "mode": "background"}
            run = (await server.client.post("/runs", json=body)).json()["id"]
            watching = asyncio.create_task(follow(server.client, run, 0))
            await asyncio.wait_for(began.wait(), 30)
            assert await server.stop() == 0
            before = await watching

        async with server_process(dsn, tmp_path, allow) as server:
            after = await follow(server.client, run, before[-1]["seq"])
            whole = await follow(server.client, run, 0)

    assert whole == before + after
    assert [event["attempt"] for event in whole if event["event"] == "run.started"] == [1, 1]
    assert told(whole).count("step.started first") == 1
    assert whole[-1]["event"] == "run.succeeded"
