"""Drawings whose effects are counted, and what is known of the order of those."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.server import drawing, edge, node
from tests.web_server import Raw, Reply, Request, WebServer


@dataclass(frozen=True)
class Counted:
    """A drawing of which every step with an effect calls the test's web server, at a path of its own.

    Its input is `{"label": …}`, which tells the runs of one server apart.
    """

    name: str
    flow_data: Mapping[str, Any]
    stages: tuple[tuple[str, ...], ...]
    """The effects, those of one superstep together; a stage begins when the one before is committed."""
    answers: tuple[Any, ...] = ()
    """What its questions are answered with, one after the other."""
    called: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The workflows that it runs, by name; they are to be saved first."""

    def answer_at(self, web: WebServer, label: str) -> None:
        """Let `web` answer to the effects of one run."""
        for path in (path for stage in self.stages for path in stage):
            web.on(f"/{label}/{path}", Reply(body=f"<{path}>".encode()))

    def effects(self, web: WebServer, label: str) -> list[str]:
        """The effects of one run so far, in order."""
        return [
            request.path.removeprefix(f"/{label}/")
            for request in web.requests
            if request.path.startswith(f"/{label}/")
        ]


def effect(id: str, web: WebServer, path: str, **more: Any) -> dict[str, Any]:
    """A step that calls `web`; `path` may hold references."""
    url = web.url(f"/{{{{ input.label }}}}/{path}")
    return node(id, "HttpRequest", url=url, method="POST", max_retries=0, **more)


def chain(web: WebServer, *paths: str, **more: Any) -> dict[str, Any]:
    """Effects one after the other; the output is what the last one was answered."""
    ids = [f"s{number}" for number in range(len(paths))]
    return drawing(
        node("start", "StartNode"),
        *(effect(id, web, path, **more) for id, path in zip(ids, paths, strict=True)),
        *(edge(a, b) for a, b in pairwise(["start", *ids])),
    )


def keeping(web: WebServer, *paths: str) -> dict[str, Any]:
    """Adds its label to what its session keeps, then has its effects; the output is all that is kept."""
    ids = [f"s{number}" for number in range(len(paths))]
    flow = drawing(
        node("start", "StartNode"),
        node("keep", "SetVariable", variable="seen", value="{{ input.label }}"),
        *(effect(id, web, path) for id, path in zip(ids, paths, strict=True)),
        node("end", "Template", template="{{ vars.seen | json }}"),
        *(edge(a, b) for a, b in pairwise(["start", "keep", *ids, "end"])),
    )
    seen = {"initial": [], "reducer": "append", "persistent": True}
    return flow | {"settings": {"variables": {"seen": seen}}}


class Gate:
    """An answer that is held back until the gate is opened, and notices clients that leave."""

    def __init__(self, body: bytes = b"ok") -> None:
        self._body = body
        self.arrived = 0
        self.left = 0
        self.open = asyncio.Event()
        self._changed = asyncio.Condition()

    @property
    def answer(self) -> Raw:
        return Raw(self._write)

    async def arrivals(self, count: int = 1) -> None:
        """Wait until so many have come."""
        await self._wait(lambda: self.arrived >= count)

    async def departures(self, count: int = 1) -> None:
        """Wait until so many have left without an answer."""
        await self._wait(lambda: self.left >= count)

    async def _wait(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(holds)

    async def _note(self, *, arrived: int = 0, left: int = 0) -> None:
        async with self._changed:
            self.arrived += arrived
            self.left += left
            self._changed.notify_all()

    async def _write(self, request: Request, writer: asyncio.StreamWriter) -> None:
        await self._note(arrived=1)
        opened = asyncio.ensure_future(self.open.wait())
        try:
            while not opened.done() and not writer.is_closing():
                writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")  # only so is a client missed that left
                await asyncio.wait([opened], timeout=0.05)
        finally:
            opened.cancel()
        if writer.is_closing():
            await self._note(left=1)
            return
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(self._body)
        writer.write(head + self._body)
        await writer.drain()


def diamond(web: WebServer) -> Counted:
    flow = drawing(
        node("start", "StartNode"),
        effect("a", web, "a"),
        effect("b", web, "b"),
        effect("c", web, "c"),
        node("join", "Template", template="{{ a.content }}: {{ b.content }} and {{ c.content }}"),
        effect("d", web, "d", content_type="text", body="{{ join }}"),
        node("end", "Template", template="{{ join }}, then {{ d.content }}"),
        edge("start", "a"),
        edge("a", "b"),
        edge("a", "c"),
        edge("b", "join"),
        edge("c", "join"),
        edge("join", "d"),
        edge("d", "end"),
    )
    return Counted("diamond", flow, (("a",), ("b", "c"), ("d",)))


def asking_loop(web: WebServer) -> Counted:
    flow = drawing(
        node("start", "StartNode"),
        effect("draft", web, "draft-{{ ask.values.n | default('0') }}"),
        node(
            "ask",
            "HumanInput",
            question="Good? {{ draft.content }}",
            form=[{"name": "n"}],
            actions=["again", "good"],
        ),
        effect("send", web, "send", content_type="text", body="{{ draft.content }}"),
        node("end", "Template", template="{{ draft.content }} was {{ send.content }}"),
        edge("start", "draft"),
        edge("draft", "ask"),
        edge("ask", "draft", "again"),
        edge("ask", "send", "good"),
        edge("send", "end"),
    )
    answers = (
        {"action": "again", "values": {"n": "1"}},
        {"action": "again", "values": {"n": "2"}},
        {"action": "good", "values": {"n": "x"}},
    )
    stages = (("draft-0",), ("draft-1",), ("draft-2",), ("send",))
    return Counted("loop", flow, stages, answers)


def map_in_subflow(web: WebServer) -> Counted:
    inner = drawing(
        node("begin", "StartNode"),
        node("each", "Map", items=[0, 1, 2], max_concurrency=1),
        effect("a", web, "a{{ each.item }}"),
        effect("b", web, "b{{ each.item }}"),
        edge("begin", "each"),
        edge("each", "a", "item"),
        edge("a", "b"),
        edge("b", "each", "content", "result"),
    )
    flow = drawing(
        node("start", "StartNode"),
        node("sub", "Subflow", workflow="inner", input="{{ input }}"),
        effect("after", web, "after"),
        node("end", "Template", template="{{ sub }} {{ after.content }}"),
        edge("start", "sub"),
        edge("sub", "after"),
        edge("after", "end"),
    )
    items = tuple((f"{step}{item}",) for item in range(3) for step in "ab")
    return Counted("map", flow, (*items, ("after",)), called={"inner": inner})


DRAWINGS = {"diamond": diamond, "loop": asking_loop, "map": map_in_subflow}
