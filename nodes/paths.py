"""Paths into a value: `customer.name`, `lines[0].price`, `["any key"].x`; an empty one is all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

Steps: TypeAlias = tuple[str | int, ...]

MAX_PATH = 1_000
"""The most characters of a path."""

_PART = re.compile(
    r"""(?P<name>[^.\[\]"']+)|\[(?P<index>-?[0-9]{1,9})\]|\[(?P<key>"(?:[^"\\]|\\.)*")\]""", re.DOTALL
)


@lru_cache(1024)
def steps(path: str) -> Steps:
    """The keys and indexes of a path.

    Raises:
        ValueError: It is none; the message says where.
    """
    if len(path) > MAX_PATH:
        raise ValueError(f"has {len(path)} characters; allowed are {MAX_PATH}")
    found: list[str | int] = []
    at = 0
    while at < len(path):
        if path[at] == "." and found:
            at += 1
            if path[at : at + 1] == "[":
                raise _wrong(path, at)
        elif found and path[at] != "[":
            raise _wrong(path, at)
        part = _PART.match(path, at)
        if part is None:
            raise _wrong(path, at)
        found.append(_step(part, path, at))
        at = part.end()
    return tuple(found)


def _step(part: re.Match[str], path: str, at: int) -> str | int:
    if part["name"] is not None:
        return part["name"].strip()
    if part["index"] is not None:
        return int(part["index"])
    try:
        return str(json.loads(part["key"]))
    except ValueError:
        raise _wrong(path, at) from None


def _wrong(path: str, at: int) -> ValueError:
    near = repr(path[at : at + 20]) if at < len(path) else "its end"
    return ValueError(f"is no path at {near}; allowed are keys and indexes, as in customer.name or lines[0]")


def follow(value: Any, path: Steps) -> Any:
    """What lies at `path` in `value`; null where there is nothing."""
    for step in path:
        if isinstance(value, Mapping):
            value = value.get(str(step))
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            place = (
                step if isinstance(step, int) else int(step) if step.isdecimal() and step.isascii() else None
            )
            value = value[place] if place is not None and -len(value) <= place < len(value) else None
        else:
            return None
    return value


def wrong_path(path: str) -> str | None:
    """What is wrong with a path, in words; nothing of one that is only known when it is filled."""
    if "{{" in path:
        return None
    try:
        steps(path)
    except ValueError as exc:
        return str(exc)
    return None
