"""Traces as a collector gets them: decoded from the OTLP that real servers send."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from flowserver.app import create_app
from flowserver.settings import Settings, load
from tests import openai_server
from tests.openai_server import OpenAIServer
from tests.server import KEY, ROOT, drawing, edge, node, serving
from tests.web_server import Reply, Request, WebServer

INTERNAL, SERVER, CLIENT = 1, 2, 3
ERROR = 2
CHAT = drawing(
    node("start", "StartNode"),
    node("model", "OpenAIChat", model_name="gpt-4o", temperature=0.5, max_tokens=99, max_retries=0),
    node("agent", "Agent", system_prompt="a secret prompt"),
    node("end", "EndNode"),
    edge("start", "agent"),
    edge("model", "agent", "output", "llm"),
    edge("agent", "end"),
)


@dataclass(frozen=True)
class Span:
    """A span as it was sent."""

    name: str
    id: str
    trace: str
    parent: str
    kind: int
    status: int
    why: str
    attributes: dict[str, Any]
    seconds: float


class Collector:
    """Takes what is sent to it, as any OpenTelemetry collector does."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resource: dict[str, Any] = {}
        self.raw = b""

    def take(self, request: Request) -> Reply:
        assert (request.method, request.headers["content-type"]) == ("POST", "application/x-protobuf")
        self.raw += request.body
        for of in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            self.resource = _attributes(of.resource.attributes)
            for scope in of.scope_spans:
                self.spans.extend(map(_span, scope.spans))
        return Reply()

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Span:
        (found,) = self.named(name)
        return found


