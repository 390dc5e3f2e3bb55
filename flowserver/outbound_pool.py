"""A pool of outgoing connections that loses none, and repeats a request that met a stale one.

A server may close an idle connection at any time, also while the next request is on its way. A request that
fails on a reused connection before a byte of the answer has come was most likely not read. It is sent once
more at once, on a new connection, whatever its method; browsers do the same.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache

import httpcore
import httpx
from ssrfguard import Policy, Resolver
from ssrfguard.httpx import AsyncSafeBackend

from flowserver.outbound_streams import ATTEMPT, Attempt, Backend
from flowserver.outbound_tasks import Operations

KEPT = 4.0
"""Seconds that an idle connection is kept; many servers close theirs after 5."""
MOST_KEPT = 100
_LOOKUPS = 100
"""Names that are looked up at once."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The connections of a pool."""

    in_use: int
    idle: int
    size: int
    """The most there may be."""

    @property
    def is_full(self) -> bool:
        return self.in_use >= self.size


class OutboundPool(httpx.AsyncBaseTransport):
    """Sends requests to the addresses that a policy allows."""

    def __init__(self, policy: Policy, resolver: Resolver | None, size: int) -> None:
        self._policy = policy
        self._size = size
        guarded = AsyncSafeBackend(policy=policy, resolver=resolver, resolver_slots=_LOOKUPS)
        backend = Backend(guarded)

        def pool(most_kept: int) -> httpcore.AsyncConnectionPool:
            return httpcore.AsyncConnectionPool(
                ssl_context=_trusted(),
                max_connections=size,
                max_keepalive_connections=most_kept,
                keepalive_expiry=KEPT,
                network_backend=backend,
            )

        self._kept = pool(MOST_KEPT)
        # Of a pool that keeps none, every connection is new.
        self._fresh = pool(0)
        self._operations = Operations()
        self._sweep: asyncio.TimerHandle | None = None

    def usage(self) -> Usage:
        """Return how many connections there are now."""
        open_ones = [
            each for each in (*self._kept.connections, *self._fresh.connections) if not each.is_closed()
        ]
        idle = sum(each.is_idle() for each in open_ones)
        return Usage(len(open_ones) - idle, idle, self._size)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`.

        Raises:
            SSRFGuardError: Its URL or its address is not allowed.
            httpx.TransportError: There is no answer.
        """
        self._policy.check_url(str(request.url))
        with _translated():
            answer = await self._operations.run(self._answer(request), _close)
        body = _Body(answer, self._operations, self._sweep_later)
        return httpx.Response(
            answer.status, headers=answer.headers, stream=body, extensions=answer.extensions
        )

    async def _answer(self, request: httpx.Request) -> httpcore.Response:
        url = request.url
        sent = httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        attempt = Attempt()
        ATTEMPT.set(attempt)
        try:
            return await self._kept.handle_async_request(sent)
        except (httpcore.ReadError, httpcore.WriteError, httpcore.RemoteProtocolError):
            may_be_sent_again = isinstance(request.stream, httpx.ByteStream)
            if attempt.is_new or attempt.is_answered or not may_be_sent_again:
                raise
        return await self._fresh.handle_async_request(sent)

    def _sweep_later(self) -> None:
        """Close idle connections in time: the pool itself looks at them only when the next request comes."""
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(KEPT + 0.1, self._swept)

    def _swept(self) -> None:
        self._sweep = None
        for each in self._kept.connections:
            if each.is_idle() and each.has_expired():
                self._operations.start(each.aclose())
        if self.usage().idle:
            self._sweep_later()

    async def aclose(self) -> None:
        """Close all connections."""
        if self._sweep is not None:
            self._sweep.cancel()
        await self._operations.finish(self._kept.aclose())
        await self._operations.finish(self._fresh.aclose())
        await self._operations.settle()


class _Body(httpx.AsyncByteStream):
    """The body of an answer. Its connection is given back at its end, or when nobody reads it any more."""

    def __init__(self, answer: httpcore.Response, operations: Operations, closed: Callable[[], None]) -> None:
        self._answer = answer
        self._pieces = answer.aiter_stream()
        self._operations = operations
        self._closed = closed
        self._is_closed = False
        self._loop = asyncio.get_running_loop()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated():
            while (piece := await self._operations.run(self._piece(), self._discard)) is not None:
                yield piece

    async def _piece(self) -> bytes | None:
        return await anext(self._pieces, None)

    async def _discard(self, _: bytes | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            await self._operations.finish(self._answer.aclose())
            self._closed()

    def __del__(self) -> None:
        if not self._is_closed:
            # Any thread may collect garbage; and where the loop is closed, its sockets are gone.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_close_later, self._operations, self._answer)


def _close_later(operations: Operations, answer: httpcore.Response) -> None:
    operations.start(answer.aclose())


async def _close(answer: httpcore.Response | None) -> None:
    if answer is not None:
        await answer.aclose()


@contextmanager
def _translated() -> Iterator[None]:
    """Raise errors of httpcore as those of httpx, which are called the same."""
    try:
        yield
    except tuple(_ERRORS) as exc:
        raise next(_ERRORS[kind] for kind in type(exc).__mro__ if kind in _ERRORS)(str(exc)) from exc


_ERRORS: dict[type[Exception], type[httpx.TransportError]] = {
    getattr(httpcore, name): getattr(httpx, name)
    for name in (
        *("TimeoutException", "ConnectTimeout", "ReadTimeout", "WriteTimeout", "PoolTimeout"),
        *("NetworkError", "ConnectError", "ReadError", "WriteError"),
        *("ProtocolError", "LocalProtocolError", "RemoteProtocolError", "UnsupportedProtocol"),
    )
}


@cache
def _trusted() -> ssl.SSLContext:
    # Loading takes 20 ms. SSL_CERT_FILE is how an operator makes a certificate authority of his own known.
    return httpx.create_ssl_context(trust_env=True)
