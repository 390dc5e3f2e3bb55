"""The door to a sandbox for the code of a workflow's author; open only if the operator allows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec


class CodeResult(msgspec.Struct, frozen=True):
    output: Any
    """What the code gave, as JSON has it."""
    printed: str


class CodeRunner(Protocol):
    """Runs Python without files, network, modules of the system, or more time and memory than it is given."""

    async def run(self, code: str, values: Mapping[str, Any], seconds: float) -> CodeResult:
        """What `code` makes of `values`, which are its variables.

        Raises:
            NodeError: `bad_code`, `code_failed`, `bad_output`, `timeout`, `too_large` or `too_complex`.
        """
        ...
