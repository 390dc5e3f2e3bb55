"""Whose request it is: organisations and their keys. Until there are users, one organisation and one key."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from pathlib import Path
from uuid import UUID

import sql
from flowserver.db import Pool, row_of
from flowserver.errors import NotAuthenticated, Unavailable
from flowserver.ids import new_id

_QUERIES = sql.queries("orgs")
_INSERT_ORG = _QUERIES["insert_org"]
_FIRST_ORG = _QUERIES["first_org"]
_COUNT_KEYS = _QUERIES["count_keys"]
_INSERT_KEY = _QUERIES["insert_key"]
_FIND_KEY = _QUERIES["find_key"]

DEFAULT_ORG = UUID("00000000-0000-7000-8000-000000000001")
KEY_FILE = "api-key"

_REMEMBER = 10.0
"""Seconds that a key found good is not looked up again: a revoked one works at most that long."""


class Accounts:
    """Tells whose a request is."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._good: dict[bytes, tuple[UUID, float]] = {}

    async def authenticate(self, key: str | None) -> UUID:
        """Return the organisation that `key` belongs to.

        Raises:
            NotAuthenticated: No key, an unknown or a revoked one.
        """
        if not key or len(key) > 1000:
            raise NotAuthenticated
        digest = _digest(key)
        org, until = self._good.get(digest, (None, 0.0))
        if org is not None and time.monotonic() < until:
            return org
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_FIND_KEY, {"digest": digest})).fetchone()
        if row is None:
            self._good.pop(digest, None)
            raise NotAuthenticated
        self._good[digest] = (row["org_id"], time.monotonic() + _REMEMBER)
        return UUID(str(row["org_id"]))

    async def ensure_default(self, data_dir: Path, given: str | None, *, make_key: bool) -> str | None:
        """Make the default organisation and its key if they are missing; return a key made just now.

        `given` is the operator's own key. With `make_key` one is made if there is none at all, and kept in
        `data_dir`, readable by its owner only; a process that tells nobody of it should not make it.

        Raises:
            Unavailable: It cannot be kept there.
        """
        async with self._pool.connection() as conn:
            await conn.execute(_INSERT_ORG, {"id": DEFAULT_ORG, "name": "default"})
            if given:
                await conn.execute(_INSERT_KEY, _key_row(given, "FLOWSERVER_API_KEY"))
                return None
            keys = row_of(await (await conn.execute(_COUNT_KEYS, {"org": DEFAULT_ORG})).fetchone())["keys"]
            if keys or not make_key:
                return None
            made = f"fs_{secrets.token_urlsafe(32)}"
            _write_private(data_dir / KEY_FILE, made + "\n")
            await conn.execute(_INSERT_KEY, _key_row(made, "first key"))
            return made


def _key_row(key: str, name: str) -> dict[str, object]:
    return {"id": new_id(), "org": DEFAULT_ORG, "name": name, "digest": _digest(key)}


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _write_private(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    except OSError as exc:
        raise Unavailable(
            f"the first API key cannot be kept in {path} ({exc.strerror}): "
            "set FLOWSERVER_DATA_DIR to a directory that can be written to, or FLOWSERVER_API_KEY to a key"
        ) from None
