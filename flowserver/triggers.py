"""Keeps webhooks and schedules in step with the drawings that say them."""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg.types.json import Json

import sql
from flowserver.arming import arm
from flowserver.db import row_of
from flowserver.errors import BadRequest, NoEncryptionKey, PathTaken
from flowserver.events import encode
from flowserver.ids import new_id
from flowserver.vault import Vault
from graphs.triggers import DrawnHook, triggers_of
from nodes.hooks import Hook
from nodes.registry import Registry

_HOOKS = sql.queries("webhooks")
_SCHEDULES = sql.queries("schedules")

LONGEST_STEP = 500
"""Characters that the id of a trigger may have: what starts runs is found by it, in an index."""


class Triggers:
    """What the drawings of all organisations want to be started by. Every call is within a transaction."""

    def __init__(self, registry: Registry, vault: Vault) -> None:
        self._registry = registry
        self._vault = vault

    async def drawn(
        self, conn: AsyncConnection[DictRow], org: UUID, workflow: UUID, flow_data: Any
    ) -> list[tuple[str, str]]:
        """Give the webhooks of a drawing that is saved their test addresses.

        Returns the steps whose path is another webhook's, with it: they have none.
        """
        hooks = [each for each in triggers_of(flow_data, self._registry)[0] if _is_storable(each.step)]
        steps = [each.step for each in hooks]
        await conn.execute(_HOOKS["forget_drafts"], {"workflow": workflow, "steps": steps})
        for each in hooks:
            row = await conn.execute(_HOOKS["draft_hook"], _hook_row(org, workflow, each))
            await self._keep_draft_secret(conn, row_of(await row.fetchone())["id"], each)
        return await self.pathless(conn, workflow) if hooks else []

    async def pathless(self, conn: AsyncConnection[DictRow], workflow: UUID) -> list[tuple[str, str]]:
        """The steps of a drawing whose webhook has no address, as its path is another one's; with it."""
        rows = await (await conn.execute(_HOOKS["pathless_drafts"], {"workflow": workflow})).fetchall()
        return [(row["step"], row["path"]) for row in rows]

    async def published(
        self, conn: AsyncConnection[DictRow], org: UUID, workflow: UUID, flow_data: Any
    ) -> None:
        """Open the webhooks and arm the schedules of a version that is published.

        Raises:
            PathTaken: A path is another webhook's.
            BadRequest: The id of a trigger cannot be stored.
        """
        hooks, timings = triggers_of(flow_data, self._registry)
        for step in (*(each.step for each in hooks), *(each.step for each in timings)):
            if not _is_storable(step):
                raise BadRequest(
                    f"the id {step[:100]!r} of a trigger has {len(step):,} characters; "
                    f"it may have {LONGEST_STEP}, and no U+0000"
                )
        steps = [each.step for each in hooks]
        await conn.execute(_HOOKS["forget_live"], {"workflow": workflow, "steps": steps})
        for each in hooks:
            values = _hook_row(org, workflow, each)
            await self._refuse_taken(conn, workflow, each)
            row = await conn.execute(_HOOKS["live_hook"], values)
            await self._keep_secret(conn, row_of(await row.fetchone())["id"], each)
        steps = [each.step for each in timings]
        await conn.execute(_SCHEDULES["forget_schedules"], {"workflow": workflow, "steps": steps})
        for timing in timings:
            values = {
                "id": new_id(),
                "org": org,
                "workflow": workflow,
                "step": timing.step,
                "name": timing.name.replace("\x00", "\ufffd")[:LONGEST_STEP],
                "timing": Json(timing.timing, dumps=encode),
                "input": None if timing.input is None else Json(timing.input, dumps=encode),
            }
            await conn.execute(_SCHEDULES["live_schedule"], values)
        await _arm_all(conn, workflow)

    async def withdrawn(self, conn: AsyncConnection[DictRow], workflow: UUID) -> None:
        """Close the webhooks and disarm the schedules of a workflow that is published no more."""
        nothing: Sequence[str] = []
        await conn.execute(_HOOKS["forget_live"], {"workflow": workflow, "steps": nothing})
        await conn.execute(_SCHEDULES["forget_schedules"], {"workflow": workflow, "steps": nothing})
        await _arm_all(conn, workflow)

    async def _refuse_taken(self, conn: AsyncConnection[DictRow], workflow: UUID, drawn: DrawnHook) -> None:
        """A path that stands in another drawing's draft is taken, too: whoever came first has it."""
        if drawn.hook.path is None:
            return
        values = {"path": drawn.hook.path, "workflow": workflow, "step": drawn.step}
        row = await conn.execute(_HOOKS["taken_path"], values)
        if row_of(await row.fetchone())["taken"]:
            raise PathTaken(drawn.hook.path, drawn.step)

    async def _keep_secret(self, conn: AsyncConnection[DictRow], webhook: UUID, drawn: DrawnHook) -> None:
        """Keep the secret that is drawn; where one is needed and there is none, make one."""
        if drawn.secret is not None:
            rows = await (await conn.execute(_HOOKS["drawn_secrets"], {"webhook": webhook})).fetchall()
            kept = [row for row in rows if open_secret(self._vault, webhook, row["sealed"]) == drawn.secret]
            gone = [row["id"] for row in rows if row not in kept]
            await conn.execute(_HOOKS["delete_secrets"], {"ids": gone})
            if not kept:
                await keep_secret(conn, self._vault, webhook, drawn.secret, is_drawn=True)
        elif needs_secret(drawn.hook):
            row = await conn.execute(_HOOKS["count_secrets"], {"webhook": webhook})
            if not row_of(await row.fetchone())["secrets"]:
                await keep_secret(conn, self._vault, webhook, made_secret(drawn.hook))

    async def _keep_draft_secret(
        self, conn: AsyncConnection[DictRow], webhook: UUID, drawn: DrawnHook
    ) -> None:
        """A drawing can be saved where no secret can be kept; its test address then lets nobody in."""
        with suppress(NoEncryptionKey):
            await self._keep_secret(conn, webhook, drawn)


