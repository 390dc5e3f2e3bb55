"""Webhooks in Postgres: those of drawings, and those made by the API."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec
from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow
from psycopg.types.json import Json

import sql
from flowserver.credentials import Credentials
from flowserver.db import Pool
from flowserver.errors import BadRequest, DrawnElsewhere, NotFound, PathTaken
from flowserver.events import encode
from flowserver.ids import new_id
from flowserver.triggers import keep_secret, made_path, made_secret, needs_secret, open_secret
from flowserver.vault import Vault
from flowserver.workflows import Workflows
from nodes.hooks import LONGEST_PATH, Hook, wrong_with_secret

_QUERIES = sql.queries("webhooks")
_CALLED = _QUERIES["called"]
_GET = _QUERIES["get_webhook"]
_LIST = _QUERIES["list_webhooks"]
_INSERT = _QUERIES["insert_webhook"]
_CHANGE = _QUERIES["change_webhook"]
_DELETE = _QUERIES["delete_webhook"]
_EXPIRE = _QUERIES["expire_secrets"]

OVERLAP = 24 * 3600.0
"""Seconds for which an old secret counts beside a new one, if nobody says otherwise."""

_IN_CREDENTIAL = ("secret", "password", "token", "api_key", "access_token", "value", "header_value")


class SecretView(msgspec.Struct, frozen=True):
    """That there is a secret; what it is, is told once."""

    id: UUID
    created_at: datetime
    expires_at: datetime | None
    """Until when it counts beside a newer one."""


class WebhookView(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook as clients see it."""

    id: UUID
    workflow_id: UUID
    step: str | None
    """The trigger that its runs start with."""
    source: Literal["drawing", "api"]
    url: str | None
    """Where the published workflow is called; `None` while nothing of it is published."""
    test_url: str | None
    """Where the workflow is called as it is drawn now; what arrives there, `/webhooks/{id}/listen` shows."""
    is_enabled: bool
    is_live: bool
    """Whether a published version has it."""
    hook: Hook
    secrets: tuple[SecretView, ...]
    created_at: datetime
    updated_at: datetime


class MadeWebhook(WebhookView, frozen=True, kw_only=True):
    """A webhook with the secret that has just been made for it: the one time that it is told."""

    secret: str | None = None


class Called(msgspec.Struct, frozen=True, kw_only=True):
    """The webhook at an address."""

    id: UUID
    org_id: UUID
    workflow_id: UUID
    step: str | None
    hook: Hook
    version: str
    now: datetime
    """The database's clock."""
    sealed: tuple[str, ...]


