"""Files for tests, built by code: real PDFs and Word files, and hostile ones."""

from __future__ import annotations

import io
import zipfile
import zlib

import docx as word


def pdf(*pages: str, title: str = "") -> bytes:
    """A PDF with a line of text on each page."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    kids = []
    for text in pages:
        clean = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
        stream = f"BT /F1 12 Tf 72 720 Td ({clean}) Tj ET".encode("latin-1")
        objects.append(b"<< /Length %d >>\nstream\n%b\nendstream" % (len(stream), stream))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Count {len(pages)} /Kids [{' '.join(kids)}] >>".encode()
    objects.append(f"<< /Title ({title}) >>".encode())
    return whole_pdf(objects, b"/Root 1 0 R /Info %d 0 R" % len(objects))


def whole_pdf(objects: list[bytes], trailer: bytes) -> bytes:
    out = b"%PDF-1.4\n"
    places = []
    for number, each in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, each)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d %b >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, trailer, table)
    return out


def pdf_bomb() -> bytes:
    """A page whose content unpacks to two hundred megabytes."""
    packed = zlib.compress(b" " * 200_000_000, 6)
    return whole_pdf(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Count 1 /Kids [4 0 R] >>",
            b"<< /Filter /FlateDecode /Length %d >>\nstream\n%b\nendstream" % (len(packed), packed),
            b"<< /Type /Page /Parent 2 0 R /Contents 3 0 R >>",
        ],
        b"/Root 1 0 R",
    )


def looping_pdf() -> bytes:
    """Pages whose tree leads back to its own beginning."""
    return whole_pdf(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Count 1000000 /Kids [3 0 R 3 0 R] >>",
            b"<< /Type /Pages /Parent 2 0 R /Count 1000000 /Kids [2 0 R 2 0 R] >>",
        ],
        b"/Root 1 0 R",
    )


def docx(*paragraphs: str, heading: str = "", table: list[list[str]] | None = None) -> bytes:
    document = word.Document()
    if heading:
        document.add_heading(heading, 1)
    for text in paragraphs:
        document.add_paragraph(text)
    if table:
        made = document.add_table(len(table), len(table[0]))
        for row, cells in zip(made.rows, table, strict=True):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def docx_with(document: bytes, more: dict[str, bytes] | None = None) -> bytes:
    """A Word file whose main part is replaced by `document`."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(docx("x"))) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for name in old.namelist():
            new.writestr(name, document if name == "word/document.xml" else old.read(name))
        for name, data in (more or {}).items():
            new.writestr(name, data)
    return out.getvalue()


_WORD = b'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def docx_entity_bomb() -> bytes:
    """Entities that would become a billion laughs."""
    entities = b'<!ENTITY a0 "ha">' + b"".join(
        b'<!ENTITY a%d "%b">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10)
    )
    body = b"<w:document %b><w:body><w:p><w:r><w:t>&a9;</w:t></w:r></w:p></w:body></w:document>" % _WORD
    return docx_with(b'<?xml version="1.0"?><!DOCTYPE x [%b]>%b' % (entities, body))


def docx_with_a_file_inside(path: str) -> bytes:
    """An entity that stands for a file of the machine."""
    body = b"<w:document %b><w:body><w:p><w:r><w:t>&f;</w:t></w:r></w:p></w:body></w:document>" % _WORD
    return docx_with(
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY f SYSTEM "file://%b">]>%b' % (path.encode(), body)
    )


def docx_zip_bomb() -> bytes:
    return docx_with(b"<w:document %b>%b</w:document>" % (_WORD, b" " * 210_000_000))


def docx_of_many_entries() -> bytes:
    return docx_with(b"<a/>", {f"word/part{n}.xml": b"" for n in range(10_000)})


def nested_docx(depth: int) -> bytes:
    inner = b"<w:sdt><w:sdtContent>" * depth + b"</w:sdtContent></w:sdt>" * depth
    return docx_with(b"<w:document %b><w:body>%b</w:body></w:document>" % (_WORD, inner))
