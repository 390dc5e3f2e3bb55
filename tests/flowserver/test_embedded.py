from __future__ import annotations

import logging
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from flowserver import embedded
from flowserver.cluster import PostgresFailed
from flowserver.embedded import embedded_postgres
from tests.data_dirs import data_directory

ROOT = Path(__file__).parents[2]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as somebody else")
USER = """
import os, sys
from pathlib import Path
from flowserver import embedded

if sys.argv[2]:
    os.setgroups([])
    os.setgid(int(sys.argv[3]))
    os.setuid(int(sys.argv[2]))
postgres = embedded.start(Path(sys.argv[1]))
print(postgres.dsn, flush=True)
sys.stdin.read()
postgres.stop()
"""


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """A data directory whose Postgres has been made and does not run."""
    with data_directory() as folder:
        data_dir = folder / "data"
        left_by_killed_initdb = data_dir / "postgres.new" / "base"
        left_by_killed_initdb.mkdir(parents=True)
        embedded.start(data_dir).stop()
        yield data_dir
        end(data_dir)


@pytest.fixture
def empty_dir() -> Iterator[Path]:
    """A data directory without a Postgres."""
    with data_directory() as folder:
        yield folder
        for cluster in folder.rglob("postgres"):
            end(cluster.parent)


def end(data_dir: Path) -> None:
    """Leave neither a server nor its 40 MB behind, whatever a test has done."""
    if pid := postmaster(data_dir):
        os.kill(pid, signal.SIGQUIT)
        eventually(lambda: postmaster(data_dir) is None)
    shutil.rmtree(data_dir / "postgres")


@contextmanager
def user(data_dir: Path, uid: int | str = "", gid: int | str = "") -> Iterator[subprocess.Popen[str]]:
    """Another process of ours that uses the Postgres; it leaves when its stdin is closed."""
    with launched(data_dir, uid, gid) as process:
        assert process.stdout and process.stdout.readline().startswith("host="), "it could not start"
        yield process


@contextmanager
def launched(data_dir: Path, uid: int | str = "", gid: int | str = "") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", USER, str(data_dir), str(uid), str(gid)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def leave(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.close()
    assert process.wait(20) == 0


def postmaster(data_dir: Path) -> int | None:
    """The pid of the running server."""
    try:
        pid = int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return pid


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_restart_finds_the_same_data_and_pgvector(data_dir: Path) -> None:
    with embedded_postgres(data_dir) as dsn, psycopg.connect(dsn) as conn:
        conn.execute("CREATE EXTENSION vector")
        conn.execute("CREATE TABLE place AS SELECT '[1,2,3]'::vector AS at")
    after_the_first = postmaster(data_dir)

    with embedded_postgres(data_dir) as dsn, psycopg.connect(dsn) as conn:
        near = conn.execute("SELECT at <-> '[1,2,5]' FROM place").fetchone()

    assert after_the_first is None
    assert near == (2.0,)
    assert postmaster(data_dir) is None


def test_the_database_is_utf8_with_rules_that_no_system_update_changes(data_dir: Path) -> None:
    with embedded_postgres(data_dir) as dsn, psycopg.connect(dsn) as conn:
        row = conn.execute(
            "SELECT datname, pg_encoding_to_char(encoding), datlocprovider, datlocale, upper('straße é')"
            " FROM pg_database WHERE datname = current_database()"
        ).fetchone()

    assert row == ("flowserver", "UTF8", "b", "C.UTF-8", "STRAßE É")


def test_only_its_own_user_reaches_it_and_only_by_socket(data_dir: Path) -> None:
    with embedded_postgres(data_dir) as dsn, psycopg.connect(dsn) as conn:
        folder = Path(conn.info.host)
        mode = stat.S_IMODE(folder.stat().st_mode)
        addresses = conn.execute("SELECT current_setting('listen_addresses')").fetchone()

    assert folder.is_relative_to(data_dir)
    assert mode == 0o700
    assert addresses == ("",)


def test_a_ctrl_c_in_our_terminal_does_not_reach_it(data_dir: Path) -> None:
    with embedded_postgres(data_dir):
        pid = postmaster(data_dir)
        assert pid is not None
        session = os.getsid(pid)

    assert session == pid


