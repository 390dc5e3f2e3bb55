"""The command line as people and scripts use it; `flowserver serve` is in test_serving.py."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from msgspec.structs import fields

from flowserver.__main__ import main
from flowserver.settings import Settings, variable
from tests.data_dirs import data_directory, left_running
from tests.databases import Databases
from tests.openai_server import OpenAIServer
from tests.server import drawing, edge, node
from tests.web_server import Raw, Request, WebServer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
HELLO = str(EXAMPLES / "hello.json")
APPROVAL = str(EXAMPLES / "approval.json")
REFUND = '{"customer": "Bo", "amount": 3}'

FIVE_MISTAKES = drawing(
    node("start", "StartNode"),
    node("typo", "Templat", template="x"),
    node("fill", "Template", template="{{ nobody.text }}"),
    node("ask", "HumanInput", question="ok?", actions=["yes", "no"]),
    node("agent", "Agent"),
    edge("start", "typo"),
    edge("start", "fill"),
    edge("start", "ask"),
    edge("start", "agent"),
    edge("fill", "ghost"),
    edge("ask", "fill", "maybe"),
)
MISTAKES = [
    ("unknown_type", "typo"),
    ("dangling_edge", "fill->ghost"),
    ("unknown_port", "ask->fill"),
    ("unknown_reference", "fill"),
    ("missing_input", "agent"),
]


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    status: int
    out: str
    err: str


Cli = Callable[..., Ended]


def environment(dsn: str, data_dir: Path, **more: str) -> dict[str, str]:
    """This process's, but with no settings of ours except those given."""
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("FLOWSERVER_", "OPENAI_"))
    }
    return {**clean, "FLOWSERVER_DATABASE_URL": dsn, "FLOWSERVER_DATA_DIR": str(data_dir), **more}


@pytest.fixture
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command in this process, in an empty directory and without settings."""
    for key in [key for key in os.environ if key.startswith(("FLOWSERVER_", "OPENAI_"))]:
        monkeypatch.delenv(key)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        status = main(arguments)
        return Ended(status, *capsys.readouterr())

    return run


@pytest.fixture
def cli(quiet: Cli, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command in this process, on the test's database."""
    monkeypatch.setenv("FLOWSERVER_DATABASE_URL", dsn)
    monkeypatch.setenv("FLOWSERVER_DATA_DIR", str(tmp_path / "data"))
    return quiet


def saved(folder: Path, value: Any) -> str:
    file = folder / "drawing.json"
    file.write_text(json.dumps(value))
    return str(file)


def piped(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Make `content` what standard input holds."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


# check


def test_check_names_every_mistake(quiet: Cli, tmp_path: Path) -> None:
    checked = quiet("check", saved(tmp_path, FIVE_MISTAKES))

    *lines, total = checked.out.splitlines()
    assert [(line.split("[")[-1].split("]")[0], line.split(": ")[1]) for line in lines] == MISTAKES
    assert lines[0].startswith("error: typo: no node type 'Templat'; GET /nodes and 'flowserver nodes' list ")
    assert lines[0].endswith("(did you mean 'Template'?) [unknown_type] at /nodes/1/type")
    assert (total, checked.err, checked.status) == ("5 errors, no warnings", "", 1)


def test_check_tells_programs_the_same_in_json(quiet: Cli, tmp_path: Path) -> None:
    checked = quiet("check", "--json", saved(tmp_path, FIVE_MISTAKES))

    told = json.loads(checked.out)
    assert [(each["code"], each["where"]) for each in told["problems"]] == MISTAKES
    assert {each["severity"] for each in told["problems"]} == {"error"}
    assert told["plan"] is None
    assert checked.status == 1


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.json")))
def test_check_finds_nothing_wrong_with_the_examples(quiet: Cli, example: str) -> None:
    assert quiet("check", str(EXAMPLES / example)) == Ended(0, "no errors, no warnings\n", "")


def test_check_shows_the_plan_in_json(quiet: Cli) -> None:
    checked = quiet("check", "--json", HELLO)

    plan = json.loads(checked.out)["plan"]
    assert plan["order"] == ["start", "greet", "count", "both", "end"]
    assert plan["parallel"] == [["start"], ["greet", "count"], ["both"], ["end"]]
    assert checked.status == 0


def test_a_warning_alone_is_no_reason_to_fail(quiet: Cli, tmp_path: Path) -> None:
    flow = drawing(node("start", "StartNode"), node("t", "Template", template="x", old=1), edge("start", "t"))

    checked = quiet("check", saved(tmp_path, flow))

    assert checked.out.splitlines()[-1] == "no errors, 1 warning"
    assert checked.status == 0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "{file}: No such file or directory"),
        (b"", "{file} is not JSON: Input data was truncated"),
        (b"nodes: []", "{file} is not JSON: JSON is malformed: .*"),
        (b'{"nodes": "\xff"}', "{file} is not JSON: .*"),
        (b"[" * 100_000 + b"]" * 100_000, "{file} is JSON that is nested too deeply"),
    ],
    ids=["missing", "empty", "yaml", "latin-1", "deep"],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_file_that_cannot_be_read_is_one_sentence(
    quiet: Cli, tmp_path: Path, command: str, content: bytes | None, sentence: str
) -> None:
    file = tmp_path / "it.json"
    if content is not None:
        file.write_bytes(content)

    refused = quiet(command, str(file))

    assert re.fullmatch(f"flowserver: {sentence.format(file=re.escape(str(file)))}\n", refused.err)
    assert (refused.out, refused.status) == ("", 2)


