"""Credentials: secrets of an organisation, sealed in Postgres, and opened only for the steps of its runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow

import sql
from flowserver.db import Pool
from flowserver.doors import Visitor
from flowserver.errors import (
    BadRequest,
    CredentialNameTaken,
    NotFound,
    SecretUnreadable,
    Unavailable,
)
from flowserver.ids import new_id
from flowserver.vault import SETTING, Vault
from nodes.contract import NodeError
from nodes.keys import trimmed

_QUERIES = sql.queries("credentials")
_INSERT = _QUERIES["insert_credential"]
_GET = _QUERIES["get_credential"]
_OPEN = _QUERIES["open_credential"]
_UPDATE = _QUERIES["update_credential"]
_DELETE = _QUERIES["delete_credential"]
_LIST = _QUERIES["list_credentials"]
_KNOWN = _QUERIES["known_credentials"]
_KEYS = _QUERIES["sealing_keys"]

MOST_FIELDS = 50
MOST_CHARACTERS = 100_000
"""Of one field: a service account's JSON has a few thousand."""

_OPEN_FIELDS = frozenset(
    {"host", "port", "database", "username", "user", "base_url", "model", "model_name", "organization"}
    | {"organization_id", "project_id", "engine", "provider", "from_address", "security", "sslmode", "ssl"}
    | {"tls", "header_name", "api_version", "region"}
)
"""Fields that are no secrets: to hide `5432` or `postgres` would only spoil messages."""


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """A credential as anybody of its organisation may see it: never with what is in its fields."""

    id: UUID
    name: str
    service_type: str
    fields: tuple[str, ...]
    """The names of its fields."""
    hosts: tuple[str, ...]
    """The only hosts that its secrets may be sent to; none means any that a workflow names."""
    created_at: datetime
    updated_at: datetime


