"""The chat models of other providers: real clients, local servers of their wire formats, one way out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx
import msgspec
import pytest

from flowserver.outbound import outbound_client
from graphs.acting import _own
from graphs.compile import Compiler
from nodes import extras, registry
from nodes.chat import anthropic_chat, google_chat, ollama_chat, openai_compatible
from nodes.contract import NodeError, NodeType, Nothing
from nodes.credentials import Credentials
from nodes.reasoning import Unreasoned, unreasoned
from tests import provider_servers as servers
from tests.nodes.contexts import context
from tests.openai_server import OpenAIServer
from tests.openai_server import Reply as Said
from tests.server import drawing, edge, node
from tests.web_server import Reply, WebServer, redirect

KEY = "sk-CNRY-models"
PIECES = ["Hel", "lo ", "Ada"]

Serve = Callable[[WebServer, list[str]], str]

MODELS: dict[str, tuple[NodeType, Serve, str]] = {
    "anthropic": (anthropic_chat.NODE, servers.anthropic, "authorization"),
    "google": (google_chat.NODE, servers.google, "x-goog-api-key"),
    "ollama": (ollama_chat.NODE, servers.ollama, "authorization"),
}


class Kept:
    """Credentials of a test."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values
        self.asked: list[tuple[str, str | None, str | None]] = []

    async def get(self, id: str, *, host: str | None = None, usual: str | None = None) -> Mapping[str, str]:
        self.asked.append((id, host, usual))
        return self.values


_clients: list[httpx.AsyncClient] = []


@pytest.fixture(autouse=True)
async def hung_up() -> AsyncIterator[None]:
    """Closes the clients that a test has made."""
    yield
    while _clients:
        await _clients.pop().aclose()


def way_out(allow: list[str]) -> httpx.AsyncClient:
    _clients.append(outbound_client(allow))
    return _clients[-1]


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as server:
        yield server


async def made(name: str, url: str, allow: list[str], **settings: Any) -> Any:
    node_type = MODELS[name][0]
    settings = {"base_url": url, "credential_id": "c", "max_retries": 0} | settings
    if name == "ollama":
        del settings["max_retries"]
    config = msgspec.convert(settings, node_type.config)
    ctx = context(http=way_out(allow), doors={Credentials: Kept({"api_key": KEY})})
    return await node_type.act(config, Nothing(), ctx)


@pytest.mark.parametrize("name", MODELS)
async def test_a_model_answers_as_a_whole_and_in_pieces_with_its_usage(name: str, web: WebServer) -> None:
    _, serve, header = MODELS[name]
    settings = {"model": "claude-haiku-4-5"} if name == "anthropic" else {}
    model = await made(name, serve(web, PIECES), [web.door], temperature=0.5, max_tokens=50, **settings)

    whole = await model.ainvoke("hi")
    pieces = [chunk async for chunk in model.astream("hi")]

    assert whole.text == "Hello Ada"
    assert [text for each in pieces if (text := each.text)] == PIECES
    assert whole.usage_metadata["input_tokens"] == 7
    assert all(KEY in request.headers[header] for request in web.requests)
    assert len(web.requests) == 2


@pytest.mark.parametrize("name", MODELS)
async def test_a_model_goes_nowhere_that_the_guard_forbids(name: str, web: WebServer) -> None:
    model = await made(name, MODELS[name][1](web, PIECES), [])

    for call in (model.ainvoke("hi"), anext(model.astream("hi"))):
        with pytest.raises(Exception) as failed:
            await call
        assert _own(failed.value).code == "url_not_allowed"
        assert KEY not in str(failed.value)
    assert web.requests == []


@pytest.mark.parametrize("name", MODELS)
async def test_a_redirect_is_not_followed_to_what_the_guard_forbids(name: str, web: WebServer) -> None:
    async with WebServer() as inner:
        url = MODELS[name][1](web, PIECES)
        for path in ("/v1/messages", "/api/chat", "/v1/models/gemini-3.5-flash:generateContent"):
            web.on(path, redirect(inner.url(path), 307))
            inner.on(path, Reply(200))
        model = await made(name, url, [web.door])

        with pytest.raises(Exception):  # noqa: B017  each library has its own
            await model.ainvoke("hi")

    assert inner.requests == []


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("status", [401, 429, 500])
async def test_a_refusal_is_an_error_without_the_key(name: str, status: int, web: WebServer) -> None:
    url = MODELS[name][1](web, PIECES)
    for path in ("/v1/messages", "/api/chat", "/v1/models/gemini-3.5-flash:generateContent"):
        web.on(path, Reply(status, b'{"error": {"type": "x", "message": "no", "code": 1, "status": "X"}}'))
    model = await made(name, url, [web.door])

    with pytest.raises(Exception) as failed:
        await model.ainvoke("hi")

    assert KEY not in str(failed.value)
    assert len(web.requests) == 1


