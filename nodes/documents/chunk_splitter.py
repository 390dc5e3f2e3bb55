"""Cut documents into chunks of a size that embedding models and searches like."""

from __future__ import annotations

import json
import logging
import re
import statistics
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from nodes.comparisons import pattern
from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.document_values import document, documents_in
from nodes.fences import BOM
from nodes.isolated import isolated
from nodes.mistakes import Keys
from nodes.reading import Reader
from nodes.token_counts import count_tokens, token_ends

if TYPE_CHECKING:
    from langchain_text_splitters import TextSplitter

# It warns of every piece larger than the size, which `stats` tell.
logging.getLogger("langchain_text_splitters.base").setLevel(logging.ERROR)

MOST_CHARACTERS = 20_000_000
"""Of all documents together: more would be minutes of work in one step."""
MOST_CHUNKS = 100_000
_SECONDS = 60
_MOST_PATTERNS = 20_000
"""Characters of all patterns together."""
_PLAIN = ("\n\n", "\n", " ", "")
_FEWER = 15
_BY_HEADERS = ("markdown_headers", "html_headers")
_BY_SEPARATORS = ("recursive_character", "character")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    split_strategy: Annotated[
        Literal[
            "recursive_character",
            "tokens",
            "character",
            "markdown_headers",
            "html_headers",
            "python_code",
            "latex",
        ],
        setting(
            "splitStrategy",
            "strategy",
            description="Where to cut: at the coarsest of several separators that gives chunks small enough, "
            "by number of tokens, at one separator only, at headings, or as Python or LaTeX are built.",
        ),
    ] = "recursive_character"
    chunk_size: Annotated[
        int,
        setting("chunkSize", description="The most that a chunk has, in characters or tokens."),
        msgspec.Meta(ge=1, le=1_000_000),
    ] = 1000
    chunk_overlap: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None,
        setting(
            "chunkOverlap",
            "overlap",
            description="How much of a chunk's end the next one begins with; left empty, 200 or a fifth "
            "of the size, whichever is less.",
        ),
    ] = None
    separators: Annotated[
        list[str] | str,
        setting(
            description="Where to cut, best first: a list, or a text with commas in between, in which \\n "
            "is a line break, \\t a tab, \\s a space and \\, a comma. Left empty: paragraphs, lines, words.",
            when={"split_strategy": _BY_SEPARATORS},
        ),
    ] = ""
    separator: Annotated[
        str,
        setting(
            description="The one place to cut, where 'separators' is empty; \\n is a line break.",
            when={"split_strategy": _BY_SEPARATORS},
        ),
    ] = ""
    is_separator_regex: Annotated[
        bool,
        setting(
            "isSeparatorRegex",
            description="Whether separators are regular expressions (RE2).",
            when={"split_strategy": _BY_SEPARATORS},
        ),
    ] = False
    keep_separator: Annotated[
        bool,
        setting(
            "keepSeparator", description="Whether a separator stays, at the beginning of what follows it."
        ),
    ] = True
    strip_whitespace: Annotated[
        bool, setting("stripWhitespace", description="Whether chunks lose white space at both ends.")
    ] = True
    length_function: Annotated[
        Literal["len", "characters", "tokens", "tokenizer", "custom"],
        setting(
            "lengthFunction",
            description="What sizes count: characters ('len'; 'custom' is the same), or tokens of OpenAI's "
            "embedding models ('tokens', 'tokenizer').",
        ),
    ] = "len"
    header_levels: Annotated[
        list[str] | str,
        setting(
            "headerLevels",
            description="The headings to cut at, as a list or a text such as h1,h2,h3.",
            when={"split_strategy": _BY_HEADERS},
        ),
    ] = "h1,h2,h3"


class Inputs(msgspec.Struct, frozen=True):
    documents: Annotated[
        tuple[Any, ...], port("input", many=True, description="Documents or texts; several lists are joined.")
    ] = ()


class Outputs(msgspec.Struct, frozen=True):
    chunks: Annotated[
        list[dict[str, Any]],
        port(
            "output", "documents", description="The chunks as documents, in order, with where they come from."
        ),
    ]
    stats: Annotated[dict[str, Any], port(description="How many chunks there are, and how long they are.")]
    preview: Annotated[list[dict[str, Any]], port(description="The beginnings of the first chunks.")]
    metadata_report: Annotated[
        dict[str, Any], port(description="Which metadata the chunks have, their sources, how well sizes fit.")
    ]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    _check(config)
    found = [each for each in documents_in(inputs.documents) if each["page_content"].strip()]
    if not found:
        message = "no documents with text arrived; allowed are documents, texts and lists of them"
        raise NodeError(message, code="no_documents")
    size = sum(len(each["page_content"]) for each in found)
    if size > MOST_CHARACTERS:
        message = f"the documents have {size:,} characters together; allowed are {MOST_CHARACTERS:,}"
        raise NodeError(message, code="too_large", is_final=True)
    if config.split_strategy == "html_headers":
        found = [await _as_headed(each, ctx) for each in found]
    return await isolated(ctx, _outputs, config, found, seconds=_SECONDS)


