"""Clients that do not give up: they send again with the same key, answer twice, and reconnect elsewhere."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx

from tests.server import HEADERS, drawing, edge, events_of, node
from tests.web_server import Raw, Request, WebServer

SECRET = "CNRY-4d1f7c02-of-the-soak"
LAST = ("run.succeeded", "run.failed", "run.cancelled")


@dataclass
class Accepted:
    """A run that a server has promised to end."""

    label: str
    id: str
    kind: str
    session: str | None = None
    place: int = 0
    """The place of the run in its session."""
    streamed: list[int] = field(default_factory=list)
    """The numbers of the events that one client saw over all its connections."""
    followed: bool = False
    """Whether it followed to the end."""
    answers: list[int] = field(default_factory=list)
    """The statuses of answers that were sent at the same moment, without a key."""

    def __str__(self) -> str:
        return f"{self.label} {self.id}"


class Effects:
    """Where the steps' effects are counted, each under the key that it came with."""

    def __init__(self, web: WebServer, chance: random.Random) -> None:
        self.done: Counter[tuple[str, str]] = Counter()
        """(label, step) -> how often."""
        self.keys: dict[tuple[str, str], set[str]] = {}
        self._chance = chance
        self.url = web.on("/effect", Raw(self._count))

    async def _count(self, request: Request, writer: asyncio.StreamWriter) -> None:
        told = request.json
        effect = told["label"], told["step"]
        self.done[effect] += 1
        self.keys.setdefault(effect, set()).add(request.headers["idempotency-key"])
        await asyncio.sleep(self._chance.expovariate(1 / 0.15))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()


def drawings(url: str) -> Mapping[str, dict[str, Any]]:
    """What is run, by kind; the input is `{"label": …}`."""

    def effect(id: str, step: str | None = None) -> dict[str, Any]:
        body = '{"label": "{{ input.label }}", "step": "' + (step or id) + '"}'
        data = {"url": url, "method": "POST", "body": body, "auth_token": SECRET, "auth_type": "bearer"}
        return node(id, "HttpRequest", max_retries=0, **data)

    def row(*ids: str) -> list[dict[str, Any]]:
        return [edge(a, b) for a, b in pairwise(ids)]

    start = node("start", "StartNode")
    seen = {"initial": [], "reducer": "append", "persistent": True}
    return {
        "echo": drawing(start, node("end", "Template", template="{{ input.label }}"), *row("start", "end")),
        "chain": drawing(start, effect("a"), effect("b"), effect("c"), *row("start", "a", "b", "c")),
        "diamond": drawing(
            start, effect("left"), effect("right"), effect("join"),
            *row("start", "left", "join"), *row("start", "right", "join"),
        ),
        "ask": drawing(
            start, effect("a"), node("ask", "HumanInput", question="go on?"), effect("b"),
            node("end", "Template", template="{{ ask.answer }}"), *row("start", "a", "ask", "b", "end"),
        ),
        "map": drawing(
            start, node("each", "Map", items=[0, 1, 2, 3], max_concurrency=2),
            effect("item", "item{{ each.index }}"), effect("last"),
            edge("start", "each"), edge("each", "item", "body"), edge("item", "each", None, "results"),
            edge("each", "last", "done"),
        ),
        "session": drawing(
            start, node("keep", "SetVariable", variable="seen", value="{{ input.label }}"), effect("a"),
            node("end", "Template", template="{{ vars.seen | json }}"), *row("start", "keep", "a", "end"),
        ) | {"settings": {"variables": {"seen": seen}}},
    }  # fmt: skip


EXPECTED: Mapping[str, tuple[str, ...]] = {
    "echo": (),
    "chain": ("a", "b", "c"),
    "diamond": ("left", "right", "join"),
    "ask": ("a", "b"),
    "map": ("item0", "item1", "item2", "item3", "last"),
    "session": ("a",),
}
"""The effects of each kind."""


