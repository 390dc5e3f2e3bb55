"""The soak: two servers and two workers on one Postgres, everything breaks, and nothing is lost.

    make soak MINUTES=20 SEED=7

It prints its seed, the faults that it made, and every invariant that does not hold; then its status is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import psycopg

from tests.faults.nursery import Child, Nursery, nursery
from tests.faults.postgres import Restartable, restartable
from tests.faults.proxy import Proxy
from tests.soak.invariants import State, broken, open_runs
from tests.soak.load import Effects, Load, drawings
from tests.web_server import WebServer

LEASE = 3
CLIENTS = 8
CALM = 90.0
"""Seconds after the last fault within which every run must have ended."""
SETTINGS = {
    "FLOWSERVER_LEASE_SECONDS": str(LEASE),
    "FLOWSERVER_GRACE_SECONDS": "2",
    "FLOWSERVER_MAX_ATTEMPTS": "100",  # a run may meet more deaths here than in years elsewhere
}


class Member:
    """A place in the cluster: a process behind a line of its own, started again whenever it dies."""

    def __init__(self, command: str, proxy: Proxy, bear: Callable[[Proxy], Awaitable[Child]]) -> None:
        self.command = command
        self.proxy = proxy
        self.child: Child | None = None
        self._bear = bear

    @property
    def url(self) -> str | None:
        return str(self.child.client.base_url).rstrip("/") if self.child is not None else None

    async def start(self) -> None:
        """Start it, again and again until it is up: its database may be away."""
        while self.child is None:
            try:
                self.child = await self._bear(self.proxy)
            except AssertionError:
                await asyncio.sleep(0.5)

    async def end(self, number: signal.Signals) -> None:
        """End the process, by that signal."""
        child, self.child = self.child, None
        if child is not None:
            with suppress(ProcessLookupError):
                child.signal(number)
            with suppress(TimeoutError):
                await asyncio.wait_for(child.ended(), 15)
            await child.kill()
            await child.client.aclose()


class Nemesis:
    """Breaks one thing after the other, and mends it."""

    def __init__(self, members: list[Member], postgres: Restartable, dsn: str, chance: random.Random) -> None:
        self.made: Counter[str] = Counter()
        self._members = members
        self._postgres = postgres
        self._dsn = dsn
        self._chance = chance
        self._faults: list[tuple[int, str, Callable[[], Awaitable[None]]]] = [
            (6, "SIGKILL", self._kill),
            (3, "SIGTERM", self._terminate),
            (4, "SIGSTOP", self._stop),
            (3, "restart of Postgres", self._restart),
            (3, "stalled line", lambda: self._line("stall", 1, 4 * LEASE)),
            (2, "cut line", self._cut),
            (2, "refused line", lambda: self._line("refuse", 1, 2 * LEASE)),
            (2, "lost answers", lambda: self._line("drop_answers", 0.5, LEASE)),
            (2, "ended connections", self._end_connections),
        ]

    async def rage(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        weights = [weight for weight, _, _ in self._faults]
        while loop.time() < until:
            _, name, fault = self._chance.choices(self._faults, weights)[0]
            await fault()
            self.made[name] += 1
            await asyncio.sleep(self._chance.uniform(3, 8))

    def _one(self) -> Member:
        return self._chance.choice(self._members)

    async def _kill(self) -> None:
        member = self._one()
        await member.end(signal.SIGKILL)
        await asyncio.sleep(self._chance.uniform(0, 3))
        await member.start()

    async def _terminate(self) -> None:
        member = self._one()
        await member.end(signal.SIGTERM)
        await member.start()

    async def _stop(self) -> None:
        child = self._one().child
        if child is not None:
            child.signal(signal.SIGSTOP)
            await asyncio.sleep(self._chance.uniform(0.5, 3 * LEASE))
            with suppress(ProcessLookupError):
                child.signal(signal.SIGCONT)

    async def _restart(self) -> None:
        await asyncio.to_thread(self._postgres.cut_off)
        await asyncio.sleep(self._chance.uniform(0, 4))
        await asyncio.to_thread(self._postgres.start)

    async def _line(self, mode: str, least: float, most: float) -> None:
        proxy = self._one().proxy
        proxy.turn(mode)  # type: ignore[arg-type]  # one of its modes
        await asyncio.sleep(self._chance.uniform(least, most))
        proxy.turn("pass")
        if mode == "drop_answers":  # what was swallowed will never come: the line is of no use
            proxy.cut()

    async def _cut(self) -> None:
        self._one().proxy.cut()

    async def _end_connections(self) -> None:
        with suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as conn:
                await conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.3"
                )


async def soak(minutes: float, seed: int, folder: Path, bears: Nursery, postgres: Restartable) -> int:
    """Run the soak; the number of broken invariants."""
    chance = random.Random(seed)
    dsn, loop = postgres.fresh(), asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        web = await stack.enter_async_context(WebServer())
        effects = Effects(web, chance)
        settings = {**SETTINGS, "FLOWSERVER_OUTBOUND_ALLOW": web.door}
        members = []
        for command, *arguments in (("serve",), ("serve", "--no-worker"), ("worker",), ("worker",)):
            proxy = await stack.enter_async_context(Proxy(dsn))

            async def bear(proxy: Proxy, command: str = command, arguments: list[str] = arguments) -> Child:
                child = await bears.bear(proxy.dsn, command, *arguments, settings=settings)
                try:
                    await child.is_ready(command)
                except AssertionError:
                    await child.kill()
                    raise
                return child

            members.append(Member(command, proxy, bear))
        for member in members:
            await member.start()
        servers = [member for member in members if member.command == "serve"]
        load = Load(lambda: [url for each in servers if (url := each.url)], drawings(effects.url), chance)
        stack.push_async_callback(load.aclose)
        nemesis = Nemesis(members, postgres, dsn, chance)
        until = loop.time() + 60 * minutes
        await asyncio.gather(nemesis.rage(until), *(load.submit(until) for _ in range(CLIENTS)))
        calm = time.monotonic()
        for member in members:
            await member.start()
        while open_runs(dsn) and time.monotonic() < calm + CALM:
            await asyncio.sleep(0.2)
        settled = time.monotonic() - calm
        for member in members:
            await member.end(signal.SIGTERM)
        found = list(broken(State(dsn), load.accepted, effects, folder))
    return _tell(seed, nemesis, load, effects, settled, [*found, *load.odd])


def _tell(seed: int, nemesis: Nemesis, load: Load, effects: Effects, settled: float, found: list[str]) -> int:
    kinds = Counter(run.kind for run in load.accepted)
    rows: list[tuple[str, object]] = [
        *nemesis.made.most_common(),
        ("runs accepted", len(load.accepted)),
        *((f"  {kind}", count) for kind, count in kinds.items()),
        ("requests sent again", load.sent_again),
        ("streams followed", sum(run.followed for run in load.accepted)),
        ("effects", effects.done.total()),
        ("  by processes that died", effects.done.total() - len(effects.done)),
        ("seconds until all had ended", round(settled, 1)),
        ("runs lost or failed", sum(each.startswith("I1 ") for each in found)),
        ("executed beyond the contract", sum(each.startswith("I5") for each in found)),
        ("broken invariants", len(found)),
    ]
    print(f"\nseed {seed}")
    print("\n".join(f"{name:30} {value:>8}" for name, value in rows))
    print("\n".join(found[:50]))
    return len(found)


def main() -> int:
    options = argparse.ArgumentParser("soak", description=__doc__)
    options.add_argument("--minutes", type=float, default=20)
    options.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    given = options.parse_args()
    print(f"soaking for {given.minutes:g} minutes with seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with restartable() as postgres, nursery(folder) as bears:
            count = asyncio.run(soak(given.minutes, given.seed, folder, bears, postgres))
            if count:
                for log in sorted(folder.rglob("log")):
                    sys.stderr.write(f"--- {log}\n{log.read_text(errors='replace')[-20_000:]}")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
