"""`{{ path | filter }}` in texts: paths into a run's values, not a language.

Every general template engine we measured can take the process down, so there are no operators, calls or
loops: a path, keys and indexes, and the filters below. What is put in is never read again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote

import msgspec

from graphs.values import MAX_BYTES
from nodes.contract import NodeError
from nodes.texts import to_text

_OPEN = re.compile(r"\$?\{\{")
_END = re.compile(r"\s*\Z")
_TOKEN = re.compile(
    r"""\s*(?:(?P<name>[^\W\d][\w-]*)|(?P<number>-?\d{1,15}(?!\d))|(?P<text>"[^"]*"|'[^']*')|(?P<sign>[.\[\]|(),]))"""
)

ALLOWED = "a path such as {{ step.output }}, {{ step.items[0].title }} or {{ input | json }}"


_NAME = re.compile(r"[^\W\d][\w-]*")


def is_name(text: str) -> bool:
    """Whether a path can hold `text` without quotes."""
    return _NAME.fullmatch(text) is not None


class TemplateError(ValueError):
    """A template that is not a path with filters. `at` is the offset in the text."""

    def __init__(self, message: str, at: int) -> None:
        self.at = at
        super().__init__(message)


class Missing(LookupError):
    """A path leads to nothing in this run."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter and its arguments."""

    name: str
    arguments: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class Path:
    """`root.key[0] | filter`, as written in `text`."""

    text: str
    root: str
    keys: tuple[str | int, ...] = ()
    filters: tuple[Filter, ...] = ()

    def __str__(self) -> str:
        shown = self.text if len(self.text) <= 80 else f"{self.text[:80]}…"
        return f"'{{{{ {shown} }}}}'"

    @property
    def optional(self) -> bool:
        """Whether it may lead to nothing."""
        return any(each.name == "default" for each in self.filters)


