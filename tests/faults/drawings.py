"""Drawings whose effects are counted, and what is known of the order of those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.server import drawing, edge, node
from tests.web_server import Reply, WebServer


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
