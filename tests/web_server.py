"""A real HTTP server on 127.0.0.1 that answers as a test tells it and keeps what it was asked.

async with WebServer() as web:
    web.on("/greeting", Reply(503), Reply(body=b"hello"))    # in this order; the last one again and again
    ...
    assert [request.path for request in web.requests] == ["/greeting", "/greeting"]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self, TypeAlias
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    """What a client sent; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """An answer; a body that is an async iterable is sent in chunks, as the pieces come."""

    status: int = 200
    body: bytes | AsyncIterable[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """An answer that writes whatever bytes it likes, to break the rules of HTTP."""

    write: Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


Answer: TypeAlias = Reply | Raw | Callable[[Request], Reply]


def reply_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def redirect(location: str, status: int = 302) -> Reply:
    return Reply(status, headers={"Location": location})


class WebServer:
    """Starts with `async with`, on a free port; a path without an answer gives 404."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.port = 0
        self._answers: dict[str, list[Answer]] = {}
        self._talks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []

    def on(self, path: str, *answers: Answer) -> str:
        """Answer `path` so, and return its URL."""
        self._answers[path] = list(answers)
        return self.url(path)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    @property
    def door(self) -> str:
        """The server as an operator allows it."""
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        await self._server.wait_closed()
        if self._failures:
            raise self._failures[0]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.ensure_future(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._hang_up)

    def _hang_up(self, talk: asyncio.Task[None]) -> None:
        self._talks.discard(talk)
        if not talk.cancelled() and (failure := talk.exception()):
            self._failures.append(failure)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that hangs up early is part of many tests, and no failure of the server.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                request = await _read(reader)
                self.requests.append(request)
                await _write(self._next(request.path), request, writer)
                writer.close()
                await writer.wait_closed()
            finally:
                writer.transport.abort()

    def _next(self, path: str) -> Answer:
        answers = self._answers.get(path, [Reply(404)])
        return answers.pop(0) if len(answers) > 1 else answers[0]


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body)


async def _write(answer: Answer, request: Request, writer: asyncio.StreamWriter) -> None:
    if isinstance(answer, Raw):
        await answer.write(request, writer)
        return
    reply = answer if isinstance(answer, Reply) else answer(request)
    size = {"Transfer-Encoding": "chunked"}
    if isinstance(reply.body, bytes):
        size = {"Content-Length": str(len(reply.body))}
    headers = {**size, "Connection": "close", **reply.headers}
    lines = [f"HTTP/1.1 {reply.status} {_phrase(reply.status)}", *(f"{k}: {v}" for k, v in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    if isinstance(reply.body, bytes):
        writer.write(reply.body if request.method != "HEAD" else b"")
    else:
        async for piece in reply.body:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
    await writer.drain()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
