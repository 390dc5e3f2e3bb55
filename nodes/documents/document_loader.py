"""Load documents from uploaded files, texts, web addresses and what arrives."""

from __future__ import annotations

import hashlib
import re
import unicodedata
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.document_values import document, documents_in, text_of
from nodes.files import Files
from nodes.mistakes import Keys
from nodes.reading import Reader, Reading
from nodes.web_pages import MOST_ADDRESSES, Fetcher, addresses_in, at_most, shown

_GOOGLE = (
    "Google Drive is not supported: upload the files (POST /api/v1/files) and name them in 'files', "
    "or give their public addresses in 'urls'"
)
_FAMILIES = {"txt": ("txt", "md"), "json": ("json", "jsonl"), "doc": ("docx",), "log": ("txt",)}
"""Formats of the editors that stand for more than one kind of file."""
_FILE_KEYS = ("files", "file_ids", "file_id")
_AT_ONCE = 4

Format = Literal["txt", "md", "json", "jsonl", "csv", "html", "pdf", "docx", "doc", "log"]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    files: Annotated[
        list[str] | str | UnsetType,
        setting(
            "file_ids",
            "file_id",
            "uploaded_files",
            description="The ids of uploaded files: a list, or a text with commas or line breaks in between.",
            left_empty=True,
        ),
    ] = UNSET
    urls: Annotated[
        list[str] | str | UnsetType,
        setting(
            "url",
            description="Addresses of pages and files: a list, or a text with line breaks.",
            left_empty=True,
        ),
    ] = UNSET
    text: Annotated[
        str | UnsetType,
        setting("text_input", "content", description="A text that is a document itself.", left_empty=True),
    ] = UNSET
    source: Annotated[str, setting(description="What the text's document says of where it is from.")] = "text"
    drive_links: Annotated[
        str, setting(description="Google Drive is not supported; left empty, it changes nothing.")
    ] = ""
    supported_formats: Annotated[
        list[Format] | str,
        setting(
            "supportedFormats",
            description="Which kinds of files are read: txt (and md), json (and jsonl), csv, html, pdf, "
            "docx. Left empty, all.",
        ),
    ] = ""
    format_txt: Annotated[bool, setting(description="Read texts and Markdown.")] = False
    format_json: Annotated[bool, setting(description="Read JSON and JSON lines.")] = False
    format_docx: Annotated[bool, setting(description="Read Word files.")] = False
    format_pdf: Annotated[bool, setting(description="Read PDFs.")] = False
    format_csv: Annotated[bool, setting(description="Read CSV.")] = False
    min_content_length: Annotated[
        int,
        setting("minContentLength", description="Documents with fewer characters of text are left out."),
        msgspec.Meta(ge=0, le=1_000_000),
    ] = 1
    max_file_size_mb: Annotated[
        float,
        setting("maxFileSizeMb", "max_file_size", description="Larger files fail; in megabytes."),
        msgspec.Meta(gt=0, le=1000),
    ] = 50.0
    quality_threshold: Annotated[
        float,
        setting(
            "qualityThreshold",
            description="Documents of which a smaller share can be read are left out: letters, digits, "
            "punctuation and white space, as against control and replacement characters.",
        ),
        msgspec.Meta(ge=0, le=1),
    ] = 0.5
    deduplicate: Annotated[
        bool, setting(description="Whether a document whose text another one has is left out.")
    ] = True
    split_pages: Annotated[
        bool, setting(description="Whether each page of a PDF is a document of its own, with its number.")
    ] = False
    storage_enabled: Annotated[
        bool, setting(description="Of older drawings, without effect: uploaded files are kept anyway.")
    ] = False
    google_drive_auth_type: Annotated[
        Literal["service_account", "oauth2"], setting(description="Of Google Drive; without effect.")
    ] = "service_account"
    service_account_json: Annotated[
        Any, setting(secret=True, description="Of Google Drive; without effect.")
    ] = None
    oauth2_client_id: Annotated[str, setting(secret=True, description="Of Google Drive; without effect.")] = (
        ""
    )
    oauth2_client_secret: Annotated[
        str, setting(secret=True, description="Of Google Drive; without effect.")
    ] = ""
    oauth2_refresh_token: Annotated[
        str, setting(secret=True, description="Of Google Drive; without effect.")
    ] = ""


