"""Ids that grow with time, so that the newest come last in every index."""

from __future__ import annotations

from uuid import UUID

from uuid_utils import compat


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562)."""
    return compat.uuid7()
