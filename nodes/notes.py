"""What `setting` and `port` have noted on a field, read back."""

from __future__ import annotations

from typing import Any, get_args

import msgspec


def note(kind: Any, key: str, default: Any) -> Any:
    """What is noted under `key` on a field of the type `kind`."""
    for meta in get_args(kind)[1:]:
        if isinstance(meta, msgspec.Meta) and meta.extra and key in meta.extra:
            return meta.extra[key]
    return default


def described(kind: Any) -> str:
    """The description of a field of the type `kind`."""
    found = (meta.description for meta in get_args(kind)[1:] if isinstance(meta, msgspec.Meta))
    return next(filter(None, found), "")
