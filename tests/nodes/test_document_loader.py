"""Documents from uploads, texts, addresses and steps before, with what is left out and why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from flowserver.outbound import outbound_client
from nodes.contract import NodeError, RunContext
from nodes.documents.document_loader import NODE, Inputs, Outputs, readable_share, run
from nodes.files import Files, StoredFile
from nodes.reading import Reader
from tests import files
from tests.nodes.contexts import context
from tests.nodes.settings import assert_examples_fit, configured, told_of
from tests.web_server import Reply, WebServer
from tests.workshop import reader


def id_of(number: int) -> str:
    return str(UUID(int=number, version=4))


class Shelf:
    """Files by id, as a server keeps them."""

    def __init__(self, *stored: tuple[str, bytes]) -> None:
        self.ids = [id_of(n) for n in range(len(stored))]
        self._stored = {
            id: StoredFile(id, name, "", data) for id, (name, data) in zip(self.ids, stored, strict=True)
        }

    async def read(self, id: str, most_bytes: int) -> StoredFile:
        if id not in self._stored:
            raise NodeError(f"there is no uploaded file {id!r}", code="unknown_file", is_final=True)
        if len(self._stored[id].data) > most_bytes:
            raise NodeError("it is too large", code="too_large", is_final=True)
        return self._stored[id]


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as server:
        yield server


@pytest.fixture
async def ctx(web: WebServer) -> AsyncIterator[RunContext]:
    async with outbound_client([web.door]) as http, reader() as made:
        yield context(http=http, doors={Reader: made})


async def load(ctx: RunContext, shelf: Shelf | None, *arrived: Any, **drawn: Any) -> Outputs:
    doors = {**ctx.doors, Files: shelf} if shelf else ctx.doors
    world = context(http=ctx.http, doors=doors)
    return await run(configured(NODE, **drawn), Inputs(arrived), world)


async def fails(ctx: RunContext, shelf: Shelf | None, *arrived: Any, **drawn: Any) -> NodeError:
    with pytest.raises(NodeError) as failed:
        await load(ctx, shelf, *arrived, **drawn)
    return failed.value


def texts(outputs: Outputs) -> list[str]:
    return [each["page_content"] for each in outputs.documents]


def test_its_examples_fit() -> None:
    assert_examples_fit(NODE)


async def test_uploaded_files_of_every_kind_are_read(ctx: RunContext) -> None:
    shelf = Shelf(
        ("a.txt", b"Of a text"),
        ("b.md", b"# Of Markdown"),
        ("c.json", b'{"of": "JSON"}'),
        ("d.jsonl", b'{"text": "Of JSON lines"}'),
        ("e.csv", b"of\nCSV"),
        ("f.html", b"<p>Of HTML</p>"),
        ("g.pdf", files.pdf("Of a PDF")),
        ("h.docx", files.docx("Of Word")),
    )

    outputs = await load(ctx, shelf, files=shelf.ids)

    assert texts(outputs) == [
        "Of a text",
        "# Of Markdown",
        '{"of": "JSON"}',
        "Of JSON lines",
        "of: CSV",
        "Of HTML",
        "Of a PDF",
        "Of Word",
    ]
    facts = outputs.documents[6]["metadata"]
    assert (facts["source"], facts["file_id"], facts["format"], facts["pages"]) == (
        "g.pdf",
        shelf.ids[6],
        "pdf",
        1,
    )
    assert outputs.stats["total_documents"] == 8
    assert outputs.metadata_report["formats"]["pdf"] == 1


@pytest.mark.parametrize(
    "how", ["list", "commas", "lines", "json", "objects", "arrived", "arrived text", "arrived list"]
)
async def test_files_are_named_in_every_way_that_people_name_them(ctx: RunContext, how: str) -> None:
    shelf = Shelf(("a.txt", b"one"), ("b.txt", b"two"))
    drawn: dict[str, Any] = {
        "list": {"files": shelf.ids},
        "commas": {"file_ids": ", ".join(shelf.ids)},
        "lines": {"files": "\n".join(shelf.ids)},
        "json": {"files": f'["{shelf.ids[0]}", "{shelf.ids[1]}"]'},
        "objects": {},
    }.get(how, {})
    arrived: Any = {
        "objects": {"files": [{"id": id, "name": "x"} for id in shelf.ids]},
        "arrived": {"file_ids": shelf.ids},
        "arrived text": " ".join(shelf.ids),
        "arrived list": shelf.ids,
    }.get(how)

    assert texts(await load(ctx, shelf, arrived, **drawn)) == ["one", "two"]


async def test_texts_addresses_and_documents_are_taken_together(web: WebServer, ctx: RunContext) -> None:
    url = web.on("/a.txt", Reply(body=b"of the web", headers={"Content-Type": "text/plain"}))

    outputs = await load(
        ctx,
        None,
        {"documents": [{"page_content": "of a step", "metadata": {"source": "s"}}]},
        text="of the settings",
        source="here",
        urls=url,
    )

    assert texts(outputs) == ["of the web", "of the settings", "of a step"]
    assert [each["metadata"]["source"] for each in outputs.documents] == [url, "here", "s"]


async def test_a_bare_text_is_a_document_only_where_nothing_else_is_named(
    web: WebServer, ctx: RunContext
) -> None:
    url = web.on("/a.txt", Reply(body=b"of the web"))

    assert texts(await load(ctx, None, "just a text")) == ["just a text"]
    assert texts(await load(ctx, None, "go", text="of the settings")) == ["of the settings"]
    assert texts(await load(ctx, None, url)) == ["of the web"]


async def test_one_file_that_fails_loses_no_other(ctx: RunContext) -> None:
    shelf = Shelf(("good.txt", b"good"), ("bad.pdf", b"%PDF-1.4 junk"), ("large.txt", b"x" * 200_000))

    outputs = await load(ctx, shelf, files=[*shelf.ids, id_of(99)], max_file_size_mb="0.1")

    assert texts(outputs) == ["good"]
    assert [each["code"] for each in outputs.metadata_report["failed"]] == [
        "unreadable",
        "too_large",
        "unknown_file",
    ]
    assert outputs.stats["failed"] == 3


async def test_what_is_left_out_is_told_with_its_reason(ctx: RunContext) -> None:
    shelf = Shelf(
        ("a.txt", b"The same text, long enough."),
        ("b.txt", b"The same  text,\nlong enough."),
        ("c.txt", b"short"),
        ("d.txt", "\ufffd\x01\x02 broken \x03\x04\x05\x06\x07\x08 text".encode() * 3),
        ("e.txt", b"   \n"),
    )

    outputs = await load(ctx, shelf, files=shelf.ids, min_content_length=10, quality_threshold=0.8)

    assert texts(outputs) == ["The same text, long enough."]
    reasons = {each["source"]: each["reason"] for each in outputs.metadata_report["left_out"]}
    assert "deduplicate" in reasons["b.txt"]
    assert "min_content_length" in reasons["c.txt"]
    assert "quality_threshold" in reasons["d.txt"]
    assert reasons["e.txt"] == "there is no text in it"
    assert len((await load(ctx, shelf, files=shelf.ids[:2], deduplicate="false")).documents) == 2


async def test_only_the_formats_that_are_wished_are_read(ctx: RunContext) -> None:
    shelf = Shelf(("a.txt", b"text"), ("b.md", b"markdown"), ("c.pdf", files.pdf("pdf")))

    for drawn in ({"supported_formats": ["txt"]}, {"supported_formats": "txt"}, {"format_txt": True}):
        outputs = await load(ctx, shelf, files=shelf.ids, **drawn)
        assert texts(outputs) == ["text", "markdown"]
        assert outputs.metadata_report["failed"][0]["code"] == "unsupported_type"
    assert texts(await load(ctx, shelf, files=shelf.ids, format_pdf="true")) == ["pdf"]


async def test_each_page_of_a_pdf_may_be_a_document(ctx: RunContext) -> None:
    shelf = Shelf(("a.pdf", files.pdf("One", "Two")))

    outputs = await load(ctx, shelf, files=shelf.ids, split_pages=True)

    assert [(each["page_content"], each["metadata"]["page"]) for each in outputs.documents] == [
        ("One", 1),
        ("Two", 2),
    ]


async def test_no_document_at_all_fails_the_step_and_says_why(ctx: RunContext) -> None:
    failed = await fails(ctx, Shelf(("a.txt", b"x")), files=[id_of(5)])
    assert (failed.code, failed.is_final) == ("unknown_file", True)
    failed = await fails(ctx, None, text="x", min_content_length=50)
    assert failed.code == "no_documents"
    assert "shorter than 50 characters" in failed.message


@pytest.mark.parametrize(
    "nothing", [None, "", [], {}, 7, [None], {"x": "y"}, {"documents": []}, {"text": ""}]
)
async def test_nothing_to_load_is_said_to_be_nothing(ctx: RunContext, nothing: Any) -> None:
    failed = await fails(ctx, None, nothing)

    assert failed.code in ("missing_value", "no_documents")


async def test_defect_18_an_address_inside_the_house_is_not_read(ctx: RunContext) -> None:
    assert (await fails(ctx, None, urls="http://169.254.169.254/latest/")).code == "url_not_allowed"
    assert (await fails(ctx, None, "http://10.0.0.1/")).code == "url_not_allowed"


def test_google_drive_is_said_not_to_be_supported() -> None:
    found = told_of(
        NODE,
        drive_links="https://drive.google.com/file/d/x",
        google_drive_auth_type="oauth2",
        oauth2_client_secret="CNRY",
    )

    assert [(severity, place) for severity, place, _ in found] == [("error", "/nodes/0/data/drive_links")]
    assert "Google Drive is not supported" in found[0][2]
    assert "CNRY" not in found[0][2]


def test_what_an_editor_saves_of_google_drive_is_quiet_without_links() -> None:
    assert (
        told_of(
            NODE,
            drive_links="",
            google_drive_auth_type="service_account",
            service_account_json={"private_key": "CNRY"},
            oauth2_client_id="",
            supported_formats_title="",
            format_txt=True,
            min_content_length="100",
            max_file_size_mb=100,
            storage_enabled=False,
            deduplicate=True,
            quality_threshold="0.5",
            text="x",
        )
        == []
    )


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        ({"files": "../../etc/passwd"}, "not the id of an uploaded file"),
        ({"supported_formats": "txt, exe"}, "'exe' is no format"),
        ({"quality_threshold": 2}, "quality_threshold"),
        ({"max_file_size_mb": 0}, "max_file_size_mb"),
    ],
)
def test_settings_that_fit_no_file_are_told_before_a_run(drawn: dict[str, Any], words: str) -> None:
    assert any(words in message for _, _, message in told_of(NODE, **drawn))


async def test_a_path_is_never_opened(ctx: RunContext) -> None:
    for path in ("/etc/passwd", "../../etc/passwd", "file:///etc/passwd", "C:\\Windows\\win.ini"):
        with pytest.raises(NodeError):
            await run(NODE.config(files=path), Inputs(), ctx)
        outputs = await load(ctx, None, path)  # only a text like any other
        assert texts(outputs) == [path]


def test_the_readable_share_of_a_text() -> None:
    assert readable_share("Plain text, with 100 % punctuation: “é” 世界 👩‍👩‍👧!\n") == 1
    assert readable_share("") == 0
    assert readable_share("a\ufffd" * 10) == 0.5
    assert readable_share("\x00\x01") == 0
