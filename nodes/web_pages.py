"""Pages and files of the web for nodes that read them: addresses in what arrives, robots.txt, limits."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.robotparser import RobotFileParser

import httpx

from nodes.contract import NodeError
from nodes.pauses import may_get_better, retry_after
from nodes.web.exchange import Call, parse_url, redacted, send, status_line

USER_AGENT = "Mozilla/5.0 (compatible; flowserver)"
_ROBOT = "flowserver"
"""The name by which robots.txt may speak of us."""
MOST_ADDRESSES = 500
_MOST_ROBOTS = 500_000
_NOTHING = ("User-agent: *", "Disallow: /")
_ADDRESS_KEYS = ("urls", "url", "source", "link", "links")
_ADDRESS = re.compile(
    r"https?://\S+|(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}(?::\d+)?(?:[/?#]\S*)?", re.I
)

Given = TypeVar("Given")
Made = TypeVar("Made")


def addresses_in(value: Any) -> Iterator[str]:
    """The addresses in what arrived or is set: texts with commas or line breaks between, lists, objects.

    A text that is no address gives none.
    """
    match value:
        case str():
            for part in _between_commas(value):
                if _ADDRESS.fullmatch(part):
                    yield part
        case list() | tuple():
            for item in value:
                yield from addresses_in(item)
        case Mapping():
            for key in _ADDRESS_KEYS:
                yield from addresses_in(value.get(key))
            yield from addresses_in(value.get("documents"))
            yield from addresses_in(value.get("metadata"))


def _between_commas(text: str) -> Iterator[str]:
    for word in text.split():
        for part in re.split(r",(?=https?://)", word, flags=re.I):
            # A path may have commas of its own; hosts have none.
            has_path = "/" in part.partition("://")[2] or ("://" not in part and "/" in part)
            for each in [part] if has_path else part.split(","):
                yield each.strip(",;<>\"'")


def with_scheme(address: str) -> str:
    return address if "://" in address else f"https://{address}"


def shown(address: str) -> str:
    """An address for messages: without what is secret in it, and not too long."""
    try:
        return redacted(parse_url(with_scheme(address)))[:300]
    except NodeError:
        return address.rpartition("@")[2][:100]


@dataclass(frozen=True, slots=True)
class Page:
    """What an address answered."""

    url: str
    """Where it came from in the end, without what is secret in it."""
    data: bytes
    media_type: str
    status: int

    @property
    def name(self) -> str:
        return urlsplit(self.url).path.rpartition("/")[2]

    @property
    def facts(self) -> dict[str, Any]:
        """What every document of this page says of it."""
        return {
            "source": self.url,
            "domain": urlsplit(self.url).hostname or "",
            "content_type": self.media_type,
            "status_code": self.status,
            "scrape_timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        }


@dataclass
class Fetcher:
    """Fetches pages through the guarded client, as politely as it is told."""

    http: httpx.AsyncClient
    user_agent: str = USER_AGENT
    timeout: float = 30.0
    retries: int = 3
    most_bytes: int = 20_000_000
    heeds_robots: bool = True
    _robots: dict[str, RobotFileParser | NodeError] = field(default_factory=dict)
    _asking: dict[str, asyncio.Lock] = field(default_factory=dict)

    async def get(self, address: str) -> Page:
        """The page at `address`.

        Raises:
            NodeError: It may not be fetched, does not answer, or is too large.
        """
        url = parse_url(with_scheme(address))
        if url.scheme not in ("http", "https"):
            raise NodeError("a page's address must begin with http:// or https://", code="bad_url")
        await self._ask_leave(url)
        response = await self._fetch(url)
        if response.status_code >= 400:
            raise NodeError(
                f"{redacted(url)} answered {status_line(response)}",
                code="http_status",
                retry_after=retry_after(response.headers.get("retry-after", ""), datetime.now(UTC)),
                is_final=not may_get_better(response.status_code),
            )
        if response.url != url:
            await self._ask_leave(response.url)
        if len(response.content) > self.most_bytes:
            message = f"{redacted(url)} has {len(response.content):,} bytes; allowed are {self.most_bytes:,}"
            raise NodeError(message, code="too_large", is_final=True)
        kind = response.headers.get("content-type", "")
        return Page(redacted(response.url), response.content, kind, response.status_code)

    async def _fetch(self, url: httpx.URL) -> httpx.Response:
        headers = httpx.Headers({"User-Agent": self.user_agent, "Accept": "text/html,*/*;q=0.8"})
        call = Call("GET", url, headers, None, self.timeout, self.retries, 1.0, follow_redirects=True)
        return await send(self.http, call)

    async def _ask_leave(self, url: httpx.URL) -> None:
        if not self.heeds_robots:
            return
        origin = str(url.copy_with(path="/", query=None, fragment=None, userinfo=b""))
        async with self._asking.setdefault(origin, asyncio.Lock()):
            if origin not in self._robots:
                self._robots[origin] = await self._read_robots(origin)
        robots = self._robots[origin]
        if isinstance(robots, NodeError):
            raise NodeError(robots.message, code=robots.code, is_final=robots.is_final)
        if not robots.can_fetch(_ROBOT if self.user_agent == USER_AGENT else self.user_agent, str(url)):
            message = f"{redacted(url)} may not be read by robots, as its robots.txt says"
            raise NodeError(message, code="robots", is_final=True)

    async def _read_robots(self, origin: str) -> RobotFileParser | NodeError:
        """What a site allows: all where it does not say, nothing where it cannot be asked (RFC 9309)."""
        robots = RobotFileParser()
        try:
            response = await self._fetch(httpx.URL(origin).join("/robots.txt"))
        except NodeError as failed:
            if failed.code not in ("no_answer", "timeout", "response_too_large"):
                return failed
            robots.parse(_NOTHING)
            return robots
        if response.status_code >= 500:
            robots.parse(_NOTHING)
        elif response.status_code >= 400:
            robots.parse([])
        else:
            robots.parse(response.content[:_MOST_ROBOTS].decode("utf-8", "replace").splitlines())
        return robots


async def at_most(
    limit: int, given: Iterable[Given], work: Callable[[Given], Awaitable[Made]]
) -> list[Made | NodeError]:
    """What `work` makes of each, in order; `limit` at a time. A failure takes the place of what it failed."""
    room = asyncio.Semaphore(limit)

    async def one(item: Given) -> Made | NodeError:
        async with room:
            try:
                return await work(item)
            except NodeError as failed:
                return failed

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(item)) for item in given]
    return [task.result() for task in tasks]