async def _as_headed(found: dict[str, Any], ctx: RunContext) -> dict[str, Any]:
    """A page as text with headings as in Markdown."""
    data = found["page_content"].encode("utf-8", "replace")
    reading = await ctx.door(Reader).read(data, name="page.html", media_type="text/html; charset=utf-8")
    return document("\n\n".join(part.text for part in reading.parts), found["metadata"])


def _outputs(config: Config, found: Sequence[dict[str, Any]]) -> Outputs:
    cut = _cutter(config)
    pieces: list[tuple[str, dict[str, Any]]] = []
    for each in found:
        for text, facts in _sections(config, each["page_content"]):
            pieces += [(chunk, each["metadata"] | facts) for chunk in cut(text)]
            if len(pieces) > MOST_CHUNKS:
                message = f"it gives more than {MOST_CHUNKS:,} chunks; raise 'chunk_size'"
                raise NodeError(message, code="too_large", is_final=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    measure = _measure(config)
    chunks = [
        _chunk(config, text, metadata, number, len(pieces), measure(text), now)
        for number, (text, metadata) in enumerate(pieces, 1)
    ]
    return Outputs(
        chunks,
        _stats(config, chunks, len(found)),
        [_preview(chunk) for chunk in chunks[:_FEWER]],
        _report(config, chunks),
    )


def _chunk(
    config: Config, text: str, metadata: dict[str, Any], number: int, total: int, length: int, now: str
) -> dict[str, Any]:
    origin = f"{metadata.get('source', '')}\x00{number}\x00{text}"
    return document(
        text,
        metadata
        | {
            "chunk_id": number,
            "total_chunks": total,
            "splitter_strategy": config.split_strategy,
            "chunk_size_config": config.chunk_size,
            "chunk_overlap_config": _overlap(config),
            "actual_length": length,
            "word_count": len(text.split()),
            "processing_timestamp": now,
            # The same text at the same place has the same id, however often it is split.
            "chunk_uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, origin.encode("utf-8", "replace").decode())),
        },
    )


def _overlap(config: Config) -> int:
    return min(200, config.chunk_size // 5) if config.chunk_overlap is None else config.chunk_overlap


def _measure(config: Config) -> Callable[[str], int]:
    by_tokens = config.split_strategy == "tokens" or config.length_function in ("tokens", "tokenizer")
    return count_tokens if by_tokens else len


def _cutter(config: Config) -> Callable[[str], list[str]]:
    """What cuts a text as `config` says."""
    if config.split_strategy == "tokens":
        return lambda text: _clean(config, _windows(text, config.chunk_size, _overlap(config)))
    if config.is_separator_regex and config.split_strategy in _BY_SEPARATORS and _separators(config):
        return _regex_cutter(config)
    return _splitter(config).split_text


def _splitter(config: Config) -> TextSplitter:
    from langchain_text_splitters import (  # noqa: PLC0415  it brings half of LangChain
        CharacterTextSplitter,
        Language,
        RecursiveCharacterTextSplitter,
    )

    how: dict[str, Any] = {
        "chunk_size": config.chunk_size,
        "chunk_overlap": _overlap(config),
        "length_function": _measure(config),
        "strip_whitespace": config.strip_whitespace,
        "keep_separator": config.keep_separator,
    }
    match config.split_strategy:
        case "python_code":
            return RecursiveCharacterTextSplitter.from_language(Language.PYTHON, **how)
        case "latex":
            return RecursiveCharacterTextSplitter.from_language(Language.LATEX, **how)
        case "character":
            return CharacterTextSplitter(separator=(_separators(config) or ["\n\n"])[0], **how)
        case "recursive_character":
            # The last two, so that a text without any of them is cut at a word, or else anywhere.
            given = _separators(config)
            rest = [each for each in (" ", "") if each not in given]
            return RecursiveCharacterTextSplitter([*given, *rest] if given else list(_PLAIN), **how)
    return RecursiveCharacterTextSplitter(list(_PLAIN), **how)


def _regex_cutter(config: Config) -> Callable[[str], list[str]]:
    """Cuts at regular expressions, which RE2 finds: Python's own may take for ever."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter, TextSplitter  # noqa: PLC0415

    found = pattern("|".join(f"(?:{each})" for each in _separators(config)), most=_MOST_PATTERNS)
    finer = RecursiveCharacterTextSplitter(
        list(_PLAIN),
        chunk_size=config.chunk_size,
        chunk_overlap=_overlap(config),
        length_function=_measure(config),
    )
    measure = _measure(config)

    class AtMatches(TextSplitter):
        def split_text(self, text: str) -> list[str]:
            pieces = [piece for piece in _between(text, found, config.keep_separator) if piece]
            if config.split_strategy == "character":
                return self._merge_splits(pieces, "")
            small = [
                part
                for piece in pieces
                for part in ([piece] if measure(piece) <= config.chunk_size else finer.split_text(piece))
            ]
            return self._merge_splits(small, "")

    return AtMatches(
        chunk_size=config.chunk_size,
        chunk_overlap=_overlap(config),
        length_function=measure,
        strip_whitespace=config.strip_whitespace,
    ).split_text


def _between(text: str, separator: Any, keep: bool) -> Iterator[str]:
    begin = 0
    for match in separator.finditer(text):
        start, end = match.span()
        if start == end:
            continue
        yield text[begin:start]
        begin = start if keep else end
    yield text[begin:]


def _windows(text: str, size: int, overlap: int) -> Iterator[str]:
    """Pieces of `size` tokens; none begins or ends inside a character."""
    ends = token_ends(text)
    first = last = 0
    while last < len(ends):
        begin = ends[first - 1] if first else 0
        last = min(first + size, len(ends))
        # Cut elsewhere, a text may have a token more than it had inside the whole.
        while last > first + 1 and count_tokens(text[begin : ends[last - 1]].strip()) > size:
            last -= 1
        yield text[begin : ends[last - 1]]
        first = max(first + 1, last - overlap)


def _clean(config: Config, pieces: Iterator[str]) -> list[str]:
    if not config.strip_whitespace:
        return [piece for piece in pieces if piece]
    return [stripped for piece in pieces if (stripped := piece.strip())]


_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")


def _sections(config: Config, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The parts of `text` under its headings, each with the headings above it; nothing is left out.

    LangChain's own splitter for it takes the spaces away that code is indented with.
    """
    if config.split_strategy not in _BY_HEADERS:
        yield text, {}
        return
    levels = _levels(config)
    above: dict[int, str] = {}
    lines: list[str] = []
    fence = ""
    for line in text.split("\n"):
        fence = _fence_after(line, fence)
        heading = None if fence else _HEADING.match(line.removeprefix(BOM).rstrip("\r"))
        level = len(heading[1]) if heading else 0
        if heading is not None and level in levels:
            if "".join(lines).strip():
                yield "\n".join(lines), _named(above)
                lines = []
            above = {each: title for each, title in above.items() if each < level} | {level: heading[2]}
        lines.append(line)
    if "".join(lines).strip():
        yield "\n".join(lines), _named(above)


def _fence_after(line: str, fence: str) -> str:
    """The fence of the code block that `line` begins or is in; none after the one that ends it."""
    found = _FENCE.match(line)
    if found is None:
        return fence
    if not fence:
        return found[1]
    return "" if found[1].startswith(fence) else fence


def _named(above: dict[int, str]) -> dict[str, str]:
    return {f"h{level}": title for level, title in sorted(above.items())}


def _levels(config: Config) -> set[int]:
    given = config.header_levels
    names = given if isinstance(given, list) else re.split(r"[,\s]+", given.strip("[] "))
    found = [
        re.fullmatch(r"(?:h|H|header\s*)?([1-6])|(#{1,6})", name.strip(" \"'")) for name in names if name
    ]
    if not found or None in found:
        message = f"'header_levels' is {str(given)[:80]!r}; allowed are h1 to h6, with commas in between"
        raise NodeError(message, code="bad_config")
    return {int(each[1]) if each[1] else len(each[2]) for each in found if each}


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "s": " "}


def _separators(config: Config) -> list[str]:
    """The separators that are set; an escape stands for itself where they are regular expressions."""
    given = config.separators
    if isinstance(given, str) and given.lstrip().startswith("["):
        given = _listed(given) or given
    if isinstance(given, str):
        given = _split_at_commas(given) if given else [config.separator] if config.separator else []
    if config.is_separator_regex:
        return [each for each in given if each]
    return [_unescaped(each) for each in given if each]


def _listed(text: str) -> list[str] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(each, str) for each in found) else None