class Inputs(msgspec.Struct, frozen=True):
    input_documents: Annotated[
        tuple[Any, ...],
        port(
            "input",
            "trigger",
            "documents",
            many=True,
            description="Documents to take in; objects with 'files', 'urls' or 'text'. A bare text is a "
            "document, an address or the id of a file, where the settings name no source; else it only "
            "starts the step.",
        ),
    ] = ()


class Outputs(msgspec.Struct, frozen=True):
    documents: Annotated[
        list[dict[str, Any]], port("output", description="The documents, in the order of their sources.")
    ]
    stats: Annotated[
        dict[str, Any], port(description="How many sources there were, and what became of them.")
    ]
    metadata_report: Annotated[
        dict[str, Any],
        port(description="What failed and what was left out, and why; kinds, sources, quality."),
    ]


@dataclass
class _Sources:
    """What is to be loaded."""

    files: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.files) + len(self.urls) + len(self.documents)


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    for message, keys in mistakes(config):
        raise NodeError(f"{keys[0]}: {message}", code="not_supported" if message == _GOOGLE else "bad_config")
    sources = _sources(config, inputs)
    if not len(sources):
        message = "there is nothing to load: set 'files', 'urls' or 'text', or let documents arrive"
        raise NodeError(message, code="missing_value", is_final=True)
    if len(sources.files) + len(sources.urls) > MOST_ADDRESSES:
        message = f"there are more than {MOST_ADDRESSES} files and addresses for one step"
        raise NodeError(message, code="too_large", is_final=True)
    tray = _Tray(config)
    async for name, made in _loaded(config, sources, ctx):
        tray.put(name, made)
    if not tray.kept:
        raise tray.nothing()
    return Outputs(tray.kept, tray.stats(sources), tray.report())


def _sources(config: Config, inputs: Inputs) -> _Sources:
    sources = _Sources(_words(config.files), _lines(config.urls or ""))
    if isinstance(config.text, str) and config.text.strip():
        sources.documents.append(document(config.text, {"source": config.source}))
    has_own = any(each is not UNSET for each in (config.files, config.urls, config.text))
    for value in inputs.input_documents:
        _take(value, sources, has_own)
    sources.files = list(dict.fromkeys(sources.files))
    sources.urls = list(dict.fromkeys(sources.urls))
    return sources


def _take(value: Any, sources: _Sources, has_own: bool) -> None:
    """Add what arrived to the sources."""
    match value:
        case list() | tuple():
            for item in value:
                _take(item, sources, has_own)
        case str() if not has_own and value.strip():
            _take_text(value, sources)
        case Mapping() if text_of(value) is not None:
            sources.documents += documents_in(value)
        case Mapping():
            for key in _FILE_KEYS:
                sources.files += _words(value.get(key))
            if not any(value.get(key) for key in ("documents", "chunks")):
                sources.urls += addresses_in({key: value.get(key) for key in ("urls", "url")})
            sources.documents += documents_in(value)


def _take_text(text: str, sources: _Sources) -> None:
    words = text.split()
    if all(map(_is_id, words)):
        sources.files += words
    elif len(found := list(addresses_in(text))) == len(words):
        sources.urls += found
    else:
        sources.documents.append(document(text, {"source": "input"}))


