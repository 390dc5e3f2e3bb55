"""Work that strangers' texts and settings make: it has limits, can be cancelled, and stops nobody else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from flowserver.confined import Confined
from flowserver.threads import Threads
from flowserver.workshop import IsolatedCalls, IsolationOf
from nodes.contract import NodeError
from nodes.isolated import LIGHT, weight
from tests.server import drawing, edge, node, server_process
from tests.workshop import confined

ROOT = Path(__file__).parents[2]

SLOW_PATTERN = "|".join(f"a[ab]{{{length}}}[^ab]" for length in range(1, 110))
"""Linear in the text, and still minutes for a megabyte: each of its 6,000 instructions for each character."""


def echoed(value: Any) -> Any:
    return value


def endless(value: Any) -> Any:
    while True:
        pass


def greedy(count: int) -> int:
    return len([bytes(1 << 20) for _ in range(count)])


def failing(items: Sequence[int]) -> int:
    raise NodeError(f"{sum(items)} is refused", code="bad_operand")


def wrong(value: Any) -> Any:
    raise KeyError("a secret")


@pytest.fixture
async def pool() -> AsyncIterator[Confined]:
    async with confined() as pool:
        yield pool


@pytest.fixture
async def door(pool: Confined) -> IsolationOf:
    return IsolatedCalls(pool, 2).of(UUID(int=1))


async def test_a_value_comes_back_as_it_went(door: IsolationOf) -> None:
    value = {"n": [2**63, -(2**70), 10**40, 1.5, None, True], "ä\x00": "\u2028"}

    assert await door.call(echoed, value) == value


async def test_a_failure_is_the_functions_own(door: IsolationOf) -> None:
    with pytest.raises(NodeError) as failed:
        await door.call(failing, [1, 2])
    with pytest.raises(NodeError) as unexpected:
        await door.call(wrong, None)

    assert (failed.value.code, failed.value.message) == ("bad_operand", "3 is refused")
    assert (unexpected.value.code, unexpected.value.message) == (
        "step_failed",
        "it failed inside (KeyError)",
    )


async def test_what_takes_too_long_or_too_much_is_ended(pool: Confined, door: IsolationOf) -> None:
    with pytest.raises(NodeError) as long:
        await door.call(endless, None, seconds=1)
    with pytest.raises(NodeError) as much:
        await door.call(greedy, 2_000)

    assert (long.value.code, much.value.code) == ("too_complex", "too_complex")
    assert pool.living == []


async def test_no_process_goes_on_for_somebody_who_has_left(pool: Confined, door: IsolationOf) -> None:
    calling = asyncio.create_task(door.call(endless, None))
    while not pool.living:
        await asyncio.sleep(0.01)
    (pid,) = pool.living

    calling.cancel()
    await asyncio.wait([calling])

    assert pool.living == []
    assert not os.path.exists(f"/proc/{pid}")


async def test_one_organisation_never_keeps_every_process_busy(pool: Confined) -> None:
    calls = IsolatedCalls(pool, 2)
    busy = [asyncio.create_task(calls.of(UUID(int=1)).call(endless, None)) for _ in range(5)]
    await asyncio.sleep(0)

    async with asyncio.timeout(20):
        assert await calls.of(UUID(int=2)).call(echoed, 1) == 1

    for each in busy:
        each.cancel()
    await asyncio.wait(busy)


def test_the_weight_of_a_value_is_counted_up_to_what_matters() -> None:
    assert weight("x" * 100) == 108
    assert weight({"a": [1, 2]}) == 9 + 10 + 16
    assert weight([["x" * LIGHT] * 3] * 1_000_000) > LIGHT


def splitting(pattern: str) -> dict[str, Any]:
    return drawing(
        node("start", "StartNode"),
        node("cut", "ChunkSplitter", separators=[pattern], is_separator_regex=True),
        edge("start", "cut"),
    )


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_many_slow_patterns_stop_neither_the_server_nor_its_end(dsn: str, tmp_path: Path) -> None:
    async with server_process(dsn, tmp_path) as server:
        started = [
            (
                await server.client.post(
                    "/runs",
                    json={
                        "flow_data": splitting(SLOW_PATTERN),
                        "input": "ab" * 400_000,
                        "mode": "background",
                    },
                )
            ).json()["id"]
            for _ in range(8)
        ]
        for _ in range(10):
            began = time.monotonic()
            assert (await server.client.get("/workflows")).status_code == 200
            assert time.monotonic() - began < 2
        used = cpu_seconds(server.process.pid)
        await asyncio.sleep(1)
        # Others do the work: what the server itself does meanwhile is next to nothing.
        assert cpu_seconds(server.process.pid) - used < 0.7
        for run in started[:4]:
            assert (await server.client.post(f"/runs/{run}/cancel")).status_code < 300
        began = time.monotonic()
        server.process.terminate()
        await asyncio.wait_for(server.process.wait(), 20)

    assert time.monotonic() - began < 15


async def test_a_pattern_of_hundreds_of_groups_costs_no_more_than_others(dsn: str, tmp_path: Path) -> None:
    async with server_process(dsn, tmp_path) as server:
        given = {"flow_data": splitting("(" * 900 + "," + ")" * 900), "input": "ab," * 20_000}
        run = (await server.client.post("/runs?timeout=25", json=given)).json()
        too_long = (
            await server.client.post(
                "/workflows/check", json={"flow_data": splitting("(" * 5000 + ")" * 5000)}
            )
        ).json()

    assert run["status"] == "succeeded"
    assert "10000 characters; allowed are 2000" in too_long["problems"][0]["message"]


async def test_work_in_threads_is_given_up_and_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(1)

    assert await threads.call(5, sum, [1, 2]) == 3
    with pytest.raises(ZeroDivisionError):
        await threads.call(5, divmod, 1, 0)
    with pytest.raises(TimeoutError):
        await threads.call(0.1, time.sleep, 0.5)
    with pytest.raises(TimeoutError):
        await threads.call(0.1, sum, [1])
    assert await threads.call(5, sum, [1]) == 1


STUCK = """
import asyncio, sys, time
from flowserver.serving import leave, run

async def main():
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
    print("done", flush=True)

run(main())
print("left", flush=True)
sys.exit(leave(3))
"""


def test_a_process_ends_although_a_thread_still_works() -> None:
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", STUCK], cwd=ROOT, capture_output=True, timeout=40, text=True
    )

    assert (ended.returncode, ended.stdout.split()) == (3, ["done", "left"])
    assert time.monotonic() - began < 20
