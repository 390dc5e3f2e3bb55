"""Files become texts, inside a confined process: see `flowserver.confined_child`."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from flowserver.confined_child import Refused
from flowserver.html_texts import from_html
from nodes.encodings import charset_of, decoded
from nodes.file_kinds import WrongKind, kind_of

Texts = list[tuple[str, dict[str, Any]]]
"""The texts of a file, each with what the file says about it."""

MOST_PAGES = 5_000
MOST_ENTRIES = 2_000
MOST_UNPACKED = 200_000_000
MOST_RATIO = 200
_TEXT_KEYS = ("page_content", "text", "content")


def work(request: dict[str, Any]) -> dict[str, Any]:
    data: bytes = request["data"]
    try:
        kind = kind_of(data, request["name"], request["media_type"])
    except WrongKind as wrong:
        raise Refused("unsupported_type", str(wrong)) from None
    parts = _READ[kind](data, request)
    return {"kind": kind, "parts": [{"text": text, "metadata": facts} for text, facts in parts]}


def _decoded(data: bytes, media_type: str = "") -> tuple[str, dict[str, Any]]:
    """`data` as text, and the encoding in its metadata if it was only assumed."""
    found = decoded(data, charset_of(media_type))
    return found.text, {"encoding": found.assumed} if found.assumed else {}


def _text(data: bytes, request: dict[str, Any]) -> Texts:
    return [_decoded(data, request["media_type"])]


def _html(data: bytes, request: dict[str, Any]) -> Texts:
    return [from_html(data, request["media_type"], request["remove"], article=request["article"])]


def _json(data: bytes, request: dict[str, Any]) -> Texts:
    text, facts = _decoded(data)
    value = _parsed(text, "it")
    if isinstance(value, list) and value and all(_own_text(item) is not None for item in value):
        return [_record(item) for item in value]
    return [(text, facts)]


def _jsonl(data: bytes, request: dict[str, Any]) -> Texts:
    lines = [line for line in _decoded(data)[0].splitlines() if line.strip()]
    return [_record(_parsed(line, f"line {number}"), line) for number, line in enumerate(lines, 1)]


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as wrong:
        message = f"{what} is not JSON: {wrong.msg} at line {wrong.lineno}, column {wrong.colno}"
        raise Refused("unreadable", message) from None
    except ValueError:
        raise Refused("unreadable", f"{what} is not JSON: it has a number too long") from None


def _own_text(item: Any) -> str | None:
    """The text of a record that holds one beside other things."""
    found = next((item[key] for key in _TEXT_KEYS if key in item), None) if isinstance(item, dict) else None
    return found if isinstance(found, str) else None


def _record(item: Any, line: str = "") -> tuple[str, dict[str, Any]]:
    text = _own_text(item)
    if text is None:
        return line, {}
    inner = item.get("metadata")
    rest = {key: value for key, value in item.items() if key not in (*_TEXT_KEYS, "metadata")}
    return text, rest | (inner if isinstance(inner, dict) else {})


def _csv(data: bytes, request: dict[str, Any]) -> Texts:
    """Each row says what is in which column, so that a piece of the text is understood without its head."""
    csv.field_size_limit(10_000_000)
    text, facts = _decoded(data, request["media_type"])
    first = text.partition("\n")[0]
    delimiter = max(",;\t|", key=first.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(row)]
    except csv.Error as wrong:
        raise Refused("unreadable", f"it is not CSV: {wrong}") from None
    if not rows:
        return [("", {})]
    head, *body = rows
    texts = ["\n".join(_cells(head, row)) for row in body]
    return [("\n\n".join(texts), {"columns": head, "rows": len(body)} | facts)]


def _cells(head: list[str], row: list[str]) -> Iterator[str]:
    for at, value in enumerate(row):
        if value.strip():
            name = head[at].strip() if at < len(head) else ""
            yield f"{name or f'column {at + 1}'}: {value.strip()}"


def _pdf(data: bytes, request: dict[str, Any]) -> Texts:
    from pypdf import PdfReader  # noqa: PLC0415  only for PDFs
    from pypdf.errors import PyPdfError  # noqa: PLC0415

    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Refused("encrypted", "it is encrypted; upload it without a password")
        if len(reader.pages) > MOST_PAGES:
            raise Refused("too_complex", f"it has more than {MOST_PAGES} pages")
        facts = _said_of_pdf(reader)
        pages = [(page.extract_text().strip(), facts | {"page": n}) for n, page in enumerate(reader.pages, 1)]
    except PyPdfError as wrong:
        raise Refused("unreadable", f"it is not a whole PDF ({type(wrong).__name__})") from None
    if request["by_page"]:
        return [(text, about) for text, about in pages if text]
    return [("\n\n".join(text for text, _ in pages if text), facts)]


def _said_of_pdf(reader: Any) -> dict[str, Any]:
    said = reader.metadata or {}
    found = {"title": said.get("/Title"), "author": said.get("/Author")}
    return {key: str(value)[:500] for key, value in found.items() if value} | {"pages": len(reader.pages)}


def _docx(data: bytes, request: dict[str, Any]) -> Texts:
    _check_zip(data)
    import docx  # noqa: PLC0415  only for Word's files

    document = docx.Document(io.BytesIO(data))
    blocks = (_block(each) for each in document.iter_inner_content())
    said = {"title": document.core_properties.title, "author": document.core_properties.author}
    facts = {key: value[:500] for key, value in said.items() if value}
    return [("\n\n".join(block for block in blocks if block), facts)]


def _check_zip(data: bytes) -> None:
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except (zipfile.BadZipFile, NotImplementedError):
        raise Refused("unreadable", "it is not a whole .docx") from None
    unpacked = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if len(entries) > MOST_ENTRIES:
        raise Refused("too_complex", f"it is an archive of more than {MOST_ENTRIES} entries")
    if unpacked > MOST_UNPACKED or (unpacked > 10_000_000 and unpacked > MOST_RATIO * packed):
        raise Refused("too_complex", "it unpacks to far more than it says")


def _block(block: Any) -> str:
    """A paragraph or a table; headings as in Markdown."""
    if hasattr(block, "rows"):
        return "\n".join(" | ".join(_once(cell.text.strip() for cell in row.cells)) for row in block.rows)
    text: str = block.text.strip()
    style = block.style.name if block.style is not None else ""
    if text and style.startswith("Heading ") and style[8:].isdigit():
        return f"{'#' * min(int(style[8:]), 6)} {text}"
    if text and style == "Title":
        return f"# {text}"
    return f"- {text}" if text and style.startswith("List ") else text


def _once(cells: Iterator[str]) -> Iterator[str]:
    """A merged cell comes once for each column that it covers."""
    last = None
    for cell in cells:
        if cell != last or not cell:
            yield cell
        last = cell


_READ: dict[str, Callable[[bytes, dict[str, Any]], Texts]] = {
    "txt": _text,
    "md": _text,
    "json": _json,
    "jsonl": _jsonl,
    "csv": _csv,
    "html": _html,
    "pdf": _pdf,
    "docx": _docx,
}
