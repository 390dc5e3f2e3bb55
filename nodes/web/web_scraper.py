"""Read web pages, and the files behind addresses, as documents."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import msgspec

from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.document_values import document
from nodes.mistakes import Keys
from nodes.reading import Reader
from nodes.web_pages import MOST_ADDRESSES, USER_AGENT, Fetcher, addresses_in, at_most, shown, with_scheme

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

_NO_ARTICLE = "nav,footer,header,script,style,aside,noscript,form"
_MOST_FOR_MODEL = 50_000


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    urls: Annotated[
        list[str] | str,
        setting(
            "url",
            description="The addresses to read: a list, or a text with commas or line breaks in between. "
            "Without a scheme, https:// is meant. Others may arrive.",
        ),
    ] = ""
    user_agent: Annotated[str, setting("userAgent", description="What the request says it comes from.")] = (
        USER_AGENT
    )
    remove_selectors: Annotated[
        list[str] | str,
        setting(
            "removeSelectors",
            description="CSS selectors of what is left out, with commas in between. Left empty: navigation, "
            "heads, feet and forms; 'none' leaves nothing out.",
        ),
    ] = _NO_ARTICLE
    only_article: Annotated[
        bool, setting(description="Whether what is around a page's article is left out, where it has one.")
    ] = True
    min_content_length: Annotated[
        int,
        setting("minContentLength", description="Pages with fewer characters of text are left out."),
        msgspec.Meta(ge=0, le=1_000_000),
    ] = 100
    max_concurrent: Annotated[
        int,
        setting("maxConcurrent", description="How many pages are read at the same time."),
        msgspec.Meta(ge=1, le=20),
    ] = 5
    timeout_seconds: Annotated[
        float,
        setting("timeoutSeconds", description="Seconds for one attempt at a page."),
        msgspec.Meta(ge=0.1, le=600),
    ] = 30.0
    retry_attempts: Annotated[
        int, setting("retryAttempts", description="Attempts after the first one."), msgspec.Meta(ge=0, le=10)
    ] = 3
    max_size_mb: Annotated[
        float, setting(description="Pages with more megabytes fail."), msgspec.Meta(gt=0, le=100)
    ] = 20.0
    respect_robots: Annotated[
        bool, setting(description="Whether pages are left alone that robots.txt keeps robots from.")
    ] = True
    tavily_api_key: Annotated[
        str, setting(secret=True, description="Of older drawings, without effect: pages are read directly.")
    ] = ""


class Inputs(msgspec.Struct, frozen=True):
    input_urls: Annotated[
        tuple[Any, ...],
        port(
            "execute",
            "input",
            "urls",
            many=True,
            description="More addresses: texts, lists, or objects with 'urls', 'url', 'source' or 'link'.",
        ),
    ] = ()


class Outputs(msgspec.Struct, frozen=True):
    documents: Annotated[
        list[dict[str, Any]],
        port("output", description="A document per page, in the order of the addresses."),
    ]
    errors: Annotated[list[dict[str, str]], port(description="The pages that gave none: url, code, message.")]
    stats: Annotated[dict[str, int], port(description="How many addresses, documents, errors, characters.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    addresses = _addresses(config, inputs)
    fetcher = _fetcher(config, ctx)

    async def read(address: str) -> list[dict[str, Any]]:
        return await _read(address, config, fetcher, ctx)

    results = await at_most(config.max_concurrent, addresses, read)
    documents: list[dict[str, Any]] = []
    errors: list[dict[str, str]] = []
    for address, result in zip(addresses, results, strict=True):
        if isinstance(result, NodeError):
            errors.append({"url": shown(address), "code": result.code, "message": result.message})
        else:
            documents += result
    if not documents:
        failed = [result for result in results if isinstance(result, NodeError)]
        more = f", and {len(errors) - 3} more" if len(errors) > 3 else ""
        told = "; ".join(f"{each['url']}: {each['message']}" for each in errors[:3])
        # One page that says why is that step's own failure.
        code = failed[0].code if len(failed) == 1 else "no_documents"
        message = f"no page gave a document ({told}{more})"
        raise NodeError(message, code=code, is_final=all(each.is_final for each in failed))
    characters = sum(len(each["page_content"]) for each in documents)
    stats = {"urls": len(addresses), "documents": len(documents), "errors": len(errors)}
    return Outputs(documents, errors, stats | {"characters": characters})


def _addresses(config: Config, inputs: Inputs) -> list[str]:
    found = list(dict.fromkeys([*_set(config), *addresses_in(inputs.input_urls)]))
    if not found:
        message = "there is no address: set 'urls', or let one arrive; an address is https://example.com/page"
        raise NodeError(message, code="missing_value", is_final=True)
    if len(found) > MOST_ADDRESSES:
        message = f"there are {len(found)} addresses; allowed are {MOST_ADDRESSES} in one step"
        raise NodeError(message, code="too_large", is_final=True)
    return found


def _set(config: Config) -> list[str]:
    """The addresses that are set; what looks like none is one all the same, and fails by name."""
    given = config.urls if isinstance(config.urls, list) else [config.urls]
    texts = [part.strip(" \t\"'[]") for each in given for part in re.split(r"[\n\r]+", each)]
    found = [list(addresses_in(text)) or [text] for text in texts if text]
    return [address for each in found for address in each]


def _fetcher(config: Config, ctx: RunContext) -> Fetcher:
    if re.search(r"[^\x20-\x7e]", config.user_agent):
        raise NodeError("'user_agent' has a character that no header may have", code="bad_header")
    return Fetcher(
        ctx.http,
        config.user_agent or USER_AGENT,
        config.timeout_seconds,
        config.retry_attempts,
        int(config.max_size_mb * 1_000_000),
        config.respect_robots,
    )


async def _read(address: str, config: Config, fetcher: Fetcher, ctx: RunContext) -> list[dict[str, Any]]:
    page = await fetcher.get(address)
    reading = await ctx.door(Reader).read(
        page.data,
        name=page.name,
        media_type=page.media_type,
        remove=_selectors(config),
        article=config.only_article,
    )
    made = [
        document(
            part.text, {**part.metadata, **page.facts, "format": reading.kind, **_marks(page.url, part.text)}
        )
        for part in reading.parts
        if len(part.text.strip()) >= config.min_content_length
    ]
    if not made:
        least = config.min_content_length
        message = f"the page has less text than the {least} characters of 'min_content_length'"
        raise NodeError(message, code="too_short", is_final=True)
    return made


def _marks(url: str, text: str) -> dict[str, Any]:
    digest = hashlib.sha256(f"{url}\x00{text}".encode("utf-8", "replace")).hexdigest()
    return {"doc_id": digest[:32], "content_length": len(text)}


def _selectors(config: Config) -> list[str]:
    given = config.remove_selectors or _NO_ARTICLE
    parts = given if isinstance(given, list) else re.split(r",(?![^(\[]*[)\]])|\n", given)
    return [part.strip() for part in parts if part.strip() not in ("", "none")]


def tool(config: Config, ctx: RunContext) -> BaseTool:
    """This node for a model: it chooses the page."""
    from langchain_core.tools import StructuredTool  # noqa: PLC0415  loaded with the first agent

    fetcher = _fetcher(config, ctx)

    async def read(url: str) -> str:
        try:
            made = await _read(url, msgspec.structs.replace(config, min_content_length=1), fetcher, ctx)
        except NodeError as failed:
            return f"The page cannot be read: {failed.message}"
        text = "\n\n".join(each["page_content"] for each in made)
        return text[:_MOST_FOR_MODEL] + ("…" if len(text) > _MOST_FOR_MODEL else "")

    return StructuredTool.from_function(
        coroutine=read, name="read_web_page", description="Read the text of the web page at a URL."
    )


def mistakes(config: Config) -> Iterator[tuple[str, Keys]]:
    """Addresses that no page can have."""
    if "{{" in str(config.urls) or config.urls is None:
        return
    for address in _set(config):
        if not any(addresses_in(address)) and "localhost" not in address:
            yield f"{address[:80]!r} is no address; one is https://example.com/page", ("urls",)


def hosts(config: Config) -> list[str]:
    found = (urlsplit(with_scheme(address)).hostname for address in _set(config))
    return sorted({host for host in found if host})


NODE = NodeType.step(
    run,
    "WebScraper",
    "Read web pages",
    effect=True,
    tool=tool,
    aliases=("WebScraperNode",),
    ignores=("credential",),
    mistakes=mistakes,
    hosts=hosts,
    icon="globe",
    examples=(
        {"urls": "https://example.com/page"},
        {"urls": ["https://example.com/a", "https://example.com/b"]},
    ),
)
