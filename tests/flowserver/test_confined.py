"""Strangers' files and code in confined processes: what is hostile ends there, and nowhere else."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from flowserver.confined import Confined, ConfinedFailure
from flowserver.workshop import ConfinedReader
from nodes.contract import NodeError
from tests import files
from tests.workshop import confined


@pytest.fixture
async def pool() -> AsyncIterator[Confined]:
    async with confined() as pool:
        yield pool


async def read(pool: Confined, data: bytes, name: str = "", media_type: str = "", **more: Any) -> Any:
    return await ConfinedReader(pool).read(data, name=name, media_type=media_type, **more)


async def refused(pool: Confined, data: bytes, name: str = "", media_type: str = "") -> NodeError:
    with pytest.raises(NodeError) as failed:
        await read(pool, data, name, media_type)
    return failed.value


async def text_of(pool: Confined, data: bytes, name: str = "", media_type: str = "", **more: Any) -> str:
    return "\n---\n".join(part.text for part in (await read(pool, data, name, media_type, **more)).parts)


PROSE = 'He said: "if (x[0]) { return; }" for a\u00a0while; it\'s \u201ctrue\u201d — 100 % [1] {2} a;b'


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("a.txt", PROSE.encode(), PROSE),
        ("a.txt", "\ufeffmark".encode(), "mark"),
        ("a.txt", "schön".encode("utf-16"), "schön"),
        ("a.txt", "schön".encode("latin-1"), "schön"),
        ("a.txt", b"", ""),
        ("a.md", b"# A\n\n*b*", "# A\n\n*b*"),
        ("a.json", b'{"a": [1, 2]}', '{"a": [1, 2]}'),
        ("a.json", b'[{"text": "one", "n": 1}, {"text": "two"}]', "one\n---\ntwo"),
        ("a.jsonl", b'{"page_content": "one", "metadata": {"k": 1}}\n\n[2]\n', "one\n---\n[2]"),
        ("a.csv", b"name,age\nAda,36\nBob,\n", "name: Ada\nage: 36\n\nname: Bob"),
        ("a.csv", b'a;b\n"x;1";"two\nlines"\n', "a: x;1\nb: two\nlines"),
        ("a.tsv", b"a\tb\n1\t2", "a: 1\nb: 2"),
        ("a.csv", b"only,a,head", ""),
        ("a.pdf", files.pdf("One (1)", "Two"), "One (1)\n\nTwo"),
        (
            "a.docx",
            files.docx(PROSE, heading="H", table=[["a", "b"], ["1", "2"]]),
            f"# H\n\n{PROSE}\n\na | b\n1 | 2",
        ),
    ],
)
async def test_a_file_becomes_its_text(pool: Confined, name: str, data: bytes, text: str) -> None:
    assert await text_of(pool, data, name) == text


async def test_a_pdf_gives_its_pages_by_number_if_that_is_wished(pool: Confined) -> None:
    reading = await read(pool, files.pdf("One", "", "Three", title="A title"), "a.pdf", by_page=True)

    assert [(part.text, part.metadata["page"]) for part in reading.parts] == [("One", 1), ("Three", 3)]
    assert {part.metadata["title"] for part in reading.parts} == {"A title"}


HTML = f"""<!doctype html><html lang="en"><head><title>A  page</title><style>b {{}}</style></head><body>
<nav>Menu</nav><h1>On <i>loops</i></h1><p>{PROSE.replace('"', "&quot;")}</p><script>alert(1)</script>
<ul><li>one<li>two</ul><table><tr><th>a<th>b<tr><td>1<td>2</table><pre>def f():
    return 1</pre><footer>Imprint</footer></body></html>"""


async def test_defect_15_a_page_keeps_every_word_and_sign_of_its_prose(pool: Confined) -> None:
    reading = await read(pool, HTML.encode(), "", "text/html", remove=["nav", "footer"])
    article = await read(pool, HTML.encode(), "", "text/html", remove=["nav", "footer"], article=True)

    assert article == reading
    part = reading.parts[0]
    assert part.text == (f"# On loops\n\n{PROSE}\n\n- one\n- two\n\na | b\n1 | 2\n\ndef f():\n    return 1")
    assert part.metadata == {"title": "A page", "language": "en"}


async def test_what_surrounds_an_article_is_left_out(pool: Confined) -> None:
    article = "".join(
        f"<p>Paragraph {n} goes on long enough, with words, to be read as an article.</p>" for n in range(9)
    )
    page = f"<body><div><a href=/>Home</a></div><article><h1>T</h1>{article}</article><div>Buy now</div>"

    text = await text_of(pool, page.encode(), "a.html", article=True)

    assert text.startswith("# T\n\nParagraph 0 goes on")
    assert text.count("Paragraph") == 9
    assert "Buy now" not in text
    assert "Buy now" in await text_of(pool, page.encode(), "a.html")


@pytest.mark.parametrize(
    ("charset", "encoding"),
    [("windows-1251", "windows-1251"), ("Shift_JIS", "shift_jis"), ("../../x", "utf-8")],
)
async def test_a_page_is_decoded_as_it_says(pool: Confined, charset: str, encoding: str) -> None:
    text = "Привет" if encoding == "windows-1251" else "日本" if encoding == "shift_jis" else "é"

    by_header = await text_of(pool, f"<p>{text}".encode(encoding), "", f"text/html; charset={charset}")
    by_itself = await text_of(pool, f"<meta charset='{charset}'><p>{text}".encode(encoding), "a.html")

    assert by_header == by_itself == text


@pytest.mark.parametrize(
    ("make", "name", "code"),
    [
        (files.looping_pdf, "a.pdf", "unreadable"),
        (lambda: b"%PDF-1.4\n" + b"junk " * 1000, "a.pdf", "unreadable"),
        (lambda: files.pdf("x")[:200], "a.pdf", "unreadable"),
        (files.docx_entity_bomb, "a.docx", "unreadable"),
        (files.docx_zip_bomb, "a.docx", "too_complex"),
        (files.docx_of_many_entries, "a.docx", "too_complex"),
        (lambda: files.nested_docx(10_000), "a.docx", "unreadable"),
        (lambda: files.docx("x")[:-200], "a.docx", "unreadable"),
        (lambda: b"PK\x03\x04word/document.xml" + b"\x00" * 5000, "a.docx", "unreadable"),
        (lambda: b"[" * 100_000, "a.json", "too_complex"),
        (lambda: b'{"a": 1', "a.json", "unreadable"),
        (lambda: b"9" * 10_000, "a.json", "unreadable"),
        (lambda: b"{}\nnot json", "a.jsonl", "unreadable"),
        (lambda: b"<div>" * 100_000, "a.html", "too_complex"),
        (lambda: b"x" * 40_000_000, "a.txt", "too_large"),
    ],
)
async def test_sec_63_a_hostile_file_is_refused_and_the_next_one_is_read(
    pool: Confined, make: Callable[[], bytes], name: str, code: str
) -> None:
    data = make()
    began = time.monotonic()

    failed = await refused(pool, data, name)

    assert failed.code == code
    assert time.monotonic() - began < 10
    assert await text_of(pool, b"next", "b.txt") == "next"


async def test_a_pdf_that_unpacks_to_gigabytes_harms_nobody(pool: Confined) -> None:
    assert await text_of(pool, files.pdf_bomb(), "a.pdf") == ""
    assert await text_of(pool, files.pdf("next"), "b.pdf") == "next"


async def test_junk_of_every_kind_is_read_or_refused(pool: Confined) -> None:
    chance = random.Random(7)
    seeds = [
        HTML.encode(),
        files.pdf("One", "Two"),
        files.docx("x", table=[["a"]]),
        b'[{"text": "x"}]',
        b"a,b\n1,2",
    ]

    for _ in range(60):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 20)):
            at = chance.randrange(len(data))
            data[at : at + chance.randint(0, 30)] = chance.randbytes(chance.randint(0, 30))
        name = chance.choice(["a.txt", "a.html", "a.pdf", "a.docx", "a.json", "a.jsonl", "a.csv", ""])
        try:
            assert (await read(pool, bytes(data), name)).parts is not None
        except NodeError as failed:
            assert failed.code in ("unsupported_type", "unreadable", "too_complex", "encrypted")

    assert await text_of(pool, b"next", "a.txt") == "next"


async def test_no_file_of_the_machine_gets_into_a_document(pool: Confined, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("CNRY-secret")

    reading = await read(pool, files.docx_with_a_file_inside(str(tmp_path / "secret")), "a.docx")

    assert "CNRY" not in str(reading)


@pytest.mark.parametrize(
    ("name", "media_type", "data", "words"),
    [
        ("a.pdf", "application/pdf", b"<html>no</html>", "says that it is pdf"),
        ("a.pdf", "", b"\x7fELF\x02\x01", "a program"),
        ("a.docx", "", b"plain text", "says that it is docx"),
        ("a.docx", "", files.pdf("x"), "says that it is docx, but is pdf"),
        ("a.html", "text/html", b"\x89PNG\r\n\x1a\n", "an image"),
        ("a.txt", "", b"a\x00b\x00" * 100, "a binary file"),
        ("a.zip", "application/zip", b"PK\x03\x04xl/workbook.xml", "spreadsheet"),
        ("a", "", b"PK\x03\x04anything", "a zip file"),
        ("a.doc", "application/msword", b"\xd0\xcf\x11\xe0", "'application/msword'"),
        ("a.svg", "image/svg+xml", b"<svg/>", "'image/svg+xml'"),
        ("a.rtf", "", b"{\\rtf1 x}", "an RTF file"),
    ],
)
async def test_sec_62_a_file_that_is_not_what_it_says_is_refused_by_name(
    pool: Confined, name: str, media_type: str, data: bytes, words: str
) -> None:
    failed = await refused(pool, data, name, media_type)

    assert failed.code == "unsupported_type"
    assert words in failed.message


async def test_a_process_that_takes_too_long_is_ended_and_replaced() -> None:
    async with confined(processes=1) as pool:
        await read(pool, b"warm", "a.txt")
        (first,) = pool.idle
        with pytest.raises(ConfinedFailure) as failed:
            await pool.call(
                "code",
                {"code": "while True: pass", "values": {}, "seconds": 60, "memory_bytes": 1 << 26},
                seconds=0.5,
            )

        assert failed.value.code == "too_complex"
        assert not _lives(first)
        assert await text_of(pool, b"next", "a.txt") == "next"


async def test_a_process_is_used_for_so_many_files_and_for_none_after_a_failure() -> None:
    async with confined(processes=1, uses=3) as pool:
        seen = []
        for _ in range(6):
            await read(pool, b"x", "a.txt")
            seen.append(list(pool.idle))
        assert [len(each) for each in seen] == [1, 1, 0, 1, 1, 0]
        assert seen[0] == seen[1] != seen[3]

        await read(pool, b"x", "a.txt")
        await refused(pool, b"%PDF-1.4", "a.pdf")
        assert pool.idle == []


async def test_a_process_that_is_killed_from_outside_costs_one_file_only() -> None:
    async with confined(processes=1) as pool:
        code = {"code": "while True: pass", "values": {}, "seconds": 60, "memory_bytes": 1 << 26}
        task = asyncio.create_task(pool.call("code", code, seconds=60))
        while not pool.living:
            await asyncio.sleep(0.01)
        os.kill(pool.living[0], 9)

        with pytest.raises(ConfinedFailure) as failed:
            await task
        assert failed.value.code == "too_complex"
        assert await text_of(pool, b"y", "a.txt") == "y"


async def test_no_more_processes_live_than_are_allowed_and_all_end_with_the_pool() -> None:
    async with confined(processes=2) as pool:
        found = await asyncio.gather(*(text_of(pool, b"%d" % n, "a.txt") for n in range(20)))
        pids = pool.idle

        assert found == [str(n) for n in range(20)]
        assert 1 <= len(pids) <= 2
    assert not any(map(_lives, pids))


async def test_who_gives_up_waiting_leaves_no_process_behind() -> None:
    async with confined(processes=1) as pool:
        code = {"code": "while True: pass", "values": {}, "seconds": 60, "memory_bytes": 1 << 26}
        task = asyncio.create_task(pool.call("code", code, seconds=60))
        while not (children := pool.living):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert not any(map(_lives, children))
        assert await text_of(pool, b"next", "a.txt") == "next"


async def test_a_confined_process_has_no_secrets_no_network_and_nothing_to_write_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLOWSERVER_SECRET", "CNRY-env")
    async with confined(processes=1) as pool:
        await read(pool, b"x", "a.txt")
        pid = pool.idle[0]
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        limits = Path(f"/proc/{pid}/limits").read_text()
        status = Path(f"/proc/{pid}/status").read_text()

    assert b"CNRY" not in environment
    assert b"FLOWSERVER" not in environment
    assert "NoNewPrivs:\t1" in status
    for line in (
        "Max address space        536870912",
        "Max file size             0",
        "Max core file size        0",
    ):
        assert " ".join(line.split()) in " ".join(limits.split())


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import socket; socket.socket().bind(('127.0.0.1', 0))",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import os; os.fork()",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "open('/tmp/written-by-a-child', 'w')",
        "import os; os.open('/tmp/written-by-a-child', os.O_WRONLY | os.O_CREAT)",
        "import os; os.remove('/tmp/nothing-of-this-name')",
    ],
)
async def test_what_a_parser_has_no_need_of_is_forbidden_to_it(attempt: str) -> None:
    program = (
        "import sys; sys.path.append('.')\n"
        "from flowserver.confined_child import confine\n"
        "confine(512 << 20)\n"
        f"try:\n    exec({attempt!r})\n"
        "except PermissionError: sys.exit(7)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=Path(__file__).parents[2]
    )

    assert await process.wait() == 7


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
