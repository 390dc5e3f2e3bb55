"""The text of an HTML page: headings, lists and tables as in Markdown, everything else as it stands there."""

from __future__ import annotations

import re
from typing import Any

from flowserver.confined_child import Refused
from nodes.encodings import charset_of, decoded

_HIDDEN = frozenset({"script", "style", "template", "noscript", "head", "svg", "iframe", "object", "canvas"})
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt", "fieldset"}
    | {"figcaption", "figure", "footer", "form", "header", "hr", "html", "main", "nav", "ol", "p", "pre"}
    | {"section", "summary", "table", "tbody", "thead", "tfoot", "ul", "legend", "caption"}
)
_HEADINGS = {f"h{level}": "#" * level for level in range(1, 7)}
_SPACE = re.compile(r"[ \t\r\n\f]+")
_LARGE = 1_000_000
"""Characters above which no article is looked for: that takes seconds."""
_MOST_DEPTH = 3_000


def from_html(
    data: bytes, media_type: str, remove: list[str], *, article: bool
) -> tuple[str, dict[str, Any]]:
    """The text of a page, or of its article, without what `remove` selects; its title and language."""
    from selectolax.lexbor import LexborHTMLParser  # noqa: PLC0415  only for HTML

    html = decoded(data, charset_of(media_type), is_markup=True).text
    if _depth(html) > _MOST_DEPTH:
        raise Refused("too_complex", f"its elements are nested deeper than {_MOST_DEPTH} levels")
    page = LexborHTMLParser(html)
    facts = _facts(page)
    for selector in remove:
        try:
            found = page.css(selector)
        except Exception:
            raise Refused("bad_selector", f"{selector[:80]!r} is not a CSS selector") from None
        for node in found:
            if node.tag not in ("html", "body"):
                node.decompose()
    whole = text_of(page.root)
    return _article(page.html or "", whole) if article else whole, facts


def _facts(page: Any) -> dict[str, Any]:
    title = page.css_first("title")
    root = page.css_first("html")
    found = {
        "title": _SPACE.sub(" ", title.text()).strip()[:500] if title is not None else "",
        "language": ((root.attributes.get("lang") or "") if root is not None else "")[:35],
    }
    return {key: value for key, value in found.items() if value}


def _article(html: str, whole: str) -> str:
    """The lines of `whole` that belong to the page's article, where that is most of it; else `whole`.

    The article's own text is only compared with: its lines are broken where tags were.
    """
    if len(html) > _LARGE:
        return whole
    from trafilatura import extract  # noqa: PLC0415  only for HTML, and slow to import

    try:
        found = extract(html, output_format="txt", include_comments=False, include_tables=True)
    except RecursionError:
        found = None
    article = _squashed(found or "")
    kept = "\n".join(line for line in whole.split("\n") if _squashed(line) in article)
    kept = re.sub(r"\n{3,}", "\n\n", kept).strip()
    return kept if len(_squashed(kept)) > 0.5 * len(_squashed(whole)) else whole


def _squashed(text: str) -> str:
    return re.sub(r"\W", "", text)


_TAG = re.compile(r"<(/?)([a-z][a-z0-9]*)", re.I)
_CLOSED_BY_OTHERS = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
    | {"p", "li", "dt", "dd", "tr", "td", "th", "option", "thead", "tbody", "tfoot", "path", "rect", "use"}
)


def _depth(html: str) -> int:
    """How deep elements are nested, at least: a parser takes time with the square of it."""
    depth = deepest = 0
    for tag in _TAG.finditer(html):
        if tag[2].lower() in _CLOSED_BY_OTHERS:
            continue
        depth = max(0, depth - 1) if tag[1] else depth + 1
        deepest = max(deepest, depth)
    return deepest


def text_of(root: Any) -> str:
    """The text under `root`, without recursion: pages are nested as deep as their authors like."""
    writer = _Writer()
    node = root
    while node is not None:
        hidden = node.tag in _HIDDEN
        if not hidden:
            writer.enter(node)
        if node.child is not None and not hidden:
            node = node.child
            continue
        while node is not None:
            if node.tag not in _HIDDEN:
                writer.leave(node)
            if node.mem_id == root.mem_id:
                return writer.text()
            if node.next is not None:
                node = node.next
                break
            node = node.parent
    return writer.text()


class _Writer:
    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line: list[str] = []
        self._verbatim = 0

    def enter(self, node: Any) -> None:
        tag = node.tag
        if tag == "-text":
            self._say(node.text_content or "")
        elif tag == "br":
            self._break()
        elif tag in _HEADINGS:
            self._block()
            self._line.append(_HEADINGS[tag] + " ")
        elif tag == "li":
            self._break()
            self._line.append("- ")
        elif tag == "tr":
            self._break()
        elif tag in ("td", "th") and self._line:
            self._line.append(" | ")
        elif tag in _BLOCKS:
            self._block()
            self._verbatim += tag == "pre"

    def leave(self, node: Any) -> None:
        tag = node.tag
        if tag in _BLOCKS or tag in _HEADINGS:
            self._block()
            self._verbatim -= tag == "pre"
        elif tag in ("li", "tr"):
            self._break()

    def text(self) -> str:
        self._block()
        return re.sub(r"\n{3,}", "\n\n", "\n".join(self._lines)).strip()

    def _say(self, text: str) -> None:
        if self._verbatim:
            first, *rest = text.split("\n")
            self._line.append(first)
            for line in rest:
                self._lines.append("".join(self._line))
                self._line = [line]
            return
        text = _SPACE.sub(" ", text)
        if text.startswith(" ") and (not self._line or self._line[-1].endswith(" ")):
            text = text[1:]
        if text:
            self._line.append(text)

    def _break(self) -> None:
        line = "".join(self._line)
        self._line = []
        if line.strip(" -|") or self._verbatim:
            self._lines.append(line if self._verbatim else line.strip())

    def _block(self) -> None:
        self._break()
        if self._lines and self._lines[-1]:
            self._lines.append("")
