"""The way out: HTTP clients that reach public addresses and what the operator allowed, and nothing else.

    NodeError
      UrlNotAllowed       `url_not_allowed`
      ResponseTooLarge    `response_too_large`, in `flowserver.metered`

Both are no `httpx.RequestError` on purpose: the openai client (3.54, `_base_client.py`) takes those for a
broken connection and tries again, and lets everything else through once and unwrapped. No message holds an
address that a name was resolved to, nor the user part, path or query of a URL.

The clients limit bytes and the wait for each read. Who does not stream puts `asyncio.timeout` around the
call: a limit on the whole exchange in here would cut long token streams.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import ip_address, ip_network
from socket import gaierror
from typing import Any
from urllib.parse import urlsplit

import httpx
from ssrfguard import (
    DEFAULT_DENIED,
    AddressTable,
    Block,
    BlockedAddressError,
    BlockedURLError,
    Policy,
    Reach,
    Resolver,
    SSRFGuardError,
)

from flowserver.metered import Meter, MeteredBody
from flowserver.outbound_pool import OutboundPool, Usage
from nodes.contract import NodeError

# httpx's INFO lines hold whole URLs, secrets in their queries included.
for library in ("httpx", "httpx2"):
    logging.getLogger(library).setLevel(logging.WARNING)


class UrlNotAllowed(NodeError):
    """A workflow may not reach this URL."""

    def __init__(self, url: httpx.URL, reason: str) -> None:
        message = f"{_origin(url)} is not allowed: {reason}"
        super().__init__(message, code="url_not_allowed", is_final=True)


class OutboundClient(httpx.AsyncClient):
    """A client that reaches what `outbound_client` lets it reach."""

    def __init__(self, transport: _Transport, timeout: float) -> None:
        super().__init__(transport=transport, **_options(timeout))
        self._guarded = transport

    def usage(self) -> Mapping[str, Usage]:
        """Return how many connections there are now, to `public` hosts and to those that are `allowed`."""
        return self._guarded.usage()

    def _redirect_headers(self, request: httpx.Request, url: httpx.URL, method: str) -> httpx.Headers:
        return _for_strangers(super()._redirect_headers(request, url, method), request.url, url)


def outbound_client(
    allow: Sequence[str],
    *,
    max_bytes: int = 20_000_000,
    timeout: float = 60.0,
    resolver: Resolver | None = None,
    size: int = 1000,
) -> OutboundClient:
    """Return a client for public hosts and for those of `allow`, each a `name[:port]`.

    An address, `IPv4[:port]` or `[IPv6][:port]`, is a name too; without a port, every port is allowed.
    `size` is the most connections to public hosts, and to allowed ones, at a time.

    Raises:
        ValueError: An entry of `allow` is none of these, or names an address that is never reached.
    """
    return OutboundClient(_Transport(_Gate(_read(allow), max_bytes), resolver, size), timeout)


def policy_for(host: str, port: int, allow: Sequence[str]) -> Policy:
    """Which addresses a workflow may connect to under `host`: with the operator's leave, private ones too.

    For connections that are not HTTP, so that every port is as good as another.
    """
    host = host.strip("[]").lower().rstrip(".")
    known = {(host, None), (host, port)}
    return _PUBLIC if _read(allow).isdisjoint(known) else _ALLOWED


# Azure's wire server hands out machine secrets from an address that counts as public.
_AZURE = Block(ip_network("168.63.129.16/32"), "Cloud metadata (Azure)", "Microsoft", Reach.DENIED)
_DENIED = AddressTable((*DEFAULT_DENIED.blocks, _AZURE))

# Metadata services inside these blocks have rows of their own and stay denied, whatever the operator allows.
_OPERATORS = frozenset(
    map(
        ip_network,
        (
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "::1/128",
            "fc00::/7",
        ),
    )
)
_OPENED = AddressTable(
    tuple(
        replace(block, reach=Reach.PERMITTED) if block.network in _OPERATORS else block
        for block in _DENIED.blocks
    )
)

# ssrfguard knows ports as a set (this one takes 4 MB) and lists it in its refusals; `_Gate` decides them.
_EVERY_PORT = frozenset(range(1, 65536))

_PUBLIC = Policy(denied_networks=_DENIED, allowed_ports=_EVERY_PORT)
_ALLOWED = replace(_PUBLIC, denied_networks=_OPENED)

_WEB = frozenset({80, 443})
_FIRST_FREE_PORT = 1024
# Databases, queues, remote control: nothing there speaks HTTP to strangers, much can be confused by it.
_INFRASTRUCTURE = frozenset(
    {1433, 1521, 2049, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 5432, 5672, 5900, 6000, 6379, 6432}
    | {6665, 6666, 6667, 6668, 6669, 6697, 9042, 9092, 10250, 11211, 26379, 27017}
)

_DEFAULT_PORT = {"http": 80, "https": 443}


def _read(allow: Sequence[str]) -> frozenset[tuple[str, int | None]]:
    return frozenset(map(_entry, allow))


def _entry(entry: str) -> tuple[str, int | None]:
    try:
        if set(entry) & set("/?#@*\\") or entry.endswith(":"):
            raise ValueError("write name[:port], without scheme, path or wildcard")
        target = _ALLOWED.check_url(f"http://{entry}/")
        return str(target.address or target.host), urlsplit(f"//{entry}").port
    except (SSRFGuardError, ValueError) as wrong:
        reason = wrong.reason if isinstance(wrong, BlockedURLError | BlockedAddressError) else wrong
        raise ValueError(f"cannot allow outbound requests to {entry!r}: {reason}") from None


@dataclass(frozen=True, slots=True)
class _Gate:
    """What goes out, and how much comes back."""

    allow: frozenset[tuple[str, int | None]]
    limit: int

    def is_allowed(self, request: httpx.Request) -> bool:
        """Whether the operator allowed this host; if not, it must turn out to be a public one.

        Raises:
            UrlNotAllowed: It can be neither.
        """
        url = request.url
        if url.scheme not in _DEFAULT_PORT or not url.host:
            raise UrlNotAllowed(url, "it must be http or https, and name a host")
        if url.userinfo:
            raise UrlNotAllowed(url, "a URL must not carry a user name or password")
        if request.headers.get("host") != url.netloc.decode("ascii"):
            # Else an allowed name would open every other name that is served at its address.
            raise UrlNotAllowed(url, "the Host header must name the host of the URL")
        host, port = _host(url), _port(url)
        if not self.allow.isdisjoint({(host, None), (host, port)}):
            return True
        if port not in _WEB and (port < _FIRST_FREE_PORT or port in _INFRASTRUCTURE):
            raise UrlNotAllowed(url, f"port {port} is not one for web services")
        return False

    def capped(self, response: httpx.Response, url: httpx.URL) -> httpx.Response:
        """`response` with a body that is unpacked here, as httpx would unpack a bomb whole."""
        headers = httpx.Headers(response.headers)
        encoding = headers.pop("content-encoding", "")
        if encoding:
            headers.pop("content-length", None)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        body = MeteredBody(response.stream, Meter(encoding, self.limit, _origin(url)))
        return httpx.Response(
            response.status_code, headers=headers, stream=body, extensions=response.extensions
        )


class _Transport(httpx.AsyncBaseTransport):
    """Two pools that never share a connection: for the public, and for what the operator allowed."""

    def __init__(self, gate: _Gate, resolver: Resolver | None, size: int) -> None:
        self._gate = gate
        self._public = OutboundPool(_PUBLIC, resolver, size)
        self._allowed = OutboundPool(_ALLOWED, resolver, size)

    def usage(self) -> dict[str, Usage]:
        return {"public": self._public.usage(), "allowed": self._allowed.usage()}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            pool = self._allowed if self._gate.is_allowed(request) else self._public
            response = await pool.handle_async_request(request)
        except (SSRFGuardError, httpx.ConnectError, httpx.ConnectTimeout) as failed:
            raise _harmless(failed, request.url) from None
        except httpx.PoolTimeout:
            raise httpx.PoolTimeout("all outgoing connections of this server are in use") from None
        return self._gate.capped(response, request.url)

    async def aclose(self) -> None:
        await self._public.aclose()
        await self._allowed.aclose()


def _options(timeout: float) -> dict[str, Any]:
    return {
        "timeout": httpx.Timeout(timeout, connect=min(timeout, 10.0)),
        "trust_env": False,
        "max_redirects": 5,
        "headers": {"accept-encoding": "gzip", "user-agent": "flowserver"},
        # One client serves every workflow: a cookie kept for one would be sent for another.
        "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    }


# Any other header may hold a key, under a name that only the workflow's author knows.
_SAFE_HEADERS = frozenset(
    {"accept", "accept-encoding", "accept-language", "connection", "content-length", "content-type"}
    | {"host", "transfer-encoding", "user-agent"}
)


def _for_strangers(headers: httpx.Headers, old: httpx.URL, new: httpx.URL) -> httpx.Headers:
    """`headers` as a redirect may carry them on."""
    upgraded = (old.scheme, _port(old), new.scheme, _port(new)) == ("http", 80, "https", 443)
    same_door = (old.scheme, _port(old)) == (new.scheme, _port(new))
    if old.host != new.host or not (same_door or upgraded):
        for name in headers.keys() - _SAFE_HEADERS:
            del headers[name]
    return headers


def _harmless(failed: Exception, url: httpx.URL) -> Exception:
    """`failed` in words that do not tell where a name leads."""
    match failed:
        case BlockedURLError(__cause__=None):
            return UrlNotAllowed(url, "it is malformed or too long")
        case SSRFGuardError():
            return UrlNotAllowed(url, "it does not lead to a public address")
        case httpx.ConnectTimeout():
            return httpx.ConnectTimeout(f"could not connect to {_origin(url)} in time")
    return httpx.ConnectError(f"could not connect to {_origin(url)}: {_cause(failed)}")


def _cause(failed: BaseException | None) -> str:
    while failed is not None:
        match failed:
            case ssl.SSLCertVerificationError():
                return f"its certificate is not valid: {failed.verify_message}"
            case ssl.SSLError():
                return "it does not speak TLS as we do"
            case gaierror():
                return "its name does not resolve"
        failed = failed.__cause__ or failed.__context__  # httpcore drops the cause
    return "nothing answers there"


def _origin(url: httpx.URL) -> str:
    if not url.host:
        return "this URL"
    port = "" if url.port is None else f":{url.port}"
    host = f"[{url.host}]" if ":" in url.host else url.host[:100]
    return f"{url.scheme}://{host}{port}"


def _host(url: httpx.URL) -> str:
    host = url.raw_host.decode("ascii")
    try:
        return str(ip_address(host))
    except ValueError:
        return host


def _port(url: httpx.URL) -> int:
    return _DEFAULT_PORT.get(url.scheme, 0) if url.port is None else url.port
