"""Tells others that a run has ended: signed, and again until they have taken it.

The messages are those of Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature` over a
JSON body `{type, timestamp, data}`. The statement that ends a run also writes down that it is to be told.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import msgspec
from psycopg.rows import DictRow

import sql
from flowserver.db import Pool, row_of
from flowserver.errors import BadRequest, FlowserverError, NotFound
from flowserver.events import encode
from flowserver.runs import Runs
from flowserver.signatures import sign
from flowserver.starts import Callback
from flowserver.vault import Vault
from flowserver.workflows import json
from nodes.contract import NodeError
from nodes.hooks import wrong_with_secret
from nodes.keys import trimmed

_QUERIES = sql.queries("deliveries")

MOST = 16
"""How many messages are on their way at once."""
TIMEOUT = 15.0
"""Seconds for one attempt."""
LEASE = timedelta(seconds=60)
"""After which a message is tried again whose sender has died."""
PAUSES = (5, 30, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds before the next attempt, as Standard Webhooks advises; after the last one it is given up."""
GONE = 410
"""The status by which a receiver says that he wants no more."""

Status: TypeAlias = Literal["pending", "delivered", "dead"]

logger = logging.getLogger(__name__)


class CallbackView(msgspec.Struct, frozen=True, kw_only=True):
    """A message about a run's end, and what became of it."""

    id: UUID
    run_id: UUID | None
    status: Status
    url: str
    attempts: int
    next_at: datetime | None
    answer_status: int | None
    answer_ms: int | None
    error: dict[str, Any] | None
    at: datetime
    done_at: datetime | None


class Callbacks:
    """The messages of all organisations; every call is within one, but for `look`."""

    def __init__(self, pool: Pool, vault: Vault, http: httpx.AsyncClient, runs: Runs) -> None:
        """`http` reaches public addresses and what the operator allows."""
        self._pool = pool
        self._vault = vault
        self._http = http
        self._runs = runs

    async def callback(self, org: UUID, url: str, secret: str | None) -> Callback:
        """What a new run keeps of who is to be told of its end.

        Raises:
            BadRequest: The URL or the secret cannot be used.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or len(url) > 2000:
            raise BadRequest("a callback's 'url' begins with http:// or https:// and names no user")
        if secret is None:
            await self.secret(org)  # sees to it that there is one
            return Callback(url)
        secret = trimmed(secret)
        if wrong := wrong_with_secret("standard", secret):
            raise BadRequest(wrong)
        return Callback(url, self._vault.seal(secret.encode(), _context(org)))

    async def secret(self, org: UUID) -> str:
        """The secret that messages are signed with whose run has none of its own."""
        values = {"org": org, "sealed": self._vault.seal(_made().encode(), _context(org))}
        async with self._pool.connection() as conn:
            await conn.execute(_QUERIES["first_signing_secret"], values)
        return (await self._secrets(org))[0]

    async def rotate(self, org: UUID) -> str:
        """Another secret; for a day messages are signed with the one before, too."""
        values = {"org": org, "sealed": self._vault.seal(_made().encode(), _context(org))}
        async with self._pool.connection() as conn:
            await conn.execute(_QUERIES["change_signing_secret"], values)
        return (await self._secrets(org))[0]

    async def _secrets(self, org: UUID) -> list[str]:
        async with self._pool.connection() as conn:
            row = row_of(await (await conn.execute(_QUERIES["signing_secrets"], {"org": org})).fetchone())
        sealed = [each for each in (row["signing_secret"], row["old"]) if each]
        return [self._vault.open(each, _context(org)).decode() for each in sealed]

    async def page(
        self, org: UUID, *, run: UUID | None, status: Status | None, before: datetime | None, limit: int
    ) -> list[CallbackView]:
        """The newest messages, or those older than `before`."""
        values = {"org": org, "run": run, "status": status, "before": before, "limit": limit}
        async with self._pool.connection() as conn:
            rows = await (await conn.execute(_QUERIES["list_callbacks"], values)).fetchall()
        return [msgspec.convert(row, CallbackView) for row in rows]

    async def get(self, org: UUID, id: UUID) -> CallbackView:
        """
        Raises:
            NotFound: There is none of this id in `org`.
        """
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_QUERIES["get_callback"], {"org": org, "id": id})).fetchone()
        if row is None:
            raise NotFound("callback", id)
        return msgspec.convert(row, CallbackView)

    async def again(self, org: UUID, id: UUID) -> CallbackView:
        """Send a message that is over once more.

        Raises:
            NotFound: There is none of this id in `org`.
        """
        async with self._pool.connection() as conn:
            await conn.execute(_QUERIES["again"], {"org": org, "id": id})
        return await self.get(org, id)

    async def look(self) -> bool:
        """Send what is due; whether there may be more."""
        async with self._pool.connection() as conn:
            values = {"lease": LEASE, "most": MOST}
            rows = await (await conn.execute(_QUERIES["take_callbacks"], values)).fetchall()
        await asyncio.gather(*(self._deliver(row) for row in rows))
        return len(rows) == MOST

    async def _deliver(self, row: DictRow) -> None:
        began, status, error = time.monotonic(), None, None
        is_final = False
        try:
            status = await self._send(row)
            is_final = status == GONE
            if not 200 <= status < 300:
                error = {"code": "http_status", "message": f"the receiver answered {status}"}
        except NodeError as exc:
            error, is_final = {"code": exc.code, "message": exc.message}, exc.is_final
        except (httpx.HTTPError, TimeoutError) as exc:
            error = {"code": "no_answer", "message": type(exc).__name__}
        except FlowserverError as exc:
            error, is_final = {"code": exc.code, "message": str(exc)}, True
        await self._keep(row, status, error, is_final, round((time.monotonic() - began) * 1000))

    async def _send(self, row: DictRow) -> int:
        run = await self._runs.get(row["org_id"], row["run_id"])
        body = encode({"type": f"run.{run.status}", "timestamp": row["now"], "data": run})
        if row["secret"] is not None:
            signing = [self._vault.open(row["secret"], _context(row["org_id"])).decode()]
        else:
            signing = await self._secrets(row["org_id"])
        headers = {"Content-Type": "application/json", **sign(signing, f"msg_{row['id']}", row["now"], body)}
        async with asyncio.timeout(TIMEOUT):
            async with self._http.stream(
                "POST", row["url"], content=body, headers=headers, follow_redirects=False
            ) as response:
                return response.status_code

    async def _keep(
        self, row: DictRow, status: int | None, error: Mapping[str, Any] | None, is_final: bool, ms: int
    ) -> None:
        is_last = is_final or row["attempts"] > len(PAUSES)
        state: Status = "delivered" if error is None else "dead" if is_last else "pending"
        wait = timedelta(seconds=PAUSES[row["attempts"] - 1]) if state == "pending" else None
        values = {
            "id": row["id"],
            "status": state,
            "wait": wait,
            "answer_status": status,
            "answer_ms": ms,
            "error": json(error) if error else None,
            "attempts": row["attempts"],
        }
        async with self._pool.connection() as conn:
            await conn.execute(_QUERIES["sent"], values)
        if error is not None:
            logger.info("callback %s of run %s: %s, %s", row["id"], row["run_id"], error["message"], state)


def _made() -> str:
    return "whsec_" + b64encode(secrets.token_bytes(32)).decode()


def _context(org: UUID) -> str:
    return f"callback:{org}"
