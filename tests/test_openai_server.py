from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from tests.openai_server import Fault, OpenAIServer, Reply, ToolCall

ROOT = Path(__file__).parents[1]
CLIENT: dict[str, Any] = {"model": "gpt-4o-mini", "api_key": "sk-secret", "max_retries": 0}
GONE = (httpx.TransportError, openai.APIConnectionError)


def model(server: OpenAIServer, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(**{**CLIENT, "base_url": server.url, **more})


@tool
def weather(city: str, days: int) -> str:
    """Look up the weather."""
    return f"{city}: rain for {days} days"


async def whole(stream: AsyncIterator[AIMessage]) -> AIMessageChunk:
    """The sum of what a model streams."""
    first, *more = [chunk async for chunk in stream if isinstance(chunk, AIMessageChunk)]
    return sum(more, first)


async def test_it_says_what_it_is_told_and_then_echoes() -> None:
    async with OpenAIServer("first", Reply("second one")) as server:
        said = [(await model(server).ainvoke(text)).content for text in ("a", "b", "c")]

    assert said == ["first", "second one", "echo: c"]


async def test_it_keeps_what_it_was_asked() -> None:
    async with OpenAIServer() as server:
        await model(server, temperature=0.5).ainvoke([("system", "be brief"), ("user", "hello")])

    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer sk-secret"
    assert request.body["temperature"] == 0.5
    assert server.chats[0]["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
    ]


async def test_it_answers_as_a_function_of_the_request() -> None:
    async with OpenAIServer(answer=lambda body: f"{len(body['messages'])} messages") as server:
        answer = await model(server).ainvoke([("system", "a"), ("user", "b")])

    assert answer.content == "2 messages"


async def test_a_stream_comes_in_its_tokens_with_the_usage_at_its_end() -> None:
    async with OpenAIServer(Reply("eins zwei  drei"), Reply(tokens=["ei", "ns"])) as server:
        words = [chunk async for chunk in model(server, stream_usage=True).astream("count to three")]
        pieces = [chunk.content async for chunk in model(server).astream("count")]

    whole = sum(words[1:], words[0])
    assert [chunk.content for chunk in words if chunk.content] == ["eins", " zwei", "  drei"]
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["input_tokens"] == 3
    assert whole.usage_metadata["output_tokens"] == 3
    assert whole.response_metadata["finish_reason"] == "stop"
    assert [piece for piece in pieces if piece] == ["ei", "ns"]


async def test_a_plain_answer_has_its_usage_too() -> None:
    async with OpenAIServer("three words more") as server:
        answer = await model(server).ainvoke("say it")

    assert isinstance(answer, AIMessage) and answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] == 5
    assert answer.response_metadata["finish_reason"] == "stop"


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_are_called_and_their_results_come_back(streamed: bool) -> None:
    wanted = (
        ToolCall("weather", {"city": "Köln", "days": 3}),
        ToolCall("weather", {"city": "Ulm", "days": 1}),
    )
    async with OpenAIServer(Reply(tool_calls=wanted), "take an umbrella") as server:
        bound = model(server).bind_tools([weather])
        asked: AIMessage = (
            await whole(bound.astream("weather?")) if streamed else await bound.ainvoke("weather?")
        )
        results: list[ToolMessage] = [await weather.ainvoke(call) for call in asked.tool_calls]
        answer = await bound.ainvoke([("user", "weather?"), asked, *results])

    assert [(call["name"], call["args"], call["id"]) for call in asked.tool_calls] == [
        ("weather", {"city": "Köln", "days": 3}, "call_1"),
        ("weather", {"city": "Ulm", "days": 1}, "call_2"),
    ]
    assert asked.response_metadata["finish_reason"] == "tool_calls"
    assert answer.content == "take an umbrella"
    assert [message["role"] for message in server.chats[1]["messages"]] == [
        "user",
        "assistant",
        "tool",
        "tool",
    ]
    assert server.chats[0]["tools"][0]["function"]["name"] == "weather"


async def test_a_tool_call_may_have_arguments_that_are_no_json() -> None:
    async with OpenAIServer(Reply(tool_calls=[ToolCall("weather", '{"city": ')])) as server:
        answer = await model(server).bind_tools([weather]).ainvoke("weather?")

    assert isinstance(answer, AIMessage)
    assert [call["args"] for call in answer.invalid_tool_calls] == ['{"city": ']


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (401, openai.AuthenticationError, "invalid_api_key"),
        (429, openai.RateLimitError, "rate_limit_exceeded"),
        (500, openai.InternalServerError, None),
    ],
)
async def test_errors_come_as_openai_words_them(
    status: int, error: type[openai.APIStatusError], code: str | None, streamed: bool
) -> None:
    async with OpenAIServer(Reply(status=status, headers={"Retry-After": "7"})) as server:
        with pytest.raises(error) as raised:
            await model(server, streaming=streamed).ainvoke("hello")

    assert raised.value.status_code == status
    assert raised.value.code == code
    assert raised.value.response.headers["retry-after"] == "7"


