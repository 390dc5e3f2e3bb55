"""The door to servers that speak something else than HTTP: connections under the same rules."""

from __future__ import annotations

import socket
from typing import Protocol


class Connections(Protocol):
    """Connects to public hosts and to those that the operator allows, and to nothing else."""

    async def open(self, host: str, port: int, seconds: float) -> socket.socket:
        """A connected socket, which is the caller's to close.

        Raises:
            NodeError: It may not be reached (`host_not_allowed`), or cannot be (`connect_failed`).
        """
        ...