class Credentials:
    """Keep, list, change and delete credentials. Every call is within one organisation."""

    def __init__(self, pool: Pool, vault: Vault) -> None:
        self._pool = pool
        self._vault = vault

    async def add(
        self,
        org: UUID,
        name: str,
        data: Mapping[str, Any],
        service_type: str | None = None,
        hosts: Iterable[str] = (),
    ) -> Credential:
        """Keep a new credential; without a `service_type` its fields tell it.

        Raises:
            BadRequest: Something in it cannot be kept.
            CredentialNameTaken: There is one of that name.
            NoEncryptionKey: This server can keep no secrets.
        """
        values, id = _texts(data), new_id()
        if not values:
            raise BadRequest("'data' has no field; a credential keeps at least one")
        row = {
            "id": id,
            "org": org,
            "name": _named("name", name),
            "service_type": _named("service_type", service_type or detected(values)),
            "fields": list(values),
            "hosts": _hosts(hosts),
            "secret": self._sealed(org, id, values),
        }
        async with self._pool.connection() as conn:
            made = await (await conn.execute(_INSERT, row)).fetchone()
        if made is None:
            raise CredentialNameTaken(name)
        return msgspec.convert(made, Credential)

    async def get(self, org: UUID, id: UUID) -> Credential:
        """
        Raises:
            NotFound: There is none of this id in `org`.
        """
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_GET, {"org": org, "id": id})).fetchone()
        if row is None:
            raise NotFound("credential", id)
        return msgspec.convert(row, Credential)

    async def page(
        self, org: UUID, *, before: UUID | None, limit: int, name: str | None = None
    ) -> list[Credential]:
        """The newest credentials, or those older than `before`; with `name` only the one called so."""
        values = {"org": org, "before": before, "limit": limit, "name": name}
        async with self._pool.connection() as conn:
            rows = await (await conn.execute(_LIST, values)).fetchall()
        return [msgspec.convert(row, Credential) for row in rows]

    async def change(
        self,
        org: UUID,
        id: UUID,
        *,
        name: str | None = None,
        service_type: str | None = None,
        data: Mapping[str, Any] | None = None,
        hosts: Iterable[str] | None = None,
    ) -> Credential:
        """Change what is given; of `data`, fields left out stay, and those that are null are removed.

        Raises:
            NotFound: There is none of this id in `org`.
            BadRequest, CredentialNameTaken, NoEncryptionKey: As when it is added.
            SecretUnreadable: What it holds cannot be opened, so nothing can be added to it.
        """
        row = {
            "org": org,
            "id": id,
            "name": None if name is None else _named("name", name),
            "service_type": None if service_type is None else _named("service_type", service_type),
            "hosts": None if hosts is None else _hosts(hosts),
            "fields": None,
            "secret": None,
            "revision": None,
        }
        while True:
            if data is not None:
                row |= await self._changed(org, id, data)
            try:
                async with self._pool.connection() as conn:
                    changed = await (await conn.execute(_UPDATE, row)).fetchone()
            except psycopg.errors.UniqueViolation:
                raise CredentialNameTaken(name or "") from None
            if changed is not None:
                return msgspec.convert(changed, Credential)
            await self.get(org, id)  # raises NotFound; else somebody has changed it in between

    async def delete(self, org: UUID, id: UUID) -> None:
        """
        Raises:
            NotFound: There is none of this id in `org`.
        """
        async with self._pool.connection() as conn:
            if await (await conn.execute(_DELETE, {"org": org, "id": id})).fetchone() is None:
                raise NotFound("credential", id)

    async def opened(self, org: UUID, id: UUID) -> tuple[dict[str, str], tuple[str, ...]]:
        """What is in a credential, and the hosts that it is bound to.

        Raises:
            NotFound: There is none of this id in `org`.
            SecretUnreadable: It cannot be opened.
        """
        row = await self._row(org, id)
        return self._values(org, id, row), tuple(row["hosts"])

    async def must_open(self) -> None:
        """Find out at the start whether all that is kept can be opened.

        Raises:
            Unavailable: A key is missing.
        """
        async with self._pool.connection() as conn:
            rows = await (await conn.execute(_KEYS)).fetchall()
        if missing := [row["key"] for row in rows if row["key"] not in self._vault.key_ids]:
            names = ", ".join(map(repr, missing))
            raise Unavailable(
                f"credentials are sealed with the key {names}, which is not loaded; add it to {SETTING}"
            )

    async def _changed(self, org: UUID, id: UUID, data: Mapping[str, Any]) -> dict[str, Any]:
        """What a credential holds when `data` is put into it."""
        row = await self._row(org, id)
        removed = {key for key, value in data.items() if value is None}
        given = _texts({key: value for key, value in data.items() if value is not None})
        try:
            before = self._values(org, id, row)
        except SecretUnreadable:
            if not set(row["fields"]) <= data.keys():
                raise
            before = {}  # all of it is given anew
        values = {key: value for key, value in (before | given).items() if key not in removed}
        if not 0 < len(values) <= MOST_FIELDS:
            raise BadRequest(f"a credential keeps 1 to {MOST_FIELDS} fields; this would leave {len(values)}")
        secret = self._sealed(org, id, values)
        return {"fields": list(values), "secret": secret, "revision": row["revision"]}

    async def _row(self, org: UUID, id: UUID) -> DictRow:
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_OPEN, {"org": org, "id": id})).fetchone()
        if row is None:
            raise NotFound("credential", id)
        return row

    def _sealed(self, org: UUID, id: UUID, values: Mapping[str, str]) -> str:
        return self._vault.seal(msgspec.json.encode(values), _place(org, id))

    def _values(self, org: UUID, id: UUID, row: DictRow) -> dict[str, str]:
        values = msgspec.json.decode(self._vault.open(row["secret"], _place(org, id)), type=dict[str, str])
        return {key: _pasted(key, value) for key, value in values.items()}


class RunCredentials:
    """The credentials that the steps of one run may use; what they learn is never told."""

    def __init__(self, kept: Credentials, visitor: Visitor) -> None:
        self._kept = kept
        self._visitor = visitor

    async def get(self, id: str, *, host: str | None = None, usual: str | None = None) -> Mapping[str, str]:
        """See `nodes.credentials.Credentials`."""
        try:
            values, hosts = await self._kept.opened(self._visitor.org, UUID(id))
        except (NotFound, ValueError):
            message = f"there is no credential {id!r}: it was deleted, or is somebody else's"
            raise NodeError(message, code="credential_not_found", is_final=True) from None
        except SecretUnreadable as exc:
            raise NodeError(f"credential {id!r}: {exc}", code=exc.code, is_final=True) from None
        _must_be_for(id, host, usual, host_of(values), hosts)
        for secret in secret_texts(values):
            self._visitor.learn(secret)
        return values


def door(kept: Credentials) -> Callable[[Visitor], RunCredentials]:
    """What opens `kept` to the steps of a run."""
    return lambda visitor: RunCredentials(kept, visitor)


async def unknown(conn: AsyncConnection[DictRow], org: UUID, ids: Iterable[str]) -> set[str]:
    """Those of `ids` that are no credential of `org`."""
    read = {text: id for text in ids if (id := _uuid(text)) is not None}
    rows = await (await conn.execute(_KNOWN, {"org": org, "ids": list(read.values())})).fetchall()
    known = {row["id"] for row in rows}
    return {text for text in ids if read.get(text) not in known}


