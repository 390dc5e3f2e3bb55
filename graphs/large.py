"""Large values travel by reference: a checkpoint holds their hash, and each is stored once per run.

A value that passes through ten steps would stand ten times in the state, and be read with each checkpoint.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

LARGE = 32_000
"""Bytes of JSON from which on a value is kept apart."""

HEAVY = 500_000
"""Bytes of JSON from which on values are encoded and hashed in a thread."""

_HOLDERS = ("outputs", "values", "error", "brought")
"""Where a channel's struct holds values that steps made; the sizes of other keys are small by themselves."""


class Store(Protocol):
    """Keeps large values of one run."""

    async def put(self, values: Mapping[str, bytes]) -> None: ...
    async def get(self, keys: Iterable[str]) -> Mapping[str, bytes]: ...


@dataclass(slots=True)
class LargeValues:
    """The large values of a run: those that this process knows, and where all of them are kept."""

    store: Store | None = None
    """Without one, values stay where they are."""
    known: dict[str, Any] = field(default_factory=dict)
    stored: set[str] = field(default_factory=set)
    """Hashes of those that are in the store: no checkpoint may refer to another one."""

    async def lean(self, writes: Mapping[str, Any]) -> dict[str, Any]:
        """`writes` to channels, with large values put into the store and left out of their structs."""
        if self.store is None:
            return dict(writes)
        new: dict[str, bytes] = {}
        sizes = (
            _size(struct[key])
            for struct in writes.values()
            if isinstance(struct, dict)
            for key in _HOLDERS
            if key in struct
        )
        if sum(sizes) > HEAVY:
            lean = await asyncio.to_thread(self._all_lean, writes, new)
        else:
            lean = self._all_lean(writes, new)
        if new:
            await self.store.put(new)
            self.stored.update(new)
        return lean

    def _all_lean(self, writes: Mapping[str, Any], new: dict[str, bytes]) -> dict[str, Any]:
        return {name: self._lean(value, new) for name, value in writes.items()}

    def _lean(self, struct: Any, new: dict[str, bytes]) -> Any:
        if isinstance(struct, list):  # results of a map
            return [self._without(each, "value", new) if isinstance(each, dict) else each for each in struct]
        if not isinstance(struct, dict):
            return struct
        for key in _HOLDERS:
            if key in struct and _size(struct[key]) > LARGE:
                struct = self._without(struct, key, new)
        return struct

    def _without(self, struct: dict[str, Any], key: str, new: dict[str, bytes]) -> dict[str, Any]:
        if key not in struct or len(encoded := msgspec.json.encode(struct[key])) <= LARGE:
            return struct
        if key == "outputs":  # port by port, as several steps may hand on one of them
            outputs: dict[str, Any] = dict(struct[key])
            large = dict(struct.get("large", {}))
            for port, value in struct[key].items():
                if _size(value) > LARGE:
                    large[f"outputs.{port}"] = self._keep(value, msgspec.json.encode(value), new)
                    del outputs[port]
            return {**struct, "outputs": outputs, "large": large}
        rest = {each: value for each, value in struct.items() if each != key}
        return {**rest, "large": {**struct.get("large", {}), key: self._keep(struct[key], encoded, new)}}

    def _keep(self, value: Any, encoded: bytes, new: dict[str, bytes]) -> str:
        hash = hashlib.sha256(encoded).hexdigest()
        self.known.setdefault(hash, value)
        if hash not in self.stored:  # also where another step is storing it now: that may yet fail
            new[hash] = encoded
        return hash

    async def whole(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """`state` with large values where they were."""
        found = [struct for value in state.values() for struct in _structs(value) if "large" in struct]
        if not found:
            return state
        missing = {hash for struct in found for hash in struct["large"].values()} - self.known.keys()
        if missing:
            assert self.store is not None  # without it nothing was left out
            for hash, encoded in (await self.store.get(missing)).items():
                self.known[hash] = msgspec.json.decode(encoded)
                self.stored.add(hash)
        return {name: self._whole(value) for name, value in state.items()}

    def _whole(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._whole(each) if isinstance(each, dict) else each for each in value]
        if not isinstance(value, dict) or "large" not in value:
            return value
        whole = {key: each for key, each in value.items() if key != "large"}
        for where, hash in value["large"].items():
            key, _, port = where.partition(".")
            if port or key == "outputs":
                whole[key] = {**whole.get(key, {}), port: self.known[hash]}
            else:
                whole[key] = self.known[hash]
        return whole


def _structs(value: Any) -> Iterable[Mapping[str, Any]]:
    if isinstance(value, dict):
        return [value]
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _size(value: Any) -> int:
    if isinstance(value, str) and len(value) * 6 < LARGE:  # JSON can make six bytes of a character
        return 0
    return len(msgspec.json.encode(value))
