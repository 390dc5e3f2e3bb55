"""Web search by Tavily, as its HTTP interface speaks: one call per question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from nodes.contract import NodeError, RunContext
from nodes.credentials import Credentials
from nodes.keys import as_key, trimmed
from nodes.pauses import may_get_better, retry_after
from nodes.search_access import TAVILY, SearchAccess

MOST_QUERY = 400
"""Characters of a question that Tavily takes."""
_MOST_DOMAINS = 150


class Search(msgspec.Struct, frozen=True):
    """How to search."""

    api_key: str
    base_url: str
    max_results: int = 5
    search_depth: str = "basic"
    include_domains: Sequence[str] = ()
    exclude_domains: Sequence[str] = ()
    include_answer: bool = True
    include_raw_content: bool = False
    include_images: bool = False
    topic: str = "general"
    timeout: float = 30.0


async def access(
    credential_id: str | None, api_key: str, base_url: str | None, ctx: RunContext
) -> tuple[str, str]:
    """The key and the address to search with: the credential's, else the drawing's, else the operator's.

    Raises:
        NodeError: Nobody gave a key, or the credential is for another host.
    """
    name = f"the setting 'tavily_api_key' of {ctx.name!r}"
    if credential_id:
        host = next(iter(host_of(base_url)), None) if base_url else None
        usual = next(iter(host_of(TAVILY)), None)
        try:
            known = await ctx.door(Credentials).get(credential_id, host=host, usual=usual)
        except NodeError as exc:
            operators_own = (ctx.doors.get(SearchAccess) or SearchAccess()).tavily_api_key
            if exc.code != "credential_not_found" or not (api_key or operators_own):
                raise
        else:
            api_key = known.get("tavily_api_key") or known.get("api_key") or api_key
            name = f"the key in the credential of {ctx.name!r}"
            base_url = base_url or known.get("base_url")
    operators: SearchAccess = ctx.doors.get(SearchAccess) or SearchAccess()
    address = trimmed(base_url or operators.tavily_base_url).rstrip("/")
    if key := as_key(api_key, name):
        return key, address
    if operators.tavily_api_key and address == operators.tavily_base_url.rstrip("/"):
        return as_key(operators.tavily_api_key, "FLOWSERVER_TAVILY_API_KEY"), address
    message = (
        f"{ctx.name!r} has no key: set its 'credential_id' or 'tavily_api_key', "
        "or FLOWSERVER_TAVILY_API_KEY for the server"
    )
    raise NodeError(message, code="missing_key", is_final=True)


async def search(http: httpx.AsyncClient, how: Search, query: str) -> dict[str, Any]:
    """What Tavily found: `results`, and `answer` and `images` where they are asked for.

    Raises:
        NodeError: It refused, or did not answer.
    """
    query = query.strip()[:MOST_QUERY]
    if not query:
        raise NodeError("the question to search for is empty", code="missing_value", is_final=True)
    body = {
        "query": query,
        "topic": how.topic,
        "search_depth": how.search_depth,
        "max_results": how.max_results,
        "include_answer": how.include_answer,
        "include_raw_content": how.include_raw_content,
        "include_images": how.include_images,
        "include_domains": list(how.include_domains),
        "exclude_domains": list(how.exclude_domains),
    }
    headers = {"Authorization": f"Bearer {how.api_key}"}
    try:
        response = await http.post(
            f"{how.base_url}/search", json=body, headers=headers, timeout=how.timeout, follow_redirects=False
        )
    except httpx.TimeoutException:
        raise NodeError(f"the search gave no answer in {how.timeout:g} seconds", code="timeout") from None
    except httpx.HTTPError:
        raise NodeError("the search service cannot be reached", code="no_answer") from None
    return _answer(response)


def _answer(response: httpx.Response) -> dict[str, Any]:
    if not response.is_success:
        raise NodeError(
            f"the search service answered {response.status_code}{_WHY.get(response.status_code, '')}",
            code="http_status",
            retry_after=retry_after(response.headers.get("retry-after", ""), datetime.now(UTC)),
            is_final=not may_get_better(response.status_code),
        )
    try:
        found = msgspec.json.decode(response.content)
    except (msgspec.MsgspecError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("results"), list):
        raise NodeError("the search service answered something that is no search result", code="bad_answer")
    results = [each for each in found["results"] if isinstance(each, dict)]
    return {key: found[key] for key in ("answer", "images") if found.get(key)} | {"results": results}


_WHY = {
    401: ": it does not accept the key",
    429: ": too many searches",
    432: ": the plan's searches are used up",
    433: ": the searches paid for are used up",
}


def domains(given: Any) -> list[str]:
    """Host names in a list or a text; people paste addresses, too.

    Raises:
        NodeError: One is none.
    """
    parts = given if isinstance(given, list | tuple) else re.split(r"[\s,;]+", given or "")
    found = [_domain(str(part).strip().lower()) for part in parts if str(part).strip()]
    if len(found) > _MOST_DOMAINS:
        raise NodeError(f"there are more than {_MOST_DOMAINS} domains", code="bad_config")
    return found


def _domain(text: str) -> str:
    host = (urlsplit(text if "//" in text else f"//{text}").netloc.rpartition("@")[2]) or text
    if not re.fullmatch(r"\*?\.?[^\s/@:?#]+\.[^\s/@:?#.]{2,}(:\d+)?", host):
        raise NodeError(f"{text[:80]!r} is no domain; one is example.com", code="bad_config")
    return host


def as_text(found: dict[str, Any]) -> str:
    """Search results for a model."""
    parts = [f"Answer: {found['answer']}"] if isinstance(found.get("answer"), str) else []
    for number, each in enumerate(found["results"], 1):
        text = each.get("raw_content") or each.get("content") or ""
        parts.append(f"[{number}] {each.get('title', '')}\n{each.get('url', '')}\n{str(text)[:4000]}")
    if found.get("images"):
        images = (each if isinstance(each, str) else str(each.get("url", "")) for each in found["images"])
        parts.append("Images:\n" + "\n".join(images))
    return "\n\n".join(parts) or "Nothing was found."


def host_of(base_url: str | None) -> list[str]:
    return [urlsplit(base_url or TAVILY).hostname or ""]
