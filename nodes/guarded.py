"""The run's guarded client as the transport of clients that providers' libraries make for themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    import httpx2

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-encoding", "content-length"})
"""Headers of an answer that are of the connection it came by: what is passed on is unpacked."""


class Guarded(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """Sends what a client of `httpx` sends through another one, which decides where it may go."""

    def __init__(self, http: httpx.AsyncClient, *, without: Iterable[str] = ()) -> None:
        """Headers called as in `without` are not sent: libraries take some from the environment."""
        self._http = http
        self._without = frozenset(without)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        answer = await _sent(self._http, request, content, self._without)
        return httpx.Response(answer.status_code, headers=_kept(answer), stream=_Body(answer))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise RuntimeError("a provider was called synchronously")


def guarded2(http: httpx.AsyncClient) -> httpx2.AsyncBaseTransport:
    """The same for a client of `httpx2`, which other libraries use."""
    import httpx2  # noqa: PLC0415  comes with those libraries

    class Body(httpx2.AsyncByteStream):
        def __init__(self, answer: httpx.Response) -> None:
            self._body = _Body(answer)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                async for piece in self._body:
                    yield piece
            except httpx.HTTPError as exc:
                raise _translated(exc) from None

        async def aclose(self) -> None:
            await self._body.aclose()

    class Guarded2(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            content = await request.aread()
            try:
                answer = await _sent(http, request, content, frozenset())
            except httpx.HTTPError as exc:
                raise _translated(exc) from None
            return httpx2.Response(answer.status_code, headers=_kept(answer), stream=Body(answer))

    return Guarded2()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._answer.aiter_raw():
            yield piece

    async def aclose(self) -> None:
        await self._answer.aclose()


async def _sent(
    http: httpx.AsyncClient, request: Any, content: bytes, without: frozenset[str]
) -> httpx.Response:
    headers = [(name, value) for name, value in request.headers.multi_items() if name.lower() not in without]
    again = httpx.Request(
        request.method,
        httpx.URL(str(request.url)),
        headers=headers,
        content=content,
        extensions={key: value for key, value in request.extensions.items() if key == "timeout"},
    )
    again.headers["accept-encoding"] = "gzip"  # what the guarded client can unpack within its limits
    return await http.send(again, stream=True, follow_redirects=False)


def _kept(answer: httpx.Response) -> list[tuple[str, str]]:
    return [(name, value) for name, value in answer.headers.multi_items() if name.lower() not in _HOP]


def _translated(exc: httpx.HTTPError) -> Exception:
    """The same failure as a client of `httpx2` knows it, so that it tries again where that makes sense."""
    import httpx2  # noqa: PLC0415

    for kind in type(exc).__mro__:
        known = getattr(httpx2, kind.__name__, None)
        if isinstance(known, type) and issubclass(known, httpx2.RequestError):
            made: Exception = known(str(exc))
            return made
    return exc
