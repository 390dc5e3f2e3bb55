"""Outgoing connections: each comes back, whoever is cancelled when, and a stale one costs no request."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from flowserver import outbound_pool
from flowserver.outbound import OutboundClient, outbound_client
from tests.web_server import Raw, Reply, Request, WebServer


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as server:
        yield server


@pytest.fixture
async def client(web: WebServer) -> AsyncIterator[OutboundClient]:
    async with outbound_client([web.door], size=3) as client:
        yield client


async def until(holds: Callable[[], bool], what: Callable[[], Any] = lambda: None) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


def in_use(client: OutboundClient) -> int:
    return sum(usage.in_use for usage in client.usage().values())


class Silence:
    """A server that accepts connections, and says on each of them only so much."""

    def __init__(self, start: bytes = b"") -> None:
        self._start = start
        self.connected = asyncio.Event()
        self.hung_up = asyncio.Event()

    async def __aenter__(self) -> Silence:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._start)
        self.connected.set()
        try:
            while await reader.read(65_536):
                pass
        except ConnectionError:
            pass
        finally:
            self.hung_up.set()
            writer.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


@pytest.mark.parametrize("between", range(5))
@pytest.mark.parametrize(
    ("scheme", "said"),
    [("http", b""), ("http", HEAD[:20]), ("http", HEAD), ("http", HEAD + b"x"), ("https", b"")],
    ids=["no answer", "half a head", "no body", "half a body", "no TLS"],
)
async def test_a_request_that_is_cancelled_twice_gives_its_connection_back(
    scheme: str, said: bytes, between: int
) -> None:
    async with Silence(said) as server, outbound_client([f"127.0.0.1:{server.port}"]) as client:
        url = f"{scheme}://127.0.0.1:{server.port}/"
        request = asyncio.create_task(client.post(url, content=b"x"))
        await asyncio.wait_for(server.connected.wait(), 10)
        for _ in range(20):  # until all that was said is read
            await asyncio.sleep(0)
        assert in_use(client) == 1

        request.cancel()
        for _ in range(between):
            await asyncio.sleep(0)
        request.cancel()

        with pytest.raises(asyncio.CancelledError):
            await request
        await asyncio.wait_for(server.hung_up.wait(), 10)
        await until(lambda: in_use(client) == 0)


@pytest.mark.parametrize("after", range(12))
async def test_a_cancellation_at_any_moment_loses_no_connection(web: WebServer, after: int) -> None:
    url = web.on("/", Reply(body=b"hello"))
    async with outbound_client([web.door]) as client:
        for pause in (0, 1, 2):
            request = asyncio.create_task(client.get(url))
            for _ in range(after):
                await asyncio.sleep(0)
            request.cancel()
            for _ in range(pause):
                await asyncio.sleep(0)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)

        await until(lambda: in_use(client) == 0)


async def test_a_request_that_waits_for_a_connection_leaves_no_place_behind() -> None:
    async with Silence() as server, outbound_client([f"127.0.0.1:{server.port}"], size=1) as client:
        url = f"http://127.0.0.1:{server.port}/"
        first = asyncio.create_task(client.get(url))
        await asyncio.wait_for(server.connected.wait(), 10)
        assert client.usage()["allowed"].is_full
        second = asyncio.create_task(client.get(url))
        for _ in range(20):
            await asyncio.sleep(0)

        for task in (second, first):
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(first, second, return_exceptions=True)

        await until(lambda: in_use(client) == 0)


async def test_a_full_pool_says_so(web: WebServer) -> None:
    async with Silence() as server:
        door = f"127.0.0.1:{server.port}"
        async with outbound_client([door, web.door], size=1) as client:
            first = asyncio.create_task(client.get(f"http://{door}/"))
            await asyncio.wait_for(server.connected.wait(), 10)

            with pytest.raises(httpx.PoolTimeout, match="all outgoing connections of this server are in use"):
                await client.get(web.url("/"), timeout=0.05)
            first.cancel()


async def test_a_body_that_nobody_reads_or_closes_gives_its_connection_back(
    web: WebServer, client: OutboundClient
) -> None:
    url = web.on("/", Reply(body=b"x" * 1_000_000))
    request = client.build_request("GET", url)
    answer = await client.send(request, stream=True)
    assert in_use(client) == 1

    del answer, request
    gc.collect()

    await until(lambda: in_use(client) == 0)


async def test_a_stream_that_is_cancelled_between_two_pieces_gives_its_connection_back(
    web: WebServer, client: OutboundClient
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    seen = asyncio.Event()
    url = web.on("/", Reply(body=pieces()))

    async def read() -> None:
        async with client.stream("GET", url) as answer:
            async for _ in answer.aiter_raw():
                seen.set()
                await asyncio.Event().wait()

    reading = asyncio.create_task(read())
    await asyncio.wait_for(seen.wait(), 10)
    reading.cancel()
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)

    await until(lambda: in_use(client) == 0)


class Stale:
    """A server that answers the first request on each connection, and treats later ones as it is told."""

    def __init__(self, later: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
        self.requests: list[tuple[int, bytes]] = []
        """The number of the connection, and the request."""
        self._later = later
        self._connections = 0

    async def __aenter__(self) -> Stale:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.door = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self.url = f"http://{self.door}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self._connections = self._connections, self._connections + 1
        try:
            self.requests.append((number, await _request(reader)))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
            self.requests.append((number, await _request(reader)))
            await self._later(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @property
    def connections(self) -> list[int]:
        return [number for number, _ in self.requests]


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    size = next(
        (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
    )
    return head + await reader.readexactly(size)


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(writer: asyncio.StreamWriter) -> None:
    line = writer.get_extra_info("socket")
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()


async def half_a_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 2")
    await writer.drain()


@pytest.mark.parametrize("later", [close, reset])
@pytest.mark.parametrize("method", ["POST", "GET", "PATCH"])
async def test_a_request_that_meets_a_stale_connection_is_sent_once_more_on_a_new_one(
    later: Callable[[asyncio.StreamWriter], Awaitable[None]], method: str
) -> None:
    async with Stale(later) as server, outbound_client([server.door]) as client:
        answers = [await client.request(method, server.url, content=b"body") for _ in range(3)]

        assert [answer.text for answer in answers] == ["ok"] * 3
        assert server.connections == [0, 0, 1, 2]
        assert len({request for _, request in server.requests}) == 1


async def test_the_new_connection_is_new_although_others_are_idle() -> None:
    async with Stale(close) as server, outbound_client([server.door]) as client:
        await asyncio.gather(*(client.get(server.url) for _ in range(5)))
        idle = client.usage()["allowed"].idle

        await client.post(server.url, content=b"body")

        sent = [number for number, request in server.requests if request.startswith(b"POST")]
        assert (idle, len(sent), sent[1]) == (5, 2, 5)


async def test_a_request_is_not_sent_again_once_a_byte_of_its_answer_has_come() -> None:
    async with Stale(half_a_head) as server, outbound_client([server.door]) as client:
        await client.get(server.url)
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(server.url, content=b"body")

        assert server.connections == [0, 0]


async def test_a_request_is_not_sent_again_when_a_new_connection_breaks(web: WebServer) -> None:
    async def hang_up(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.close()

    url = web.on("/", Raw(hang_up))
    async with outbound_client([web.door]) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(url, content=b"body")

    assert len(web.requests) == 1


async def test_an_idle_connection_is_closed_in_time_without_another_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbound_pool, "KEPT", 0.05)
    async with Stale(close) as server, outbound_client([server.door]) as client:
        await client.get(server.url)
        kept = client.usage()["allowed"].idle

        await until(lambda: client.usage()["allowed"].idle == 0)

    assert kept == 1


def test_idle_connections_are_kept_for_less_than_servers_keep_them() -> None:
    assert outbound_pool.KEPT < 5
