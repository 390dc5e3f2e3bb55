"""Cohere's reranking in its own wire format: its library, as LangChain uses it, blocks the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from nodes.contract import NodeError, RunContext
from nodes.credentials import Credentials
from nodes.keys import as_key, trimmed
from nodes.pauses import may_get_better, retry_after

ADDRESS = "https://api.cohere.com"
MODEL = "rerank-v3.5"

_MOST_TEXTS = 1000
_MOST_CHARACTERS = 20_000
"""Of one text: beyond, Cohere cuts by itself."""
_LONGEST_PAUSE = 20.0


class _Result(msgspec.Struct, frozen=True):
    index: int
    relevance_score: float


class _Answer(msgspec.Struct, frozen=True):
    results: list[_Result]


@dataclass(frozen=True, slots=True)
class CohereReranker:
    """Fulfils `nodes.vectors.Reranker` with Cohere, or a server that speaks as it does."""

    http: httpx.AsyncClient
    api_key: str
    model: str
    top_n: int
    base_url: str = ADDRESS
    timeout: float = 60.0
    max_retries: int = 2

    async def rerank(self, query: str, texts: Sequence[str]) -> list[tuple[int, float]]:
        """The best of `texts` first, each by its index, with its relevance from 0 to 1.

        Raises:
            NodeError: Cohere refuses, or does not answer.
        """
        if not texts:
            return []
        shown = [text[:_MOST_CHARACTERS] for text in texts[:_MOST_TEXTS]]
        body = {
            "model": self.model,
            "query": query,
            "documents": shown,
            "top_n": min(self.top_n, len(shown)),
        }
        answer = await self._asked(body)
        return [(each.index, each.relevance_score) for each in answer.results if 0 <= each.index < len(shown)]

    async def _asked(self, body: dict[str, Any]) -> _Answer:
        for attempt in range(self.max_retries + 1):
            try:
                return await self._once(body)
            except NodeError as failed:
                if failed.is_final or attempt == self.max_retries:
                    raise
                await asyncio.sleep(min(failed.retry_after or 0.5 * 2**attempt, _LONGEST_PAUSE))
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, body: dict[str, Any]) -> _Answer:
        url = f"{self.base_url.rstrip('/')}/v2/rerank"
        headers = {"Authorization": f"Bearer {self.api_key}"}
        try:
            async with asyncio.timeout(self.timeout):
                response = await self.http.post(url, json=body, headers=headers, timeout=self.timeout)
        except (httpx.HTTPError, TimeoutError) as exc:
            kind = type(exc).__name__
            raise NodeError(f"the reranker did not answer ({kind})", code="no_answer") from None
        except httpx.InvalidURL:
            raise NodeError("the reranker's 'base_url' is no URL", code="bad_url", is_final=True) from None
        if response.status_code != 200:
            raise NodeError(
                f"the reranker answered {response.status_code} {response.reason_phrase}".strip(),
                code="http_status",
                retry_after=retry_after(response.headers.get("retry-after", ""), datetime.now(UTC)),
                is_final=not may_get_better(response.status_code),
            )
        try:
            return msgspec.json.decode(response.content, type=_Answer)
        except (msgspec.DecodeError, RecursionError):
            message = "the reranker's answer is not in the form of Cohere's /v2/rerank"
            raise NodeError(message, code="bad_answer", is_final=True) from None


async def cohere(
    ctx: RunContext,
    *,
    credential_id: str | None,
    api_key: str | None,
    model: str,
    top_n: int,
    base_url: str | None,
    timeout: float,  # noqa: ASYNC109  of each request
    max_retries: int,
) -> CohereReranker:
    """A reranker by the settings of a node.

    Raises:
        NodeError: It has no key.
    """
    if credential_id:
        host = host_of(base_url) if base_url else None
        known = await ctx.door(Credentials).get(credential_id, host=host, usual=host_of(ADDRESS))
        name = f"the field 'api_key' of the credential of {ctx.name!r}"
        key, base_url = as_key(known.get("api_key"), name), base_url or known.get("base_url")
    else:
        key = as_key(api_key, f"the setting 'api_key' of {ctx.name!r}")
    if not key:
        message = f"{ctx.name!r} has no API key: set its 'credential_id', or its 'api_key'"
        raise NodeError(message, code="missing_key", is_final=True)
    address = trimmed(base_url or "") or ADDRESS
    return CohereReranker(ctx.http, key, model, top_n, address, timeout, max_retries)


def host_of(url: str) -> str:
    """The host of a URL; nothing where it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
