"""The log: who it was about, in text and as JSON; what must not stand in it; ids of requests."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from asyncio import StreamWriter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from flowserver.logs import JsonLines, TextLines, request_id, run_id, secret_texts
from flowserver.settings import Settings
from tests.server import drawing, edge, node, server_process
from tests.web_server import Raw, Request, WebServer

RUN = UUID("0198c0de-0000-7000-8000-000000000001")
"""A run's id."""


@pytest.fixture(params=[TextLines, JsonLines])
def form(request: pytest.FixtureRequest) -> type[logging.Formatter]:
    kind: type[logging.Formatter] = request.param
    return kind


@pytest.fixture
def about_a_run() -> Iterator[None]:
    tokens = run_id.set(RUN), request_id.set("req-1")
    yield
    run_id.reset(tokens[0])
    request_id.reset(tokens[1])


def line(formatter: logging.Formatter, message: str, *values: Any, exc_info: Any = None) -> str:
    """What one message becomes."""
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(formatter)
    record = logging.LogRecord("flowserver.x", logging.WARNING, "x.py", 1, message, values, exc_info)
    handler.handle(record)
    return output.getvalue()


def failure(message: str) -> Any:
    try:
        raise ValueError(message)
    except ValueError as exc:
        return type(exc), exc, exc.__traceback__


@pytest.mark.usefixtures("about_a_run")
def test_a_line_of_json_says_when_who_what_and_about_which_run() -> None:
    found = json.loads(line(JsonLines(), "left after %s", "Fenced", exc_info=failure("no\nmore")))

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", found.pop("time"))
    exception = found.pop("exception")
    assert exception.startswith("Traceback") and exception.endswith("ValueError: no\nmore")
    assert found == {
        "level": "warning",
        "logger": "flowserver.x",
        "message": "left after Fenced",
        "run_id": str(RUN),
        "request_id": "req-1",
    }


@pytest.mark.usefixtures("about_a_run")
def test_a_line_of_text_carries_both_ids() -> None:
    assert line(TextLines(), "left").endswith(f" WARNING flowserver.x [run={RUN} request=req-1]: left\n")


def test_outside_of_runs_and_requests_there_are_no_ids() -> None:
    assert line(TextLines(), "up").endswith(" WARNING flowserver.x: up\n")
    assert set(json.loads(line(JsonLines(), "up"))) == {"time", "level", "logger", "message"}


def test_whatever_a_message_holds_it_stays_one_line(form: type[logging.Formatter]) -> None:
    written = line(form(), "GET %s failed", "/x\n2026-01-01 ERROR root: forged\r\x1b[2K\u2028\ud800")

    assert written.count("\n") == 1 and written.endswith("\n")
    assert not set(written[:-1]) & set("\r\x1b\u2028") or form is JsonLines
    assert "forged" in written
    if form is JsonLines:
        assert json.loads(written)["message"].startswith("GET /x\n2026")


@pytest.mark.parametrize(
    ("database", "password"),
    [
        ("postgresql://me:p%40ssw0rd@db/flow", "p%40ssw0rd"),
        ("postgresql://me:p%40ssw0rd@db/flow", "p@ssw0rd"),
        ("host=db user=me password=s3cr3t-pw dbname=flow", "s3cr3t-pw"),
        ("host=db password='with space' dbname=flow", "with space"),
    ],
)
def test_what_the_operator_keeps_secret_is_not_in_the_log(
    form: type[logging.Formatter], database: str, password: str
) -> None:
    settings = Settings(
        database_url=database, api_key="key-of-the-operator", openai_api_key="sk-of-the-operator"
    )
    formatter = form(secret_texts(settings))
    told = f"{database} {password} key-of-the-operator sk-of-the-operator"

    written = line(formatter, "cannot: %s", told, exc_info=failure(told))

    for secret in (database, password, "key-of-the-operator", "sk-of-the-operator"):
        assert secret not in written
    assert written.count("***") == 8


def test_a_password_that_is_a_word_of_the_address_hides_no_other_word() -> None:
    settings = Settings(database_url="postgresql://postgres:postgres@db/flow")

    assert "to postgres now" in line(TextLines(secret_texts(settings)), "to %s now", "postgres")


async def lose(dsn: str) -> None:
    """Let whoever executes a run lose it, and let nobody take it up."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute(
            "UPDATE run SET epoch = epoch + 1, status = 'cancelled', active = false WHERE status = 'running'"
        )


async def lost_run(dsn: str, tmp_path: Path, **settings: str) -> str:
    """Start a run under the request id `req-7` in a server process, and have it lost there; return its id."""
    arrived, left = asyncio.Event(), asyncio.Event()

    async with WebServer() as web:
        flow = drawing(
            node("start", "StartNode"),
            node("call", "HttpRequest", url=web.on("/", Raw(hold(arrived, left))), max_retries=0),
            edge("start", "call"),
        )
        settings |= {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
        async with server_process(dsn, tmp_path, settings) as server:
            body = {"flow_data": flow, "mode": "stream"}
            headers = {"X-Request-Id": "req-7"}
            async with server.client.stream("POST", "/runs", json=body, headers=headers) as response:
                await asyncio.wait_for(arrived.wait(), 20)
                await lose(dsn)
                await asyncio.wait_for(left.wait(), 20)
            await server.stop()
            return response.headers["x-run-id"]


def hold(arrived: asyncio.Event, left: asyncio.Event) -> Callable[[Request, StreamWriter], Awaitable[None]]:
    """An answer that never comes, and notices when the client leaves."""

    async def write(request: Request, writer: StreamWriter) -> None:
        arrived.set()
        try:
            while True:  # until the other side is gone
                writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        finally:
            left.set()

    return write


async def test_the_log_of_a_server_in_json_tells_run_and_request(
    dsn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await lost_run(dsn, tmp_path, FLOWSERVER_LOG_FORMAT="json")

    found = [json.loads(each) for each in capsys.readouterr().err.splitlines()]
    about = [each for each in found if each["logger"] == "flowserver.execution"]
    assert about[0]["message"].startswith(f"run {run}: ")
    assert (about[0]["run_id"], about[0]["request_id"], about[0]["level"]) == (run, "req-7", "warning")


async def test_the_log_of_a_server_as_text_tells_run_and_request(
    dsn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await lost_run(dsn, tmp_path)

    told = f" WARNING flowserver.execution [run={run} request=req-7]: run {run}: "
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\tb", "<script>", "caf\u00e9", '"'])
async def test_an_id_of_a_request_that_cannot_be_used_is_replaced(
    client: httpx.AsyncClient, given: str
) -> None:
    headers = {"X-Request-Id": given.encode()}

    responses = [await client.get("/runs", headers=headers), await client.get("/nowhere", headers=headers)]

    ids = [response.headers["x-request-id"] for response in responses]
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in ids)
    assert ids[0] != ids[1]


@pytest.mark.parametrize("given", ["abc", "2f1c-44:7/8+9=_.@", "x" * 128])
async def test_the_id_that_a_caller_gave_its_request_comes_back(
    client: httpx.AsyncClient, given: str
) -> None:
    headers = {"X-Request-Id": given}

    answered = await client.get("/runs", headers=headers)
    refused = await client.get("/nowhere", headers=headers)

    assert answered.headers["x-request-id"] == refused.headers["x-request-id"] == given
    assert (await client.get("/runs")).headers["x-request-id"] not in ("", given)
