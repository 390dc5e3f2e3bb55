"""Search the web with Tavily, and give what was found as documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.credentials import CredentialId
from nodes.document_values import document
from nodes.mistakes import Keys
from nodes.tavily import Search, access, domains, host_of, search
from nodes.texts import to_text, written_or_arrived


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    query: Annotated[
        str | UnsetType, setting(description="What to search for; left empty, what arrives.", left_empty=True)
    ] = UNSET
    credential_id: CredentialId = None
    tavily_api_key: Annotated[
        str,
        setting("api_key", secret=True, description="Of Tavily; left empty, the operator's is used, if any."),
    ] = ""
    max_results: Annotated[int, setting(description="The most results."), msgspec.Meta(ge=1, le=20)] = 5
    search_depth: Annotated[
        Literal["basic", "advanced"], setting(description="How much trouble is taken; advanced costs more.")
    ] = "basic"
    topic: Annotated[Literal["general", "news", "finance"], setting(description="What is searched.")] = (
        "general"
    )
    include_domains: Annotated[
        list[str] | str, setting(description="Only pages of these, with commas in between: example.com.")
    ] = ""
    exclude_domains: Annotated[
        list[str] | str, setting(description="No pages of these, with commas in between.")
    ] = ""
    include_raw_content: Annotated[
        bool, setting(description="Whether documents hold the pages' whole text, as far as Tavily has it.")
    ] = False
    base_url: Annotated[
        str | None, setting(description="A server that speaks as Tavily does, in place of its own.")
    ] = None


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[
        tuple[Any, ...], port("query", many=True, description="What to search for; several are joined.")
    ] = ()


class Outputs(msgspec.Struct, frozen=True):
    documents: Annotated[
        list[dict[str, Any]], port("output", description="A document per result, best first.")
    ]
    answer: Annotated[str, port(description="A short answer, if Tavily gave one.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    key, address = await access(config.credential_id, config.tavily_api_key, config.base_url, ctx)
    how = Search(
        key,
        address,
        max_results=config.max_results,
        search_depth=config.search_depth,
        include_domains=domains(config.include_domains),
        exclude_domains=domains(config.exclude_domains),
        include_raw_content=config.include_raw_content,
        topic=config.topic,
    )
    found = await search(ctx.http, how, written_or_arrived(config.query, inputs.input, between="\n"))
    answer = found.get("answer")
    return Outputs([_document(each) for each in found["results"]], answer if isinstance(answer, str) else "")


def _document(result: dict[str, Any]) -> dict[str, Any]:
    text = result.get("raw_content") or result.get("content") or ""
    facts = {"source": result.get("url"), "title": result.get("title"), "score": result.get("score")}
    return document(to_text(text), {key: value for key, value in facts.items() if value is not None})


def mistakes(config: Config) -> Iterator[tuple[str, Keys]]:
    """Domains that are none."""
    for name in ("include_domains", "exclude_domains"):
        given = getattr(config, name)
        if given is not None and "{{" not in str(given):
            try:
                domains(given)
            except NodeError as wrong:
                yield wrong.message, (name,)


def hosts(config: Config) -> list[str]:
    return host_of(config.base_url)


NODE = NodeType.step(
    run,
    "WebSearch",
    "Search the web",
    effect=True,
    mistakes=mistakes,
    hosts=hosts,
    icon="search",
    examples=(
        {"query": "{{ input }}"},
        {"query": "postgres release notes", "include_domains": "postgresql.org"},
    ),
)