class Load:
    """What clients have been promised."""

    def __init__(
        self, servers: Callable[[], list[str]], flows: Mapping[str, Any], chance: random.Random
    ) -> None:
        """`servers` gives the addresses of the servers that there are now."""
        self.accepted: list[Accepted] = []
        self.odd: list[str] = []
        """Answers that nothing explains."""
        self.sent_again = 0
        self._servers = servers
        self._flows = flows
        self._chance = chance
        self._number = 0
        self._http = httpx.AsyncClient(headers=HEADERS, timeout=20, verify=False)
        self._sessions: dict[str, tuple[asyncio.Lock, int]] = {
            f"session {number}": (asyncio.Lock(), 0) for number in range(6)
        }

    async def aclose(self) -> None:
        await self._http.aclose()

    async def submit(self, until: float) -> None:
        """Start one run after the other, until that moment of the loop's clock."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            kind = self._chance.choice(list(self._flows))
            self._number += 1
            label = f"{kind} {self._number}"
            if kind == "session":
                name = self._chance.choice(list(self._sessions))
                lock, _ = self._sessions[name]
                async with lock:  # accepted one after the other, so that their order is known
                    accepted = await self._accepted(label, kind, name)
                    place = self._sessions[name][1] + 1
                    self._sessions[name] = lock, place
                    accepted.place = place
            else:
                accepted = await self._accepted(label, kind, None)
            if kind == "ask":
                await self._answer(accepted)
            elif self._chance.random() < 0.3:
                await self._follow(accepted)
            await asyncio.sleep(self._chance.expovariate(1 / 0.1))

    async def _accepted(self, label: str, kind: str, session: str | None) -> Accepted:
        body = {
            "flow_data": self._flows[kind],
            "input": {"label": label},
            "session_id": session,
            "mode": "background" if self._chance.random() < 0.6 else "wait",
        }
        content = json.dumps(body)
        headers = {"Idempotency-Key": label, "Content-Type": "application/json"}
        answer = await self._until_answered("POST", "/runs?timeout=2", content=content, headers=headers)
        accepted = Accepted(label, answer.json()["id"], kind, session)
        self.accepted.append(accepted)
        if self._chance.random() < 0.2:  # in doubt, it is sent once more
            again = await self._until_answered("POST", "/runs?timeout=2", content=content, headers=headers)
            if again.json()["id"] != accepted.id:
                self.odd.append(f"{label}: one key, two runs: {accepted.id} and {again.json()['id']}")
        return accepted

    async def _answer(self, accepted: Accepted) -> None:
        while True:
            found = (await self._until_answered("GET", f"/runs/{accepted.id}")).json()
            if found["status"] == "waiting":
                break
            if found["finished_at"]:
                self.odd.append(f"{accepted.label}: {found['status']} without having asked: {found['error']}")
                return
            await asyncio.sleep(0.2)
        question = found["questions"][0]["id"]
        body = {"question_id": question, "answer": f"answer to {accepted.label}"}
        if self._chance.random() < 0.5:
            path = f"/runs/{accepted.id}/resume"
            both = await asyncio.gather(*(self._try("POST", path, json=body) for _ in range(2)))
            accepted.answers = [answer.status_code for answer in both if answer is not None]
        headers = {"Idempotency-Key": f"answer {accepted.label}"}
        await self._until_answered(
            "POST", f"/runs/{accepted.id}/resume", json=body, headers=headers, fine=(202, 409)
        )

    async def _follow(self, accepted: Accepted) -> None:
        """Watch a run to its end, each time from another server, and leave after some events."""
        path = f"/runs/{accepted.id}/events"
        while True:
            headers = {"Last-Event-ID": str(accepted.streamed[-1])} if accepted.streamed else {}
            leaves_after, text = self._chance.randint(1, 8), ""
            try:
                url = self._chance.choice(self._servers()) + path
                async with self._http.stream("GET", url, headers=headers) as response:
                    if response.status_code == 204:
                        accepted.followed = True
                        return
                    async for piece in response.aiter_text():
                        text += piece
                        if text.count("\n\nid:") >= leaves_after:
                            break
            except (httpx.HTTPError, IndexError):
                await asyncio.sleep(0.2)
            found = events_of(text.rpartition("\n\n")[0])
            accepted.streamed += [event["seq"] for event in found]
            if found and found[-1]["event"] in LAST:
                accepted.followed = True
                return

    async def _until_answered(
        self, method: str, path: str, *, fine: tuple[int, ...] = (200, 201, 202), **more: Any
    ) -> httpx.Response:
        """Send a request, to one server or another, until one answers what it should."""
        while True:
            answer = await self._try(method, path, **more)
            if answer is not None and answer.status_code in fine:
                return answer
            if answer is not None and answer.status_code != 503:
                told = f"{method} {path}: {answer.status_code} {answer.text[:500]}"
                assert answer.status_code >= 500, told  # it will never be answered otherwise
                self.odd.append(told)
            self.sent_again += 1
            await asyncio.sleep(self._chance.uniform(0.1, 0.5))

    async def _try(self, method: str, path: str, **more: Any) -> httpx.Response | None:
        try:
            return await self._http.request(method, self._chance.choice(self._servers()) + path, **more)
        except (httpx.HTTPError, IndexError):
            return None
