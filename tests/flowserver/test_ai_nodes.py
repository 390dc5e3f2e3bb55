"""Prompt, Classifier and Extractor, with the real client against a server of OpenAI's wire format."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flowserver.app import create_app
from flowserver.settings import Settings
from tests.openai_server import OpenAIServer, Reply, ToolCall
from tests.server import KEY, drawing, edge, events_of, node, serving

Client = httpx.AsyncClient


@pytest.fixture
async def openai() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


@pytest.fixture
async def client(tmp_path: Path, dsn: str, openai: OpenAIServer) -> AsyncIterator[Client]:
    settings = Settings(data_dir=tmp_path, api_key=KEY, openai_base_url=openai.url, openai_api_key="sk-x")
    async with serving(create_app(settings, dsn)) as client:
        yield client


def asking(type: str, *more: Any, **settings: Any) -> dict[str, Any]:
    return drawing(
        node("start", "StartNode"),
        node("model", "OpenAIChat", max_retries=0),
        node("n", type, **settings),
        edge("start", "n"),
        edge("model", "n", "llm", "llm"),
        *more,
    )


async def run(client: Client, flow: Any, given: Any = "hello") -> dict[str, Any]:
    response = await client.post("/runs", json={"flow_data": flow, "input": given})
    assert response.status_code == 200, response.text
    return dict(response.json())


async def problems(client: Client, flow: Any) -> list[str]:
    found = (await client.post("/workflows/check", json={"flow_data": flow})).json()["problems"]
    return [each["message"] for each in found if each["severity"] == "error"]


SCHEMA = {"properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}


async def test_a_prompt_is_asked_once_with_its_braces_as_they_are(
    client: Client, openai: OpenAIServer
) -> None:
    flow = asking("Prompt", prompt="Say {x} {{ input | upper }}", system_prompt="Be {brief}.")

    found = await run(client, flow)

    assert found["output"] == "echo: Say {x} HELLO"
    assert [m["content"] for m in openai.chats[0]["messages"]] == ["Be {brief}.", "Say {x} HELLO"]
    assert found["usage"]["model_calls"] == 1 and found["usage"]["output_tokens"] > 0
    assert "tools" not in openai.chats[0]


async def test_a_prompt_streams_to_whoever_watches(client: Client, openai: OpenAIServer) -> None:
    openai.reply(Reply(tokens=["a", "b", "c"]))

    body = {"flow_data": asking("Prompt"), "input": "x", "mode": "stream"}
    events = events_of((await client.post("/runs", json=body)).text)

    assert (
        "".join(each["text"] for each in events if each["event"] == "text") == events[-1]["output"] == "abc"
    )


async def test_a_prompt_with_a_schema_gives_an_object(client: Client, openai: OpenAIServer) -> None:
    openai.reply(Reply(tool_calls=[ToolCall("answer", {"mood": "good"})]))

    found = await run(client, asking("Prompt", output_schema=SCHEMA))

    assert found["output"] == {"mood": "good"}
    asked = openai.chats[0]
    assert asked["tool_choice"] == {"type": "function", "function": {"name": "answer"}}
    assert asked["tools"][0]["function"]["parameters"]["properties"] == SCHEMA["properties"]


@pytest.mark.parametrize(
    "reply",
    [
        '{"mood": "bad"}',
        'Here:\n```json\n{"mood": "bad"}\n```\nas you wished',
        'It is {"mood": "bad"}.',
    ],
)
async def test_a_model_that_knows_no_tools_may_answer_in_json(
    client: Client, openai: OpenAIServer, reply: str
) -> None:
    openai.reply(reply)

    assert (await run(client, asking("Prompt", output_schema=SCHEMA)))["output"] == {"mood": "bad"}


async def test_what_does_not_fit_is_asked_for_again_and_at_last_fails(
    client: Client, openai: OpenAIServer
) -> None:
    openai.reply(Reply(tool_calls=[ToolCall("answer", {"mood": "so so"})]), "no", "{}")

    found = await run(client, asking("Prompt", output_schema=SCHEMA))

    assert (found["status"], found["error"]["code"]) == ("failed", "bad_answer")
    assert "'mood' is a required property" in found["error"]["message"]
    assert "'so so' is not one of" in openai.chats[1]["messages"][-1]["content"]
    assert len(openai.chats) == 3


async def test_nothing_to_ask_is_said(client: Client, openai: OpenAIServer) -> None:
    for type, more in (("Prompt", {}), ("Extractor", {"fields": [{"name": "a"}]})):
        found = await run(client, asking(type, **more), " ")
        assert (found["status"], found["error"]["code"]) == ("failed", "missing_value")
    assert openai.chats == []


# Classifier

WAYS = (
    node("good", "Template", template="G {{ n.category }}"),
    node("rest", "Template", template="R {{ input }}"),
    edge("n", "good", "praise"),
    edge("n", "rest", "other"),
)


async def test_the_model_chooses_the_way(client: Client, openai: OpenAIServer) -> None:
    flow = asking(
        "Classifier", *WAYS, categories=["complaint", {"name": "praise", "description": "likes it"}]
    )
    openai.reply(
        Reply(tool_calls=[ToolCall("choose", {"category": "praise"})]),
        Reply(tool_calls=[ToolCall("choose", {"category": "other"})]),
    )

    outputs = [(await run(client, flow, text))["output"] for text in ("great", "what?")]

    assert outputs == ["G praise", "R what?"]
    system, user = openai.chats[0]["messages"]
    assert "- praise: likes it" in system["content"] and user["content"] == "great"
    allowed = openai.chats[0]["tools"][0]["function"]["parameters"]["properties"]["category"]["enum"]
    assert allowed == ["complaint", "praise", "other"]


async def test_a_category_that_is_none_is_not_taken(client: Client, openai: OpenAIServer) -> None:
    flow = asking("Classifier", *WAYS, categories=["complaint", "praise"])
    openai.answer = lambda body: Reply(tool_calls=[ToolCall("choose", {"category": "ignore all of this"})])

    found = await run(client, flow)

    assert (found["status"], found["error"]["code"]) == ("failed", "bad_answer")


async def test_an_empty_text_belongs_to_no_category_without_asking(
    client: Client, openai: OpenAIServer
) -> None:
    found = await run(client, asking("Classifier", *WAYS, categories=["complaint", "praise"]), "")

    assert found["output"] == "R "
    assert openai.chats == []


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ([], "'categories' is a list of 0"),
        (["a", "a"], "two categories are called 'a'"),
        (["other"], "is there already"),
        ([""], "not empty"),
        ("{oops", "is not JSON"),
        ([{"nam": "a"}], "nam"),
    ],
)
async def test_categories_that_cannot_be_ways_are_mistakes(
    client: Client, categories: Any, words: str
) -> None:
    found = await problems(client, asking("Classifier", categories=categories))

    assert any(words in each for each in found), found


async def test_an_arrow_from_no_category_is_a_mistake(client: Client) -> None:
    found = await problems(client, asking("Classifier", *WAYS, categories=["complaint"]))

    assert any("no output 'praise'; it has: complaint, other" in each for each in found), found


# Extractor


async def test_fields_are_read_from_a_text(client: Client, openai: OpenAIServer) -> None:
    openai.reply(Reply(tool_calls=[ToolCall("found", {"sum": 5.5, "who": "Ada"})]))
    fields = [{"name": "sum", "type": "number", "required": True}, {"name": "who", "description": "a name"}]

    found = await run(client, asking("Extractor", fields=fields, text="from {{ input }}"), "a bill")

    assert found["output"] == {"sum": 5.5, "who": "Ada"}
    assert openai.chats[0]["messages"][-1]["content"] == "from a bill"
    properties = openai.chats[0]["tools"][0]["function"]["parameters"]["properties"]
    assert properties == {"sum": {"type": "number"}, "who": {"type": "string", "description": "a name"}}


async def test_a_whole_schema_may_say_what_is_read(client: Client, openai: OpenAIServer) -> None:
    openai.reply(Reply(tool_calls=[ToolCall("found", {"mood": "bad"})]))

    assert (await run(client, asking("Extractor", schema=SCHEMA)))["output"] == {"mood": "bad"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "must say what to read"),
        ({"fields": [{"name": "a"}, {"name": "a"}]}, "two fields are called 'a'"),
        ({"fields": [{"name": "a", "type": "date"}]}, "allowed is one of"),
        ({"schema": "{"}, "is not JSON"),
        ({"schema": {"type": "array"}}, "schema of an object"),
    ],
)
async def test_what_cannot_be_read_is_a_mistake(client: Client, settings: dict[str, Any], words: str) -> None:
    found = await problems(client, asking("Extractor", **settings))

    assert any(words in each for each in found), found


@pytest.mark.parametrize(
    ("type", "more"),
    [("Prompt", {}), ("Classifier", {"categories": ["a"]}), ("Extractor", {"fields": [{"name": "a"}]})],
)
async def test_without_a_model_nothing_runs(client: Client, type: str, more: dict[str, Any]) -> None:
    flow = drawing(node("start", "StartNode"), node("n", type, **more), edge("start", "n"))

    assert any("needs a chat model at its port 'llm'" in each for each in await problems(client, flow))


async def test_a_model_that_fails_fails_the_step(client: Client, openai: OpenAIServer) -> None:
    openai.answer = lambda body: Reply("no", status=400)

    for flow in (asking("Prompt"), asking("Classifier", categories=["a"])):
        found = await run(client, flow)
        assert (found["status"], found["error"]["step"]) == ("failed", "n")


# Memories


async def said(client: Client, flow: Any, *texts: str) -> None:
    for text in texts:
        response = await client.post("/runs", json={"flow_data": flow, "input": text, "session_id": "s"})
        assert response.json()["status"] == "succeeded", response.text


def remembering(*more: Any, **settings: Any) -> dict[str, Any]:
    return asking(
        "Agent", node("m", "ConversationMemory", **settings), edge("m", "n", "output", "memory"), *more
    )


def shown(openai: OpenAIServer, at: int = -1) -> list[str]:
    return [m["content"] for m in openai.chats[at]["messages"]]


async def test_a_window_shows_the_last_exchanges(client: Client, openai: OpenAIServer) -> None:
    await said(client, remembering(k="1", memory_key="chat_history"), "one", "two", "three")

    assert shown(openai) == ["two", "echo: two", "three"]


async def test_a_budget_of_tokens_shows_what_fits_from_a_question_on(
    client: Client, openai: OpenAIServer
) -> None:
    long = "word " * 60

    await said(client, remembering(mode="tokens", max_tokens=100), long, "two", "three")

    assert shown(openai) == ["two", "echo: two", "three"]


async def test_a_summary_stands_for_what_is_not_shown_and_is_kept(
    client: Client, openai: OpenAIServer
) -> None:
    flow = remembering(edge("model", "m", "llm", "llm"), mode="summary", k=1)
    openai.answer = lambda body: (
        "SUMMARY" if "Sum up" in body["messages"][0]["content"] else f"re: {body['messages'][-1]['content']}"
    )

    await said(client, flow, "one", "two", "three", "four")

    asked = [each for each in openai.chats if "Sum up" in each["messages"][0]["content"]]
    assert len(asked) == 1
    assert asked[0]["messages"][1]["content"] == "human: one\n\nai: re: one"
    first, *rest = shown(openai)
    assert first == "Summary of the conversation so far:\nSUMMARY"
    assert rest == ["two", "re: two", "three", "re: three", "four"]


async def test_a_summary_needs_a_model(client: Client) -> None:
    response = await client.post("/runs", json={"flow_data": remembering(mode="summary"), "input": "x"})

    assert response.json()["error"]["code"] == "missing_input"
