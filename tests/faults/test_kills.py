"""The process dies at its n-th statement, and another one goes on: nothing is lost, nothing done twice.

Each case kills a server of its own right before or right after a statement that it sends for a run. In
`make test` some of all statements are tried, in `make faults` every one.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from tests.faults.checks import (
    check_effects,
    check_events,
    check_line,
    events,
    no_job_is_left,
    rows,
    settled,
    until,
)
from tests.faults.drawings import DRAWINGS, Counted
from tests.faults.nursery import Child, Family
from tests.faults.sabotage import KILLED, Sabotage
from tests.web_server import WebServer

COUNTED = (
    "flowserver.runs.Runs.start",
    "flowserver.runs.Runs.resume",
    "flowserver.execution.Execution.go",
)
AT_ONCE = 6
SOME = 6
"""How many statements of each drawing `make test` tries."""

When = Literal["before", "after"]


class Matrix:
    """Kills of servers that execute one drawing, on one database that another server works on too."""

    def __init__(
        self, children: Family, web: WebServer, dsn: str, counted: Counted, durability: str, folder: Path
    ) -> None:
        self.children = children
        self.web = web
        self.dsn = dsn
        self.counted = counted
        self.durability = durability
        self.folder = folder
        self.settings = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}

    async def begin(self) -> tuple[Any, int]:
        """Start the server that survives, and run the drawing undisturbed: its output and its statements."""
        self.survivor = await self.children.bear(self.dsn, settings=self.settings)
        for name, flow_data in self.counted.called.items():
            made = await self.survivor.client.post("/workflows", json={"name": name, "flow_data": flow_data})
            assert made.json()["problems"] == []
        victim = await self.victim("undisturbed", Sabotage(count=str(self.folder / "count")))
        found = await self.drive(victim, "undisturbed")
        assert victim.lives
        await victim.kill()
        check_effects(self.counted.stages, [], self.counted.effects(self.web, "undisturbed"))
        return found["output"], int((self.folder / "count").read_text())

    async def victim(self, label: str, sabotage: Sabotage) -> Child:
        """A server that executes what is started on it and nothing else."""
        self.counted.answer_at(self.web, label)
        changed = Sabotage(
            statement=sabotage.statement,
            when=sabotage.when,
            count=sabotage.count,
            counted=COUNTED,
            takes_jobs=False,
        )
        settings = self.settings | {"PGAPPNAME": label, "FLOWSERVER_LEASE_SECONDS": "3"}
        return await self.children.bear(self.dsn, settings=settings, sabotage=changed)

    async def drive(self, victim: Child, label: str) -> dict[str, Any]:
        """Start a run on `victim`, answer its questions there or where a server lives; the run at its end."""
        body = {
            "flow_data": self.counted.flow_data,
            "input": {"label": label},
            "durability": self.durability,
        }
        run = await self._ask(victim, label, "/runs", body)
        answers = list(self.counted.answers)
        while run["status"] in ("queued", "running", "waiting"):
            if run["status"] == "waiting":
                number = len(self.counted.answers) - len(answers)
                given = {"question_id": run["questions"][0]["id"], "answer": answers.pop(0)}
                await self._ask(victim, f"{label} {number}", f"/runs/{run['id']}/resume", given)
            run = await self._next(victim, label, run)
        assert answers == []
        return run

    async def _ask(self, victim: Child, key: str, path: str, body: Any) -> dict[str, Any]:
        """Send a request until a server has answered it, always with the same key: it is carried out once."""

        async def answered() -> Any:
            client = victim.client if victim.lives else self.survivor.client
            try:
                response = await client.post(path, json=body, headers={"Idempotency-Key": key})
            except httpx.TransportError:
                await victim.ended()
                return None
            assert response.status_code in (200, 202), response.text
            return response.json()

        return dict(await until(answered, f"{path} is answered"))

    async def _next(self, victim: Child, label: str, run: dict[str, Any]) -> dict[str, Any]:
        """The run when it has ended or asks something else."""
        asked = {each["id"] for each in run["questions"]}

        async def look() -> Any:
            if not victim.lives:
                await self._expire(victim, label)
            found = (await self.survivor.client.get(f"/runs/{run['id']}")).json()
            asks = found["status"] == "waiting" and not asked & {each["id"] for each in found["questions"]}
            return found if asks or found["finished_at"] else None

        return dict(await until(look, f"run {label} goes on"))

    async def _expire(self, victim: Child, label: str) -> None:
        """Let the leases of a dead server run out, once its database connections are gone."""
        await rows(
            self.dsn,
            "UPDATE run SET lease_until = now() - interval '1 second'"
            " WHERE status = 'running' AND worker = %s"
            " AND NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE application_name = %s)",
            f"{socket.gethostname()}:{victim.pid}",
            label,
        )

    async def kill(self, statement: int, when: When, output: Any) -> bool:
        """Let a server die at this statement, and check what became of its run; whether it died."""
        label = f"{when}-{statement}"
        victim = await self.victim(label, Sabotage(statement=statement, when=when))
        before: list[str] = []

        async def remember() -> None:
            assert await victim.ended() in (KILLED, -signal.SIGKILL)
            await settled(self.web)
            before.extend(self.counted.effects(self.web, label))

        remembering = asyncio.create_task(remember())
        run = await self.drive(victim, label)
        died = not victim.lives
        await victim.kill()
        await remembering
        found = await events(self.survivor.client, run["id"])
        whole = self.counted.effects(self.web, label)

        assert (run["status"], run["output"]) == ("succeeded", output), run["error"]
        assert run["attempt"] <= 2
        check_events(found, self.durability)
        assert [event["event"] for event in found].count("run.waiting") == len(self.counted.answers)
        if self.durability == "sync":
            check_effects(self.counted.stages, before if died else [], whole)
        else:
            assert all(1 <= whole.count(path) <= 2 for stage in self.counted.stages for path in stage)
        await check_line(self.dsn, run["id"])
        return died

    async def kill_all(self, wanted: Sequence[tuple[int, When]], output: Any) -> None:
        """Kill at each of these statements, some at a time."""
        some = asyncio.Semaphore(AT_ONCE)
        survived = []

        async def one(statement: int, when: When) -> None:
            async with some:
                try:
                    if not await self.kill(statement, when, output):
                        survived.append(statement)
                except BaseException as exc:
                    exc.add_note(f"killed {when} statement {statement}")
                    raise

        async with asyncio.TaskGroup() as all:
            for statement, when in wanted:
                all.create_task(one(statement, when))
        # How many there are depends a little on what happens at the same time.
        assert len(survived) <= max(1, len(wanted) // 4), f"no process died at {survived}"
        await no_job_is_left(self.dsn)


KINDS = [(name, durability) for name in DRAWINGS for durability in ("sync", "exit")]


@pytest.fixture
def matrix(children: Family, web: WebServer, dsn: str, name: str, durability: str, tmp_path: Path) -> Matrix:
    return Matrix(children, web, dsn, DRAWINGS[name](web), durability, tmp_path)


@pytest.mark.parametrize(("name", "durability"), KINDS)
async def test_flt_07_a_kill_at_some_statements(matrix: Matrix) -> None:
    output, statements = await matrix.begin()
    step = statements // SOME
    first = 1 + KINDS.index((matrix.counted.name, matrix.durability)) % step
    whens = cycle(("before", "after"))

    await matrix.kill_all(list(zip(range(first, statements + 1, step), whens, strict=False)), output)


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("name", "durability"), KINDS)
async def test_flt_07_a_kill_at_every_statement(matrix: Matrix, when: When) -> None:
    output, statements = await matrix.begin()

    await matrix.kill_all([(statement, when) for statement in range(1, statements + 1)], output)
