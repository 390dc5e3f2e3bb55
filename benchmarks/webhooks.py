"""What a webhook costs beside the same run started through the API.

    .venv/bin/python -m benchmarks.webhooks [--seconds 3] [--rounds 3] [--clients 8]

One server process on an embedded Postgres; the same drawing is started by `POST /workflows/{id}/runs`, by a
webhook that answers with its result, and by one that answers at once. They take turns; medians are shown.
Every delivery has an id of its own, so each is in the ledger. A ratio of 1 means that this costs nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.client import Client
from flowserver.database import database
from flowserver.settings import Settings
from tests.server import KEY, drawing, edge, node, server_process

AUTHORISED = f"Authorization: Bearer {KEY}\r\n"
BODY = b'{"id": "%d", "total": 12}'


def echo(answer: str) -> dict[str, Any]:
    """A drawing that gives back what it gets; it has a webhook at a path of that name."""
    hook = node("hook", "WebhookTrigger", path=answer, answer=answer, dedupe_pointer="/id")
    return drawing(hook, node("end", "EndNode"), edge("hook", "end"))


async def rate(port: int, path: str, is_run: bool, clients: int, seconds: float) -> float:
    """Requests a second."""
    numbers, end, done = itertools.count(time.time_ns()), time.perf_counter() + seconds, 0

    async def one() -> None:
        nonlocal done
        async with Client(port, AUTHORISED if is_run else "") as client:
            while time.perf_counter() < end:
                body = BODY % next(numbers)
                client.send("POST", path, b'{"input": %b}' % body if is_run else body)
                await client.answer()
                done += 1

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    return done / (time.perf_counter() - began)


async def measure(dsn: str, folder: Path, rounds: int, seconds: float, clients: int) -> None:
    settings = {"FLOWSERVER_LEASE_SECONDS": "10", "FLOWSERVER_DELIVERIES_PER_MINUTE": "0"}
    async with server_process(dsn, folder, settings) as server:
        ids = {}
        for answer in ("result", "at_once"):
            saved = await server.client.post("/workflows", json={"name": answer, "flow_data": echo(answer)})
            ids[answer] = saved.json()["id"]
            await server.client.post(f"/workflows/{ids[answer]}/publish")
        port = server.client.base_url.port or 0
        ways = {
            "run over the API": (f"/api/v1/workflows/{ids['result']}/runs", True),
            "webhook, result": ("/hooks/result", False),
            "webhook, at once": ("/hooks/at_once", False),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, (path, is_run) in ways.items():
                found[name].append(await rate(port, path, is_run, clients, seconds))
    base = statistics.median(found["run over the API"])
    print(f"{clients} clients\n{'':20}{'requests/s':>12}{'ratio':>8}")
    for name, rates in found.items():
        print(f"{name:20}{statistics.median(rates):>12.0f}{statistics.median(rates) / base:>8.2f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=3)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--clients", type=int, default=8)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, database(Settings(data_dir=Path(folder))) as dsn:
        uvloop.run(measure(dsn, Path(folder), options.rounds, options.seconds, options.clients))


if __name__ == "__main__":
    main()
