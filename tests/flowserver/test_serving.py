"""`flowserver serve` from its first line to its last, in real processes; and what it says if it cannot."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from flowserver.__main__ import main
from flowserver.accounts import DEFAULT_ORG
from flowserver.assembly import Flowserver
from flowserver.errors import Unavailable
from flowserver.serving import PORTS, listen
from flowserver.welcome import greet
from tests.data_dirs import data_directory, left_running
from tests.server import KEY, drawing, edge, events_of, node, server_process, told
from tests.web_server import Raw, Request, WebServer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
APPROVAL = drawing(
    node("start", "StartNode"),
    node("ask", "HumanInput", question="ok?"),
    node("end", "EndNode"),
    edge("start", "ask"),
    edge("ask", "end"),
)
CALL = r"call it yourself:\n\n((?:.+\n)+)\n"
OUR_CODE = {"PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}"}
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory that is not made yet, of a name that shells trip over."""
    with data_directory() as folder:
        yield folder / "it's data"


class Served:
    """A server process and what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out = ""
        self.err = ""
        self._more = asyncio.Condition()

    async def read(self) -> None:
        assert self.process.stdout and self.process.stderr
        await asyncio.gather(self._read(self.process.stdout, "out"), self._read(self.process.stderr, "err"))

    async def says(self, pattern: str) -> re.Match[str]:
        """Wait for something in its output."""
        async with asyncio.timeout(30), self._more:
            await self._more.wait_for(lambda: re.search(pattern, self.out) or self._ended)
        found = re.search(pattern, self.out)
        assert found, f"no {pattern!r} in {self.out!r}, {self.err!r}"
        return found

    async def ends(self, seconds: float = 10) -> int:
        return await asyncio.wait_for(self.process.wait(), seconds)

    async def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return await self.ends()

    @property
    def _ended(self) -> bool:
        return self.process.stdout is None or self.process.stdout.at_eof()

    async def _read(self, stream: asyncio.StreamReader, name: str) -> None:
        more = b""
        while piece := await stream.read(4096):
            more += piece
            async with self._more:
                setattr(self, name, more.decode(errors="replace"))
                self._more.notify_all()
        async with self._more:
            self._more.notify_all()


@asynccontextmanager
async def serve(
    dsn: str,
    data_dir: Path,
    *arguments: str | Path,
    python: str = sys.executable,
    user: int | None = None,
    **settings: str,
) -> AsyncIterator[Served]:
    """`flowserver serve`, which makes its own key; it is killed at the end if it still runs."""
    theirs = {
        key: value for key, value in os.environ.items() if not key.startswith(("FLOWSERVER_", "OPENAI_"))
    }
    ours = {"DATABASE_URL": dsn, "DATA_DIR": str(data_dir), "PORT": "0", **settings}
    process = await asyncio.create_subprocess_exec(
        *(python, "-m", "flowserver", "serve", *map(str, arguments)),
        cwd=ROOT,
        env={**theirs, **OUR_CODE, **{f"FLOWSERVER_{key}": value for key, value in ours.items()}},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        **({} if user is None else {"user": user, "group": user, "extra_groups": []}),
    )
    served = Served(process)
    reading = asyncio.create_task(served.read())
    try:
        yield served
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reading


async def url_of(served: Served) -> str:
    return (await served.says(r"flowserver listens on (\S+) "))[1]


def client(url: str, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"{url}/api/v1", headers={"X-API-Key": key}, timeout=20)


# Where it listens


def test_a_taken_port_is_told_and_the_next_one_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as other:
        port = other.getsockname()[1]

        with listen("127.0.0.1", port) as found:
            took = found.getsockname()[1]

    assert port < took < port + PORTS
    assert capsys.readouterr().out == f"port {port} is taken, so it is {took} this time\n"


def test_ports_that_are_all_taken_are_one_sentence() -> None:
    with socket.socket() as other:
        with suppress(OSError):  # if somebody else has it, it is taken too
            other.bind(("127.0.0.1", 65535))
            other.listen()

        with pytest.raises(Unavailable, match=r"ports 65535 to 65535 of 127.0.0.1 are all taken"):
            listen("127.0.0.1", 65535)


# Its first key


async def test_the_first_key_is_shown_once_and_kept_for_its_owner_alone(dsn: str, data_dir: Path) -> None:
    async with serve(dsn, data_dir) as first:
        key = (await first.says(r"it is shown this once: (fs_\S+)\n"))[1]
        async with (
            client(await url_of(first), key) as keyed,
            client(await url_of(first), "fs_other") as other,
        ):
            statuses = (
                (await keyed.get("/workflows")).status_code,
                (await other.get("/workflows")).status_code,
            )
        await first.stop()
    file = data_dir / "api-key"
    async with serve(dsn, data_dir) as second:
        await second.says("the API key is kept in")
        async with client(await url_of(second), key) as keyed:
            again = (await keyed.get("/workflows")).status_code
        await second.stop()

    assert statuses == (200, 401)
    assert again == 200
    assert file.read_text() == f"{key}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key not in second.out + second.err
    assert second.out.splitlines()[1:] == [f"the API key is kept in {file}"]


async def test_a_key_of_the_operators_is_not_shown_and_a_file_with_another_not_recommended(
    dsn: str, data_dir: Path, tmp_path: Path
) -> None:
    data_dir.mkdir()
    (data_dir / "api-key").write_text("fs_of_another_database\n")

    async with serve(dsn, data_dir, "--examples", EXAMPLES, "--demo", "hello", API_KEY=KEY) as served:
        line = (await served.says(CALL))[1]
        called = await shell(line, path_with_curl(tmp_path), FLOWSERVER_API_KEY=KEY)
        await served.stop()

    assert served.out.splitlines()[1:3] == ["", "running the workflow 'hello' with the input 'Ada':"]
    assert KEY not in served.out + served.err
    assert told(events_of(called))[-1] == "run.succeeded"


# Examples and the demo


async def test_examples_are_saved_once_and_the_demo_can_be_called_as_it_says(
    dsn: str, data_dir: Path, tmp_path: Path
) -> None:
    saved: list[list[str]] = []
    for _ in range(2):
        async with serve(dsn, data_dir, "--examples", EXAMPLES, "--demo", "hello") as served:
            line = (await served.says(CALL))[1]
            async with client(await url_of(served), (data_dir / "api-key").read_text().strip()) as keyed:
                page = (await keyed.get("/workflows")).json()
            called = await shell(line, path_with_curl(tmp_path))
            await served.stop()
        saved.append(sorted(each["name"] for each in page["items"]))

    assert saved == [sorted(path.stem for path in EXAMPLES.glob("*.json"))] * 2
    assert "running the workflow 'hello' with the input 'Ada':\n   1  run.created" in served.out
    assert re.search(r"\n  13  run.succeeded  Hello, Ada! Your name has 3 letters.\n", served.out)
    events = events_of(called)
    assert told(events)[0] == "run.created"
    assert events[-1]["output"] == "Hello, Ada! Your name has 3 letters."


async def test_what_is_no_drawing_is_left_out_and_told_and_so_is_a_demo_that_is_not_there(
    flowserver: Flowserver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "examples"
    folder.mkdir()
    (folder / "a number.json").write_text("3")
    (folder / "broken.json").write_text("{")
    (folder / "mistaken.json").write_text('{"nodes": [], "edges": []}')
    (folder / "note.txt").write_text("not one of them")

    await greet(flowserver, "http://here", folder, "broken")
    saved = await flowserver.workflows.page(DEFAULT_ORG, before=None, limit=10)

    assert [each.name for each in saved] == ["mistaken"]
    assert caplog.messages == [
        f"example not saved: {folder}/a number.json holds no drawing, which is an object",
        f"example not saved: {folder}/broken.json is not JSON: Input data was truncated",
        "no demo: no workflow is called 'broken'",
    ]


async def test_a_demo_that_does_not_compile_says_why_and_the_server_goes_on(
    flowserver: Flowserver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mistaken.json").write_text('{"nodes": [], "edges": []}')

    await greet(flowserver, "http://here", tmp_path, "mistaken")

    assert capsys.readouterr().out.splitlines()[-1].startswith("error: workflow: the workflow has no nodes")


def test_a_folder_of_examples_that_is_none_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["serve", "--examples", str(tmp_path / "nowhere")])

    assert refused.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"{tmp_path}/nowhere is not a directory")


async def shell(line: str, path: str, **environment: str) -> str:
    """What a line prints that somebody copies into a terminal of theirs."""
    process = await asyncio.create_subprocess_shell(
        line, cwd="/", env={"PATH": path, "NO_PROXY": "*", **environment}, stdout=-1, stderr=-1
    )
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, err.decode()
    return out.decode()


def path_with_curl(folder: Path) -> str:
    """A PATH on which there is a curl, if need be one that knows only what our line uses."""
    path = os.environ.get("PATH", os.defpath)
    if shutil.which("curl"):
        return path
    program = folder / "curl"
    program.write_text(f"""#!{sys.executable}
