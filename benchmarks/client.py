"""An HTTP client that costs next to nothing, so that the server is what is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import msgspec


class Refused(Exception):
    """The server has answered with an error."""


class Client:
    """One connection to a server on 127.0.0.1; one request at a time."""

    def __init__(self, port: int, headers: str = "") -> None:
        self._port = port
        self._headers = f"Host: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n{headers}"

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def send(self, method: str, path: str, body: bytes = b"") -> None:
        head = f"{method} {path} HTTP/1.1\r\n{self._headers}Content-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)

    async def ask(self, method: str, path: str, body: bytes = b"") -> Any:
        """The JSON of an answer.

        Raises:
            Refused: It is an error.
        """
        self.send(method, path, body)
        return msgspec.json.decode(await self.answer())

    async def answer(self) -> bytes:
        """The body of the answer to what was sent.

        Raises:
            Refused: It is an error.
        """
        status, headers = await self._head()
        if b"content-length" in headers:
            found = await self._reader.readexactly(int(headers[b"content-length"]))
        else:
            found = b"".join([piece async for piece in self._pieces()])
        if status >= 400:
            raise Refused(f"{status}: {found[:500].decode(errors='replace')}")
        return found

    async def events(self) -> AsyncIterator[tuple[float, bytes]]:
        """The server-sent events of the answer to what was sent, each with the time at which it was here.

        Raises:
            Refused: It is an error.
        """
        status, _ = await self._head()
        if status >= 400:
            raise Refused(str(status))
        rest = b""
        async for piece in self._pieces():
            now = time.perf_counter()
            *frames, rest = (rest + piece).split(b"\n\n")
            for frame in frames:
                yield now, frame

    async def _head(self) -> tuple[int, dict[bytes, bytes]]:
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        pairs = (line.split(b": ", 1) for line in lines if line)
        return int(first.split()[1]), {name.lower(): value for name, value in pairs}

    async def _pieces(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readuntil(b"\r\n")
