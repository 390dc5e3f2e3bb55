"""What the README shows works as it stands there."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from flowserver.http.bodies import RunSaved
from flowserver.settings import listed
from tests.retrieval_server import ModelServer
from tests.server import HEADERS, KEY, ROOT, server_process

README = (ROOT / "README.md").read_text()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_readmes_commands_do_what_it_says(dsn: str, tmp_path: Path) -> None:
    blocks = [
        block for block in re.findall(r"^```sh\n(.*?)^```", README, re.M | re.S) if "make run" not in block
    ]
    (tmp_path / ".flowserver").mkdir()
    (tmp_path / ".flowserver/api-key").write_text(KEY + "\n")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/flowserver").write_text(f'#!/bin/sh\nexec {sys.executable} -m flowserver "$@"\n')
    (tmp_path / ".venv/bin/flowserver").chmod(0o755)
    environment = {**os.environ, "FLOWSERVER_DATABASE_URL": dsn, "PYTHONPATH": str(ROOT)}

    async with server_process(dsn, tmp_path / ".flowserver", arguments=("--examples", "examples")) as server:
        await asyncio.wait_for(_examples_saved(server.client), 10)
        address = str(server.client.base_url).rstrip("/")
        script = "set -eu\n" + "\n".join(blocks).replace("http://127.0.0.1:8000/api/v1", address)
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", script, cwd=tmp_path, env=environment, stdout=asyncio.subprocess.PIPE
        )
        output = (await shell.communicate())[0].decode()

    assert shell.returncode == 0, output
    for expected in (
        "Hello, Ada! Your name has 3 letters.",
        '"status":"waiting"',
        "Done: Refund 5 to Ada. she asked nicely",
        "no errors, no warnings",
        "Paging somebody about: an urgent matter",
    ):
        assert expected in output
    assert output.count("event: run.succeeded") == 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_commands_about_documents_do_what_is_said(dsn: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/retrieval.md").read_text(), re.M | re.S)
    (tmp_path / ".flowserver").mkdir()
    (tmp_path / ".flowserver/api-key").write_text(KEY + "\n")
    (tmp_path / "examples").symlink_to(ROOT / "examples")

    async with (
        ModelServer("Two hours [bread].") as openai,
        server_process(dsn, tmp_path / ".flowserver", {"FLOWSERVER_OPENAI_BASE_URL": openai.url}) as server,
    ):
        address = str(server.client.base_url).rstrip("/")
        script = "set -eu\n" + "\n".join(blocks).replace("http://127.0.0.1:8000/api/v1", address)
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", script, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
        )
        output = (await shell.communicate())[0].decode()
        asked = openai.chats[0]["messages"][-1]["content"]

    assert shell.returncode == 0, output
    assert asked.startswith("[1] source: bread\nThe dough rises for two hours.")
    for expected in (
        '"output":"Two hours [bread]."',
        '"chunks":2,"documents":2',
        '"content":"The dough rises for two hours."',
        '"name":"moon","chunks":1',
    ):
        assert expected in output
    assert output.count('"content":"The moon orbits') == 0  # the filter leaves it out


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_commands_about_triggers_do_what_is_said(dsn: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/triggers.md").read_text(), re.M | re.S)
    (tmp_path / ".flowserver").mkdir()
    (tmp_path / ".flowserver/api-key").write_text(KEY + "\n")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/flowserver").write_text(f'#!/bin/sh\nexec {sys.executable} -m flowserver "$@"\n')
    (tmp_path / ".venv/bin/flowserver").chmod(0o755)
    environment = {**os.environ, "FLOWSERVER_DATABASE_URL": dsn, "PYTHONPATH": str(ROOT)}

    async with server_process(dsn, tmp_path / ".flowserver") as server:
        address = str(server.client.base_url).rstrip("/")
        script = "set -eu\n" + "\n".join(blocks).replace("http://127.0.0.1:8000/api/v1", address)
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", script, cwd=tmp_path, env=environment, stdout=asyncio.subprocess.PIPE
        )
        output = (await shell.communicate())[0].decode()

    assert shell.returncode == 0, output
    assert '{"order":7,"ok":true}' in output
    assert '"cron":"30 9 * * 1-5"' in output
    assert "order  next 20" in output


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_commands_about_documents_do_what_their_page_says(dsn: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/documents.md").read_text(), re.M | re.S)

    async with server_process(dsn, tmp_path) as server:
        address = str(server.client.base_url).rstrip("/")
        given = f'API={address}\nAUTH="Authorization: Bearer {KEY}"\nJSON="Content-Type: application/json"\n'
        script = "set -eu\n" + given + "\n".join(blocks)
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", script, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
        )
        output = (await shell.communicate())[0].decode()

    assert shell.returncode == 0, output
    assert '"name":"handbook.md","media_type":"text/markdown"' in output
    assert '"output":"2 chunks: Returns"' in output


async def _examples_saved(client: object) -> None:
    while len((await client.get("/workflows", headers=HEADERS)).json()["items"]) < 4:  # type: ignore[attr-defined]
        await asyncio.sleep(0.05)


DOCUMENTS = sorted(str(each.relative_to(ROOT)) for each in (ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", *DOCUMENTS])
def test_links_between_the_documents_lead_somewhere(file: str) -> None:
    path = ROOT / file

    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_documents_name_every_setting_that_people_set() -> None:
    text = (ROOT / "docs/running.md").read_text()

    unnamed = {row.name for row in listed({}, Path("/nonexistent"))} - set(
        re.findall(r"FLOWSERVER_[A-Z_]+", text)
    )

    assert unnamed == {"FLOWSERVER_MAX_BODY_BYTES", "FLOWSERVER_LOG_LEVEL"}


def test_the_api_page_names_every_field_of_a_run() -> None:
    text = (ROOT / "docs/api.md").read_text()

    assert [name for name in RunSaved.__struct_fields__ if name not in text] == []


def test_the_contributors_example_is_a_node_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.findall(r"^```python\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)[0]
    (tmp_path / "shout_example.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)

    node = __import__("shout_example").NODE

    assert (node.name, node.config.__struct_fields__) == ("Shout", ("marks",))
    made = asyncio.run(node.act(node.config(2), node.inputs("hey"), None))
    assert made.text == "HEY!!"
