"""Make what steps return safe to keep: the one place where values enter a run's state."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

import msgspec

MAX_DEPTH = 64
MAX_BYTES = 8_000_000
LIGHT = 200_000
"""Bytes up to which a value is walked at once; the event loop would wait too long for more."""

_BIGGEST = 2**63 - 1


class UnsafeValue(ValueError):
    """A value is nested too deeply or is too large to be kept."""


def clean(value: Any) -> Any:
    """Return `value` as JSON-like data that Postgres and msgpack take unchanged.

    NUL characters are dropped, lone surrogates replaced, NaN and infinities become null, integers beyond
    64 bits become text.

    Raises:
        UnsafeValue: It is nested deeper than `MAX_DEPTH` or larger than `MAX_BYTES` as JSON.
    """
    return _measured(value)[0]


async def clean_aside(value: Any) -> tuple[Any, int]:
    """Return what `clean` does, and its bytes as JSON. What is not light is walked in a thread.

    Raises:
        UnsafeValue: As `clean` does.
    """
    try:
        cleaned = _clean(value, 0, [LIGHT])
    except _TooMuch:
        return await asyncio.to_thread(_measured, value)
    return cleaned, _size(cleaned)


class _TooMuch(Exception):
    """A value has more bytes than are to be walked."""


def _measured(value: Any) -> tuple[Any, int]:
    try:
        cleaned = _clean(value, 0, [MAX_BYTES])
    except _TooMuch:
        raise UnsafeValue(f"more than {MAX_BYTES} bytes are too many to be kept") from None
    if (size := _size(cleaned)) > MAX_BYTES:
        raise UnsafeValue(f"more than {MAX_BYTES} bytes are too many to be kept")
    return cleaned, size


def _clean(value: Any, depth: int, left: list[int]) -> Any:
    """Clean `value`, and take what its JSON has at least off the bytes that are `left`.

    A value that stands in many places is as large as all of them, long before anybody has measured it.
    """
    if depth > MAX_DEPTH:
        raise UnsafeValue(f"nested deeper than {MAX_DEPTH} levels")
    match value:
        case str():
            text = _text(value)
            _take(len(text), left)
            return text
        case bool() | None:
            return value
        case int() | float():
            return _number(value)
        case msgspec.Struct():
            return {name: _clean(getattr(value, name), depth + 1, left) for name in value.__struct_fields__}
        case dict() | Mapping():
            _take(5 * len(value), left)
            return {_key(key): _clean(item, depth + 1, left) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            _take(2 * len(value), left)
            return [_clean(item, depth + 1, left) for item in value]
        case _:
            return _clean(msgspec.to_builtins(value, enc_hook=str), depth + 1, left)


def _take(size: int, left: list[int]) -> None:
    left[0] -= size
    if left[0] < 0:
        raise _TooMuch


def _number(value: float) -> float | str | None:
    # Subclasses, such as an IntEnum or numpy's float64, become plain: a checkpoint takes no other types.
    if isinstance(value, int):
        return int(value) if -_BIGGEST - 1 <= value <= _BIGGEST else str(int(value))
    return float(value) if math.isfinite(value) else None


def _key(value: Any) -> str:
    return _text(value if isinstance(value, str) else str(value))


def _text(value: str) -> str:
    if type(value) is not str:
        value = str.__str__(value)
    if "\x00" in value:
        value = value.replace("\x00", "")
    if value.isascii():
        return value
    return value.encode("utf-8", "replace").decode("utf-8")


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str) else len(msgspec.json.encode(value))


def cut(value: Any, most: int) -> tuple[Any, bool]:
    """`value` if its JSON has at most `most` bytes, else its start as a text; and whether it was cut."""
    encoded = msgspec.json.encode(value)
    if len(encoded) <= most:
        return value, False
    return encoded[:most].decode("utf-8", "ignore") + "…", True
