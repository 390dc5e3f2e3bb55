"""`flowserver serve` beside a server written by hand for the same drawings (`benchmarks/by_hand.py`).

    .venv/bin/python -m benchmarks.server [--seconds 2] [--rounds 3] [--only echo]       or make bench-server

One embedded Postgres with its usual durability, a database for each; both servers and two model servers (one
answers 50 tokens at once, one every 10 ms) are processes on free ports of 127.0.0.1, all on the same
cores. The servers take turns, so many rounds, and medians are shown. A ratio above 1 says how many times
better flowserver is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import msgspec
import psycopg
import uvloop
from psycopg.conninfo import make_conninfo

from benchmarks.client import Client, Refused
from flowserver.accounts import DEFAULT_ORG
from flowserver.database import database
from flowserver.db import make_pool
from flowserver.feeds import Feed
from flowserver.journal import Journal
from flowserver.settings import Settings
from tests.server import KEY, drawing, edge, node, server_process

ROOT = Path(__file__).parents[1]
API = "/api/v1"
TOKENS = 50
LEASE = 10

Row: TypeAlias = tuple[Any, ...]
"""A measurement: what, its unit, by hand, flowserver."""


@dataclass(frozen=True)
class Side:
    """One of the servers, and how each drawing is run there."""

    port: int
    pid: int
    headers: str
    paths: dict[str, str]
    body: dict[str, bytes]

    def client(self) -> Client:
        return Client(self.port, self.headers)

    @property
    def cpu(self) -> float:
        """Seconds of CPU that the process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Requests


@dataclass(frozen=True)
class Load:
    """What so many clients got that ask without a pause."""

    per_second: float
    cpu: float
    """Seconds of the server's for each request."""
    took: list[float]
    refused: int


async def load(side: Side, name: str, clients: int, seconds: float) -> Load:
    took: list[float] = []
    refused = 0
    end = time.perf_counter() + seconds

    async def one() -> None:
        nonlocal refused
        async with side.client() as client:
            while (began := time.perf_counter()) < end:
                client.send("POST", side.paths[name], side.body[name])
                try:
                    await client.answer()
                    took.append(time.perf_counter() - began)
                except Refused:
                    refused += 1

    began, cpu = time.perf_counter(), side.cpu
    await asyncio.gather(*(one() for _ in range(clients)))
    return Load(len(took) / (time.perf_counter() - began), (side.cpu - cpu) / len(took), took, refused)


async def requests(hand: Side, ours: Side, name: str, rounds: int, seconds: float) -> list[Row]:
    rows: list[Row] = []
    for side in (hand, ours):
        await load(side, name, 8, seconds)  # warm up
    for clients in (1, 8, 64):
        found: tuple[list[Load], list[Load]] = ([], [])
        for _ in range(rounds):
            for side, loads in zip((hand, ours), found, strict=True):
                loads.append(await load(side, name, clients, seconds))
        title = f"{name}, {clients} client{'s' if clients > 1 else ''}"
        _tell_refused(rows, title, [sum(each.refused for each in loads) for loads in found])
        rates = [statistics.median(each.per_second for each in loads) for loads in found]
        rows.append((title, "requests/s", rates[0], rates[1]))
        cpu = [statistics.median(each.cpu for each in loads) * 1000 for loads in found]
        rows.append((title, "ms of server CPU", cpu[0], cpu[1]))
        for share, label in ((0.5, "p50"), (0.95, "p95")):
            times = [_share([took for each in loads for took in each.took], share) * 1000 for loads in found]
            rows.append((title, f"ms {label}", times[0], times[1]))
    return rows


def _tell_refused(rows: list[Row], what: str, refused: list[int]) -> None:
    if any(refused):
        rows.append((what, "refused", *refused))