def test_json_that_is_no_drawing_is_a_mistake_like_others(quiet: Cli, tmp_path: Path) -> None:
    checked = quiet("check", saved(tmp_path, 3))

    assert checked.out.splitlines() == [
        "error: workflow: a workflow is an object with 'nodes', not a number [bad_shape] at /",
        "1 error, no warnings",
    ]
    assert checked.status == 1


def test_an_export_that_holds_the_drawing_is_read_too(quiet: Cli, tmp_path: Path) -> None:
    export = {"name": "five", "is_public": False, "flow_data": FIVE_MISTAKES}

    checked = quiet("check", saved(tmp_path, export))

    assert checked.out.splitlines()[-1] == "5 errors, no warnings"


def test_a_byte_order_mark_is_read_over(quiet: Cli, tmp_path: Path) -> None:
    (tmp_path / "windows.json").write_bytes(b"\xef\xbb\xbf" + Path(HELLO).read_bytes())

    assert quiet("check", "windows.json").status == 0


def test_a_dash_is_standard_input(quiet: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, Path(HELLO).read_bytes())
    good = quiet("check", "-")
    piped(monkeypatch, b"{")
    bad = quiet("check", "-")

    assert good.status == 0
    assert bad == Ended(2, "", "flowserver: standard input is not JSON: Input data was truncated\n")


# run


def test_run_prints_the_output_and_nothing_else(cli: Cli) -> None:
    assert cli("run", HELLO, "--input", "Ada") == Ended(0, "Hello, Ada! Your name has 3 letters.\n", "")


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ('{"name": "Ada", "tags": ["a", "b"]}', '{"name":"Ada","tags":["a","b"]}'),
        ("[1, 2.5, null]", "[1,2.5,null]"),
        ('"5"', "5"),
        ("5", "5"),
        ("[draft] call her", "[draft] call her"),
        ("Zoë 🎈", "Zoë 🎈"),
        ("", ""),
    ],
)
def test_an_input_is_json_if_it_looks_like_it_else_text(
    cli: Cli, tmp_path: Path, given: str, output: str
) -> None:
    through = saved(
        tmp_path, drawing(node("start", "StartNode"), node("end", "EndNode"), edge("start", "end"))
    )

    assert cli("run", through, "--input", given) == Ended(0, output + "\n", "")


def test_run_reads_the_drawing_from_standard_input(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, Path(HELLO).read_bytes())

    assert cli("run", "-", "--input", "Bo").out == "Hello, Bo! Your name has 2 letters.\n"


def test_stream_shows_one_event_on_a_line(cli: Cli) -> None:
    streamed = cli("run", HELLO, "--input", "Ada", "--stream")

    lines = streamed.out.splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(1, 14))
    assert lines[1].split() == ["2", "run.started", "attempt", "1"]
    assert lines[2].split() == ["3", "step.started", "start", "StartNode"]
    assert lines[-1].split(maxsplit=2) == ["13", "run.succeeded", "Hello, Ada! Your name has 3 letters."]
    assert (streamed.err, streamed.status) == ("", 0)


