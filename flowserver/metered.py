"""Bodies of bounded size: unpacked here piece by piece, as httpx would unpack a bomb whole."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator

import httpx

from nodes.contract import NodeError


class ResponseTooLarge(NodeError):
    """An answer has more bytes than a workflow may load."""

    def __init__(self, origin: str, limit: int) -> None:
        super().__init__(f"{origin} answered with more than {limit} bytes", code="response_too_large")


class Meter:
    """Takes a body's compression off, piece by piece, and stops at the limit."""

    _PIECE = 65_536
    # zlib tells gzip and deflate apart by itself; nothing else was asked for.
    _KNOWN = frozenset({"gzip", "x-gzip", "deflate"})

    def __init__(self, encoding: str, limit: int, origin: str) -> None:
        names = {part.strip().lower() for part in encoding.split(",")} - {"", "identity"}
        self._unknown = len(names) > 1 or not names <= self._KNOWN
        self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 32) if names else None
        self._limit = limit
        self._origin = origin
        self._packed = self._unpacked = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give what `data` holds.

        Raises:
            ResponseTooLarge: The body has more bytes than the limit, packed or unpacked.
            httpx.DecodingError: It is not compressed as its header says, or in a way we did not ask for.
        """
        if self._unknown:
            raise httpx.DecodingError(f"{self._origin} answered in an encoding that nobody asked for")
        self._packed += len(data)
        for piece in self._pieces(data):
            self._unpacked += len(piece)
            if max(self._packed, self._unpacked) > self._limit:
                raise ResponseTooLarge(self._origin, self._limit)
            yield piece

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        if self._unpack is None:
            yield data
            return
        if self._unpack.eof:
            return
        piece = b" "
        while piece:
            try:
                piece = self._unpack.decompress(data, self._PIECE)
            except zlib.error:
                raise httpx.DecodingError(f"{self._origin} answered with broken compression") from None
            data = self._unpack.unconsumed_tail
            yield piece


class MeteredBody(httpx.AsyncByteStream):
    """A response's body behind a meter."""

    def __init__(self, stream: httpx.AsyncByteStream, meter: Meter) -> None:
        self._stream = stream
        self._meter = meter

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            for piece in self._meter.feed(data):
                yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()
