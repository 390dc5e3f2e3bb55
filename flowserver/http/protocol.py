"""HTTP/1.1 with limits on a request that is still coming: how large its head is, and how slow it may be.

It extends uvicorn's protocol by the methods of `asyncio.Protocol` and by the callbacks of httptools.
"""

from __future__ import annotations

import asyncio
import json
import logging
from http import HTTPStatus
from typing import Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from flowserver.http.problems import TYPE

MAX_HEAD_BYTES = 64 * 1024
MAX_FIELDS = 100

_LINGER_SECONDS = 2.0
"""How long a refused head is read and thrown away: closed at once, the sender would not see why."""

logger = logging.getLogger(__name__)


_Part = Literal["head", "body"]


class LimitedProtocol(HttpToolsProtocol):
    """Answers 431 to a head that is too large, 408 to a head or body that does not come, and closes."""

    head_seconds = 15.0
    body_seconds = 20.0
    bytes_per_second = 1000
    """A body that comes at least this fast may take longer than `body_seconds`."""
    tick = 1.0
    """Seconds between two looks at a connection whose client has something to send."""

    _part: _Part | None = "head"
    """What the client has to send next; `None` while it is the server's turn."""
    _requests = 0
    _body_bytes = 0
    _unparsed = 0
    """Bytes since the last progress, which is a head that ends or a piece of a body."""
    _at_most = 0
    """The most bytes that a head which ends now can have."""
    _is_too_large = False
    _timer: asyncio.TimerHandle | None = None
    _refused_at: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if len(data) <= MAX_HEAD_BYTES:
            self._feed(data)
            return
        for start in range(0, len(data), MAX_HEAD_BYTES):
            self._feed(data[start : start + MAX_HEAD_BYTES])

    def _feed(self, piece: bytes) -> None:
        """Parse a piece. httptools joins a field with what comes of it each time, so a long one ends here."""
        if self._refused_at is not None or self.transport.is_closing():
            return
        if self._part is None:
            self._expect_head()
        number, part, body_bytes = self._requests, self._part, self._body_bytes
        self._at_most = self._unparsed + len(piece)
        super().data_received(piece)
        if number == self._requests and part == self._part and body_bytes == self._body_bytes:
            self._unparsed = self._at_most
        else:
            self._unparsed = 0
        if self._part == "body" and len(self.headers) > MAX_FIELDS:
            self._is_too_large = True  # fields may follow a body, too
        if (self._is_too_large or self._unparsed > MAX_HEAD_BYTES) and not self.transport.is_closing():
            self._refuse(431, f"a request's head may have {MAX_HEAD_BYTES:,} bytes and {MAX_FIELDS} fields")

    # Callbacks of httptools

    def on_headers_complete(self) -> None:
        self._check_size()
        if self._is_too_large:
            self._part = "head"
        else:
            self._part, self._waited, self._body_bytes = "body", 0.0, 0
            self._requests += 1
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._is_too_large:
            self._body_bytes += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._check_size()
        if not self._is_too_large:
            self._part = None
            super().on_message_complete()

    def _check_size(self) -> None:
        if len(self.headers) > MAX_FIELDS:
            self._is_too_large = True
        elif self._at_most > MAX_HEAD_BYTES:
            size = sum(len(name) + len(value) + 4 for name, value in self.headers)
            self._is_too_large = len(self.url) + size > MAX_HEAD_BYTES

    # Time

    def _expect_head(self) -> None:
        self._part = "head"
        self._unparsed = 0
        self._since = self.loop.time()
        if self._timer is None:
            self._timer = self.loop.call_later(self.tick, self._look)

    def _look(self) -> None:
        """Refuse what takes too long; look again while the client has something to send."""
        self._timer = None
        if self.transport.is_closing():
            return
        now = self.loop.time()
        if self._refused_at is not None:
            if now - self._refused_at >= _LINGER_SECONDS:
                self.transport.abort()
                return
        elif self._part == "head" and now - self._since >= self.head_seconds and not self._is_answering:
            self._refuse(408, f"the head of the request did not come within {self.head_seconds:g} seconds")
        elif self._part == "body" and self.transport.is_reading():
            self._waited += self.tick
            if self._waited > self.body_seconds + self._body_bytes / self.bytes_per_second:
                self._refuse(408, f"the body came slower than {self.bytes_per_second:,} bytes a second")
        if self._part is not None:
            self._timer = self.loop.call_later(self.tick, self._look)

    # Refusing

    @property
    def _is_answering(self) -> bool:
        """Whether an earlier request of this connection is still being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _may_answer(self) -> bool:
        if self._part == "head":
            return not self._is_answering and self._unparsed > 0
        return not (self.pipeline or self.cycle.response_started)

    def _refuse(self, status: int, detail: str) -> None:
        logger.info("%s: %s", self.client[0] if self.client else "a client", detail)
        if not self._may_answer:
            self.transport.close()
            return
        self.transport.write(_response(status, detail))
        if self._part == "body":
            self.transport.close()  # ends the request inside, too
            return
        self._refused_at = self.loop.time()
        if self.transport.can_write_eof():
            self.transport.write_eof()


def _response(status: int, detail: str) -> bytes:
    title = HTTPStatus(status).phrase
    code = title.lower().replace(" ", "_")
    body = json.dumps({"type": TYPE + code, "title": title, "status": status, "detail": detail}).encode()
    head = (
        f"HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