def _span(sent: Any) -> Span:
    return Span(
        sent.name,
        sent.span_id.hex(),
        sent.trace_id.hex(),
        sent.parent_span_id.hex(),
        sent.kind,
        sent.status.code,
        sent.status.message,
        _attributes(sent.attributes),
        (sent.end_time_unix_nano - sent.start_time_unix_nano) / 1e9,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [_value(each) for each in found.values] if kind == "array_value" else found


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as web:
        yield web


@pytest.fixture
async def openai() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as openai:
        yield openai


@pytest.fixture
def collector(web: WebServer) -> Collector:
    collector = Collector()
    web.on("/v1/traces", collector.take)
    return collector


@asynccontextmanager
async def traced(
    dsn: str, tmp_path: Path, web: WebServer, openai: OpenAIServer | None = None, **more: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that sends its traces to `web`; what is left is sent at the end."""
    settings = Settings(
        data_dir=tmp_path,
        api_key=KEY,
        outbound_allow=(web.door,),
        otlp_endpoint=web.url("/"),
        openai_base_url=openai.url if openai else None,
        openai_api_key="sk-operator",
        **more,
    )
    async with serving(create_app(settings, dsn)) as client:
        yield client


async def start(client: httpx.AsyncClient, flow: dict[str, Any], **more: Any) -> dict[str, Any]:
    headers = more.pop("headers", {})
    response = await client.post("/runs", json={"flow_data": flow, **more}, headers=headers)
    assert response.status_code in (200, 202), response.text
    return dict(response.json())


async def test_a_run_its_steps_and_its_model_calls_are_one_trace(
    dsn: str, tmp_path: Path, web: WebServer, openai: OpenAIServer, collector: Collector
) -> None:
    openai.reply("the private answer")
    async with traced(dsn, tmp_path, web, openai) as client:
        run = await start(client, CHAT, input="a private question")

    whole, call = collector.one("run"), collector.one("chat gpt-4o")
    steps = [collector.one(f"step {type}") for type in ("StartNode", "Agent", "EndNode")]
    assert {span.trace for span in collector.spans} == {whole.trace}
    assert len(collector.spans) == 5
    assert (whole.parent, whole.kind, whole.status) == ("", INTERNAL, 0)
    assert whole.attributes == {
        "flowserver.run.id": run["id"],
        "flowserver.run.version": run["version"],
        "flowserver.run.attempt": 1,
        "flowserver.run.trigger": "api",
        "flowserver.run.status": "succeeded",
    }
    assert {span.parent for span in steps} == {whole.id}
    assert steps[1].attributes == {
        "flowserver.step.id": "agent",
        "flowserver.step.type": "Agent",
        "flowserver.step.status": "succeeded",
    }
    assert (call.parent, call.kind, call.status) == (steps[1].id, CLIENT, 0)
    assert str(call.attributes.pop("gen_ai.response.id")).startswith("chatcmpl-")
    assert call.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 99,
        "gen_ai.response.model": "gpt-4o",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": run["usage"]["input_tokens"],
        "gen_ai.usage.output_tokens": run["usage"]["output_tokens"],
        "gen_ai.usage.cache_read.input_tokens": 0,
    }
    assert 0 < call.seconds <= steps[1].seconds <= whole.seconds
    assert collector.resource["service.name"] == "flowserver"
    assert b"private" not in collector.raw and b"secret prompt" not in collector.raw
    assert b"sk-operator" not in collector.raw


async def test_a_saved_workflow_is_named_by_its_id(
    dsn: str, tmp_path: Path, web: WebServer, collector: Collector
) -> None:
    flow = drawing(node("t", "Template", template="x"))
    async with traced(dsn, tmp_path, web) as client:
        saved = (await client.post("/workflows", json={"name": "w", "flow_data": flow})).json()
        await client.post(f"/workflows/{saved['id']}/runs", json={})

    assert collector.one("run").attributes["flowserver.run.workflow_id"] == saved["id"]


async def test_what_failed_is_an_error_with_its_code_and_nothing_more(
    dsn: str, tmp_path: Path, web: WebServer, openai: OpenAIServer, collector: Collector
) -> None:
    openai.reply(openai_server.Reply(status=400, text="private details"))
    async with traced(dsn, tmp_path, web, openai) as client:
        run = await start(client, CHAT, input="hi")

    assert run["status"] == "failed"
    call, step, whole = collector.one("chat gpt-4o"), collector.one("step Agent"), collector.one("run")
    assert (call.status, call.why, call.attributes["error.type"]) == (
        ERROR,
        *["OpenAIInvalidRequestError"] * 2,
    )
    for span in (step, whole):
        assert (span.status, span.why, span.attributes["error.type"]) == (ERROR, *[run["error"]["code"]] * 2)
    assert step.attributes["flowserver.step.status"] == whole.attributes["flowserver.run.status"] == "failed"
    assert b"private" not in collector.raw


async def test_every_attempt_of_a_step_is_a_span(
    dsn: str, tmp_path: Path, web: WebServer, collector: Collector
) -> None:
    url = web.on("/", Reply(500), Reply(body=b"ok"))
    async with traced(dsn, tmp_path, web) as client:
        flow = drawing(
            node("call", "HttpRequest", url=url, max_retries=0, retry={"attempts": 2, "delay": 0.01})
        )
        run = await start(client, flow)

    assert run["status"] == "succeeded"
    found = [span.attributes["flowserver.step.status"] for span in collector.named("step HttpRequest")]
    assert found == ["failed", "succeeded"]


async def test_a_run_that_a_traced_caller_started_is_part_of_its_trace(
    dsn: str, tmp_path: Path, web: WebServer, collector: Collector
) -> None:
    flow = drawing(node("t", "Template", template="x"))
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with traced(dsn, tmp_path, web) as client:
        await start(client, flow, headers={"traceparent": f"00-{trace}-{parent}-01"})
        await start(client, flow, headers={"traceparent": f"00-{trace}-{parent}-00"})
        await start(client, flow, headers={"traceparent": "nonsense"})

    joined, alone = collector.named("run")  # the caller of the second one wishes no spans
    assert (joined.trace, joined.parent, joined.kind) == (trace, parent, SERVER)
    assert alone.trace != trace and alone.parent == ""
    assert [span.parent for span in collector.named("step Template")] == [joined.id, alone.id]


async def test_a_run_that_waits_is_one_trace_before_and_after_its_answer(
    dsn: str, tmp_path: Path, web: WebServer, collector: Collector
) -> None:
    flow = drawing(
        node("start", "StartNode"), node("ask", "HumanInput", question="ok?"), edge("start", "ask")
    )
    async with traced(dsn, tmp_path, web) as client:
        id = (await start(client, flow))["id"]
        await client.post(f"/runs/{id}/resume", json={"answer": "yes"})
        await client.get(f"/runs/{id}/events", params={"after": 0})
        other = (await start(client, flow))["id"]

    before, after = (span for span in collector.named("run") if span.attributes["flowserver.run.id"] == id)
    apart = next(span for span in collector.named("run") if span.attributes["flowserver.run.id"] == other)
    assert before.trace == after.trace != apart.trace
    assert [span.attributes["flowserver.run.status"] for span in (before, after)] == ["waiting", "succeeded"]
    asked = [span for span in collector.named("step HumanInput") if span.trace == before.trace]
    assert [span.attributes["flowserver.step.status"] for span in asked] == ["waiting", "succeeded"]
    assert [span.parent for span in asked] == [before.id, after.id]


async def test_steps_inside_a_map_are_inside_its_span(
    dsn: str, tmp_path: Path, web: WebServer, collector: Collector
) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("map", "Map", items="{{ input }}"),
        node("say", "Template", template="{{ map.item }}!"),
        node("end", "EndNode"),
        edge("start", "map"),
        edge("map", "say", "item"),
        edge("say", "map", None, "result"),
        edge("map", "end", "results"),
    )
    async with traced(dsn, tmp_path, web) as client:
        run = await start(client, flow, input=["a", "b"])

    assert run["output"] == ["a!", "b!"]
    whole, around, inner = collector.one("run"), collector.one("step Map"), collector.named("step Template")
    assert around.parent == whole.id
    assert {span.parent for span in inner} == {around.id}
    within = sorted(span.attributes["flowserver.step.within"] for span in inner)
    assert within == [["item map 0"], ["item map 1"]]


async def test_a_collector_that_is_away_does_not_hold_up_runs_nor_the_end(dsn: str, tmp_path: Path) -> None:
    async with WebServer() as away:
        pass
    async with traced(dsn, tmp_path, away) as client:
        run = await start(client, drawing(node("t", "Template", template="x")))
        began = time.monotonic()

    assert run["status"] == "succeeded"
    assert time.monotonic() - began < 15


def test_the_standard_variable_is_known_too() -> None:
    endpoint = "http://127.0.0.1:4318"

    assert load({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, Path("/nonexistent")).otlp_endpoint == endpoint


RUN_AND_LIST = """
import sys
from flowserver.__main__ import main
status = main(["run", sys.argv[1], "--input", "Ada"])
# LangSmith's client looks for OpenTelemetry by itself, but never for the exporter.
ours = ("opentelemetry.exporter", "opentelemetry.proto", "flowserver.tracing")
print(status, [name for name in sys.modules if name.startswith(ours)])
"""


def flowserver_environment(dsn: str, tmp_path: Path, **more: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("FLOWSERVER_", "OTEL_"))
    }
    ours = {"FLOWSERVER_DATABASE_URL": dsn, "FLOWSERVER_DATA_DIR": str(tmp_path), "FLOWSERVER_PORT": "0"}
    return kept | ours | more


def test_without_an_endpoint_nothing_of_opentelemetry_is_loaded(dsn: str, tmp_path: Path) -> None:
    drawing_file = tmp_path / "t.json"
    drawing_file.write_text(json.dumps(drawing(node("t", "Template", template="{{ input }}!"))))

    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST, str(drawing_file)],
        cwd=ROOT,
        env=flowserver_environment(dsn, tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout == "Ada!\n0 []\n", done.stderr


def test_an_endpoint_without_the_extra_is_refused_with_the_way_out(dsn: str, tmp_path: Path) -> None:
    # As if it were not installed: the first module of that name that Python finds says so.
    (tmp_path / "opentelemetry.py").write_text("raise ModuleNotFoundError(name='opentelemetry')")
    environment = flowserver_environment(
        dsn, tmp_path, PYTHONPATH=str(tmp_path), FLOWSERVER_OTLP_ENDPOINT="http://127.0.0.1:4318"
    )

    done = subprocess.run(
        [sys.executable, "-m", "flowserver", "serve"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert done.stderr == (
        "flowserver: FLOWSERVER_OTLP_ENDPOINT is set, but there is no opentelemetry;"
        " install 'flowserver[otel]'\n"
    )
