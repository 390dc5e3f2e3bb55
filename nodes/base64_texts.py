"""Bytes written as letters."""

from __future__ import annotations

import base64
import binascii

from nodes.contract import NodeError


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def from_base64(text: str, what: str) -> bytes:
    """The bytes that `text` is, in either alphabet, with its padding or without.

    Raises:
        NodeError: `not_base64`; `what` says of what.
    """
    plain = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise NodeError(f"{what} is not base64", code="not_base64", is_final=True) from None