def _is_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _words(given: Any) -> list[str]:
    """Ids in a text or a list; an entry may be what `POST /files` answered."""
    if isinstance(given, Mapping):
        return _words(given.get("id"))
    if isinstance(given, list | tuple):
        return [word for each in given for word in _words(each)]
    return (
        re.split(r"[\s,\[\]\"']+", given.strip(" \t\r\n,[]\"'"))
        if isinstance(given, str) and given.strip()
        else []
    )


def _lines(given: list[str] | str) -> list[str]:
    texts = given if isinstance(given, list) else re.split(r"[\r\n]+", given)
    return [each for text in texts if text.strip() for each in (list(addresses_in(text)) or [text.strip()])]


async def _loaded(
    config: Config, sources: _Sources, ctx: RunContext
) -> AsyncIterator[tuple[str, list[dict[str, Any]] | NodeError]]:
    """Each source with its documents, or with why there are none."""
    most_bytes = int(config.max_file_size_mb * 1_000_000)
    fetcher = Fetcher(ctx.http, most_bytes=most_bytes)

    async def file(id: str) -> list[dict[str, Any]]:
        stored = await ctx.door(Files).read(id, most_bytes)
        reading = await _read(config, ctx, stored.data, stored.name, stored.media_type)
        facts = {"source": stored.name, "file_id": stored.id, "file_size": len(stored.data)}
        return _made(config, reading, facts)

    async def address(url: str) -> list[dict[str, Any]]:
        page = await fetcher.get(url)
        return _made(config, await _read(config, ctx, page.data, page.name, page.media_type), page.facts)

    for id, found in zip(sources.files, await at_most(_AT_ONCE, sources.files, file), strict=True):
        yield id, found
    for url, got in zip(sources.urls, await at_most(_AT_ONCE, sources.urls, address), strict=True):
        yield shown(url), got
    for each in sources.documents:
        yield str(each["metadata"].get("source", "input")), [each]


async def _read(config: Config, ctx: RunContext, data: bytes, name: str, media_type: str) -> Reading:
    return await ctx.door(Reader).read(data, name=name, media_type=media_type, by_page=config.split_pages)