async def test_a_client_may_try_again_after_an_error() -> None:
    refused = Reply(status=429, headers={"Retry-After-Ms": "1"})
    async with OpenAIServer(refused, "at last") as server:
        answer = await model(server, max_retries=1).ainvoke("hello")

    assert answer.content == "at last"
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Fault.RESET, GONE), (Fault.CUT, None), (Fault.MALFORMED, ValueError), (Fault.EMPTY, ValueError)],
)
async def test_a_stream_goes_wrong_after_its_good_tokens(fault: Fault, error: Any) -> None:
    heard = []
    async with OpenAIServer(Reply("one two three", fault=fault, good=2)) as server:
        try:
            async for chunk in model(server).astream("count"):
                heard.append(chunk.content)
        except Exception as raised:
            assert error and isinstance(raised, error), repr(raised)
        else:
            assert error is None

    assert [piece for piece in heard if piece] == ([] if fault is Fault.EMPTY else ["one", " two"])


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_plain_answer_goes_wrong(fault: Fault) -> None:
    async with OpenAIServer(Reply("one two three", fault=fault), "sound again") as server:
        with pytest.raises((*GONE, ValueError, AttributeError, TypeError)):
            await model(server).ainvoke("count")
        after = await model(server).ainvoke("count")

    assert after.content == "sound again"


async def test_a_gate_holds_the_rest_back_until_the_test_opens_it() -> None:
    gate = asyncio.Event()
    async with OpenAIServer(Reply("now later", gate=gate, good=1)) as server:
        heard = []
        async for chunk in model(server).astream("when?"):
            if chunk.content:
                heard.append((chunk.content, gate.is_set()))
                gate.set()

    assert heard == [("now", False), (" later", True)]


async def test_requests_can_be_awaited_and_a_client_that_gives_up_is_noticed() -> None:
    async with OpenAIServer(Reply("never", gate=asyncio.Event())) as server:
        asking = asyncio.ensure_future(model(server).ainvoke("hello?"))
        (request,) = await server.arrived(1)
        asking.cancel()
        await server.hung_up()

        assert request.hung_up
        assert asking.cancelled() or asking.cancelling()
        with pytest.raises(AssertionError, match=r"waited 0.01 s for 2 requests; so far: \['POST /v1/chat"):
            await server.arrived(2, seconds=0.01)
        await asyncio.gather(asking, return_exceptions=True)


async def test_a_delay_makes_the_tokens_slow() -> None:
    loop = asyncio.get_running_loop()
    async with OpenAIServer(Reply("a b c", delay=0.02), Reply("a b c", delay=0.02)) as server:
        began = loop.time()
        _ = [chunk async for chunk in model(server).astream("slowly")]
        streamed = loop.time()
        await model(server).ainvoke("slowly")

    assert streamed - began >= 0.06
    assert loop.time() - streamed >= 0.06


async def test_many_clients_are_served_at_once() -> None:
    gate = asyncio.Event()
    async with OpenAIServer(answer=lambda body: Reply(body["messages"][0]["content"], gate=gate)) as server:
        asking = asyncio.gather(*(model(server).ainvoke(str(number)) for number in range(20)))
        await server.arrived(20)
        gate.set()
        answers = await asking

    assert [answer.content for answer in answers] == [str(number) for number in range(20)]


async def test_one_connection_carries_many_requests() -> None:
    async with OpenAIServer(Reply(tokens=["a", "b"])) as server, httpx.AsyncClient() as client:
        ask = {"messages": [{"role": "user", "content": "hi"}]}
        first = await client.post(f"{server.url}/chat/completions", json={**ask, "stream": True})
        stream = first.extensions["network_stream"]
        second = await client.post(f"{server.url}/chat/completions", json=ask)

        assert second.extensions["network_stream"] is stream
    assert first.text.endswith("data: [DONE]\n\n")
    assert second.json()["choices"][0]["message"]["content"] == "echo: hi"


async def test_it_lists_its_models_and_knows_no_other_path() -> None:
    async with (
        OpenAIServer(models=["tiny", "huge"]) as server,
        openai.AsyncOpenAI(base_url=server.url, api_key="sk-secret", max_retries=0) as client,
    ):
        models = [found.id async for found in client.models.list()]
        with pytest.raises(openai.NotFoundError, match="Unknown request URL: POST /v1/embeddings"):
            await client.embeddings.create(model="tiny", input="hello")
        with pytest.raises(openai.BadRequestError, match="'messages'"):
            await client.post("/chat/completions", cast_to=object, body={})

    assert models == ["tiny", "huge"]
    assert server.chats == [{}]


async def test_an_answer_function_that_fails_fails_the_test() -> None:
    with pytest.raises(KeyError, match="surprise"):
        async with OpenAIServer(answer=lambda body: body["surprise"]) as server:
            with pytest.raises(GONE):
                await model(server).ainvoke("hello")


async def test_it_runs_by_itself() -> None:
    command = [sys.executable, "-m", "tests.openai_server", "--delay", "0.001", "--reply", "all is well"]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        url = (await asyncio.wait_for(process.stdout.readline(), 10)).decode().strip()
        async with httpx.AsyncClient() as client:
            answer = await ChatOpenAI(**{**CLIENT, "base_url": url, "http_async_client": client}).ainvoke(
                "well?"
            )
    finally:
        process.send_signal(signal.SIGTERM)
        code = await process.wait()

    assert answer.content == "all is well"
    assert code == 0
