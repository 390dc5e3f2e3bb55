"""JSON schemas that drawings give, and values checked against them, in time that strangers cannot make long.

Patterns are RE2's, which take linear time. What may still take long (references that double, items that are
compared with each other, a large schema on a large value) is checked in a process with limits.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from nodes.comparisons import pattern
from nodes.contract import NodeError, RunContext
from nodes.isolated import isolated, weight
from nodes.mistakes import Keys

MOST_DEPTH = 50
MOST_CHARACTERS = 30_000
"""Of a schema, as JSON."""
QUICK = 2_000_000
"""What the weights of a value and of its schema may give, multiplied, for a check on the event loop."""
SECONDS = 10
"""That any other check may take."""

_SHOWN = 100
_COSTLY = frozenset(
    {"$ref", "$dynamicRef", "uniqueItems", "unevaluatedItems", "unevaluatedProperties", "contains"}
)


def as_schema(given: Mapping[str, Any] | str, setting: str) -> dict[str, Any]:
    """The schema of an object that a setting gives, as JSON or a text of it; `{}` where it is empty.

    Raises:
        NodeError: It is none.
    """
    found: Any = given
    if isinstance(given, str):
        try:
            found = msgspec.json.decode(given) if given.strip() else {}
        except (msgspec.DecodeError, RecursionError) as exc:
            raise NodeError(f"{setting!r} is not JSON: {exc}", code="bad_config") from None
    if not found:
        return {}
    if not isinstance(found, Mapping):
        raise NodeError(f"{setting!r} is no JSON schema: it must be an object", code="bad_config")
    schema = dict(found)
    if schema.get("type", "object") != "object":
        message = f"{setting!r} must be the schema of an object, not of {schema['type']!r}"
        raise NodeError(message, code="bad_config")
    if (wrong := _wrong_with(schema)) is not None:
        raise NodeError(f"{setting!r} {wrong}", code="bad_config")
    return {"type": "object"} | schema


def schema_mistakes(given: Mapping[str, Any] | str, setting: str) -> Iterator[tuple[str, Keys]]:
    """What is wrong with a setting that holds a schema, as far as that is known before a run."""
    if "{{" not in str(given):
        try:
            as_schema(given, setting)
        except NodeError as exc:
            yield exc.message, (setting,)


async def misfit(ctx: RunContext, value: Any, schema: Mapping[str, Any]) -> str | None:
    """Return why `value` does not fit `schema`, in a sentence; `None` if it does.

    Raises:
        NodeError: `too_complex`, that takes more time or memory than is allowed.
    """
    most = QUICK // max(weight(schema), 1)
    if weight(value, most) <= most and not _is_costly(schema):
        return misfit_of(value, dict(schema))
    return await isolated(ctx, misfit_of, value, dict(schema), seconds=SECONDS)


def misfit_of(value: Any, schema: dict[str, Any]) -> str | None:
    """`misfit`, however long it takes."""
    from jsonschema.exceptions import best_match  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    # Its own registry would fetch what a schema refers to, from wherever that is.
    found = best_match(_validator()(schema, registry=Registry()).iter_errors(value))
    if found is None:
        return None
    where = "/".join(str(each) for each in found.absolute_path) or "the answer"
    return f"{where}: {found.message[:500]}"


def _wrong_with(schema: dict[str, Any]) -> str | None:
    """What keeps an object from being a schema that can be checked here."""
    try:
        for key, text in _texts(schema, 0):
            if key != "pattern" and not text.startswith("#"):
                return f"refers to {text[:100]!r}; it may refer to its own parts only, with '#/…'"
            if key == "pattern":
                _pattern(text)
        encoded = msgspec.json.encode(schema)
    except (ValueError, TypeError) as exc:
        return f"is no JSON schema that can be checked: {exc}"
    if len(encoded) > MOST_CHARACTERS:
        return f"is a schema of {len(encoded)} characters; it may have {MOST_CHARACTERS}"
    return _wrong_by_metaschema(encoded)


@functools.lru_cache(256)
def _wrong_by_metaschema(encoded: bytes) -> str | None:
    from jsonschema import Draft202012Validator, FormatChecker  # noqa: PLC0415  a tenth of a second
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415

    try:
        # Without formats: its own would read patterns as Python's.
        Draft202012Validator.check_schema(msgspec.json.decode(encoded), FormatChecker(()))
    except SchemaError as exc:
        where = "/".join(str(each) for each in exc.absolute_path)
        return f"is no JSON schema: {where + ': ' if where else ''}{exc.message[:300]}"
    return None


def _texts(value: Any, depth: int) -> Iterator[tuple[str, str]]:
    """The references and patterns of a schema."""
    if depth > MOST_DEPTH:
        raise ValueError(f"it is nested more than {MOST_DEPTH} deep")
    if isinstance(value, Mapping):
        yield from _own_texts(value)
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for each in inner:
        yield from _texts(each, depth + 1)


def _own_texts(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("$ref", "$dynamicRef", "pattern"):
        if isinstance(text := schema.get(key), str):
            yield key, text
    if isinstance(named := schema.get("patternProperties"), Mapping):
        yield from (("pattern", str(text)) for text in named)


def _is_costly(value: Any) -> bool:
    if isinstance(value, Mapping):
        # A pattern that repeats by number may be thousands of times as large as it is long.
        repeats = any(key == "pattern" and "{" in text for key, text in _own_texts(value))
        return repeats or not _COSTLY.isdisjoint(value) or any(map(_is_costly, value.values()))
    return isinstance(value, list) and any(map(_is_costly, value))


def _pattern(text: str) -> Any:
    """The RE2 pattern for one of JSON Schema's, where a character's number is written otherwise.

    Raises:
        ValueError: RE2 does not read it, as with looking ahead or behind and with back references.
    """
    try:
        return pattern(_ecma_numbers(text))
    except ValueError as exc:
        raise ValueError(f"the pattern {text[:100]!r} is {exc}") from None


def _ecma_numbers(text: str) -> str:
    pieces = text.split("\\\\")  # an escaped backslash escapes nothing
    return "\\\\".join(_numbered(piece) for piece in pieces)


def _numbered(piece: str) -> str:
    start, *rest = piece.split("\\u")
    return start + "".join(
        f"\\x{{{part[:4]}}}{part[4:]}" if len(part) >= 4 and not part.startswith("{") else f"\\x{part}"
        for part in rest
    )


@functools.cache
def _validator() -> Any:
    """The class that validates, with RE2 where JSON Schema has patterns."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.validators import extend  # noqa: PLC0415

    keywords = {
        "pattern": _by_pattern,
        "patternProperties": _by_names,
        "additionalProperties": _by_the_rest,
    }
    return extend(Draft202012Validator, keywords)  # type: ignore[no-untyped-call]


def _by_pattern(validator: Any, wanted: str, value: Any, schema: Any) -> Iterator[Any]:
    if isinstance(value, str) and not _pattern(wanted).search(value):
        shown = value if len(value) <= _SHOWN else value[:_SHOWN] + "…"
        yield _error(f"{shown!r} does not match {wanted!r}")


def _by_names(validator: Any, wanted: Mapping[str, Any], value: Any, schema: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for text, inner in wanted.items():
            for name in value:
                if _pattern(text).search(name):
                    yield from validator.descend(value[name], inner, path=name, schema_path=text)


def _by_the_rest(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(value, dict):
        return
    named = schema.get("properties", {})
    patterns = [_pattern(text) for text in schema.get("patternProperties", {})]
    rest = [each for each in value if each not in named and not any(one.search(each) for one in patterns)]
    if wanted is not False:
        for name in rest:
            yield from validator.descend(value[name], wanted, path=name)
    elif rest:
        names = ", ".join(map(repr, rest[:10]))
        verb = "was" if len(rest) == 1 else "were"
        yield _error(f"Additional properties are not allowed ({names} {verb} unexpected)")


def _error(message: str) -> Any:
    from jsonschema.exceptions import ValidationError  # noqa: PLC0415

    return ValidationError(message)
