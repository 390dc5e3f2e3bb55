"""Columns of rows as parameters of one statement.

psycopg finds the type of a list in its items: that of an empty one is another than that of a full one, so
that the same statement would be prepared again for every mixture of them. It also takes ten times as long.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format

_HEAD = struct.Struct("!iiI").pack
_SIZES = struct.Struct("!ii").pack
_LENGTH = struct.Struct("!i").pack
_NULL = _LENGTH(-1)


class Texts(list[str | None]):
    """A column of `text`."""


class Blobs(list[bytes | None]):
    """A column of `bytea`."""


class Numbers(list[int]):
    """A column of `integer`."""


class Flags(list[bool]):
    """A column of `boolean`."""


class _TextsDumper(Dumper):
    format = Format.BINARY
    oid = 1009

    def dump(self, obj: Texts) -> Buffer:
        return _array(25, [None if item is None else item.encode() for item in obj])


class _BlobsDumper(Dumper):
    format = Format.BINARY
    oid = 1001

    def dump(self, obj: Blobs) -> Buffer:
        return _array(17, obj)


class _NumbersDumper(Dumper):
    format = Format.BINARY
    oid = 1007

    def dump(self, obj: Numbers) -> Buffer:
        return _array(23, [_LENGTH(item) for item in obj])


class _FlagsDumper(Dumper):
    format = Format.BINARY
    oid = 1000

    def dump(self, obj: Flags) -> Buffer:
        return _array(16, [b"\1" if item else b"\0" for item in obj])


def register(adapters: AdaptersMap) -> None:
    """Let the connections of `adapters` take columns."""
    adapters.register_dumper(Texts, _TextsDumper)
    adapters.register_dumper(Blobs, _BlobsDumper)
    adapters.register_dumper(Numbers, _NumbersDumper)
    adapters.register_dumper(Flags, _FlagsDumper)


def _array(item_type: int, items: Sequence[bytes | None]) -> bytes:
    """The binary form of an array with one dimension."""
    if not items:
        return _HEAD(0, 0, item_type)
    parts = [_HEAD(1, int(None in items), item_type), _SIZES(len(items), 1)]
    for item in items:
        parts += (_NULL,) if item is None else (_LENGTH(len(item)), item)
    return b"".join(parts)
