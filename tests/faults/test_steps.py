"""Steps that misbehave: that want to end the process, and models whose answers break off."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.checks import check_events, events, rows
from tests.faults.nursery import Family
from tests.faults.sabotage import Point, Sabotage
from tests.openai_server import Fault, OpenAIServer, Reply
from tests.server import drawing, edge, node, told


async def test_flt_15_a_step_that_wants_to_end_the_process_fails_by_name(children: Family, dsn: str) -> None:
    point = Point(at="flowserver.recorder.Recorder.started", do="fail")
    server = await children.bear(dsn, sabotage=Sabotage(points=(point,)))
    flow = drawing(node("bad", "Template", template="x"))
    body = {"flow_data": flow, "session_id": "s"}

    failed = (await server.client.post("/runs", json=body)).json()
    after = (await server.client.post("/runs", json=body)).json()

    assert server.lives
    assert failed["status"] == "failed"
    assert failed["error"]["step"] == "bad"
    assert "SystemExit" in str(failed["error"]) or "told to leave" in str(failed["error"])
    assert (after["status"], after["output"]) == ("succeeded", "x")
    check_events(await events(server.client, failed["id"]))


@pytest.mark.parametrize(
    "broken",
    [
        Reply(tokens=[f"{n} " for n in range(80)], fault=fault, good=50)
        for fault in (Fault.RESET, Fault.MALFORMED)
    ],
    ids=["reset", "malformed"],
)
async def test_flt_40_flt_41_an_answer_that_breaks_off_is_asked_for_again_and_not_mixed_with_the_next(
    children: Family, dsn: str, broken: Reply
) -> None:
    async with OpenAIServer() as openai:
        settings = {
            "FLOWSERVER_OPENAI_BASE_URL": openai.url,
            "FLOWSERVER_OPENAI_API_KEY": "sk-of-the-operator",
        }
        server = await children.bear(dsn, settings=settings)
        openai.reply(broken, Reply(tokens=["all ", "is ", "well"]))
        flow = drawing(
            node("start", "StartNode"),
            node("model", "OpenAIChat", max_retries=0),
            node("agent", "Agent", prompt="{{ input }}", retry={"attempts": 2, "delay": 0.01}),
            node("end", "Template", template="{{ agent }}"),
            edge("start", "agent"),
            edge("model", "agent", "llm", "llm"),
            edge("agent", "end"),
        )
        body = {"flow_data": flow, "input": "hi", "mode": "background"}  # a client may begin to watch
        id = (await server.client.post("/runs", json=body)).json()["id"]
        found = await events(server.client, id)
        run: dict[str, Any] = (await server.client.get(f"/runs/{id}")).json()

    short = told(found)
    failed = short.index("step.failed agent")
    texts = [(number, event["text"]) for number, event in enumerate(found) if event["event"] == "text"]
    assert (run["status"], run["output"]) == ("succeeded", "all is well")
    assert found[failed]["will_retry"] is True
    assert "".join(text for number, text in texts if number > failed) == "all is well"
    assert "".join(text for number, text in texts if number < failed).startswith("0 1 2 ")
    assert [
        event["attempt"] for event in found if event["event"] == "step.started" and event["step"] == "agent"
    ] == [
        1,
        2,
    ]
    assert "sk-of-the-operator" not in str(found)
    check_events(found)
    assert await rows(dsn, "SELECT 1 FROM run WHERE epoch <> 1") == []