@pytest.mark.parametrize("name", MODELS)
async def test_nothing_of_the_servers_environment_is_sent(
    name: str, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in (
        *("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY", "OLLAMA_API_KEY"),
        *("OPENAI_API_KEY",),
    ):
        monkeypatch.setenv(variable, "sk-operators-own")
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "ANTHROPIC_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    url = MODELS[name][1](web, PIECES)
    settings = {"credential_id": None} if name == "ollama" else {}

    await (await made(name, url, [web.door], **settings)).ainvoke("hi")

    assert "sk-operators-own" not in str(web.requests)


@pytest.mark.parametrize("name", ["anthropic", "google"])
async def test_a_missing_key_is_said_before_anything_is_sent(
    name: str, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-operators-own")
    monkeypatch.setenv("GOOGLE_API_KEY", "sk-operators-own")

    with pytest.raises(NodeError, match="has no API key"):
        await made(name, web.url(""), [web.door], credential_id=None)


@pytest.mark.parametrize("name", MODELS)
def test_a_package_that_is_missing_is_named_when_the_drawing_is_checked(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "_is_installed", lambda package: False)
    flow = drawing(
        node("model", MODELS[name][0].name, api_key="k"),
        node("agent", "Agent"),
        edge("model", "agent", "llm", "llm"),
    )

    problems = Compiler(registry.discover()).check(flow).problems

    assert next(f"flowserver[{name}]" in each.message for each in problems if each.where == "model")


async def test_anthropic_models_call_tools(web: WebServer) -> None:
    url = servers.anthropic(web, ["wait"], {"name": "look", "input": {"at": "x"}})
    model = await made("anthropic", url, [web.door])

    reply = await model.bind_tools([{"name": "look", "input_schema": {"type": "object"}}]).ainvoke("hi")

    assert reply.tool_calls[0]["args"] == {"at": "x"}


# OpenAI-compatible servers


async def compatible(openai: OpenAIServer, known: Mapping[str, str] | None = None, **settings: Any) -> Any:
    config = msgspec.convert(settings, openai_compatible.Config)
    kept = Kept(known or {})
    ctx = context(http=way_out(["127.0.0.1"]), doors={Credentials: kept})
    return await openai_compatible.make(config, Nothing(), ctx)


async def test_a_compatible_server_is_described_by_the_credential_alone() -> None:
    async with OpenAIServer("hello") as openai:
        known = {"api_key": KEY, "base_url": openai.url, "model": "llama"}
        model = await compatible(openai, known, credential_id="c", temperature=0.7, max_tokens=4096)

        assert (await model.ainvoke("hi")).text == "hello"

    body = openai.chats[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("llama", 4096, 0.7)
    assert openai.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("extra", ['{"top_k": 5, "chat_template_kwargs": {"x": 1}}', {"top_k": 5}])
async def test_extra_body_parameters_join_the_body(extra: Any) -> None:
    async with OpenAIServer("hello") as openai:
        model = await compatible(openai, base_url=openai.url, model="m", extra_body_params=extra)
        await model.ainvoke("hi")

    assert openai.chats[0]["top_k"] == 5
    assert openai.chats[0]["messages"][-1]["content"] == "hi"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"extra_body_params": "{oops"}, "not a JSON object"),
        ({"extra_body_params": "[1]"}, "not a JSON object"),
        ({"extra_body_params": '{"messages": []}'}, "may not set 'messages'"),
        ({"extra_body_params": '{"model": "x"}'}, "may not set 'model'"),
        ({"verify_ssl": False}, "always verified"),
        ({"base_url": ""}, "must say where the model is"),
    ],
)
def test_what_no_model_could_be_made_of_is_said_before_a_run(settings: dict[str, Any], words: str) -> None:
    config = msgspec.convert({"base_url": "http://x", "model": "m"} | settings, openai_compatible.Config)

    assert any(words in message for message, _ in openai_compatible.mistakes(config))


async def test_a_model_without_address_or_name_is_refused() -> None:
    async with OpenAIServer() as openai:
        with pytest.raises(NodeError, match="'base_url'"):
            await compatible(openai, {"api_key": KEY}, credential_id="c", model="m")
        with pytest.raises(NodeError, match="'model'"):
            await compatible(openai, base_url=openai.url)


async def test_thoughts_are_stripped_whole_and_streamed() -> None:
    tokens = ["<th", "ink>so", " the user", "</thi", "nk>\n\nHel", "lo <", "b>!"]
    async with OpenAIServer(Said(tokens=tokens), Said(tokens=tokens)) as openai:
        model = await compatible(openai, base_url=openai.url, model="m", strip_reasoning=True)

        whole = await model.ainvoke("hi")
        pieces = [chunk.text async for chunk in model.astream("hi")]

    assert whole.text == "".join(pieces) == "Hello <b>!"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("<think>x</think>y", "y"),
        ("<THINK>x</Think>  y", "y"),
        ("a<think>x</think>b<reasoning>z</reasoning>c", "abc"),
        ("<think>never closed", ""),
        ("1 < 2 <thin", "1 < 2 <thin"),
        ("a <thinker> b", "a <thinker> b"),
    ],
)
def test_however_a_text_is_cut_its_thoughts_are_not_in_it(text: str, expected: str) -> None:
    assert unreasoned(text) == expected
    for size in (1, 2, 3, 5, 7):
        taker = Unreasoned()
        pieces = [taker.feed(text[at : at + size]) for at in range(0, len(text), size)]
        assert "".join(pieces) + taker.end() == expected