def _made(config: Config, reading: Reading, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    allowed = _kinds(config)
    if reading.kind not in allowed:
        message = f"it is {reading.kind}, and only {', '.join(sorted(allowed))} are to be read"
        raise NodeError(message, code="unsupported_type", is_final=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    more = {"format": reading.kind, "loaded_at": now}
    return [document(part.text, {**part.metadata, **facts, **more}) for part in reading.parts]


def _kinds(config: Config) -> set[str]:
    """The kinds of files that are to be read."""
    given = config.supported_formats
    names = re.findall(r"\w+", given) if isinstance(given, str) else list(given)
    names += [name for name in ("txt", "json", "docx", "pdf", "csv") if getattr(config, f"format_{name}")]
    kinds = {kind for name in names for kind in _FAMILIES.get(name.lower(), (name.lower(),))}
    return kinds or {"txt", "md", "json", "jsonl", "csv", "html", "pdf", "docx"}


class _Tray:
    """The documents that are kept, and what became of all others."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._seen: set[bytes] = set()
        self._scores: list[float] = []
        self.kept: list[dict[str, Any]] = []
        self.failed: list[dict[str, str]] = []
        self.left_out: list[dict[str, str]] = []
        self._errors: list[NodeError] = []

    def put(self, source: str, made: list[dict[str, Any]] | NodeError) -> None:
        if isinstance(made, NodeError):
            self._errors.append(made)
            self.failed.append({"source": source, "code": made.code, "message": made.message})
            return
        for each in made:
            score = readable_share(each["page_content"])
            why = self._objection(each["page_content"], score)
            if why is not None:
                self.left_out.append({"source": str(each["metadata"].get("source", source)), "reason": why})
                continue
            self._scores.append(score)
            digest = hashlib.sha256(each["page_content"].encode("utf-8", "replace")).hexdigest()
            marks = {"doc_id": digest[:32], "content_length": len(each["page_content"])}
            marks["quality_score"] = round(score, 3)
            self.kept.append(document(each["page_content"], marks | each["metadata"]))

    def _objection(self, text: str, score: float) -> str | None:
        least = self._config.min_content_length
        if not text.strip():
            return "there is no text in it"
        if len(text.strip()) < least:
            return f"its text is shorter than {least} characters ('min_content_length')"
        if score < self._config.quality_threshold:
            return f"only {score:.0%} of it can be read ('quality_threshold')"
        mark = hashlib.sha256(" ".join(text.split()).encode("utf-8", "replace")).digest()
        if self._config.deduplicate and mark in self._seen:
            return "another document has the same text ('deduplicate')"
        self._seen.add(mark)
        return None

    def nothing(self) -> NodeError:
        """Why there is no document at all."""
        reasons = [f"{each['source']}: {each['message']}" for each in self.failed]
        reasons += [f"{each['source']}: {each['reason']}" for each in self.left_out]
        more = f", and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        only = self._errors[0].code if len(self._errors) == len(reasons) == 1 else "no_documents"
        final = all(each.is_final for each in self._errors)
        return NodeError(f"no documents ({'; '.join(reasons[:3])}{more})", code=only, is_final=final)

    def stats(self, sources: _Sources) -> dict[str, Any]:
        return {
            "total_sources": len(sources),
            "total_documents": len(self.kept),
            "failed": len(self.failed),
            "left_out": len(self.left_out),
            "total_characters": sum(len(each["page_content"]) for each in self.kept),
            "files": len(sources.files),
            "urls": len(sources.urls),
        }

    def report(self) -> dict[str, Any]:
        formats = Counter(str(each["metadata"].get("format", "text")) for each in self.kept)
        mean = sum(self._scores) / len(self._scores) if self._scores else 0.0
        return {
            "failed": self.failed,
            "left_out": self.left_out,
            "formats": dict(formats),
            "sources": sorted({str(each["metadata"].get("source", "")) for each in self.kept}),
            "quality": {"mean": round(mean, 3), "least": round(min(self._scores, default=0.0), 3)},
        }


def readable_share(text: str) -> float:
    """The share of characters that people can read, from 0 to 1."""
    sample = text if len(text) <= 200_000 else text[:100_000] + text[-100_000:]
    if not sample:
        return 0.0
    bad = sum(
        count
        for character, count in Counter(sample).items()
        if character == "\ufffd"
        or (unicodedata.category(character)[0] == "C" and character not in "\t\n\r\u200d")
    )
    return 1 - bad / len(sample)


def mistakes(config: Config) -> Iterator[tuple[str, Keys]]:
    """What this node cannot do, and settings that no file can fit."""
    if config.drive_links and "{{" not in config.drive_links and config.drive_links.strip():
        yield _GOOGLE, ("drive_links",)
    if isinstance(config.supported_formats, str) and "{{" not in config.supported_formats:
        known = {*Format.__args__}  # type: ignore[attr-defined]
        for name in re.findall(r"\w+", config.supported_formats):
            if name.lower() not in known:
                allowed = ", ".join(sorted(known - {"doc", "log"}))
                yield f"{name!r} is no format that can be read; allowed: {allowed}", ("supported_formats",)
    for word in _words(config.files):
        if "{{" not in str(config.files) and not _is_id(word):
            yield f"{word[:80]!r} is not the id of an uploaded file", ("files",)


NODE = NodeType.step(
    run,
    "DocumentLoader",
    "Load documents",
    effect=True,
    aliases=("DocumentLoaderNode", "GoogleDriveLoader"),
    ignores=("supported_formats_title",),
    mistakes=mistakes,
    icon="file-text",
    examples=(
        {"files": ["01890000-0000-7000-8000-000000000001"], "min_content_length": 50},
        {"urls": "https://example.com/handbook.pdf", "split_pages": True},
        {"text": "Opening hours are nine to five.", "source": "hours"},
    ),
)
