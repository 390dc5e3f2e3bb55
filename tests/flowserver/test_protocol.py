"""What a request may send before it is answered: how much of a head, and how slowly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import httpx
import pytest
from litestar import Request, Response, post

from flowserver.app import create_app
from flowserver.http.protocol import LimitedProtocol
from flowserver.settings import Settings
from tests.server import HEADERS, KEY, drawing, node, serving

START = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /api/v1/workflows/check HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
WITH_KEY = b"Authorization: Bearer " + KEY.encode() + b"\r\n"
AS_JSON = {"Content-Type": "application/json"}
CHUNKED = b"Transfer-Encoding: chunked\r\n"


class Hasty(LimitedProtocol):
    head_seconds = 0.3
    body_seconds = 0.3
    tick = 0.05
    bytes_per_second = 1_000_000_000


class Connection:
    """A client that writes what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def status(self) -> int | None:
        """The status of the next answer; `None` if the connection is closed without one."""
        try:
            line = await asyncio.wait_for(self.reader.readline(), 10)
        except ConnectionError:
            return None
        return int(line.split()[1]) if line else None

    async def answer(self) -> tuple[int, bytes]:
        """The next answer with its body."""
        status = await self.status()
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return status or 0, await self.reader.readexactly(length)

    async def is_closed(self) -> bool:
        try:
            return await asyncio.wait_for(self.reader.read(), 10) == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def connection(client: httpx.AsyncClient) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