def secret_texts(values: Mapping[str, str]) -> set[str]:
    """What of a credential must not be shown, in the forms in which it may turn up."""
    found = {value for key, value in values.items() if key.lower() not in _OPEN_FIELDS}
    for value in tuple(found):
        if "://" in value and (password := _password(value)):
            found |= {password, unquote(password)}
    return {value for value in found if len(value) >= 4}


def host_of(values: Mapping[str, str]) -> str | None:
    """The host that a credential itself is for."""
    url = next((values[key] for key in ("base_url", "connection_string") if values.get(key)), "")
    try:
        return urlsplit(url).hostname or values.get("host") or None
    except ValueError:
        return values.get("host") or None


def detected(values: Mapping[str, str]) -> str:
    """The service that a credential of these fields is for."""
    if _is_database(values):
        return "postgresql_vectorstore"
    if "api_key" in values:
        return _of_api_key(values)
    for names, kind in (({"access_token"}, "oauth"), ({"username", "password"}, "basic_auth")):
        if names <= values.keys():
            return kind
    return "certificate" if {"private_key", "certificate"} & values.keys() else "custom"


def _is_database(values: Mapping[str, str]) -> bool:
    parts = {"host", "port", "database", "username", "password"}
    return parts <= values.keys() or values.get("connection_string", "").startswith("postgres")


def _of_api_key(values: Mapping[str, str]) -> str:
    if values.get("provider") == "cohere" or "cohere" in values:
        return "cohere"
    known = (
        ({"organization", "organization_id", "project_id"}, "openai"),
        ({"engine", "model"}, "anthropic"),
        ({"cse_id", "search_engine_id"}, "google"),
    )
    return next((kind for names, kind in known if names & values.keys()), "generic_api")


def _must_be_for(
    id: str, wished: str | None, usual: str | None, own: str | None, allowed: Iterable[str]
) -> None:
    """Refuse to send a credential's secrets where it is not for: not where the author of a drawing likes."""
    allowed = list(allowed)
    host = wished or own or usual
    if wished and own and not allowed and not _is_for(wished, own.lower()):
        allowed = [own]
    if allowed and not any(_is_for(host or "", each) for each in allowed):
        where = f"not for {host!r}" if host else "and this step does not say where it sends them"
        message = f"credential {id!r} is only for {', '.join(allowed)}, {where}"
        raise NodeError(message, code="credential_host", is_final=True)


def _texts(data: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a credential; numbers and booleans, as forms send them, become texts."""
    if len(data) > MOST_FIELDS:
        raise BadRequest(f"'data' has {len(data)} fields; allowed are at most {MOST_FIELDS}")
    found: dict[str, str] = {}
    for key, value in data.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}", key):
            raise BadRequest(f"'data': {key[:100]!r} is no name for a field: letters, digits, '_', '.', '-'")
        text = value if isinstance(value, str) else _text(key, value)
        if len(text) > MOST_CHARACTERS or "\x00" in text:
            raise BadRequest(f"'data.{key}' must be a text of at most {MOST_CHARACTERS} characters")
        found[key] = _pasted(key, text)
    return found


def _pasted(key: str, text: str) -> str:
    """A field without what is copied along with a key; a password may begin or end with a blank."""
    return text.strip("\r\n") if "pass" in key.lower() else trimmed(text)


def _text(key: str, value: Any) -> str:
    if isinstance(value, bool | int | float):
        return msgspec.json.encode(value).decode()
    raise BadRequest(f"'data.{key}' must be a text, a number, true or false")


def _named(field: str, value: str) -> str:
    if not 0 < len(value.strip()) <= 200 or "\x00" in value:
        raise BadRequest(f"{field!r} must have 1 to 200 characters")
    return value.strip()


def _hosts(hosts: Iterable[str]) -> list[str]:
    found = [each.strip().lower() for each in hosts]
    for each in found:
        if not re.fullmatch(r"(\*\.)?[a-z0-9.:_\[\]-]{1,255}", each):
            raise BadRequest(f"'hosts': {each!r} is no host name, such as api.example.com or *.example.com")
    return found


def _is_for(host: str, allowed: str) -> bool:
    host = host.lower().rstrip(".")
    return host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed


def _password(url: str) -> str | None:
    try:
        return urlsplit(url).password
    except ValueError:
        return None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _place(org: UUID, id: UUID) -> str:
    return f"credential:{org}:{id}"
