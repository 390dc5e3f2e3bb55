"""A TCP proxy in front of Postgres that can break the line in every way lines break."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Literal, Self, TypeAlias

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Mode: TypeAlias = Literal["pass", "stall", "drop_answers"]
"""Let everything through; nothing, without a word; questions, but no answers."""


class Proxy:
    """Listens on a free port of 127.0.0.1 while entered."""

    def __init__(self, dsn: str) -> None:
        self._target = conninfo_to_dict(dsn)
        self._lines: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._talks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.mode: Mode = "pass"
        self.delay = 0.0
        """Seconds by which every piece of an answer is late."""
        self.dropped = 0
        """Bytes of answers that were swallowed."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.dsn = make_conninfo(
            "",
            **{**self._target, "host": "127.0.0.1", "port": self._server.sockets[0].getsockname()[1]},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        await self._server.wait_closed()

    def turn(self, mode: Mode) -> None:
        """Be in another mode from now on; what was stalled goes on."""
        self.mode = mode
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def cut(self) -> None:
        """Reset every line: both sides get an error at once."""
        for pair in self._lines:
            for side in pair:
                with suppress(OSError, AttributeError):
                    linger = struct.pack("ii", 1, 0)
                    side.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                side.transport.abort()

    def close_towards_database(self) -> None:
        """Half-open: the database loses its client, and the client is not told."""
        for _, database in self._lines:
            database.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.ensure_future(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = str(self._target["host"]), self._target["port"]
        try:
            if host.startswith("/"):
                answers, questions = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
            else:
                answers, questions = await asyncio.open_connection(host, int(port or 5432))
        except OSError:
            writer.transport.abort()
            return
        line = (writer, questions)
        self._lines.add(line)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, questions))
                both.create_task(self._carry(answers, writer, answers=True))
        finally:
            self._lines.discard(line)
            for side in line:
                side.transport.abort()

    async def _carry(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        with suppress(ConnectionError):
            while piece := await source.read(65536):
                if answers and self.delay:
                    await asyncio.sleep(self.delay)
                while self.mode == "stall":
                    await self._changed.wait()
                if answers and self.mode == "drop_answers":
                    self.dropped += len(piece)
                    continue
                to.write(piece)
                await to.drain()
        if answers and self.mode in ("stall", "drop_answers"):
            await asyncio.Event().wait()  # the client is not told that its database has gone
        to.close()
