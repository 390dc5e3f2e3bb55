"""Which kinds of files can be read as text, and of which one a file is: by its name, and by what it holds."""

from __future__ import annotations

import re
from typing import Final

MEDIA_TYPES: Final = {
    "txt": "text/plain",
    "md": "text/markdown",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "csv": "text/csv",
    "html": "text/html",
    "pdf": "application/pdf",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
}
"""Kind -> its media type."""

_SUFFIXES = {
    **{kind: kind for kind in MEDIA_TYPES},
    "text": "txt",
    "log": "txt",
    "rst": "txt",
    "markdown": "md",
    "ndjson": "jsonl",
    "tsv": "csv",
    "htm": "html",
    "xhtml": "html",
}
_BY_MEDIA_TYPE = {
    **{media_type: kind for kind, media_type in MEDIA_TYPES.items()},
    "application/csv": "csv",
    "application/x-ndjson": "jsonl",
    "application/xhtml+xml": "html",
    "application/x-pdf": "pdf",
    "text/x-markdown": "md",
    "text/json": "json",
    "text/tab-separated-values": "csv",
}
# What says nothing about a file: browsers and servers send these when they do not know.
_VAGUE = frozenset({"", "application/octet-stream", "binary/octet-stream", "text/plain", "application/zip"})

# What files that are no text begin with, and what they are.
_MAGIC: Final = (
    (b"%PDF-", "pdf"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\xd0\xcf\x11\xe0", "an old Office file (.doc, .xls)"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
    (b"\x1f\x8b", "a compressed file"),
    (b"BZh", "a compressed file"),
    (b"7z\xbc\xaf", "an archive"),
    (b"Rar!", "an archive"),
    (b"{\\rtf", "an RTF file"),
)
_UNICODE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")
_HTML = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)


class WrongKind(ValueError):
    """The file cannot be read as text, or is not of the kind that it says it is."""


def kind_of(data: bytes, name: str = "", media_type: str = "") -> str:
    """The kind of a file, one of `MEDIA_TYPES`.

    What the file holds wins: a name and a media type are only believed where they may be true.

    Raises:
        WrongKind: With what it is, and what can be read.
    """
    said = _said(name, media_type)
    found = _found(data)
    if found is None:
        if said in ("pdf", "docx"):
            raise WrongKind(f"it says that it is {said}, but is not")
        return said or ("html" if _HTML.match(data[:1024]) else "txt")
    if found not in MEDIA_TYPES or said not in (None, "txt", found):
        what = f"it says that it is {said}, but is {found}" if said else f"it is {found}"
        raise WrongKind(f"{what}; allowed: {', '.join(MEDIA_TYPES)}")
    return found


def _said(name: str, media_type: str) -> str | None:
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    plain = media_type.partition(";")[0].strip().lower()
    by_type = _BY_MEDIA_TYPE.get(plain)
    by_name = _SUFFIXES.get(suffix)
    if plain not in _VAGUE and by_type is None and not plain.startswith("text/"):
        raise WrongKind(f"{plain[:80]!r} is not a kind of file that can be read: {', '.join(MEDIA_TYPES)}")
    return (by_name or by_type) if by_type in (None, "txt") else by_type


def _found(data: bytes) -> str | None:
    """What the bytes are, or `None` for a text."""
    head = data[:1024]
    for mark, kind in _MAGIC:
        if head.startswith(mark) or (
            kind == "pdf" and mark in head and b"\x00" not in head[: head.find(mark)]
        ):
            return _inside_zip(data) if kind == "zip" else kind
    if head.startswith(_UNICODE_MARKS):
        return None
    return "a binary file" if b"\x00" in data[:4096] else None


def _inside_zip(data: bytes) -> str:
    # Names stand in a zip file as they are; whether the file is whole, its reader finds out.
    if b"word/document.xml" in data:
        return "docx"
    if b"xl/workbook.xml" in data:
        return "a spreadsheet (.xlsx)"
    return "a presentation (.pptx)" if b"ppt/presentation.xml" in data else "a zip file"