@pytest.fixture
async def hasty(settings: Settings, dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that waits for a third of a second only."""
    async with serving(create_app(settings, dsn), Hasty) as client:
        yield client


def fields(count: int, size: int = 1) -> bytes:
    return b"".join(b"X-%d: %b\r\n" % (number, b"a" * size) for number in range(count))


HEADS: dict[str, Iterable[bytes]] = {
    "one endless field": [START + b"X-Big: ", *[b"a" * 50_000] * 40],
    "an endless name": [START, *[b"a" * 50_000] * 40],
    "an endless address": [b"GET /", *[b"a" * 50_000] * 40],
    "a long field that ends": [START + b"X-Big: " + b"a" * 70_000 + b"\r\n\r\n"],
    "many fields": [START + fields(101) + b"\r\n"],
    "fields without end": [START, *[fields(50, 1000)] * 10],
    "a large head with a body": [POST + fields(90, 1000) + b"Content-Length: 2\r\n\r\n{}"],
}


@pytest.mark.parametrize("pieces", HEADS.values(), ids=HEADS.keys())
async def test_a_head_that_is_too_large_is_answered_431(
    client: httpx.AsyncClient, pieces: Iterable[bytes]
) -> None:
    async with connection(client) as sender:
        for piece in pieces:
            await sender.send(piece)

        status, body = await sender.answer()

        assert status == 431
        assert b"65,536 bytes and 100 fields" in body
        assert await sender.is_closed()


async def test_a_head_within_the_limits_is_answered(client: httpx.AsyncClient) -> None:
    async with connection(client) as sender:
        for head in (fields(99), fields(60, 1000), b"X-Big: " + b"a" * 65_000 + b"\r\n"):
            await sender.send(START + head + b"\r\n")

            assert (await sender.answer())[0] == 200


async def test_requests_in_one_piece_are_each_counted_alone(client: httpx.AsyncClient) -> None:
    async with connection(client) as sender:
        await sender.send((START + fields(60, 900) + b"\r\n") * 3)

        assert [(await sender.answer())[0] for _ in range(3)] == [200, 200, 200]


async def test_fields_behind_a_body_are_limited_too(client: httpx.AsyncClient) -> None:
    async with connection(client) as endless, connection(client) as many:
        await endless.send(POST + WITH_KEY + CHUNKED + b"\r\n2\r\n{}\r\n0\r\nX-Trailer: ")
        await many.send(POST + WITH_KEY + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n" + fields(101))
        for _ in range(40):
            await endless.send(b"a" * 50_000)

        assert await endless.status() in (431, None)  # what it has sent meanwhile may cut the answer off
        assert await many.status() == 431


async def test_a_body_in_the_smallest_chunks_is_no_head(client: httpx.AsyncClient) -> None:
    body = b'{"flow_data": {"nodes": [], "edges": []}}' + b" " * 40_000
    async with connection(client) as sender:
        await sender.send(POST + WITH_KEY + CHUNKED + b"\r\n")
        await sender.send(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")

        assert (await sender.answer())[0] == 200


async def test_other_requests_are_answered_while_heads_have_no_end(client: httpx.AsyncClient) -> None:
    async with connection(client) as sender:
        live = str(client.base_url.copy_with(path="/health/live"))
        await sender.send(START + b"X-Big: ")
        for _ in range(20):
            sender.writer.write(b"a" * 1_000_000)

            assert (await asyncio.wait_for(client.get(live), 5)).status_code == 200


async def trickle(sender: Connection, start: bytes) -> int | None:
    """Send a byte at a time until there is an answer."""
    await sender.send(start)
    answer = asyncio.create_task(sender.status())
    while not answer.done():
        sender.writer.write(b" ")
        await asyncio.wait([answer], timeout=0.02)
    return await answer


async def test_a_head_that_comes_a_byte_at_a_time_is_answered_408(hasty: httpx.AsyncClient) -> None:
    async with connection(hasty) as sender:
        assert await trickle(sender, START + b"X-Slow: ") == 408
        assert b"connection: close" in await sender.reader.readuntil(b"\r\n\r\n")


async def test_a_body_that_comes_a_byte_at_a_time_is_answered_408(hasty: httpx.AsyncClient) -> None:
    async with connection(hasty) as sender:
        assert await trickle(sender, POST + WITH_KEY + b"Content-Length: 1000000\r\n\r\n{") == 408

    async with connection(hasty) as sender:
        assert await trickle(sender, POST + WITH_KEY + CHUNKED + b"\r\n3000\r\n{") == 408


async def test_a_body_of_a_webhook_that_does_not_come_is_answered_408(hasty: httpx.AsyncClient) -> None:
    flow_data = drawing(node("hook", "WebhookTrigger", path="slow", http_method="POST"))
    saved = (await hasty.post("/workflows", json={"name": "slow", "flow_data": flow_data})).json()
    assert (await hasty.post(f"/workflows/{saved['id']}/publish", json={})).status_code == 200

    async with connection(hasty) as sender:
        assert (
            await trickle(sender, b"POST /hooks/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n")
            == 408
        )


async def test_a_connection_that_asks_nothing_is_closed(hasty: httpx.AsyncClient) -> None:
    async with connection(hasty) as sender:
        assert await sender.is_closed()


async def test_a_body_that_nobody_wants_is_not_waited_for(hasty: httpx.AsyncClient) -> None:
    async with connection(hasty) as sender:
        await sender.send(POST + b"Content-Length: 1000000\r\n\r\n{")

        assert (await sender.answer())[0] == 401
        assert await sender.is_closed()


@post("/read", status_code=200)
async def read_late(request: Request[None, None, object]) -> Response[str]:
    """Begins to read when a body should long have come."""
    await asyncio.sleep(4 * Hasty.body_seconds)
    return Response(str(len(await request.body())))


async def test_time_in_which_the_server_does_not_read_is_not_the_clients(
    settings: Settings, dsn: str
) -> None:
    app = create_app(settings, dsn)
    app.register(read_late)

    async with serving(app, Hasty) as client:
        answer = await client.post(
            str(client.base_url.copy_with(path="/read")),
            content=b" " * 3_000_000,
            headers={**HEADERS, **AS_JSON},
        )

    assert (answer.status_code, answer.text) == (200, "3000000")