import argparse, httpx
parser = argparse.ArgumentParser()
parser.add_argument("-N", action="store_true")
parser.add_argument("-H", action="append")
parser.add_argument("-d")
parser.add_argument("url")
given = parser.parse_args()
headers = dict(each.split(": ", 1) for each in given.H)
print(httpx.post(given.url, headers=headers, content=given.d, timeout=20).text)
""")
    program.chmod(0o755)
    return f"{folder}{os.pathsep}{path}"


# Its end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_in_good_order_while_somebody_watches_a_run_that_waits(
    dsn: str, tmp_path: Path, number: signal.Signals
) -> None:
    async with server_process(dsn, tmp_path) as server:
        begun = (await server.client.post("/runs", json={"flow_data": APPROVAL})).json()
        watching = f"/runs/{begun['id']}/events?after={begun['last_seq']}"
        async with server.client.stream("GET", watching) as stream:
            pieces = stream.aiter_text()
            seen = await anext(pieces)
            server.process.send_signal(number)
            seen += "".join([piece async for piece in pieces])
        status = await asyncio.wait_for(server.process.wait(), 10)

    with psycopg.connect(dsn) as conn:
        runs = conn.execute("SELECT status FROM run").fetchall()
    assert begun["status"] == "waiting"
    assert events_of(seen) == []
    assert status == 0
    assert runs == [("waiting",)]


async def test_the_second_ctrl_c_does_not_wait_for_running_steps(dsn: str, tmp_path: Path) -> None:
    began = asyncio.Event()

    async def never(request: Request, writer: asyncio.StreamWriter) -> None:
        began.set()
        await asyncio.Event().wait()

    async with WebServer() as web:
        web.on("/", Raw(never))
        flow = drawing(node("s", "StartNode"), node("h", "HttpRequest", url=web.url("/")), edge("s", "h"))
        settings = {"FLOWSERVER_OUTBOUND_ALLOW": web.door, "FLOWSERVER_GRACE_SECONDS": "60"}
        async with server_process(dsn, tmp_path, settings) as server:
            await server.client.post("/runs", json={"flow_data": flow, "mode": "background"})
            await asyncio.wait_for(began.wait(), 20)
            server.process.send_signal(signal.SIGINT)
            await closed(server.client)
            server.process.send_signal(signal.SIGINT)
            status = await asyncio.wait_for(server.process.wait(), 10)

    assert status == 0


async def closed(client: httpx.AsyncClient) -> None:
    """Wait until nobody listens any more, which is the first thing that a server stops."""
    deadline = time.monotonic() + 10
    with suppress(httpx.TransportError):
        while time.monotonic() < deadline:
            async with httpx.AsyncClient(base_url=client.base_url) as fresh:
                await fresh.get("/workflows")
            await asyncio.sleep(0.01)


async def test_it_can_be_stopped_while_it_waits_for_its_database(data_dir: Path) -> None:
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read(1)
            asked.set()
            await reader.read()
        writer.close()

    postgres = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = postgres.sockets[0].getsockname()[1]
    async with postgres, serve(f"postgresql://127.0.0.1:{port}/it", data_dir) as served:
        await asyncio.wait_for(asked.wait(), 20)
        status = await served.stop(signal.SIGHUP)

    assert (served.out, served.err, status) == ("", "", 1)


# What it says when it cannot start


@pytest.fixture
def refused(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Status, output and error of a server, in this process, that does not come to serve."""
    for key in [key for key in os.environ if key.startswith(("FLOWSERVER_", "OPENAI_"))]:
        monkeypatch.delenv(key)

    def serve(dsn: str, **settings: str) -> tuple[int, str, str]:
        for key, value in {"DATABASE_URL": dsn, "DATA_DIR": str(data_dir), "PORT": "0", **settings}.items():
            monkeypatch.setenv(f"FLOWSERVER_{key}", value)
        return main(["serve"]), *capsys.readouterr()

    return serve


