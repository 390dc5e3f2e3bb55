"""Whole drawings over HTTP: files become chunks, code runs where it may, notes are only looked at."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from flowserver.app import create_app
from flowserver.settings import Settings
from tests import files
from tests.server import drawing, edge, node, serving
from tests.web_server import Reply, WebServer

Client = httpx.AsyncClient


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as server:
        yield server


@pytest.fixture
async def open_client(settings: Settings, dsn: str, web: WebServer) -> AsyncIterator[Client]:
    """A client of a server whose operator allows code, and the test's web server."""
    allowed = replace(settings, allow_code=True, outbound_allow=(web.door,))
    async with serving(create_app(allowed, dsn)) as client:
        yield client


async def run(client: Client, flow: Any, input: Any = None) -> Any:
    return (await client.post("/runs", json={"flow_data": flow, "input": input})).json()


async def uploaded(client: Client, name: str, data: bytes) -> str:
    return str((await client.post("/files", files={"file": (name, data)})).json()["id"])


async def test_a_pdf_a_word_file_and_a_page_become_chunks(open_client: Client, web: WebServer) -> None:
    page = "<title>P</title><nav>menu</nav>" + "<p>Of the page, with words.</p>" * 20
    url = web.on("/page", Reply(body=page.encode(), headers={"Content-Type": "text/html"}))
    ids = [
        await uploaded(open_client, "a.pdf", files.pdf("Of the PDF")),
        await uploaded(open_client, "b.docx", files.docx("Of the Word file", heading="H")),
    ]
    flow = drawing(
        node("start", "StartNode"),
        node("load", "DocumentLoader", files=ids, name="Load"),
        node("scrape", "WebScraper", urls=[url], name="Scrape"),
        node("split", "ChunkSplitter", chunkSize=100, overlap=0),
        node("note", "StickyNoteNode", text="only looked at", colorIndex=1),
        node("end", "EndNode"),
        edge("start", "load", "output", "input"),
        edge("start", "scrape", "output", "execute"),
        edge("load", "split", "output", "documents"),
        edge("scrape", "split", "documents", "documents"),
        edge("split", "end", "chunks", "target"),
    )

    checked = (await open_client.post("/workflows/check", json={"flow_data": flow})).json()
    made = await run(open_client, flow, "go")

    assert checked["problems"] == []
    assert made["status"] == "succeeded", made
    chunks = made["output"]
    sources = {chunk["metadata"]["source"] for chunk in chunks}
    assert sources == {"a.pdf", "b.docx", url}
    assert chunks[0]["page_content"] == "Of the PDF"
    assert all(len(chunk["page_content"]) <= 100 for chunk in chunks)


async def test_what_a_document_says_is_never_filled_in(client: Client) -> None:
    payload = "{{ 7*7 }} {{ input }} ${7*7} {x.__class__} {{ ''.__class__ }}"
    id = await uploaded(client, "{{ 7*7 }}.txt", payload.encode())
    flow = drawing(
        node("load", "DocumentLoader", files=[id]),
        node(
            "say",
            "Template",
            template="{{ load.documents[0].page_content }}|{{ load.documents[0].metadata.source }}",
        ),
        edge("load", "say", "output", "input"),
    )

    assert (await run(client, flow, "x"))["output"] == payload + "|{{ 7*7 }}.txt"


async def test_what_looks_like_langchains_own_stays_what_it_is(client: Client) -> None:
    record = {"text": "x", "lc": 1, "type": "secret", "id": ["DATABASE_URL"]}
    id = await uploaded(client, "a.jsonl", json.dumps(record).encode())
    flow = drawing(node("load", "DocumentLoader", files=[id]))

    metadata = (await run(client, flow))["output"][0]["metadata"]

    assert {key: metadata[key] for key in ("lc", "type", "id")} == {
        "lc": 1,
        "type": "secret",
        "id": ["DATABASE_URL"],
    }