def test_json_is_the_run_as_the_api_shows_it(cli: Cli) -> None:
    ran = cli("run", HELLO, "--input", "Ada", "--json")

    shown = json.loads(ran.out)
    assert UUID(shown["id"])
    assert (shown["status"], shown["input"], shown["output"], shown["trigger"]) == (
        "succeeded",
        "Ada",
        "Hello, Ada! Your name has 3 letters.",
        {"type": "cli", "step": "start"},
    )


def test_stream_and_json_together_are_json_lines(cli: Cli) -> None:
    ran = cli("run", HELLO, "--input", "Ada", "--stream", "--json")

    events = [json.loads(line) for line in ran.out.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, 14))
    assert events[0]["event"] == "run.created"
    assert events[-1]["output"] == "Hello, Ada! Your name has 3 letters."


def test_a_run_that_fails_names_the_step(cli: Cli) -> None:
    failed = cli("run", APPROVAL, "--input", '{"customer": "Bo"}')

    assert failed.out == ""
    assert failed.err.startswith("the run failed: draft: '{{ input.amount }}' finds nothing at 'amount'")
    assert failed.err.endswith("]\n") and failed.err.count("\n") == 1
    assert failed.status == 1


def test_a_failed_run_is_told_in_json_too(cli: Cli) -> None:
    failed = cli("run", APPROVAL, "--input", '{"customer": "Bo"}', "--json")

    shown = json.loads(failed.out)
    assert (shown["status"], shown["error"]["step"], failed.status) == ("failed", "draft", 1)


def test_a_drawing_with_mistakes_does_not_run(cli: Cli, tmp_path: Path) -> None:
    refused = cli("run", saved(tmp_path, FIVE_MISTAKES))

    assert [line.split("[")[-1].split("]")[0] for line in refused.err.splitlines()] == [
        code for code, _ in MISTAKES
    ]
    assert (refused.out, refused.status) == ("", 2)


def test_a_run_that_waits_says_for_what_and_where_to_answer(cli: Cli, dsn: str) -> None:
    waiting = cli("run", APPROVAL, "--input", REFUND)

    with psycopg.connect(dsn) as conn:
        row = conn.execute("SELECT run_id, id FROM question WHERE status = 'open'").fetchone()
    assert row is not None
    run, question = row
    assert waiting.out == (
        f"run {run} waits for an answer to {question}: Shall we do this? Refund 3 to Bo.\nRefund 3 to Bo.\n"
    )
    assert waiting.err == f"answer it at a server on this database: POST /api/v1/runs/{run}/resume\n"
    assert waiting.status == 3


def test_a_run_that_waits_has_its_questions_in_json(cli: Cli) -> None:
    waiting = cli("run", APPROVAL, "--input", REFUND, "--json")

    shown = json.loads(waiting.out)
    (question,) = shown["questions"]
    assert (shown["status"], question["step"]) == ("waiting", "ask")
    assert [each["id"] for each in question["actions"]] == ["approve", "reject"]
    assert (waiting.err, waiting.status) == ("", 3)


def test_a_run_that_pauses_goes_on_by_itself(cli: Cli, tmp_path: Path) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    flow = drawing(
        node("start", "StartNode"), node("wait", "Wait", until=soon.isoformat()), edge("start", "wait")
    )

    ended = cli("run", saved(tmp_path, flow), "--input", "hi", "--stream")

    assert (ended.status, ended.err) == (0, "")
    assert "wait: until " in ended.out
    assert ended.out.splitlines()[-1].endswith("hi")
    assert datetime.now(UTC) >= soon


def test_a_session_with_an_open_question_takes_no_second_run(cli: Cli) -> None:
    first = cli("run", APPROVAL, "--input", REFUND, "--session", "mine", "--json")

    second = cli("run", APPROVAL, "--input", REFUND, "--session", "mine")
    other = cli("run", APPROVAL, "--input", REFUND, "--session", "yours")

    run = json.loads(first.out)["id"]
    assert second.err.startswith(f"flowserver: run {run} of this session waits for an answer; ")
    assert (second.out, second.status) == ("", 2)
    assert other.status == 3