Refused = Callable[..., tuple[int, str, str]]


def test_a_database_that_cannot_be_reached_is_one_sentence(refused: Refused) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        status, out, err = refused(f"postgresql://me:secret@127.0.0.1:{nobody.getsockname()[1]}/it")

    assert re.fullmatch("flowserver: Postgres cannot be reached: .* Connection refused\n", err)
    assert "secret" not in err
    assert (out, status) == ("", 1)


def test_a_database_without_pgvector_is_one_sentence(refused: Refused, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CREATE SCHEMA without")
        conn.execute(
            "CREATE VIEW without.pg_available_extensions AS"
            " SELECT * FROM pg_catalog.pg_available_extensions WHERE name <> 'vector'"
        )

    ended = refused(make_conninfo(dsn, options="-c search_path=without,pg_catalog,public"))

    sentence = "this Postgres has no pgvector; install its extension 'vector' on the database server"
    assert ended == (1, "", f"flowserver: {sentence}\n")


def test_a_database_with_an_old_pgvector_is_one_sentence(refused: Refused, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CREATE SCHEMA old")
        conn.execute(
            "CREATE VIEW old.pg_available_extensions AS"
            " SELECT name, '0.7.4' AS default_version, '0.5.0' AS installed_version"
            "   FROM pg_catalog.pg_available_extensions WHERE name = 'vector'"
        )

    ended = refused(make_conninfo(dsn, options="-c search_path=old,pg_catalog,public"))

    sentence = "this Postgres has pgvector 0.5.0; flowserver needs 0.8 or later"
    assert ended == (1, "", f"flowserver: {sentence} (install it, then: ALTER EXTENSION vector UPDATE)\n")


def test_a_database_that_is_too_old_is_one_sentence(refused: Refused) -> None:
    with postgres_that_says("14.19") as port:
        ended = refused(f"postgresql://127.0.0.1:{port}/it?sslmode=disable&gssencmode=disable")

    assert ended == (1, "", "flowserver: this Postgres is version 14; flowserver needs 15 or later\n")


def test_a_data_directory_that_cannot_hold_the_key_is_one_sentence(refused: Refused, dsn: str) -> None:
    status, out, err = refused(dsn, DATA_DIR=__file__)

    assert err.startswith(f"flowserver: the first API key cannot be kept in {__file__}/api-key (")
    assert err.count("\n") == 1
    assert (out, status) == ("", 1)


def test_an_address_that_is_not_here_is_one_sentence(refused: Refused, dsn: str) -> None:
    ended = refused(dsn, HOST="192.0.2.1")

    sentence = "cannot listen on 192.0.2.1:0: Cannot assign requested address"
    assert ended == (1, "", f"flowserver: {sentence}\n")


@contextmanager
def postgres_that_says(version: str) -> Iterator[int]:
    """The port of something that welcomes a Postgres client, tells its version and goes no further."""

    def message(kind: bytes, body: bytes) -> bytes:
        return kind + (len(body) + 4).to_bytes(4, "big") + body

    def talk() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            told = {"server_version": version, "client_encoding": "UTF8", "server_encoding": "UTF8"}
            welcome = message(b"R", bytes(4))
            for name, value in told.items():
                welcome += message(b"S", f"{name}\0{value}\0".encode())
            connection.sendall(welcome + message(b"Z", b"I"))
            while connection.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=talk)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)


