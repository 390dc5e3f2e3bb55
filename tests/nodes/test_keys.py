"""Keys as people paste them: trimmed wherever they come in, and refused with the name of their setting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest

from flowserver.outbound import outbound_client
from graphs.compile import Compiler
from nodes import registry
from nodes.chat import anthropic_chat, google_chat, ollama_chat, openai_chat, openai_compatible
from nodes.contract import ModelDefaults, NodeError, Nothing, RunContext
from nodes.credentials import Credentials
from nodes.integration import mcp_tools
from nodes.keys import as_key
from nodes.retrieval import cohere_reranker, openai_embeddings
from nodes.search_access import SearchAccess
from nodes.web import http_request, web_search
from tests.nodes.contexts import context
from tests.server import drawing, edge, node
from tests.web_server import Reply, WebServer

TYPED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "openai": (openai_chat, {"api_key": ...}, "the setting 'api_key' of"),
    "compatible": (openai_compatible, {"api_key": ..., "model": "m"}, "the setting 'api_key' of"),
    "anthropic": (anthropic_chat, {"api_key": ...}, "the setting 'api_key' of"),
    "google": (google_chat, {"api_key": ...}, "the setting 'api_key' of"),
    "embeddings": (openai_embeddings, {"api_key": ...}, "the setting 'api_key' of"),
    "cohere": (cohere_reranker, {"api_key": ...}, "the setting 'api_key' of"),
    "search": (web_search, {"tavily_api_key": ...}, "the setting 'tavily_api_key' of"),
    "request": (http_request, {"auth_type": "bearer", "auth_token": ...}, "the setting 'auth_token'"),
    "header": (http_request, {"auth_type": "api_key", "auth_token": ...}, "the setting 'auth_token'"),
}
KEPT: dict[str, Any] = {
    "openai": openai_chat,
    "compatible": openai_compatible,
    "anthropic": anthropic_chat,
    "google": google_chat,
    "ollama": ollama_chat,
    "embeddings": openai_embeddings,
    "cohere": cohere_reranker,
    "search": web_search,
    "mcp": mcp_tools,
}


class Kept:
    def __init__(self, **values: str) -> None:
        self.values = values

    async def get(self, id: str, *, host: str | None = None, usual: str | None = None) -> dict[str, str]:
        return self.values


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as server:
        yield server


@pytest.fixture
async def http(web: WebServer) -> AsyncIterator[httpx.AsyncClient]:
    async with outbound_client([web.door]) as client:
        yield client


async def use(module: Any, ctx: RunContext, web: WebServer, **drawn: Any) -> None:
    """Do what sends the key."""
    address = "url" if module in (http_request, mcp_tools) else "base_url"
    config = msgspec.convert({address: web.url("/"), **drawn}, module.Config)
    if hasattr(module, "Inputs") and module is not cohere_reranker:
        await module.run(config, module.Inputs(("hello",)), ctx)
        return
    made = await module.NODE.act(config, Nothing(), ctx)
    if module is openai_embeddings:
        await made.embeddings.aembed_query("hello")
    elif module is cohere_reranker:
        await made.rerank("hello", ["a"])
    elif module is not mcp_tools:
        await made.ainvoke("hello")


def sent(web: WebServer) -> str:
    """The key of the last request, wherever that carries it."""
    headers = web.requests[-1].headers
    found = next(
        headers[name] for name in ("authorization", "x-api-key", "x-goog-api-key") if name in headers
    )
    return found.removeprefix("Bearer ")


@pytest.mark.parametrize("name", TYPED)
async def test_a_typed_key_is_sent_without_what_was_copied_along(
    name: str, web: WebServer, http: httpx.AsyncClient
) -> None:
    module, settings, _ = TYPED[name]
    drawn = {key: " sk-test\r\n\u200b" if value is ... else value for key, value in settings.items()}

    with pytest.raises(Exception, match=r".*"):  # the server knows no path, and answers 404
        await use(module, context(http=http), web, **drawn)

    assert sent(web) == "sk-test"


@pytest.mark.parametrize("name", TYPED)
@pytest.mark.parametrize("key", ["sk-größe", "sk-\nX-Evil: 1", "sk-\u0661", "sk-\x7f"])
async def test_a_typed_key_with_another_character_is_refused_by_the_name_of_its_setting(
    name: str, key: str, web: WebServer, http: httpx.AsyncClient
) -> None:
    module, settings, words = TYPED[name]
    drawn = {name: key if value is ... else value for name, value in settings.items()}

    with pytest.raises(NodeError) as failed:
        await use(module, context(http=http), web, **drawn)

    assert (failed.value.code, web.requests) == ("bad_key", [])
    assert failed.value.message.startswith(words) and key not in failed.value.message


@pytest.mark.parametrize("name", KEPT)
async def test_a_kept_key_with_another_character_is_refused_by_the_name_of_its_field(
    name: str, web: WebServer, http: httpx.AsyncClient
) -> None:
    ctx = context(http=http, doors={Credentials: Kept(api_key="sk-größe", model="m")})

    with pytest.raises(NodeError, match="credential") as failed:
        await use(KEPT[name], ctx, web, credential_id="c")

    assert (failed.value.code, web.requests) == ("bad_key", [])


async def test_the_operators_keys_are_refused_by_the_name_of_their_variable(
    web: WebServer, http: httpx.AsyncClient
) -> None:
    url = web.url("")
    ctx = replace(
        context(http=http, doors={SearchAccess: SearchAccess("tvly-ö", url)}),
        models=ModelDefaults(url, "sk-ö"),
    )

    for module, variable in (
        (openai_chat, "FLOWSERVER_OPENAI_API_KEY"),
        (openai_embeddings, "FLOWSERVER_OPENAI_API_KEY"),
        (web_search, "FLOWSERVER_TAVILY_API_KEY"),
    ):
        with pytest.raises(NodeError, match=f"^{variable} cannot be sent"):
            await use(module, ctx, web, base_url=url)


async def test_headers_and_names_of_users_are_trimmed(web: WebServer, http: httpx.AsyncClient) -> None:
    web.on("/", Reply())

    await use(
        http_request,
        context(http=http),
        web,
        headers={"X-Token\n": "\tabc\r\n", "X-Name": "Grüße"},
        auth_type="basic",
        auth_username=" ada\n",
        auth_password=" secret \n",
    )

    headers = web.requests[-1].headers
    assert headers["x-token"] == "abc"
    assert headers["x-name"] == "Grüße".encode().decode("latin-1")
    assert headers["authorization"] == httpx.BasicAuth("ada", " secret ")._auth_header


@pytest.mark.parametrize("value", ["a\nb", "half \ud800"])
async def test_a_header_that_cannot_be_sent_is_named(
    value: str, web: WebServer, http: httpx.AsyncClient
) -> None:
    with pytest.raises(NodeError, match="the header 'X-Token'"):
        await use(http_request, context(http=http), web, headers={"X-Token": value})


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("sk-ö-1", "its character 4 of 6 is 'ö'"),
        ("sk\n1", "its character 3 of 4 is a line break"),
        ("sk\u200b1", r"its character 3 of 4 is U\+200B"),
    ],
)
def test_the_place_of_the_character_is_told(key: str, words: str) -> None:
    with pytest.raises(
        NodeError, match=f"the key cannot be sent: {words}; a key is made of ASCII characters"
    ):
        as_key(key, "the key")


def test_a_key_is_a_secret_as_it_was_typed_and_as_it_is_sent() -> None:
    flow = drawing(
        node("model", "OpenAIChat", api_key="sk-secret\n"),
        node("agent", "Agent"),
        edge("model", "agent", "output", "llm"),
    )

    compiled = Compiler(registry.discover()).compile(flow)

    assert compiled.plan.secrets == {"sk-secret", "sk-secret\n"}
