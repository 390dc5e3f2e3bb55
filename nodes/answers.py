"""How a step answers whoever waits for its run outside, before the run has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Answers(Protocol):
    """A door: the answer of a run to the webhook that started it."""

    async def give(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Answer the caller. The first answer of a run counts; where nobody called, it is let go."""