class Webhooks:
    """Make, read, change and delete webhooks, and find the one at an address."""

    def __init__(
        self, pool: Pool, vault: Vault, credentials: Credentials, workflows: Workflows, public_url: str
    ) -> None:
        """`public_url` is what the addresses begin with, as others reach this server."""
        self._pool = pool
        self._vault = vault
        self._credentials = credentials
        self._workflows = workflows
        self._base = public_url.rstrip("/")

    async def at(self, path: str, *, is_test: bool) -> Called | None:
        """The webhook that answers at an address; `None` where there is none, or none that may answer now."""
        if not path.isprintable() or len(path) > LONGEST_PATH:
            return None  # nobody can have it, and Postgres takes no NUL
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_CALLED, {"path": path, "is_test": is_test})).fetchone()
        return msgspec.convert(row, Called) if row else None

    async def secrets(self, called: Called) -> list[str]:
        """What its callers may prove themselves with, the newest first.

        Raises:
            SecretUnreadable: One that is kept cannot be opened.
        """
        if called.hook.credential_id is None:
            return [open_secret(self._vault, called.id, each) for each in called.sealed]
        try:
            fields, _ = await self._credentials.opened(called.org_id, UUID(called.hook.credential_id))
        except (NotFound, ValueError):
            return []  # nobody is let in
        return [fields[name] for name in _IN_CREDENTIAL if fields.get(name)][:1]

    async def add(
        self, org: UUID, workflow: UUID, step: str | None, hook: Hook, secret: str | None
    ) -> MadeWebhook:
        """Make a webhook that starts a workflow; one that needs a secret and is given none gets one.

        Raises:
            NotFound: There is no such workflow in `org`.
            BadRequest: The workflow has no such trigger, or the secret cannot be used.
            PathTaken: Another webhook has the path.
        """
        await self._must_start(org, workflow, step)
        id, path = new_id(), hook.path or made_path()
        if secret is None and needs_secret(hook):
            secret = made_secret(hook)
        values: dict[str, Any] = {"id": id, "org": org, "workflow": workflow, "step": step, "path": path}
        values["hook"] = Json(msgspec.structs.replace(hook, path=path), dumps=encode)
        async with self._pool.connection() as conn, conn.transaction():
            try:
                if await (await conn.execute(_INSERT, values)).fetchone() is None:
                    raise NotFound("workflow", workflow)
            except UniqueViolation:
                raise PathTaken(path) from None
            if secret is not None:
                must_fit(hook, secret)
                await keep_secret(conn, self._vault, id, secret)
        return MadeWebhook(**msgspec.structs.asdict(await self.get(org, id)), secret=secret)

    async def _must_start(self, org: UUID, workflow: UUID, step: str | None) -> None:
        found = await self._workflows.check(org, (await self._workflows.get(org, workflow)).flow_data)
        if step is not None and found.plan is not None and step not in found.plan.triggers:
            known = ", ".join(found.plan.triggers) or "none"
            raise BadRequest(f"{step!r} is not a trigger of this workflow; its triggers: {known}")

    async def get(self, org: UUID, id: UUID) -> WebhookView:
        """
        Raises:
            NotFound: There is none of this id in `org`.
        """
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_GET, {"org": org, "id": id})).fetchone()
        if row is None:
            raise NotFound("webhook", id)
        return self._view(row)

    async def path(self, org: UUID, id: UUID, *, is_test: bool) -> str | None:
        """What its address ends with.

        Raises:
            NotFound: There is none of this id in `org`.
        """
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_GET, {"org": org, "id": id})).fetchone()
        if row is None:
            raise NotFound("webhook", id)
        return row["test_path" if is_test else "path"]  # type: ignore[no-any-return]

    async def page(
        self, org: UUID, *, workflow: UUID | None, before: UUID | None, limit: int
    ) -> list[WebhookView]:
        """The newest webhooks, or those older than `before`; with `workflow` only its own."""
        values = {"org": org, "workflow": workflow, "before": before, "limit": limit}
        async with self._pool.connection() as conn:
            rows = await (await conn.execute(_LIST, values)).fetchall()
        return [self._view(row) for row in rows]

    async def change(
        self, org: UUID, id: UUID, *, is_enabled: bool | None = None, hook: Hook | None = None
    ) -> WebhookView:
        """Open or close a webhook, or change what one made by the API does.

        Raises:
            NotFound: There is none of this id in `org`.
            DrawnElsewhere: It stands in a drawing, which says what it does.
            PathTaken: Another webhook has the path.
        """
        values: dict[str, Any] = {"org": org, "id": id, "is_enabled": is_enabled, "hook": None, "path": None}
        if hook is not None:
            known = await self.get(org, id)
            path = hook.path or known.hook.path
            values |= {"path": path, "hook": Json(msgspec.structs.replace(hook, path=path), dumps=encode)}
        async with self._pool.connection() as conn:
            try:
                row = await (await conn.execute(_CHANGE, values)).fetchone()
            except UniqueViolation:
                raise PathTaken(str(values["path"])) from None
        found = await self.get(org, id)  # raises NotFound
        if row is None:
            raise DrawnElsewhere("webhook", id)
        return found

    async def delete(self, org: UUID, id: UUID) -> None:
        """Delete a webhook with its deliveries.

        Raises:
            NotFound: There is none of this id in `org`.
            DrawnElsewhere: It stands in a drawing.
        """
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_DELETE, {"org": org, "id": id})).fetchone()
        if row is None:
            await self.get(org, id)  # raises NotFound
            raise DrawnElsewhere("webhook", id)

    async def rotate(
        self, org: UUID, id: UUID, secret: str | None = None, overlap: float = OVERLAP
    ) -> MadeWebhook:
        """Give a webhook another secret: the given one, or one that is made. The old ones count for `overlap`
        seconds more.

        Raises:
            NotFound: There is none of this id in `org`.
            BadRequest: The secret cannot be used, or the webhook takes none.
        """
        found = await self.get(org, id)
        if not needs_secret(found.hook):
            how = "by its credential" if found.hook.credential_id else "without any"
            raise BadRequest(f"this webhook is called {how}, so it has no secret of its own")
        secret = secret or made_secret(found.hook)
        must_fit(found.hook, secret)
        async with self._pool.connection() as conn, conn.transaction():
            await conn.execute(_EXPIRE, {"webhook": id, "overlap": timedelta(seconds=overlap)})
            await keep_secret(conn, self._vault, id, secret)
        return MadeWebhook(**msgspec.structs.asdict(await self.get(org, id)), secret=secret)

    def _view(self, row: DictRow) -> WebhookView:
        urls = {
            "url": f"{self._base}/hooks/{row['path']}" if row["path"] and row["is_live"] else None,
            "test_url": f"{self._base}/hooks-test/{row['test_path']}" if row["test_path"] else None,
            "hook": row["hook"] or {},
        }
        return msgspec.convert({**row, **urls}, WebhookView)


def must_fit(hook: Hook, secret: str) -> None:
    """
    Raises:
        BadRequest: Nobody could prove himself with `secret`, or anybody.
    """
    if wrong := wrong_with_secret(hook.authentication, secret):
        raise BadRequest(wrong)