def test_the_last_of_its_users_stops_it(data_dir: Path) -> None:
    with user(data_dir) as first, user(data_dir) as second:
        started = postmaster(data_dir)
        postgres = embedded.start(data_dir)
        leave(first)
        postgres.stop()
        after_two_left = postmaster(data_dir)
        leave(second)

    assert started is not None
    assert after_two_left == started
    assert postmaster(data_dir) is None


def test_to_stop_twice_is_to_stop_once(data_dir: Path) -> None:
    with user(data_dir):
        postgres = embedded.start(data_dir)

        postgres.stop()
        postgres.stop()

        assert postmaster(data_dir) is not None
    embedded.start(data_dir).stop()


def test_it_survives_a_killed_user_and_serves_the_next(data_dir: Path) -> None:
    with user(data_dir) as first:
        started = postmaster(data_dir)
        first.send_signal(signal.SIGKILL)
        first.wait(20)

    with embedded_postgres(data_dir) as dsn, psycopg.connect(dsn) as conn:
        conn.execute("SELECT 1")
        found = postmaster(data_dir)

    assert started is not None
    assert found == started
    assert postmaster(data_dir) is None


def test_a_killed_server_is_started_again(data_dir: Path) -> None:
    with user(data_dir):
        pid = postmaster(data_dir)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: postmaster(data_dir) is None)

        with embedded_postgres(data_dir) as dsn, psycopg.connect(dsn) as conn:
            conn.execute("SELECT 1")

        assert postmaster(data_dir) not in (None, pid)
    embedded.start(data_dir).stop()


@pytest.mark.parametrize("whose", ["nobody's", "another program's"])
def test_a_stale_postmaster_pid_is_no_obstacle(data_dir: Path, whose: str) -> None:
    cluster = data_dir / "postgres"
    owner = cluster.stat()
    with subprocess.Popen(["sleep", "60"], user=owner.st_uid if os.geteuid() == 0 else None) as other:
        if whose == "nobody's":
            other.kill()
            other.wait()
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            file = cluster / name
            file.write_text(f"{other.pid}\n{cluster}\n1700000000\n5432\n{cluster}\n\n  1 1\nready   \n")
            os.chown(file, owner.st_uid, owner.st_gid)

        with embedded_postgres(data_dir) as dsn, psycopg.connect(dsn) as conn:
            found = conn.execute("SELECT 1").fetchone()

        assert found == (1,)
        assert (other.poll() is None) == (whose == "another program's")
        other.kill()


def test_files_of_another_major_version_are_refused(data_dir: Path) -> None:
    version = data_dir / "postgres" / "PG_VERSION"
    here = version.read_text()
    version.write_text("15\n")
    try:
        with pytest.raises(
            PostgresFailed, match=r"made by Postgres 15, but here is Postgres \d+\.\d+"
        ) as failed:
            embedded.start(data_dir)
    finally:
        version.write_text(here)

    assert "embedded-postgres 15.*" in str(failed.value)


def test_a_failed_start_says_what_postgres_said_and_leaves_nothing_running(data_dir: Path) -> None:
    with pytest.raises(PostgresFailed) as failed:
        embedded.start(data_dir, {"shared_buffers": "lots"})

    first, *words = str(failed.value).splitlines()
    assert first == f"Postgres did not start in {data_dir}/postgres: its last words were"
    assert 'invalid value for parameter "shared_buffers": "lots"' in words[-1]
    assert postmaster(data_dir) is None


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(
        PostgresFailed, match=f"cannot keep a Postgres in {tmp_path}/file/data: .*Not a directory"
    ):
        embedded.start(tmp_path / "file" / "data")


def test_something_else_in_its_place_is_refused(empty_dir: Path) -> None:
    cluster = empty_dir / "postgres"
    cluster.mkdir()
    (cluster / "letter.txt").touch()
    if os.geteuid() == 0:
        os.chown(cluster, pwd.getpwnam("nobody").pw_uid, -1)

    with pytest.raises(PostgresFailed, match="is neither empty nor a Postgres cluster"):
        embedded.start(empty_dir)


