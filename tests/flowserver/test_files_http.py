"""Uploads: what may come in, what comes out again, and that a file's name is never more than a name."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from msgspec.structs import replace

from flowserver.app import create_app
from flowserver.files import shown_name
from flowserver.settings import Settings
from tests import files
from tests.server import serving

Client = httpx.AsyncClient


async def upload(client: Client, data: bytes, name: str = "a.txt", media_type: str = "text/plain") -> Any:
    return await client.post("/files", files={"file": (name, data, media_type)})


async def test_an_uploaded_file_can_be_listed_read_and_deleted(client: Client) -> None:
    data = files.pdf("Hello")

    made = await upload(client, data, "Handbook.pdf", "application/pdf")

    file = made.json()
    assert made.status_code == 201
    assert made.headers["location"] == f"/api/v1/files/{file['id']}"
    assert (file["name"], file["media_type"], file["size"]) == ("Handbook.pdf", "application/pdf", len(data))
    assert file["sha256"] == hashlib.sha256(data).hexdigest()
    assert UUID(file["id"]).version == 7
    assert (await client.get(f"/files/{file['id']}")).json() == file
    assert (await client.get("/files")).json() == {"items": [file], "next": None}
    assert (await client.get(f"/files/{file['id']}/content")).content == data
    assert (await client.delete(f"/files/{file['id']}")).status_code == 204
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        assert (await client.request(method, f"/files/{file['id']}{path}")).status_code == 404


async def test_a_file_of_several_pieces_comes_back_whole(client: Client, dsn: str) -> None:
    data = "".join(f"line {n}\n" for n in range(400_000)).encode()

    file = (await upload(client, data)).json()

    assert (await client.get(f"/files/{file['id']}/content")).content == data
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        row = await (await conn.execute("SELECT count(*), sum(length(bytes)) FROM file_piece")).fetchone()
    assert row == (5, len(data))


async def test_files_are_listed_in_pages_newest_first(client: Client) -> None:
    for n in range(5):
        await upload(client, b"x", f"{n}.txt")

    first = (await client.get("/files?limit=3")).json()
    second = (await client.get(f"/files?limit=3&cursor={first['next']}")).json()

    names = [file["name"] for file in first["items"] + second["items"]]
    assert names == ["4.txt", "3.txt", "2.txt", "1.txt", "0.txt"]
    assert second["next"] is None


NAMES = [
    ("../../x.txt", "x.txt"),
    ("..%2f..%2fx.txt", "..%2f..%2fx.txt"),
    ("%252e%252e/x.txt", "x.txt"),
    ("..\\..\\x.txt", "x.txt"),
    ("/etc/passwd", "passwd"),
    ("C:\\Windows\\x.txt", "x.txt"),
    ("a\x00b.txt", "ab.txt"),
    ("a\r\nX-Evil: 1.txt", "aX-Evil: 1.txt"),
    ("x" * 300 + ".txt", "x" * 251 + ".txt"),
    ("CON", "CON"),
    ("．．／x.txt", "．．／x.txt"),
    (".", "unnamed"),
    ("..", "unnamed"),
    ("   ", "unnamed"),
    ("a/", "unnamed"),
    ("\u202egpj.txt", "gpj.txt"),
    ("{{ 7*7 }}.txt", "{{ 7*7 }}.txt"),
    ("übung.txt", "übung.txt"),
    ("a\ud800b", "ab"),
]


@pytest.mark.parametrize(("given", "shown"), NAMES)
def test_sec_61_a_name_is_only_ever_shown(given: str, shown: str) -> None:
    assert shown_name(given) == shown


@pytest.mark.parametrize(
    "given", ["../../x.txt", "C:\\x.txt", "．．／x.txt", "x" * 300, "%2e%2e%2fx", 'a"; filename="b.txt']
)
async def test_sec_61_a_name_that_is_a_path_leads_nowhere(client: Client, tmp_path: Path, given: str) -> None:
    before = sorted(tmp_path.rglob("*"))

    made = await upload(client, b"text", given)

    assert made.status_code == 201
    content = await client.get(f"/files/{made.json()['id']}/content")
    assert content.content == b"text"
    assert content.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
    assert "/" not in content.headers["content-disposition"].partition("''")[2]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("path", ["x", "..%2f..%2fetc%2fpasswd", "%00", "0" * 300])
async def test_a_file_has_an_id_and_nothing_else_names_it(client: Client, path: str) -> None:
    assert (await client.get(f"/files/{path}/content")).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"files": {"f": {"filepath": "/etc/passwd"}}},
        {"file": {"path": "/etc/passwd"}},
        {"file": "/etc/passwd"},
    ],
)
async def test_sec_60_json_that_pretends_to_be_a_file_is_none(client: Client, body: Any) -> None:
    assert (await client.post("/files", json=body)).status_code == 415
    assert (await client.get("/files")).json()["items"] == []


async def test_sec_60_a_part_that_is_no_file_is_none(client: Client) -> None:
    for name in ("filepath", "file", "path"):
        answer = await client.post("/files", files={name: (None, "/etc/passwd")})
        assert answer.status_code == 422
        assert "the file is missing" in answer.json()["detail"]


async def test_only_uploads_take_a_form(client: Client) -> None:
    for path in ("/workflows", "/runs", "/workflows/check"):
        assert (await client.post(path, files={"file": ("a.txt", b"x")})).status_code == 415


@pytest.mark.parametrize(
    ("name", "media_type", "data"),
    [
        ("a.pdf", "application/pdf", b"<html><script>alert(1)</script></html>"),
        ("a.pdf", "application/pdf", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("a.pdf", "application/pdf", b"\x7fELF\x02\x01\x01"),
        ("a.pdf", "application/pdf", b"PK\x03\x04 a zip"),
        ("a.docx", "", b"PK\x03\x04 a zip"),
        ("a.txt", "text/plain", b"MZ\x90\x00"),
        ("a.pdf.exe", "application/x-msdownload", b"MZ\x90\x00"),
        ("a.svg", "image/svg+xml", b"<svg/>"),
        ("a.txt", "text/plain", b"\x00\x01\x02" * 100),
        ("a.zip", "application/zip", b"PK\x03\x04 a zip"),
    ],
)
async def test_sec_62_a_file_that_lies_about_itself_is_refused(
    client: Client, name: str, media_type: str, data: bytes
) -> None:
    answer = await upload(client, data, name, media_type)

    assert answer.status_code == 415
    assert answer.json()["type"] == "urn:flowserver:problem:unsupported_media_type"
    assert (await client.get("/files")).json()["items"] == []


async def test_sec_62_a_browser_never_shows_what_was_uploaded(client: Client) -> None:
    file = (await upload(client, b"<script>alert(1)</script><html>", "a.html", "text/html")).json()

    headers = (await client.get(f"/files/{file['id']}/content")).headers

    assert headers["content-disposition"] == "attachment; filename*=UTF-8''a.html"
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]


@pytest.fixture
async def small(settings: Settings, dsn: str) -> AsyncIterator[Client]:
    """A client of a server that takes files of up to 100 kB."""
    async with serving(create_app(replace(settings, max_upload_mb=0.1), dsn)) as client:
        yield client


async def test_sec_65_one_byte_over_the_limit_is_too_much(small: Client) -> None:
    assert (await upload(small, b"x" * 100_000)).status_code == 201
    over = await upload(small, b"x" * 100_001)
    far_over = await upload(small, b"x" * 1_000_000)

    assert (over.status_code, far_over.status_code) == (413, 413)
    assert len((await small.get("/files")).json()["items"]) == 1


async def test_sec_65_a_form_without_a_length_is_stopped_at_the_limit(small: Client) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 10_000
        yield b"\r\n--b--\r\n"

    answer = await small.post(
        "/files", content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )

    assert answer.status_code == 413
    assert (await small.get("/files")).json()["items"] == []


async def test_sec_65_temporary_files_are_gone_afterwards(
    client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (spool := tmp_path / "spool").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spool))
    data = b"text " * 500_000

    answers = await asyncio.gather(*(upload(client, data, f"{n}.txt") for n in range(5)))
    refused = await upload(client, b"%PDF-" + data, "a.docx")

    assert [answer.status_code for answer in answers] == [201] * 5
    assert refused.status_code == 415
    assert list(spool.iterdir()) == []


def part(headers: bytes, body: bytes = b"x") -> bytes:
    return b"--b\r\n" + headers + b"\r\n\r\n" + body + b"\r\n"


FILE = b'Content-Disposition: form-data; name="file"; filename="a.txt"'


@pytest.mark.parametrize(
    "body",
    [
        part(b"Content-Disposition: form-data; " + b'a="\\' * 300_000) + b"--b--\r\n",
        part(b'Content-Disposition: form-data; name="x"') * 10_000 + b"--b--\r\n",
        part(b"\r\n".join(b"X-%d: y" % n for n in range(100_000))) + b"--b--\r\n",
        b"\r\n" * 2_500_000 + part(FILE) + b"--b--\r\n",
        part(FILE) + part(FILE.replace(b"a.txt", b"b.txt")) + b"--b--\r\n",
        part(FILE, b""),
        part(FILE)[:40],
        part(FILE),
        b"",
        b"no form at all",
        part(b'Content-Disposition: form-data; name="note"', b"x" * 100_000) + part(FILE) + b"--b--\r\n",
    ],
    ids=[
        "a quoted string without end",
        "ten thousand parts",
        "a hundred thousand headers",
        "five megabytes of line breaks before it",
        "two files",
        "an empty file",
        "cut in a header",
        "cut at the end",
        "nothing",
        "junk",
        "much beside the file",
    ],
)
async def test_sec_64_a_broken_form_is_refused_at_once(client: Client, body: bytes) -> None:
    began = time.process_time()

    answer = await client.post(
        "/files", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )

    assert answer.status_code in (400, 411, 413, 415, 422), answer.text
    assert time.process_time() - began < 1.5
    assert (await client.get("/files")).json()["items"] == []


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=", "text/plain", ""])
async def test_a_form_says_that_it_is_one_and_where_its_parts_end(client: Client, kind: str) -> None:
    answer = await client.post("/files", content=part(FILE) + b"--b--\r\n", headers={"Content-Type": kind})

    assert answer.status_code in (415, 422)


async def test_an_upload_needs_a_key(client: Client) -> None:
    answer = await client.post(
        "/files", files={"file": ("a.txt", b"x")}, headers={"Authorization": "Bearer no-key-of-ours"}
    )

    assert answer.status_code == 401


async def test_a_strangers_run_cannot_read_a_file(client: Client, dsn: str) -> None:
    file = (await upload(client, b"CNRY of ours")).json()
    stranger = {"Authorization": "Bearer key-of-a-stranger"}
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await conn.execute("INSERT INTO org (id, name) VALUES (%s, 'strangers')", (other := uuid4(),))
        await conn.execute(
            "INSERT INTO api_key (id, org_id, name, digest)"
            " VALUES (%s, %s, 'k', sha256('key-of-a-stranger'))",
            (uuid4(), other),
        )
    flow = {"nodes": [{"id": "load", "type": "DocumentLoader", "data": {"files": [file["id"]]}}]}

    ours = (await client.post("/runs", json={"flow_data": flow})).json()
    theirs = (await client.post("/runs", json={"flow_data": flow}, headers=stranger)).json()

    assert ours["status"] == "succeeded", ours
    assert "CNRY of ours" in json.dumps(ours["output"])
    assert theirs["status"] == "failed"
    assert theirs["error"]["code"] == "unknown_file"
    assert "CNRY" not in json.dumps(theirs)


async def test_the_document_of_the_api_says_how_a_file_is_sent(client: Client) -> None:
    document = (await client.get(str(client.base_url.copy_with(path="/schema/openapi.json")))).json()

    body = document["paths"]["/api/v1/files"]["post"]["requestBody"]
    assert body["content"]["multipart/form-data"]["schema"]["properties"]["file"]["format"] == "binary"
