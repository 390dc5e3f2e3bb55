"""Let an agent search the web with Tavily."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from nodes.contract import NodeError, NodeType, Nothing, RunContext, Tool, port, setting
from nodes.credentials import CredentialId
from nodes.mistakes import Mistakes
from nodes.tavily import Search, access, as_text, domains, host_of, search


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    credential_id: CredentialId = None
    tavily_api_key: Annotated[
        str,
        setting("api_key", secret=True, description="Of Tavily; left empty, the operator's is used, if any."),
    ] = ""
    max_results: Annotated[
        int, setting("maxResults", description="The most results."), msgspec.Meta(ge=1, le=20)
    ] = 5
    search_depth: Annotated[
        Literal["basic", "moderate", "advanced"],
        setting(
            "search_type",
            "searchDepth",
            description="How much trouble is taken; advanced costs more. 'moderate' is the same as basic.",
        ),
    ] = "basic"
    topic: Annotated[Literal["general", "news", "finance"], setting(description="What is searched.")] = (
        "general"
    )
    include_domains: Annotated[
        list[str] | str,
        setting("includeDomains", description="Only pages of these, with commas in between: example.com."),
    ] = ""
    exclude_domains: Annotated[
        list[str] | str, setting("excludeDomains", description="No pages of these, with commas in between.")
    ] = ""
    include_answer: Annotated[
        bool, setting("includeAnswer", description="Whether Tavily writes a short answer, too.")
    ] = True
    include_raw_content: Annotated[
        bool, setting("includeRawContent", description="Whether results hold the pages' whole text.")
    ] = False
    include_images: Annotated[
        bool, setting("includeImages", description="Whether images are searched for, too.")
    ] = False
    timeout: Annotated[float, setting(description="Seconds for one search."), msgspec.Meta(ge=1, le=300)] = (
        30.0
    )
    base_url: Annotated[
        str | None,
        setting("tavily_base_url", description="A server that speaks as Tavily does, in place of its own."),
    ] = None

    def __post_init__(self) -> None:
        wrong = []
        for name in ("include_domains", "exclude_domains"):
            given = getattr(self, name)
            if given is None or "{{" in str(given):
                continue
            try:
                domains(given)
            except NodeError as exc:
                wrong.append((exc.message, (name,)))
        if wrong:
            raise Mistakes(wrong)


class Outputs(msgspec.Struct, frozen=True):
    search_tool: Annotated[Any, port("output", "tool", description="The tool, for an agent.")]


async def make(config: Config, bindings: Nothing, ctx: RunContext) -> Any:
    """A LangChain tool; nothing is searched before a model calls it."""
    from langchain_core.tools import StructuredTool  # noqa: PLC0415  loaded with the first agent

    key, address = await access(config.credential_id, config.tavily_api_key, config.base_url, ctx)
    how = Search(
        key,
        address,
        max_results=config.max_results,
        search_depth="advanced" if config.search_depth == "advanced" else "basic",
        include_domains=domains(config.include_domains),
        exclude_domains=domains(config.exclude_domains),
        include_answer=config.include_answer,
        include_raw_content=config.include_raw_content,
        include_images=config.include_images,
        topic=config.topic,
        timeout=config.timeout,
    )

    async def tavily_search(query: str) -> str:
        try:
            return as_text(await search(ctx.http, how, query))
        except NodeError as failed:
            return f"The search failed: {failed.message}"

    return StructuredTool.from_function(
        coroutine=tavily_search,
        name="tavily_search",
        description="Search the web. Use it for current events and facts that you do not know for certain.",
    )


def hosts(config: Config) -> list[str]:
    return host_of(config.base_url)


NODE = NodeType.provider(
    make,
    "TavilySearch",
    "Tavily web search",
    gives=Tool,
    falls_back=True,
    outputs=Outputs,
    aliases=("TavilySearchNode", "TavilyWebSearch"),
    imports=("langchain_core.tools",),
    hosts=hosts,
    icon="search",
    examples=(
        {"max_results": 5},
        {"search_depth": "advanced", "include_domains": "example.com, example.org"},
    ),
)