async def _arm_all(conn: AsyncConnection[DictRow], workflow: UUID) -> None:
    rows = await (await conn.execute(_SCHEDULES["of_workflow"], {"workflow": workflow})).fetchall()
    for row in rows:
        await arm(conn, row)


def _is_storable(step: str) -> bool:
    return len(step) <= LONGEST_STEP and "\x00" not in step


def _hook_row(org: UUID, workflow: UUID, drawn: DrawnHook) -> dict[str, Any]:
    return {
        "id": new_id(),
        "org": org,
        "workflow": workflow,
        "step": drawn.step,
        "hook": Json(drawn.hook, dumps=encode),
        "path": drawn.hook.path,
        "made_path": made_path(),
    }


def made_path() -> str:
    """A path that nobody guesses."""
    return secrets.token_urlsafe(16)


def needs_secret(hook: Hook) -> bool:
    return hook.authentication != "none" and hook.credential_id is None


def made_secret(hook: Hook) -> str:
    """A secret of the kind that the webhook's callers use."""
    if hook.authentication == "standard":
        return "whsec_" + b64encode(secrets.token_bytes(24)).decode()
    return secrets.token_urlsafe(32)


async def keep_secret(
    conn: AsyncConnection[DictRow], vault: Vault, webhook: UUID, secret: str, *, is_drawn: bool = False
) -> None:
    sealed = vault.seal(secret.encode(), _context(webhook))
    values = {"id": new_id(), "webhook": webhook, "sealed": sealed, "is_drawn": is_drawn}
    await conn.execute(_HOOKS["insert_secret"], values)


def open_secret(vault: Vault, webhook: UUID, sealed: str) -> str:
    return vault.open(sealed, _context(webhook)).decode()


def _context(webhook: UUID) -> str:
    return f"webhook:{webhook}"