@dataclass(frozen=True, slots=True)
class Template:
    """A text with paths in it."""

    parts: tuple[str | Path, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(part for part in self.parts if isinstance(part, Path))


Lookup: TypeAlias = Callable[[Path], Any]


def parse(text: str) -> Template | None:
    """Read `text`; `None` when there is no path in it.

    Raises:
        TemplateError: What stands between the braces is not a path with filters.
    """
    mistakes: list[TemplateError] = []
    template = parse_all(text, mistakes)
    if mistakes:
        raise mistakes[0]
    return template


def parse_all(text: str, mistakes: list[TemplateError]) -> Template | None:
    """Read `text`; what is wrong in it is added to `mistakes`, and stays as it is written."""
    parts: list[str | Path] = []
    end = 0
    while found := _OPEN.search(text, end):
        close = _closing(text, found.end())
        if close < 0:
            message = f"'{found[0]}' is not closed by '}}}}'; allowed is {ALLOWED}"
            mistakes.append(TemplateError(message, found.start()))
            break
        parts.append(text[end : found.start()])
        end = close + 2
        try:
            parts.append(_path(text[found.end() : close], found.end()))
        except TemplateError as exc:
            mistakes.append(exc)
            parts.append(text[found.start() : end])
    return (
        Template((*(part for part in parts if part != ""), *([text[end:]] if text[end:] else [])))
        if parts
        else None
    )


def _closing(text: str, start: int) -> int:
    """Where the next `}}` outside quotes is."""
    quote_sign = ""
    for at in range(start, len(text)):
        sign = text[at]
        if quote_sign:
            quote_sign = "" if sign == quote_sign else quote_sign
        elif sign in "\"'":
            quote_sign = sign
        elif text.startswith("}}", at):
            return at
    return -1


@dataclass(slots=True)
class _Reader:
    source: str
    offset: int
    at: int = 0

    def next(self) -> tuple[str, str]:
        if _END.match(self.source, self.at):
            return "end", ""
        found = _TOKEN.match(self.source, self.at)
        if not found:
            raise self.error(self.source[self.at : self.at + 100].strip()[:20])
        self.at = found.end()
        kind = found.lastgroup or ""
        return kind, found[kind]

    def peek(self) -> tuple[str, str]:
        at = self.at
        token = self.next()
        self.at = at
        return token

    def take(self, sign: str) -> bool:
        if self.peek() == ("sign", sign):
            self.next()
            return True
        return False

    def expect(self, sign: str) -> None:
        if not self.take(sign):
            raise self.error(self.peek()[1])

    def error(self, found: str) -> TemplateError:
        what = f"{found!r} is not understood" if found else "something is missing"
        shown = self.source if len(self.source) <= 80 else f"{self.source[:80]}…"
        return TemplateError(
            f"'{{{{{shown}}}}}' is not a path: {what}; allowed is {ALLOWED}", self.offset + self.at
        )


def _path(source: str, offset: int) -> Path:
    reader = _Reader(source, offset)
    kind, value = reader.next()
    if kind == "sign" and value == "[":
        value = _unquoted(reader, *reader.next())
        reader.expect("]")
    elif kind != "name":
        raise reader.error(value)
    keys = _keys(reader)
    filters: list[Filter] = []
    while reader.take("|"):
        filters.append(_filter(reader))
    if reader.peek()[0] != "end":
        raise reader.error(reader.peek()[1])
    return Path(source.strip(), value, tuple(keys), tuple(filters))


def _keys(reader: _Reader) -> list[str | int]:
    keys: list[str | int] = []
    while True:
        if reader.take("."):
            kind, key = reader.next()
            if kind not in ("name", "number"):
                raise reader.error(key)
            keys.append(int(key) if kind == "number" else key)
        elif reader.take("["):
            kind, key = reader.next()
            keys.append(int(key) if kind == "number" else _unquoted(reader, kind, key))
            reader.expect("]")
        else:
            return keys


def _unquoted(reader: _Reader, kind: str, value: str) -> str:
    if kind != "text":
        raise reader.error(value)
    return value[1:-1]


def _filter(reader: _Reader) -> Filter:
    kind, name = reader.next()
    if kind != "name" or name not in FILTERS:
        raise TemplateError(f"no filter {name!r}; allowed: {', '.join(FILTERS)}", reader.offset + reader.at)
    arguments: list[str | int] = []
    if reader.take("("):
        while not reader.take(")"):
            kind, value = reader.next()
            arguments.append(int(value) if kind == "number" else _unquoted(reader, kind, value))
            if reader.peek() != ("sign", ")"):
                reader.expect(",")
    _, least, most = FILTERS[name]
    if not least <= len(arguments) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise TemplateError(
            f"filter {name!r} takes {wanted} arguments, not {len(arguments)}", reader.offset + reader.at
        )
    return Filter(name, tuple(arguments))


def render(template: Template, lookup: Lookup) -> Any:
    """Fill `template`: a lone path gives its value, everything else a text.

    Raises:
        Missing: A path leads to nothing and has no `default`.
        NodeError: The text would become too long.
    """
    if len(template.parts) == 1 and isinstance(path := template.parts[0], Path):
        return value_of(path, lookup)
    texts: list[str] = []
    length = 0
    for part in template.parts:
        texts.append(part if isinstance(part, str) else to_text(value_of(part, lookup)))
        length += len(texts[-1])
        _check_length(length)
    return "".join(texts)


def _check_length(length: int) -> None:
    if length > MAX_BYTES:
        message = f"a filled text grew to {length} characters; at most {MAX_BYTES} are allowed"
        raise NodeError(message, code="limit_exceeded")


def value_of(path: Path, lookup: Lookup) -> Any:
    """The value that `path` leads to, after its filters."""
    try:
        value = lookup(path)
    except Missing:
        if not path.optional:
            raise
        value = None
    for each in path.filters:
        value = FILTERS[each.name][0](value, *each.arguments)
        if isinstance(value, str):  # after each: `json | json | …` doubles the backslashes every time
            _check_length(len(value))
    return value


def follow(value: Any, keys: Sequence[str | int], path: str) -> Any:
    """Walk `keys` into `value`; a text that holds a JSON object or list is not opened.

    Raises:
        Missing: With the key that is not there and those that are.
    """
    for key in keys:
        if isinstance(value, Mapping) and str(key) in value:
            value = value[str(key)]
        elif isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
            value = value[key]
        else:
            raise Missing(f"'{{{{ {path} }}}}' finds nothing at {key!r}: {_contents(value)}")
    return value


def _contents(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"there is an object with {', '.join(map(str, list(value)[:20])) or 'no keys'}"
    if isinstance(value, list):
        return f"there is a list of {len(value)}"
    kinds = {str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return f"there is {'nothing' if value is None else kinds.get(type(value), 'something else')}"


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | dict) else 0


def _end(index: int) -> Callable[[Any], Any]:
    return lambda value: value[index] if isinstance(value, str | list) and value else None


def _default(value: Any, other: str | int = "") -> Any:
    return other if value is None or value == "" else value


def _join(value: Any, between: str | int = ", ") -> str:
    if not isinstance(value, list):
        return to_text(value)
    _check_length(len(str(between)) * (len(value) - 1))
    return str(between).join(map(to_text, value))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


FILTERS: Mapping[str, tuple[Callable[..., Any], int, int]] = {
    "json": (_json, 0, 0),
    "tojson": (_json, 0, 0),
    "text": (to_text, 0, 0),
    "trim": (lambda value: to_text(value).strip(), 0, 0),
    "upper": (lambda value: to_text(value).upper(), 0, 0),
    "lower": (lambda value: to_text(value).lower(), 0, 0),
    "length": (_length, 0, 0),
    "first": (_end(0), 0, 0),
    "last": (_end(-1), 0, 0),
    "join": (_join, 0, 1),
    "default": (_default, 0, 1),
    "urlencode": (lambda value: quote(to_text(value), safe=""), 0, 0),
}
"""Filter name -> function, least and most arguments."""