# On the embedded Postgres


async def test_after_kill_9_everything_is_still_there_and_ctrl_c_leaves_nothing_running(
    data_dir: Path,
) -> None:
    async with server_process("", data_dir) as first:
        saved = (await first.client.post("/workflows", json={"name": "kept", "flow_data": APPROVAL})).json()
        begun = (await first.client.post(f"/workflows/{saved['id']}/runs", json={})).json()
        await first.kill()
    left = left_running(data_dir, 0)

    async with server_process("", data_dir) as second:
        found = (await second.client.get(f"/workflows/{saved['id']}")).json()
        run = (await second.client.get(f"/runs/{begun['id']}")).json()
        status = await second.stop()

    assert left != []
    assert found == saved
    assert run == begun
    assert status == 0
    assert left_running(data_dir) == []


@AS_ROOT
async def test_an_ordinary_user_can_serve_and_leaves_nothing_running(data_dir: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    if (python := python_for(nobody.pw_uid)) is None:
        pytest.skip("no Python of this version is open to other users")
    data_dir.mkdir()
    os.chown(data_dir, nobody.pw_uid, nobody.pw_uid)
    for folder in data_dir.parents:
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH)

    async with serve("", data_dir, python=python, user=nobody.pw_uid) as served:
        key = (await served.says(r"it is shown this once: (fs_\S+)\n"))[1]
        async with client(await url_of(served), key) as keyed:
            ran: dict[str, Any] = (await keyed.post("/runs", json={"flow_data": APPROVAL})).json()
        owners = {path.name: path.stat().st_uid for path in (data_dir / "postgres", data_dir / "api-key")}
        status = await served.stop()

    assert ran["status"] == "waiting"
    assert owners == {"postgres": nobody.pw_uid, "api-key": nobody.pw_uid}
    assert (status, served.err) == (0, "")
    assert left_running(data_dir) == []


def python_for(user: int) -> str | None:
    """A Python like ours that this user may execute, for ours may lie in a home that is closed to others."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for program in (sys.executable, f"/usr/local/bin/{name}", f"/usr/bin/{name}"):
        command = [program, "-c", "import asyncio, psycopg, flowserver.settings"]
        with suppress(OSError, subprocess.CalledProcessError):
            subprocess.run(command, env=OUR_CODE, user=user, group=user, extra_groups=[], check=True)
            return program
    return None