def _split_at_commas(text: str) -> list[str]:
    """The parts between commas, of which `\\,` is none; blanks around a part are dropped, if it has more."""
    parts = re.split(r"(?<!\\),", text)
    return [part.strip(" ") or part for part in parts if part]


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text, flags=re.S)


def _stats(config: Config, chunks: Sequence[dict[str, Any]], documents: int) -> dict[str, Any]:
    lengths = [chunk["metadata"]["actual_length"] for chunk in chunks] or [0]
    kinds = Counter(_fit(length, config.chunk_size) for length in lengths)
    return {
        "total_documents": documents,
        "total_chunks": len(chunks),
        "total_length": sum(lengths),
        "unit": "tokens" if _measure(config) is count_tokens else "characters",
        "mean_length": round(statistics.fmean(lengths), 1),
        "median_length": statistics.median(lengths),
        "min_length": min(lengths),
        "max_length": max(lengths),
        "std_length": round(statistics.pstdev(lengths), 1),
        "length_distribution": {
            kind: kinds[kind] for kind in ("very_short", "short", "optimal", "oversized")
        },
        "strategy": config.split_strategy,
        "chunk_size": config.chunk_size,
        "chunk_overlap": _overlap(config),
    }


def _fit(length: int, size: int) -> str:
    if length > size:
        return "oversized"
    return "very_short" if length < size * 0.1 else "short" if length < size * 0.4 else "optimal"


