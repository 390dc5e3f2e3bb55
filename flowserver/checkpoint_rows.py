"""Rows for LangGraph's checkpoint tables, gathered as the values of the one statement that stores them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from langgraph.checkpoint.base import WRITES_IDX_MAP

from flowserver.columns import Blobs, Flags, Numbers, Texts

Serialized: TypeAlias = tuple[str, bytes | None]
"""A value as its kind of encoding and its bytes."""


class Rows:
    """What is stored in one transaction for one thread.

    Of rows with the same key it keeps what the stock saver's statements would leave, one after the other: no
    statement may touch a row twice.
    """

    def __init__(self, thread: str) -> None:
        self.thread = thread
        self._points: dict[tuple[str, str], tuple[str | None, str, str]] = {}
        self._blobs: dict[tuple[str, str, str], Serialized] = {}
        self._writes: dict[tuple[str, str, str, int], tuple[str, str, str, bytes | None, bool]] = {}

    def add_checkpoint(
        self, ns: str, parent: str | None, checkpoint: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> None:
        """Store a checkpoint whose channel values are only those that `fits_json`."""
        before = self._points.get((ns, checkpoint["id"]))
        row = (before[0] if before else parent, json.dumps(checkpoint), json.dumps(metadata))
        self._points[ns, checkpoint["id"]] = row

    def add_blobs(self, ns: str, versions: Mapping[str, Any], values: Mapping[str, Serialized]) -> None:
        """Store values of channels, each under the channel's version."""
        for channel, value in values.items():
            self._blobs.setdefault((ns, channel, str(versions[channel])), value)

    def add_writes(
        self, ns: str, checkpoint: str, task: str, path: str, writes: Iterable[tuple[str, Serialized]]
    ) -> None:
        """Store what a task has written into channels, in this order."""
        writes = list(writes)
        # Alone, an error, a question or an answer replaces the one before; anything else is written once.
        replaces = all(channel in WRITES_IDX_MAP for channel, _ in writes)
        for place, (channel, value) in enumerate(writes):
            key = (ns, checkpoint, task, WRITES_IDX_MAP.get(channel, place))
            before = self._writes.get(key)
            if before is None:
                self._writes[key] = (path, channel, *value, replaces)
            elif replaces:
                self._writes[key] = (before[0], channel, *value, True)

    def values(self) -> dict[str, Any]:
        """The parameters of `store`, apart from those of the journal."""
        nss, ids, parents, points, metadata = _columns(self._points, 5)
        blob_nss, channels, versions, types, blobs = _columns(self._blobs, 5)
        write_nss, of, tasks, places, paths, written, kinds, writes, replaces = _columns(self._writes, 9)
        return {
            "thread": self.thread,
            "point_nss": Texts(nss),
            "point_ids": Texts(ids),
            "point_parents": Texts(parents),
            "points": Texts(points),
            "point_metadata": Texts(metadata),
            "blob_nss": Texts(blob_nss),
            "blob_channels": Texts(channels),
            "blob_versions": Texts(versions),
            "blob_types": Texts(types),
            "blobs": Blobs(blobs),
            "write_nss": Texts(write_nss),
            "write_points": Texts(of),
            "write_tasks": Texts(tasks),
            "write_places": Numbers(places),
            "write_paths": Texts(paths),
            "write_channels": Texts(written),
            "write_types": Texts(kinds),
            "writes": Blobs(writes),
            "write_replaces": Flags(replaces),
        }


def _columns(rows: Mapping[Any, Any], width: int) -> Sequence[Sequence[Any]]:
    """The columns of `rows`, which have their keys first."""
    if not rows:
        return [()] * width
    return list(zip(*((*key, *row) for key, row in rows.items()), strict=True))


def fits_json(value: object) -> bool:
    """Whether the value of a channel can stand in a checkpoint's own JSON, where strings have no NUL."""
    if isinstance(value, str):
        return "\0" not in value and (value.isascii() or not _has_surrogate(value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (bool, int))


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def is_small(values: Iterable[Any], parts: int = 1000, size: int = 64_000) -> bool:
    """Whether `values` are encoded in about the time that handing them to a thread takes.

    It looks at no more than `parts` of them.
    """
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        parts -= 1
        if isinstance(value, (str, bytes)):
            size -= len(value)
        elif isinstance(value, (dict, list, tuple)):
            if len(value) > parts:
                return False
            waiting += value.values() if isinstance(value, dict) else value
        elif value is not None and not isinstance(value, (int, float)):
            parts -= 20  # a message, most likely, whose fields are looked up one by one
            waiting += getattr(value, "__dict__", {}).values()
        if parts < 0 or size < 0:
            return False
    return True
