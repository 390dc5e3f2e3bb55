"""Web search against a local server that speaks as Tavily does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from flowserver.app import create_app
from flowserver.outbound import outbound_client
from flowserver.settings import Settings
from nodes.contract import NodeError, Nothing, RunContext
from nodes.search_access import SearchAccess
from nodes.tavily import domains
from nodes.web import tavily_search, web_search
from tests.nodes.contexts import context
from tests.nodes.settings import assert_examples_fit, configured, told_of
from tests.openai_server import OpenAIServer, ToolCall
from tests.openai_server import Reply as ModelReply
from tests.server import KEY, drawing, edge, node, serving
from tests.web_server import Reply, Request, WebServer, reply_json

FOUND = {
    "query": "q",
    "answer": "Forty-two.",
    "images": ["https://example.com/i.png"],
    "results": [
        {
            "title": "One",
            "url": "https://example.com/1",
            "content": "First text",
            "score": 0.9,
            "raw_content": None,
        },
        {"title": "Two", "url": "https://example.com/2", "content": "Second text", "score": 0.5},
    ],
    "response_time": 0.1,
}


def answer(request: Request) -> Reply:
    """As Tavily does: it wants the key as a bearer token, and gives what is asked for."""
    if request.headers.get("authorization") not in ("Bearer tvly-drawn", "Bearer tvly-operator"):
        return reply_json({"detail": {"error": "Unauthorized: missing or invalid API key."}}, 401)
    asked = request.json
    found = {**FOUND, "results": FOUND["results"][: asked["max_results"]]}  # type: ignore[index]
    if not asked["include_answer"]:
        found["answer"] = None
    return reply_json(found)


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as server:
        server.on("/search", answer)
        yield server


@pytest.fixture
async def ctx(web: WebServer) -> AsyncIterator[RunContext]:
    async with outbound_client([web.door]) as http:
        yield context(http=http)


async def made(ctx: RunContext, web: WebServer, **drawn: Any) -> Any:
    config = configured(
        tavily_search.NODE, **{"tavily_api_key": "tvly-drawn", "base_url": web.url("")} | drawn
    )
    return await tavily_search.make(config, Nothing(), ctx)


def test_their_examples_fit() -> None:
    assert_examples_fit(tavily_search.NODE)
    assert_examples_fit(web_search.NODE)


async def test_the_tool_searches_as_it_is_told(ctx: RunContext, web: WebServer) -> None:
    tool = await made(
        ctx,
        web,
        max_results="1",
        search_depth="advanced",
        include_domains="Example.com, https://example.org/path",
        exclude_domains=["bad.example"],
        include_raw_content="true",
        include_images=True,
    )

    assert web.requests == []  # making it asks nobody
    text = await tool.ainvoke({"query": "what is the answer?"})

    assert tool.name == "tavily_search"
    assert text == (
        "Answer: Forty-two.\n\n[1] One\nhttps://example.com/1\nFirst text\n\nImages:\nhttps://example.com/i.png"
    )
    assert web.requests[0].json == {
        "query": "what is the answer?",
        "topic": "general",
        "search_depth": "advanced",
        "max_results": 1,
        "include_answer": True,
        "include_raw_content": True,
        "include_images": True,
        "include_domains": ["example.com", "example.org"],
        "exclude_domains": ["bad.example"],
    }


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(401), "401: it does not accept the key"),
        (Reply(429), "429: too many searches"),
        (Reply(500, b"CNRY internals"), "answered 500"),
        (Reply(200, b"not json"), "no search result"),
        (reply_json([]), "no search result"),
        (reply_json({"results": "x"}), "no search result"),
        (Reply(200, b"[" * 100_000), "no search result"),
        (Reply(302, headers={"Location": "http://10.0.0.1/"}), "answered 302"),
    ],
)
async def test_a_search_that_fails_is_told_to_the_model(
    ctx: RunContext, web: WebServer, reply: Reply, words: str
) -> None:
    web.on("/search", reply)

    text = await (await made(ctx, web)).ainvoke({"query": "x"})

    assert text.startswith("The search failed: ")
    assert words in text
    assert "CNRY" not in text
    assert "tvly" not in text


async def test_strange_results_are_read_as_far_as_they_can_be(ctx: RunContext, web: WebServer) -> None:
    web.on("/search", reply_json({"results": [None, 7, {}, {"content": {"a": 1}}], "answer": {"x": 1}}))

    assert "[2]" in await (await made(ctx, web)).ainvoke({"query": "x"})
    web.on("/search", reply_json({"results": []}))
    assert (await (await made(ctx, web)).ainvoke({"query": "x"})) == "Nothing was found."
    assert "empty" in await (await made(ctx, web)).ainvoke({"query": "  "})
    await (await made(ctx, web)).ainvoke({"query": "y" * 100_000})
    assert len(web.requests[-1].json["query"]) == 400


async def test_a_search_inside_the_house_is_refused(ctx: RunContext, web: WebServer) -> None:
    assert "not allowed" in await (await made(ctx, web, base_url="http://169.254.169.254")).ainvoke(
        {"query": "x"}
    )


async def test_a_key_comes_from_the_drawing_or_from_the_operator_and_goes_to_nobody_else(
    web: WebServer,
) -> None:
    ours = context(doors={SearchAccess: SearchAccess("tvly-operator", "https://search.example")})

    await tavily_search.make(configured(tavily_search.NODE), Nothing(), ours)
    for ctx, drawn in ((context(), {}), (ours, {"base_url": "https://evil.example"})):
        with pytest.raises(NodeError) as failed:
            await tavily_search.make(configured(tavily_search.NODE, **drawn), Nothing(), ctx)
        assert failed.value.code == "missing_key"
        assert "tvly" not in failed.value.message


@pytest.mark.parametrize("key", ["a\r\nX: y", "schlüssel"])
async def test_a_key_that_no_header_may_hold_is_refused(ctx: RunContext, web: WebServer, key: str) -> None:
    with pytest.raises(NodeError, match="the setting 'tavily_api_key'") as failed:
        await made(ctx, web, tavily_api_key=key)

    assert failed.value.code == "bad_key"
    assert key not in failed.value.message


async def test_the_step_gives_documents(ctx: RunContext, web: WebServer) -> None:
    config = configured(web_search.NODE, api_key="tvly-drawn", base_url=web.url(""), max_results=2)

    outputs = await web_search.run(config, web_search.Inputs(("what", "is it?")), ctx)

    assert outputs.answer == "Forty-two."
    assert outputs.documents[0] == {
        "page_content": "First text",
        "metadata": {"source": "https://example.com/1", "title": "One", "score": 0.9},
    }
    assert web.requests[0].json["query"] == "what\nis it?"
    with pytest.raises(NodeError) as failed:
        await web_search.run(config, web_search.Inputs(), ctx)
    assert failed.value.code == "missing_value"
    web.on("/search", Reply(401))
    with pytest.raises(NodeError) as failed:
        await web_search.run(config, web_search.Inputs(("x",)), ctx)
    assert (failed.value.code, failed.value.is_final) == ("http_status", True)


@pytest.mark.parametrize("wrong", ["no domain", "http://", "a b", "x", "a.b/../c d", ["ok.example", "?"]])
def test_what_is_no_domain_is_told_before_a_run(wrong: Any) -> None:
    for node_type in (tavily_search.NODE, web_search.NODE):
        found = told_of(node_type, include_domains=wrong)
        assert [severity for severity, _, _ in found] == ["error"]


def test_domains_are_read_in_every_way_that_people_write_them() -> None:
    assert domains("a.com, B.org\nhttps://c.net/path  *.d.com;") == ["a.com", "b.org", "c.net", "*.d.com"]
    assert domains(None) == domains("") == domains([]) == []


async def test_an_agent_searches_with_the_operators_key(tmp_path: Path, dsn: str, web: WebServer) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("model", "OpenAIChat"),
        node("search", "TavilySearch", max_results=1, search_type="basic", include_answer=True),
        node("agent", "Agent"),
        node("end", "EndNode"),
        edge("start", "agent", "output", "start"),
        edge("model", "agent", "output", "llm"),
        edge("search", "agent", "output", "tools"),
        edge("agent", "end", "output", "target"),
    )
    async with OpenAIServer() as openai:
        openai.reply(
            ModelReply(tool_calls=[ToolCall("tavily_search", {"query": "the answer"})]),
            ModelReply(tokens=["42"]),
        )
        settings = Settings(
            data_dir=tmp_path,
            api_key=KEY,
            openai_base_url=openai.url,
            openai_api_key="sk",
            tavily_api_key="tvly-operator",
            tavily_base_url=web.url(""),
        )
        async with serving(create_app(settings, dsn)) as client:
            run = (await client.post("/runs", json={"flow_data": flow, "input": "x"})).json()
            events = (
                await client.get(f"/runs/{run['id']}/events", headers={"Accept": "application/json"})
            ).text

    assert run["status"] == "succeeded", run
    assert [request.json["query"] for request in web.requests] == ["the answer"]
    assert "tvly" not in json.dumps(run) + events