_LENGTHS = {"micro": 50, "short": 100, "medium": 200, "long": 500}


def _preview(chunk: dict[str, Any]) -> dict[str, Any]:
    text, metadata = chunk["page_content"], chunk["metadata"]
    return {
        "chunk_id": metadata["chunk_id"],
        "length": metadata["actual_length"],
        "word_count": metadata["word_count"],
        "content_type": _looks_like(text),
        "source": metadata.get("source"),
        **{name: text[:length] + ("…" if len(text) > length else "") for name, length in _LENGTHS.items()},
    }


def _looks_like(text: str) -> str:
    if re.search(r"</?[a-z][^<>]{0,200}>", text, re.I):
        return "html"
    if re.search(r"^#{1,6} |^[-*] |```", text, re.M):
        return "markdown"
    return "code" if re.search(r"^\s*(?:def|class|import|from|function|const) \w", text, re.M) else "text"


def _report(config: Config, chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    total = len(chunks) or 1
    keys = Counter(key for chunk in chunks for key in chunk["metadata"])
    sources = Counter(str(chunk["metadata"].get("source", "unknown")) for chunk in chunks)
    kinds = Counter(_fit(chunk["metadata"]["actual_length"], config.chunk_size) for chunk in chunks)
    with_source = 1 - sources["unknown"] / total
    fitting = (kinds["optimal"] + kinds["short"]) / total
    overall = round(100 * (0.7 * fitting + 0.3 * with_source))
    return {
        "coverage": {key: round(count / total, 3) for key, count in sorted(keys.items())},
        "source_analysis": {"sources": len(sources), "chunks_per_source": dict(sources.most_common(20))},
        "quality_score": {
            "overall": overall,
            "factors": {"fitting_sizes": round(100 * fitting), "known_sources": round(100 * with_source)},
            "grade": next(
                g for g, least in zip("ABCDF", (85, 70, 55, 40, 0), strict=True) if overall >= least
            ),
        },
        "recommendations": list(_advice(kinds, total)),
    }


def _advice(kinds: Counter[str], total: int) -> Iterator[str]:
    if kinds["oversized"]:
        yield f"{kinds['oversized']} chunks are larger than 'chunk_size': add finer separators"
    if kinds["very_short"] > 0.3 * total:
        yield "many chunks are very short: lower 'chunk_size', or use coarser separators"


def _check(config: Config) -> None:
    for message, keys in mistakes(config):
        raise NodeError(f"{keys[0]}: {message}" if keys else message, code="bad_config")


def mistakes(config: Config) -> Iterator[tuple[str, Keys]]:
    """What every run would fail by."""
    size, overlap = config.chunk_size, config.chunk_overlap
    if isinstance(size, int) and isinstance(overlap, int) and overlap >= size:
        message = f"the overlap, {overlap}, must be less than the size of a chunk, {size}"
        yield message, ("chunk_overlap",)
    if config.split_strategy in _BY_HEADERS and _is_known(config.header_levels):
        try:
            _levels(config)
        except NodeError as wrong:
            yield wrong.message, ("header_levels",)
    if config.is_separator_regex and _is_known(config.separators) and _is_known(config.separator):
        for each in _separators(config):
            try:
                pattern(each)
            except ValueError as wrong:
                yield f"{each[:80]!r} is {wrong}", ("separators",)


def _is_known(value: Any) -> bool:
    return value is not None and "{{" not in str(value)


NODE = NodeType.step(
    run,
    "ChunkSplitter",
    "Split into chunks",
    aliases=("ChunkSplitterNode", "TextSplitter", "DocumentChunkSplitter"),
    mistakes=mistakes,
    icon="scissors",
    examples=(
        {"chunk_size": 1000, "chunk_overlap": 200},
        {"split_strategy": "markdown_headers", "header_levels": "h1,h2"},
        {"split_strategy": "tokens", "chunk_size": 256, "chunk_overlap": 32},
    ),
)
