"""Give an agent the tools of an MCP server that is reached over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import msgspec

from nodes.contract import NodeError, NodeType, Nothing, RunContext, Tool, port, setting
from nodes.credentials import CredentialId, Credentials
from nodes.guarded import guarded2
from nodes.keys import as_key, trimmed
from nodes.mistakes import Keys
from nodes.texts import names_in
from nodes.tool_calls import MOST_FOR_MODEL, tool_name

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

MOST_TOOLS = 100
MOST_PAGES = 20
MOST_OF_DESCRIPTION = 2_000
_KEYS = ("token", "access_token", "api_key")
"""Fields of a credential of which the first is sent as a bearer token."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: Annotated[
        str,
        setting(
            "server_url",
            "endpoint",
            description="Of the server's streamable HTTP endpoint; left empty, the credential's 'base_url'.",
        ),
    ] = ""
    credential_id: CredentialId = None
    tools: Annotated[
        tuple[str, ...] | str,
        setting("allowed_tools", description="Names of the tools that the agent gets; left empty, all."),
    ] = ()
    timeout: Annotated[
        float, setting(description="Seconds for one call of a tool."), msgspec.Meta(ge=1, le=600)
    ] = 60


class Outputs(msgspec.Struct, frozen=True):
    tools: Annotated[Any, port("output", "tool", description="The tools, for an agent.")]


async def make(config: Config, bindings: Nothing, ctx: RunContext) -> list[Any]:
    """The server's tools. Each call is a session of its own: none has to outlive a step."""
    url, headers = trimmed(config.url), {}
    if config.credential_id:
        known = await ctx.door(Credentials).get(config.credential_id, host=_host(url) or None)
        url = url or known.get("base_url", "")
        headers = _authorization(known, ctx)
    if _wrong(url):
        raise NodeError(f"{ctx.name!r}: {_wrong(url)}", code="bad_url", is_final=True)
    server = _Server(url, headers, config.timeout, ctx)
    offered = await server.tools()
    return [_as_tool(each, server) for each in _chosen(offered, config, ctx)]


def _authorization(known: Mapping[str, str], ctx: RunContext) -> dict[str, str]:
    found = next((key for key in _KEYS if known.get(key)), None)
    if found is None:
        message = f"the credential has none of the fields {', '.join(_KEYS)}; it has: {', '.join(known)}"
        raise NodeError(message, code="missing_key", is_final=True)
    key = as_key(known[found], f"the field {found!r} of the credential of {ctx.name!r}")
    return {"Authorization": f"Bearer {key}"}


class _Server:
    """An MCP server, talked to by the run's guarded client."""

    def __init__(self, url: str, headers: Mapping[str, str], seconds: float, ctx: RunContext) -> None:
        self._url = url
        self._headers = headers
        self._seconds = seconds
        self._ctx = ctx

    async def tools(self) -> list[Any]:
        """What it offers, page by page."""
        found: list[Any] = []
        async with self._session() as client:
            cursor = None
            for _ in range(MOST_PAGES):
                page = await client.list_tools(cursor=cursor)
                found += page.tools
                cursor = page.next_cursor
                if not cursor or len(found) > MOST_TOOLS:
                    break
        if len(found) > MOST_TOOLS:
            message = f"the MCP server at {_host(self._url)} offers more than {MOST_TOOLS} tools"
            raise NodeError(message, code="mcp_failed", is_final=True)
        return found

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """What a tool answers, as a text for the model.

        Raises:
            NodeError: It failed.
        """
        async with self._session() as client:
            result = await client.call_tool(name, dict(arguments))
        text = _in_words(result)[:MOST_FOR_MODEL]
        if result.is_error:
            raise NodeError(text[:2000] or "the tool failed", code="tool_failed")
        return text

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Any]:
        import httpx2  # noqa: PLC0415  comes with mcp
        from mcp.client.client import Client  # noqa: PLC0415  slow to import
        from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415

        try:
            async with httpx2.AsyncClient(
                transport=guarded2(self._ctx.http),
                headers=dict(self._headers),
                timeout=self._seconds,
                trust_env=False,
            ) as http:
                transport = streamable_http_client(self._url, http_client=http)
                async with Client(transport, read_timeout_seconds=self._seconds, cache=None) as client:
                    yield client
        except Exception as exc:
            raise self._told(exc) from None

    def _told(self, exc: BaseException) -> NodeError:
        """The first failure of ours among what the client's tasks have raised, else its words."""
        every = list(_leaves(exc))
        own = next((each for each in every if isinstance(each, NodeError)), None)
        if own is not None:
            return own
        words = self._ctx.redact(f"{type(every[0]).__name__}: {every[0]}")[:500]
        return NodeError(
            f"the MCP server at {_host(self._url)} could not be used: {words}", code="mcp_failed"
        )


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    """An error, or those of a group, each followed by what caused it."""
    if isinstance(exc, BaseExceptionGroup):
        for each in exc.exceptions:
            yield from _leaves(each)
        return
    seen: BaseException | None = exc
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _chosen(offered: Sequence[Any], config: Config, ctx: RunContext) -> list[Any]:
    wanted = set(names_in(config.tools))
    if missing := sorted(wanted - {each.name for each in offered}):
        known = ", ".join(each.name for each in offered) or "none"
        message = f"{ctx.name!r}: the MCP server has no tool {missing[0][:100]!r}; it has: {known[:1000]}"
        raise NodeError(message, code="bad_config", is_final=True)
    return [each for each in offered if not wanted or each.name in wanted]


def _as_tool(offered: Any, server: _Server) -> BaseTool:
    from langchain_core.tools import StructuredTool  # noqa: PLC0415  loaded with the first agent

    async def call(**arguments: Any) -> str:
        return await server.call(offered.name, arguments)

    schema = dict(offered.input_schema or {})
    return StructuredTool(
        name=tool_name(offered.name, "tool"),
        description=(offered.description or offered.title or offered.name)[:MOST_OF_DESCRIPTION],
        args_schema={"type": "object", "properties": {}} | schema,
        coroutine=call,
    )


def _in_words(result: Any) -> str:
    """Texts as they are; of anything else, what it is."""
    parts = [each.text if each.type == "text" else f"[{each.type}]" for each in result.content]
    if not parts and result.structured_content is not None:
        return msgspec.json.encode(result.structured_content).decode()
    return "\n".join(parts)


def _wrong(url: str) -> str | None:
    try:
        parts = urlsplit(trimmed(url))
        fine = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        fine = False
    return (
        None if fine else "'url' must begin with http:// or https://; servers that are commands are not run"
    )


def _host(url: str) -> str:
    try:
        return urlsplit(trimmed(url)).hostname or ""
    except ValueError:
        return ""


def mistakes(config: Config) -> Iterator[tuple[str, Keys]]:
    if config.url and "{{" not in config.url and (why := _wrong(config.url)):
        yield why, ("url",)
    if not config.url and not config.credential_id:
        yield "'url' must say where the MCP server is", ()


def hosts(config: Config) -> list[str]:
    return [host] if (host := _host(config.url)) else []


NODE = NodeType.provider(
    make,
    "MCPTools",
    "Tools of an MCP server",
    gives=Tool,
    outputs=Outputs,
    aliases=("MCPToolsNode", "MCPClient", "MCP"),
    ignores=("transport",),
    imports=("mcp.client.client", "httpx2"),
    hosts=hosts,
    mistakes=mistakes,
    icon="blocks",
    examples=({"url": "https://mcp.example.com/mcp", "tools": ["search"]},),
)
