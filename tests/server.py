"""A real server process for tests that kill it, and small helpers to talk to one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from litestar import Litestar

from flowserver.http.protocol import LimitedProtocol

KEY = "test-key-of-the-test-server"
HEADERS = {"Authorization": f"Bearer {KEY}"}
ROOT = Path(__file__).parents[1]


@asynccontextmanager
async def serving(
    app: Litestar, protocol: type[LimitedProtocol] = LimitedProtocol
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `app`, which listens on a free port in the test's own loop."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        log_config=None,
        lifespan="on",
        timeout_graceful_shutdown=1,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    # As `server.serve` does it, without the looks every tenth of a second whether it is to end.
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listening])
    try:
        base_url = f"http://127.0.0.1:{listening.getsockname()[1]}/api/v1"
        async with httpx.AsyncClient(base_url=base_url, headers=HEADERS, timeout=30) as client:
            yield client
    finally:
        if server.started:
            app.state.flowserver.feeds.close()
            await server.shutdown(sockets=[listening])
        listening.close()


class ServerProcess:
    """`flowserver serve` as its users start it, on a database of the test's."""

    def __init__(self, process: asyncio.subprocess.Process, client: httpx.AsyncClient) -> None:
        self.process = process
        self.client = client

    async def kill(self) -> None:
        """SIGKILL: nothing in the process gets a chance."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> int:
        """Ctrl-C; return the exit status."""
        self.process.send_signal(signal.SIGINT)
        return await asyncio.wait_for(self.process.wait(), 20)


@asynccontextmanager
async def server_process(
    dsn: str, data_dir: Path, settings: Mapping[str, str] | None = None, arguments: tuple[str, ...] = ()
) -> AsyncIterator[ServerProcess]:
    """Start a server and wait until it is ready; it is killed at the end if it still runs."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("FLOWSERVER_")},
        "FLOWSERVER_DATABASE_URL": dsn,
        "FLOWSERVER_DATA_DIR": str(data_dir),
        "FLOWSERVER_API_KEY": KEY,
        "FLOWSERVER_PORT": "0",
        "FLOWSERVER_LEASE_SECONDS": "2",
        "PYTHONUNBUFFERED": "1",
        **(settings or {}),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "flowserver",
        "serve",
        *arguments,
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    log = asyncio.create_task(process.stderr.read())
    try:
        url = await asyncio.wait_for(_url(process.stdout), 30)
        rest = asyncio.create_task(process.stdout.read())
        async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=30) as client:
            yield ServerProcess(process, client)
        rest.cancel()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        sys.stderr.write((await log).decode(errors="replace"))


async def _url(output: asyncio.StreamReader) -> str:
    while line := (await output.readline()).decode():
        if "listens on" in line:
            return line.split()[3] + "/api/v1"
    raise AssertionError("the server ended before it listened")


def node(id: str, type: str, /, **data: Any) -> dict[str, Any]:
    """A node of a drawing."""
    return {"id": id, "type": type, "position": {"x": 0, "y": 0}, "data": data}


def edge(source: str, target: str, port: str | None = None, to: str | None = None) -> dict[str, Any]:
    """An edge of a drawing; `port` and `to` are its handles."""
    return {"source": source, "target": target, "sourceHandle": port, "targetHandle": to}


def drawing(*parts: dict[str, Any]) -> dict[str, Any]:
    """A drawing of nodes and edges."""
    return {
        "nodes": [part for part in parts if "type" in part],
        "edges": [part for part in parts if "source" in part],
    }


def events_of(text: str) -> list[dict[str, Any]]:
    """The events of a server-sent stream; checks that each frame agrees with its data."""
    found: list[dict[str, Any]] = []
    for frame in text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in frame.split("\n") if ": " in line and line[0] != ":")
        if "data" in fields:
            event = json.loads(fields["data"])
            assert fields["id"] == str(event["seq"])
            assert fields["event"] == event["event"]
            found.append(event)
    return found


def told(events: list[dict[str, Any]]) -> list[str]:
    """Events in short: `step.started a`, `run.succeeded` …"""
    return [f"{event['event']} {event.get('step', '')}".strip() for event in events]