def test_many_may_start_it_at_once_where_no_socket_path_fits(empty_dir: Path) -> None:
    data_dir = empty_dir / "it's, a long way" / ("d" * 100) / ("e" * 100)

    with launched(data_dir) as first, launched(data_dir) as second:
        assert first.stdout and second.stdout
        seen = {first.stdout.readline(), second.stdout.readline()}
        with embedded_postgres(data_dir) as dsn, psycopg.connect(dsn) as conn:
            folder = Path(conn.info.host)
            mode = stat.S_IMODE(folder.stat().st_mode)
        leave(first)
        leave(second)

    assert seen == {f"{dsn}\n"}
    assert mode == 0o700
    assert not folder.exists()
    assert postmaster(data_dir) is None


def test_a_start_killed_while_it_makes_the_files_leaves_no_half_cluster(empty_dir: Path) -> None:
    with launched(empty_dir) as first:
        eventually((empty_dir / "postgres.new" / "PG_VERSION").exists)
        first.send_signal(signal.SIGKILL)
        first.wait(20)

    with embedded_postgres(empty_dir) as dsn, psycopg.connect(dsn) as conn:
        databases = conn.execute("SELECT count(*) FROM pg_database").fetchone()

    assert databases == (4,)
    assert sorted(path.name for path in empty_dir.iterdir() if path.is_dir()) == ["postgres"]


@AS_ROOT
def test_an_ordinary_user_has_it_too_and_root_runs_it_for_them(empty_dir: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    for folder in (empty_dir, *empty_dir.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    data_dir = empty_dir / "data"
    data_dir.mkdir()
    os.chown(data_dir, nobody.pw_uid, nobody.pw_gid)

    with user(data_dir, nobody.pw_uid, nobody.pw_gid) as process:
        runs_as = Path(f"/proc/{postmaster(data_dir)}").stat().st_uid
        leave(process)
    stopped = postmaster(data_dir) is None
    with embedded_postgres(data_dir):
        runs_as_under_root = Path(f"/proc/{postmaster(data_dir)}").stat().st_uid

    assert runs_as == runs_as_under_root == nobody.pw_uid
    assert stopped


@AS_ROOT
def test_root_lets_postgres_through_closed_folders_and_says_so(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data_dir.parent.chmod(0o700)

    with caplog.at_level(logging.WARNING), embedded_postgres(data_dir):
        mode = stat.S_IMODE(data_dir.parent.stat().st_mode)

    cluster = data_dir / "postgres"
    uid = cluster.stat().st_uid
    assert caplog.messages == [
        f"chmod o+x {data_dir.parent}: Postgres runs as user {uid} and must reach {cluster}"
    ]
    assert mode == 0o701
    assert uid != 0
    assert (data_dir / "postgres.log").stat().st_uid == 0


@AS_ROOT
def test_root_refuses_files_that_belong_to_root(data_dir: Path) -> None:
    cluster = data_dir / "postgres"
    owner = cluster.stat().st_uid
    os.chown(cluster, 0, -1)
    try:
        with pytest.raises(PostgresFailed, match=rf"belongs to root, .*: chown -R \w+ {cluster}"):
            embedded.start(data_dir)
    finally:
        os.chown(cluster, owner, -1)


@AS_ROOT
def test_binaries_that_are_for_root_alone_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = tmp_path / "pginstall" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "postgres").touch(mode=0o700)
    monkeypatch.setattr("flowserver.cluster._binaries", lambda: binaries)

    with pytest.raises(
        PostgresFailed, match=rf"may not execute {binaries}/postgres: chmod -R o\+rX {tmp_path}"
    ):
        embedded.start(tmp_path / "data")


def test_a_server_whose_process_is_hidden_is_left_alone(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    postgres = embedded.start(data_dir)
    with monkeypatch.context() as patched:
        patched.setattr(embedded, "listener", lambda postmaster: 0)
        postgres.stop()
    left_running = postmaster(data_dir)
    embedded.start(data_dir).stop()

    assert left_running is not None
    assert caplog.messages == [
        f"left Postgres in {data_dir}/postgres running: process {left_running} is not it"
    ]
    assert postmaster(data_dir) is None
