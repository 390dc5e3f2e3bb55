"""Large values of a run: kept once, whatever they pass through, and there again after a kill."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg

from tests.flowserver.test_crash import follow, stuck
from tests.server import drawing, edge, node, server_process
from tests.web_server import Reply, WebServer

BIG = "x" * 300_000


async def test_a_large_value_is_kept_once_and_read_again_after_a_kill(dsn: str, tmp_path: Path) -> None:
    began = asyncio.Event()
    async with WebServer() as web:
        allow = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
        web.on("/big", Reply(body=BIG.encode(), headers={"Content-Type": "text/plain"}))
        web.on("/slow", stuck(began), Reply(body=b"done"))
        flow = drawing(
            node("start", "StartNode"),
            node("big", "HttpRequest", url=web.url("/big"), method="POST", max_retries=0),
            *(node(f"pass{n}", "Merge", mode="first") for n in range(5)),
            node("slow", "HttpRequest", url=web.url("/slow"), method="POST", max_retries=0),
            node("end", "Template", template="{{ pass4 }}{{ slow.content }}"),
            edge("start", "big"),
            edge("big", "pass0", "content"),
            *(edge(f"pass{n}", f"pass{n + 1}") for n in range(4)),
            edge("pass4", "slow"),
            edge("slow", "end"),
        )
        async with server_process(dsn, tmp_path, allow) as server:
            body = {"flow_data": flow, "mode": "background"}
            id = (await server.client.post("/runs", json=body)).json()["id"]
            await asyncio.wait_for(began.wait(), 30)
            await server.kill()
        async with server_process(dsn, tmp_path, allow) as server:
            whole = await follow(server.client, id, 0)
            found = (await server.client.get(f"/runs/{id}")).json()

    assert (whole[-1]["event"], found["output"]) == ("run.succeeded", f"{BIG}done")
    assert [request.path for request in web.requests] == ["/big", "/slow", "/slow"]
    with psycopg.connect(dsn) as conn:
        kept = conn.execute("SELECT count(*), sum(length(value)) FROM large_value").fetchone()
        state = conn.execute("SELECT sum(length(blob)) FROM checkpoint_blobs").fetchone()
    assert kept is not None
    assert state is not None
    assert int(kept[1]) < 5 * len(BIG), "the text, the answer around it, its document, and the output"
    assert int(state[0]) < len(BIG) / 10
