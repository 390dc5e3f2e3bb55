"""What steps have done for them in confined processes: files read, and code run where the operator allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from flowserver.confined import Confined, ConfinedFailure
from nodes.code_runner import CodeResult
from nodes.contract import NodeError
from nodes.reading import Reading

CODE_MEMORY = 128 << 20
MOST_CODE_VALUES = 5_000_000
"""Bytes of what a piece of code is given."""


class ConfinedReader:
    """Reads files, as `nodes.reading.Reader` says."""

    def __init__(self, confined: Confined) -> None:
        self._confined = confined

    async def read(
        self,
        data: bytes,
        *,
        name: str = "",
        media_type: str = "",
        remove: Sequence[str] = (),
        article: bool = False,
        by_page: bool = False,
    ) -> Reading:
        request = {
            "data": data,
            "name": name,
            "media_type": media_type,
            "remove": list(remove),
            "article": article,
            "by_page": by_page,
        }
        try:
            return msgspec.convert(await self._confined.call("read", request), Reading)
        except ConfinedFailure as failed:
            _fail(failed)


class ConfinedCode:
    """Runs code, as `nodes.code_runner.CodeRunner` says."""

    def __init__(self, confined: Confined) -> None:
        self._confined = confined

    async def run(self, code: str, values: Mapping[str, Any], seconds: float) -> CodeResult:
        if len(msgspec.msgpack.encode(values)) > MOST_CODE_VALUES:
            message = f"what arrived has more than {MOST_CODE_VALUES:,} bytes, which is too much for code"
            raise NodeError(message, code="too_large", is_final=True)
        request = {"code": code, "values": values, "seconds": seconds, "memory_bytes": CODE_MEMORY}
        try:
            # Its own interpreter ends it in time; the rest is for one that does not.
            made = await self._confined.call(
                "code", request, seconds=seconds + 5, cpu_seconds=int(seconds) + 5
            )
        except ConfinedFailure as failed:
            _fail(failed)
        return msgspec.convert(made, CodeResult)


def _fail(failed: ConfinedFailure) -> NoReturn:
    raise NodeError(failed.message, code=failed.code, is_final=True) from None