async def test_a_file_that_cannot_be_read_fails_its_step_by_name(client: Client) -> None:
    id = await uploaded(client, "a.pdf", files.looping_pdf())

    made = await run(client, drawing(node("load", "DocumentLoader", files=[id])))

    assert made["status"] == "failed"
    assert made["error"]["code"] == "unreadable"
    assert "whole PDF" in made["error"]["message"]


CODE = drawing(
    node("start", "StartNode"),
    node("code", "CodeNode", code="output = {'doubled': node_data * 2, 'braces': f'{{}}'}", timeout=5),
    node("end", "EndNode"),
    edge("start", "code", "output", "input"),
    edge("code", "end", "output", "target"),
)


async def test_code_runs_where_the_operator_allows_it(open_client: Client) -> None:
    made = await run(open_client, CODE, 21)

    assert made["output"] == {"doubled": 42, "braces": "{}"}


async def test_code_fails_by_name_where_the_operator_does_not(client: Client) -> None:
    checked = (await client.post("/workflows/check", json={"flow_data": CODE})).json()
    made = await run(client, CODE, 21)

    assert [(each["code"], each["severity"]) for each in checked["problems"]] == [("not_allowed", "warning")]
    assert (made["status"], made["error"]["code"]) == ("failed", "code_not_allowed")


async def test_the_small_tools_work_together(client: Client) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("text", "StringInputNode", text_input='{"name": "{{ input }}"}'),
        node("json", "JsonParserNode", format="json"),
        node("seal", "CryptographyNode", action="encrypt", key="CNRY-passphrase", pbkdf2_iterations=1000,
             text_input="{{ json.output.name }}"),
        node("open", "CryptographyNode", action="decrypt", key="CNRY-passphrase", pbkdf2_iterations=1000),
        node("end", "EndNode"),
        edge("start", "text", "output", "input_data"),
        edge("text", "json", "output", "input"),
        edge("json", "seal", "output", "input_data"),
        edge("seal", "open", "output", "input_data"),
        edge("open", "end", "output", "target"),
    )  # fmt: skip

    made = await run(client, flow, "Ada")
    events = (await client.get(f"/runs/{made['id']}/events", headers={"Accept": "application/json"})).text

    assert made["output"] == "Ada", made
    assert "CNRY" not in json.dumps(made) + events


async def test_the_arrow_from_error_is_taken_when_a_message_cannot_be_decrypted(client: Client) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("open", "CryptographyNode", action="decrypt", key="k", pbkdf2_iterations=1000),
        node("good", "Template", template="opened"),
        node("bad", "Template", template="not opened"),
        edge("start", "open", "output", "input_data"),
        edge("open", "good", "output", "input"),
        edge("open", "bad", "error", "input"),
    )

    made = await run(client, flow, "junk")

    assert made["status"] == "succeeded"
    assert "not opened" in json.dumps(made["output"])


async def test_a_tool_that_is_not_supported_says_so_by_name(client: Client) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("model", "OpenAIChat", api_key="sk-CNRY", base_url="http://127.0.0.1:1/v1"),
        node("mark", "MarkItDownTool", bucket_name="b", object_key="k", credential_id="c", llm_model="m"),
        node("agent", "Agent"),
        edge("start", "agent"),
        edge("model", "agent", "output", "llm"),
        edge("mark", "agent", "tool", "tools"),
    )

    made = await run(client, flow, "x")

    assert made["error"]["code"] == "not_supported"
    assert "DocumentLoader" in made["error"]["message"]


async def test_a_large_text_is_split_and_carried_through(client: Client, tmp_path: Path) -> None:
    text = "\n\n".join(f"Paragraph {n} " + "word " * 50 for n in range(4_000))
    id = await uploaded(client, "large.txt", text.encode())
    flow = drawing(
        node("load", "DocumentLoader", files=[id]),
        node("split", "ChunkSplitter", chunk_size=1000, chunk_overlap=100),
        node("code", "StringInputNode", text_input="{{ split.stats.total_chunks }}"),
        edge("load", "split", "output", "documents"),
        edge("split", "code", "chunks", "input_data"),
    )

    made = await run(client, flow)

    assert made["status"] == "succeeded", made
    assert int(made["output"]) > 1000