@pytest.mark.parametrize("session", ["", "a\nb", "x" * 201])
def test_a_session_id_that_cannot_be_one_is_refused(cli: Cli, session: str) -> None:
    refused = cli("run", HELLO, "--session", session)

    assert refused == Ended(2, "", "flowserver: a session id has 1 to 200 printable characters\n")


@contextmanager
def model(*replies: str) -> Iterator[OpenAIServer]:
    """A chat model that answers while a command has this thread."""
    server, loop = OpenAIServer(*replies), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        yield server
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_session_remembers_what_was_said(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = ("run", str(EXAMPLES / "chat.json"), "--input")
    with model("Hello Ada.", "Ada, as you said.", "I cannot know.") as server:
        monkeypatch.setenv("FLOWSERVER_OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("FLOWSERVER_OPENAI_API_KEY", "sk-operator")

        first = cli(*chat, "I am Ada.", "--session", "one")
        again = cli(*chat, "Who am I?", "--session", "one")
        other = cli(*chat, "Who am I?", "--session", "two")

    heard = [[each["content"] for each in chat["messages"][1:]] for chat in server.chats]
    assert first == Ended(0, "Hello Ada.\n", "")
    assert again == Ended(0, "Ada, as you said.\n", "")
    assert other == Ended(0, "I cannot know.\n", "")
    assert heard == [["I am Ada."], ["I am Ada.", "Hello Ada.", "Who am I?"], ["Who am I?"]]
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer sk-operator"}


# At a terminal


class Terminal:
    """A command whose standard input and error are a terminal; its output goes elsewhere."""

    def __init__(self, process: subprocess.Popen[str], screen: int) -> None:
        self.process = process
        self._screen = screen

    def shows(self, text: str, seconds: float = 20) -> str:
        """Read what appears, up to `text`."""
        seen, deadline = "", time.monotonic() + seconds
        while text not in seen:
            ready, _, _ = select.select([self._screen], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {text!r} within {seconds} s, but: {seen!r}"
            seen += os.read(self._screen, 4096).decode().replace("\r\n", "\n")
        return seen

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def ends(self) -> tuple[str, int]:
        """Its output and its status."""
        out, _ = self.process.communicate(timeout=20)
        return out, self.process.returncode


@contextmanager
def terminal(settings: Mapping[str, str], *arguments: str) -> Iterator[Terminal]:
    screen, inside = pty.openpty()
    command = [sys.executable, "-m", "flowserver", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=settings, stdin=inside, stdout=subprocess.PIPE, stderr=inside, text=True
    ) as process:
        os.close(inside)
        try:
            yield Terminal(process, screen)
        finally:
            process.kill()
            os.close(screen)


def test_at_a_terminal_the_question_is_asked_until_the_answer_fits(dsn: str, tmp_path: Path) -> None:
    with terminal(environment(dsn, tmp_path), "run", APPROVAL, "--input", REFUND) as asked:
        question = asked.shows("> ")
        asked.type("perhaps\n")
        refusal = asked.shows("> ")
        asked.type('{"action": "approve", "values": {"note": "He waited."}}\n')
        ended = asked.ends()

    assert question == (
        "\nShall we do this? Refund 3 to Bo.\nRefund 3 to Bo.\n"
        '  one of: approve, reject, or with fields: {"action": "approve", "values": {"note": …}}\n> '
    )
    assert refusal.splitlines()[1:] == [
        "the answer does not fit the question: 'perhaps' is not an action of this question; "
        "allowed: approve, reject",
        "> ",
    ]
    assert ended == ("Done: Refund 3 to Bo. He waited.\n", 0)


def test_at_a_terminal_questions_side_by_side_are_asked_one_after_the_other(dsn: str, tmp_path: Path) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("a", "HumanInput", question="First?", form=[{"name": "age", "type": "number"}]),
        node("b", "HumanInput", question="Second?"),
        node("both", "Template", template="{{ a.values.age }} {{ b }}"),
        edge("start", "a"),
        edge("start", "b"),
        edge("a", "both"),
        edge("b", "both"),
    )
    with terminal(environment(dsn, tmp_path), "run", saved(tmp_path, flow), "--stream", "--json") as asked:
        first = asked.shows("> ")
        asked.type('{"age": 36}\n')
        second = asked.shows("> ")
        asked.type("yes\n")
        out, status = asked.ends()

    events = [json.loads(line) for line in out.splitlines()]
    assert first == '\nFirst?\n  as JSON: {"age": …}\n> '
    assert second.endswith("\nSecond?\n> ")
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[-1]["output"], status) == ("36 yes", 0)


def test_at_a_terminal_ctrl_d_leaves_the_run_waiting(dsn: str, tmp_path: Path) -> None:
    with terminal(environment(dsn, tmp_path), "run", APPROVAL, "--input", REFUND) as asked:
        asked.shows("> ")
        asked.type("\x04")
        out, status = asked.ends()

    assert re.match(r"run \S+ waits for an answer to \S+: Shall we do this\?", out)
    assert status == 3
    assert statuses(dsn) == ["waiting"]


def test_at_a_terminal_ctrl_c_cancels_the_run_that_asks(dsn: str, tmp_path: Path) -> None:
    with terminal(environment(dsn, tmp_path), "run", APPROVAL, "--input", REFUND) as asked:
        asked.shows("> ")
        asked.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        ended = asked.ends()

    assert ended == ("", 130)
    assert time.monotonic() - began < 5
    assert statuses(dsn) == ["cancelled"]


def statuses(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as conn:
        return [status for (status,) in conn.execute("SELECT status FROM run").fetchall()]


# Interrupted


async def interrupted(folder: Path, settings: Mapping[str, str], number: signal.Signals) -> tuple[Any, ...]:
    """What is left of a run that got a signal while it waited for a web server: output, error, status."""
    began = asyncio.Event()

    async def never(request: Request, writer: asyncio.StreamWriter) -> None:
        began.set()
        await asyncio.Event().wait()

    async with WebServer() as web:
        web.on("/", Raw(never))
        flow = drawing(node("s", "StartNode"), node("h", "HttpRequest", url=web.url("/")), edge("s", "h"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flowserver", "run", saved(folder, flow)),
            cwd=ROOT,
            env={**settings, "FLOWSERVER_OUTBOUND_ALLOW": web.door},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            await asyncio.wait_for(began.wait(), 30)
            process.send_signal(number)
            return *(await asyncio.wait_for(process.communicate(), 8)), process.returncode
        finally:
            with suppress(ProcessLookupError):
                process.kill()


async def test_an_interrupted_run_is_cancelled_at_once(dsn: str, tmp_path: Path) -> None:
    ended = await interrupted(tmp_path, environment(dsn, tmp_path), signal.SIGINT)

    assert ended == (b"", b"", 130)
    assert statuses(dsn) == ["cancelled"]


async def test_a_terminated_run_stops_the_postgres_that_it_started(tmp_path: Path) -> None:
    with data_directory() as data_dir:
        *_, status = await interrupted(tmp_path, environment("", data_dir), signal.SIGTERM)

        assert status == 130
        assert (data_dir / "postgres" / "PG_VERSION").exists()
        assert left_running(data_dir) == []


def test_a_reader_that_leaves_early_is_no_error(dsn: str, tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m flowserver run "{HELLO}" --input Ada --stream | head -n 1'

    done = subprocess.run(
        command, shell=True, cwd=ROOT, env=environment(dsn, tmp_path), capture_output=True, text=True
    )

    assert done.stdout.split()[:2] == ["1", "run.created"]
    assert done.stderr == ""


# settings


def test_settings_lists_every_setting_where_it_comes_from_and_no_secret(
    quiet: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWSERVER_PORT", "8123")
    monkeypatch.setenv("FLOWSERVER_API_KEY", "secret-one-of-sixteen")
    monkeypatch.setenv("OPENAI_API_KEY", " secret-two\n")
    monkeypatch.setenv("FLOWSERVER_OUTBOUND_ALLOW", "llm.local:8080, 127.0.0.1")
    (tmp_path / ".env").write_text(
        "FLOWSERVER_DATABASE_URL=postgresql://u:secret-three@db/x\nFLOWSERVER_PORT=1\n"
    )

    listed = quiet("settings")

    lines = [line for line in listed.out.splitlines() if not line.startswith(" ")]
    assert [line.split("=")[0] for line in lines] == [variable(info.name) for info in fields(Settings)]
    assert {
        "FLOWSERVER_PORT=8123  (environment FLOWSERVER_PORT)",
        "FLOWSERVER_HOST=127.0.0.1  (default)",
        "FLOWSERVER_API_KEY=(hidden)  (environment FLOWSERVER_API_KEY)",
        "FLOWSERVER_OPENAI_API_KEY=(hidden)  (environment OPENAI_API_KEY)",
        "FLOWSERVER_DATABASE_URL=(hidden)  (.env FLOWSERVER_DATABASE_URL)",
        "FLOWSERVER_OUTBOUND_ALLOW=llm.local:8080,127.0.0.1  (environment FLOWSERVER_OUTBOUND_ALLOW)",
    } <= set(lines)
    assert "secret" not in listed.out
    assert (listed.err, listed.status) == ("", 0)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("FLOWSERVER_PORT=abc", "FLOWSERVER_PORT: 'abc' does not fit: Expected `int` (Port to listen on; "),
        ("FLOWSERVER_PORT=70000", "FLOWSERVER_PORT: '70000' does not fit: Expected `int` <= 65535 ("),
        ("FLOWSERVER_API_KEY=secret", "FLOWSERVER_API_KEY: its value does not fit: Expected `str` of length"),
        (
            "FLOWSERVER_API_KEY=secret-größer-als-16",
            "FLOWSERVER_API_KEY: its value has a character that no key",
        ),
        ("OPENAI_API_KEY=secret\u202e", "OPENAI_API_KEY: its value has a character that no key"),
        ("FLOWSERVER_LOG_LEVEL=loud", "FLOWSERVER_LOG_LEVEL: 'loud' does not fit: Invalid enum value 'loud'"),
        ("FLOWSERVER_OUTBOUND_ALLOW=http://x", "FLOWSERVER_OUTBOUND_ALLOW: 'http://x' does not fit: "),
        ("OPENAI_BASE_URL=localhost:1", "OPENAI_BASE_URL: 'localhost:1' does not fit: "),
    ],
)
@pytest.mark.parametrize(
    "command", [("serve",), ("run", HELLO), ("migrate",), ("settings",)], ids=lambda c: c[0]
)
def test_a_wrong_setting_is_one_sentence(
    quiet: Cli, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], setting: str, sentence: str
) -> None:
    monkeypatch.setenv(*setting.split("=", 1))

    refused = quiet(*command)

    assert refused.err.startswith(f"flowserver: {sentence}")
    assert refused.err.count("\n") == 1
    assert "secret" not in refused.err
    assert (refused.out, refused.status) == ("", 2)


# migrate


def test_migrate_brings_an_empty_database_up_to_date_once(
    quiet: Cli, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    with databases.fresh("template1") as dsn:
        monkeypatch.setenv("FLOWSERVER_DATABASE_URL", dsn)

        before = quiet("migrate", "--status")
        first, second = quiet("migrate"), quiet("migrate")
        after = quiet("migrate", "--status")

        with psycopg.connect(dsn) as conn:
            applied = {row[0] for row in conn.execute("SELECT name FROM migration")}
    ours = sorted(file.name for file in (ROOT / "sql" / "migrations").glob("*.sql"))
    assert [line for line in first.out.splitlines() if ".sql" in line] == [f"applied {name}" for name in ours]
    assert first.out.endswith("the database is up to date\n")
    assert second == Ended(0, "the database is up to date\n", "")
    assert (before.status, after.status) == (1, 0)
    assert f"missing  {ours[-1]}\n" in before.out and "applied" not in before.out
    assert f"applied  {ours[-1]}\n" in after.out and "missing" not in after.out
    assert applied >= {file.name for file in (ROOT / "sql" / "migrations").glob("*.sql")}


@pytest.mark.parametrize("command", [("migrate",), ("run", HELLO), ("serve",)], ids=lambda c: c[0])
def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(
    quiet: Cli, dsn: str, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("FLOWSERVER_DATABASE_URL", dsn)
    monkeypatch.setenv("FLOWSERVER_PORT", "0")
    newest = max(file.name for file in (ROOT / "sql" / "migrations").glob("*.sql"))
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("INSERT INTO migration (name) VALUES ('9001_tomorrow.sql')")
        conn.execute("DELETE FROM migration WHERE name = %s", (newest,))

    refused, status = quiet(*command), quiet("migrate", "--status")

    assert refused.status in (1, 2)
    assert "it has 9001_tomorrow.sql, and the last that" in refused.err and newest in refused.err
    assert refused.err.count("\n") == 1
    assert status.status == 1
    assert "unknown  9001_tomorrow.sql\n" in status.out and f"missing  {newest}\n" in status.out
    with psycopg.connect(dsn) as conn:
        rows = conn.execute(
            "SELECT name FROM migration WHERE name >= %s AND name < 'p'", (newest,)
        ).fetchall()
    assert rows == [("9001_tomorrow.sql",)]


@pytest.mark.parametrize("command", [("migrate",), ("run", HELLO)], ids=lambda c: c[0])
def test_a_database_that_cannot_be_reached_is_one_sentence(
    quiet: Cli, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"postgresql://me:secret@127.0.0.1:{nobody.getsockname()[1]}/it"
        monkeypatch.setenv("FLOWSERVER_DATABASE_URL", address)

        refused = quiet(*command)

    assert refused.err.startswith("flowserver: Postgres cannot be reached: connection failed: ")
    assert refused.err.count("\n") == 1
    assert "secret" not in refused.err
    assert (refused.out, refused.status) == ("", 2)


@pytest.mark.parametrize("address", ["nonsense secret", "postgresql+psycopg://me:secret@localhost/it"])
def test_an_address_that_is_none_is_refused_without_telling_it(
    quiet: Cli, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("FLOWSERVER_DATABASE_URL", address)

    refused = quiet("migrate")

    assert refused.err.startswith("flowserver: FLOWSERVER_DATABASE_URL is no address of a Postgres: ")
    assert "secret" not in refused.err
    assert refused.status == 2


def test_webhooks_and_schedules_are_looked_after_on_the_command_line(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWSERVER_DATABASE_URL", dsn)
    monkeypatch.setenv("FLOWSERVER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("FLOWSERVER_API_KEY", "key-of-the-command-line")

    def typed(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        return status, *capsys.readouterr()

    flow = drawing(node("timer", "TimerStart"), node("end", "EndNode"), edge("timer", "end"))
    typed("webhooks", "list")
    with psycopg.connect(dsn) as conn:
        org = conn.execute("SELECT id FROM org").fetchone()
        assert org is not None
        conn.execute("INSERT INTO workflow_version VALUES (%s, 'v', %s)", (org[0], json.dumps(flow)))
        workflow = (
            "INSERT INTO workflow (id, org_id, name, flow_data, version)"
            " VALUES (gen_random_uuid(), %s, 'w', %s, 'v')"
        )
        conn.execute(workflow, (org[0], json.dumps(flow)))

    made = typed("webhooks", "add", "w", "--authentication", "standard", "--path", "p", "--json")
    hook = json.loads(made[1])
    rotated = typed("webhooks", "rotate", hook["id"], "--json")
    closed = typed("webhooks", "disable", hook["id"])
    timed = typed("schedules", "add", "w", "--cron", "0 9 * * *", "--input", '{"a": 1}', "--json")
    schedule = json.loads(timed[1])
    listed = typed("schedules", "list", "--workflow", "w")
    wrong = typed("schedules", "add", "w", "--cron", "0 9 * * * *")
    early = typed("schedules", "trigger", schedule["id"])
    nobody = typed("webhooks", "list", "--workflow", "nobody")

    assert hook["secret"].startswith("whsec_")
    assert json.loads(rotated[1])["secret"] != hook["secret"]
    assert "is_enabled: false" in closed[1]
    assert (schedule["input"], schedule["is_live"]) == ({"a": 1}, False)
    assert listed == (0, f"{schedule['id']}  w  not firing\n", "")
    assert (wrong[0], "has five fields" in wrong[2]) == (2, True)
    assert (early[0], "is not published" in early[2]) == (2, True)
    assert nobody == (2, "", "flowserver: there is no workflow nobody\n")