def _share(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


# Streams


async def stream(side: Side) -> tuple[float, float]:
    """Seconds to the first and to the last token of one streamed chat."""
    async with side.client() as client:
        began = time.perf_counter()
        client.send("POST", side.paths["stream"], side.body["stream"])
        # By hand, an empty piece comes first.
        told = [at async for at, frame in client.events() if b"event: text" in frame and b'":""' not in frame]
    return told[0] - began, told[-1] - began


async def streams(hand: Side, ours: Side, rounds: int) -> list[Row]:
    rows: list[Row] = []
    for side in (hand, ours):
        await stream(side)
    for count in (1, 10, 50, 100):
        found: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
        refused, cpu, title = [0, 0], [0.0, 0.0], f"{count} stream{'s' if count > 1 else ''}"
        for _ in range(rounds):
            for index, side in enumerate((hand, ours)):
                before = side.cpu
                each = await asyncio.gather(*(stream(side) for _ in range(count)), return_exceptions=True)
                cpu[index] += (side.cpu - before) * 1000 / rounds / count
                found[index].extend(times for times in each if isinstance(times, tuple))
                refused[index] += sum(isinstance(times, Refused) for times in each)
        _tell_refused(rows, title, refused)
        rows.append((title, "ms of server CPU", *cpu))
        for which, label in ((0, "first"), (1, "last")):
            times = [statistics.median(each[which] for each in side) * 1000 for side in found]
            rows.append((title, f"ms to {label} token", *times))
    return rows


# Questions


async def resume_by_hand(side: Side) -> float:
    async with side.client() as client:
        asked = await client.ask("POST", "/ask", b'{"input": "x"}')
        began = time.perf_counter()
        await client.ask(
            "POST", "/resume", msgspec.json.encode({"input": "yes", "thread_id": asked["thread_id"]})
        )
    return time.perf_counter() - began


async def resume_ours(side: Side) -> float:
    """From sending the answer until a watcher sees that the run has succeeded."""
    async with side.client() as client, side.client() as watcher:
        run = await client.ask("POST", side.paths["ask"], b'{"input": "x"}')
        watcher.send("GET", f"{API}/runs/{run['id']}/events?after={run['last_seq']}")
        seen = asyncio.create_task(_until(watcher, b"event: run.succeeded"))
        await asyncio.sleep(0.05)  # it has joined
        began = time.perf_counter()
        await client.ask("POST", f"{API}/runs/{run['id']}/resume", b'{"answer": "yes"}')
        return await seen - began


async def _until(client: Client, event: bytes) -> float:
    async for at, frame in client.events():
        if event in frame:
            return at
    raise RuntimeError(f"the stream ended without {event.decode()}")


async def resumes(hand: Side, ours: Side, rounds: int) -> list[Row]:
    by_hand: list[float] = []
    flowserver: list[float] = []
    for _ in range(10 * rounds):
        by_hand.append(await resume_by_hand(hand))
        flowserver.append(await resume_ours(ours))
    return [
        (
            f"{10 * rounds} answers",
            f"ms {label} to the end",
            _share(by_hand, share) * 1000,
            _share(flowserver, share) * 1000,
        )
        for share, label in ((0.5, "p50"), (0.95, "p95"))
    ]


# Events and deaths: flowserver only


async def journal(dsn: str, seconds: float, runs: int, together: int) -> float:
    """Events per second that this process writes for so many runs, so many events to a commit."""
    async with make_pool(dsn) as pool:
        ids = [uuid4() for _ in range(runs)]
        async with pool.connection() as conn:
            await conn.execute(
                "INSERT INTO run (id, org_id, version, thread_id, trigger, status, epoch)"
                " SELECT id, %s, (SELECT min(version) FROM workflow_version), id::text, '{}', 'running', 1"
                " FROM unnest(%s::uuid[]) AS id",
                (DEFAULT_ORG, ids),
            )
        end = time.perf_counter() + seconds

        async def tell(run: UUID) -> int:
            written, its = 0, Journal(pool, Feed(), run, 1, 1)
            while time.perf_counter() < end:
                for number in range(together):
                    its.add("step.started", {"step": f"s{number}", "type": "Template", "attempt": 1})
                await its.flush()
                written += together
            return written

        began = time.perf_counter()
        total = sum(await asyncio.gather(*(tell(id) for id in ids)))
        rate = total / (time.perf_counter() - began)
        async with pool.connection() as conn:
            await conn.execute("DELETE FROM run WHERE id = ANY(%s)", (ids,))
    return rate


async def deaths(dsn: str, folder: Path, model: str, ours: Side) -> float:
    """Seconds from the kill of a server until another tells that it has begun the run again."""
    settings = _settings(model)
    async with server_process(dsn, folder / "dying", settings) as dying:
        port = _port(str(dying.client.base_url))
        victim = Side(port, dying.process.pid, ours.headers, ours.paths, ours.body)
        async with victim.client() as client, ours.client() as watcher:
            client.send("POST", victim.paths["stream"], victim.body["stream"])
            run = ""
            async for _, frame in client.events():
                if b"event: text" in frame:
                    run = msgspec.json.decode(frame.split(b"data: ", 1)[1])["run_id"]
                    break
            began = time.perf_counter()
            await dying.kill()
            watcher.send("GET", f"{API}/runs/{run}/events")
            async for at, frame in watcher.events():
                if b"event: run.started" in frame and b'"attempt":2' in frame:
                    return at - began
    raise RuntimeError("nobody has taken the run over")


# The processes


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[tuple[str, int]]:
    """A Python process of our own, as what it says first and its id; it is stopped at the end."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert started.stdout is not None
    try:
        said = await asyncio.wait_for(started.stdout.readline(), 30)
        yield said.decode().strip(), started.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(started.wait(), 10)
        except TimeoutError:
            started.kill()
            await started.wait()


def _settings(model: str) -> dict[str, str]:
    host = model.split("/")[2]
    return {
        "FLOWSERVER_LEASE_SECONDS": str(LEASE),
        "FLOWSERVER_OUTBOUND_ALLOW": host,
        "FLOWSERVER_MAX_RUNS": "256",
        "FLOWSERVER_LOG_LEVEL": "error",
    }


def _port(url: str) -> int:
    return int(url.split(":")[2].split("/")[0])


def chat(model: str) -> dict[str, Any]:
    return drawing(
        node("start", "StartNode"),
        node("model", "OpenAIChat", model_name="gpt-4o-mini", base_url=model, api_key="sk-none"),
        node("agent", "Agent", system_prompt="Be kind."),
        node("end", "EndNode"),
        edge("start", "agent"),
        edge("model", "agent", "llm", "llm"),
        edge("agent", "end"),
    )


DRAWINGS = {
    "echo": drawing(
        node("start", "StartNode"),
        node("template", "Template", template="You said {{ input }}."),
        node("end", "EndNode"),
        edge("start", "template"),
        edge("template", "end"),
    ),
    "ask": drawing(
        node("start", "StartNode"),
        node("ask", "HumanInput", question="Go on?"),
        node("end", "EndNode"),
        edge("start", "ask"),
        edge("ask", "end"),
    ),
}


async def our_side(port: int, pid: int, models: dict[str, str]) -> Side:
    """Save the drawings at the server that listens on `port`."""
    headers = f"Authorization: Bearer {KEY}\r\n"
    drawings = DRAWINGS | {"chat": chat(models["fast"]), "stream": chat(models["slow"])}
    paths: dict[str, str] = {}
    async with Client(port, headers) as client:
        for name, drawn in drawings.items():
            body = msgspec.json.encode({"name": name, "flow_data": drawn})
            made = await client.ask("POST", f"{API}/workflows", body)
            paths[name] = f"{API}/workflows/{made['id']}/runs"
    body = {name: b'{"input": "hello"}' for name in drawings}
    return Side(port, pid, headers, paths, body | {"stream": b'{"input": "hello", "mode": "stream"}'})


@asynccontextmanager
async def both(dsn: str, folder: Path) -> AsyncIterator[tuple[Side, Side, dict[str, str]]]:
    """The two servers, and the models that they use."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("CREATE DATABASE by_hand")
    words = " ".join(f"word{number}" for number in range(TOKENS))
    async with AsyncExitStack() as stack:
        models = {}
        for name, delay in (("fast", "0"), ("slow", "0.01")):
            model = process("tests.openai_server", "--delay", delay, "--reply", words)
            models[name], _ = await stack.enter_async_context(model)
        allowed = ",".join(url.split("/")[2] for url in models.values())
        settings = _settings(models["slow"]) | {"FLOWSERVER_OUTBOUND_ALLOW": allowed}
        server = await stack.enter_async_context(server_process(dsn, folder / "ours", settings))
        ours = await our_side(_port(str(server.client.base_url)), server.process.pid, models)
        by_hand = make_conninfo(dsn, dbname="by_hand")
        told, pid = await stack.enter_async_context(
            process("benchmarks.by_hand", by_hand, models["fast"], models["slow"])
        )
        names = ("echo", "chat", "stream", "ask")
        paths, body = {name: f"/{name}" for name in names}, dict.fromkeys(names, b'{"input": "hello"}')
        hand = Side(_port(told), pid, "", paths, body)
        yield hand, ours, models


async def measure(dsn: str, folder: Path, rounds: int, seconds: float, only: str | None) -> None:
    measuring = asyncio.current_task()
    assert measuring is not None
    # Told to stop, it stops first what it has started.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, measuring.cancel)
    print(f"{'':<26}{'':<22}{'by hand':>12}{'flowserver':>12}{'ratio':>8}")
    async with both(dsn, folder) as (hand, ours, models):
        parts: dict[str, Callable[[], Awaitable[list[Row]]]] = {
            "echo": lambda: requests(hand, ours, "echo", rounds, seconds),
            "chat": lambda: requests(hand, ours, "chat", rounds, seconds),
            "streams": lambda: streams(hand, ours, rounds),
            "answers": lambda: resumes(hand, ours, rounds),
        }
        for name, part in parts.items():
            if only in (None, name):
                for row in await part():
                    _show(*row)
        if only in (None, "events"):
            for together in (1, 20, 100):
                rate = await journal(dsn, seconds, 32, together)
                _alone(f"journal, {together} to a commit", "events/s, 32 runs", rate)
        if only in (None, "deaths"):
            took = await deaths(dsn, folder, models["slow"], ours)
            _alone(f"kill -9, lease of {LEASE} s", "s to the new attempt", took)


def _show(what: str, unit: str, hand: float, ours: float) -> None:
    ratio = ours / hand if unit == "requests/s" else hand / ours
    print(f"{what:<26}{unit:<22}{hand:>12.1f}{ours:>12.1f}{ratio:>8.2f}", flush=True)


def _alone(what: str, unit: str, ours: float) -> None:
    print(f"{what:<26}{unit:<22}{'-':>12}{ours:>12.1f}", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=2.0)
    arguments.add_argument("--only", choices=("echo", "chat", "streams", "answers", "events", "deaths"))
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # Postgres may have to run as another user
        with (
            database(Settings(data_dir=folder / "data")) as dsn,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(measure(dsn, folder, given.rounds, given.seconds, given.only))


if __name__ == "__main__":
    main()
