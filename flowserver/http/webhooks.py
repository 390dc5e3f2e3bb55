"""`/webhooks`: make, read, change, delete, and see what has arrived."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.response import Stream

from flowserver.events import encode
from flowserver.feeds import Feeds
from flowserver.http.bodies import MAX_PAGE, Body, Page, cursor
from flowserver.http.streams import HEADERS, QUIET, RETRY
from flowserver.ledger import DeliveryView, Ledger, Statistics, Status, WholeDelivery
from flowserver.receiving import Receiver
from flowserver.webhooks import OVERLAP, MadeWebhook, Webhooks, WebhookView
from nodes.hooks import Hook

POLL = 2.0
"""Seconds between two looks for arrivals of which nobody has told."""
_LATE = timedelta(seconds=10)


class MakeWebhook(Body, frozen=True, kw_only=True):
    """A new webhook."""

    workflow_id: UUID
    step: str | None = None
    """The trigger that its runs start with; else the StartNode, or the first trigger."""
    hook: Hook = Hook()
    secret: str | None = None
    """What callers prove themselves with; left out, one is made where it is needed."""


class ChangeWebhook(Body, frozen=True, kw_only=True):
    """What is to become different; what is left out stays."""

    is_enabled: bool | msgspec.UnsetType = msgspec.UNSET
    hook: Hook | msgspec.UnsetType = msgspec.UNSET
    """For one made by the API: how it behaves, as a whole."""


class RotateSecret(Body, frozen=True, kw_only=True):
    """Another secret for a webhook."""

    secret: str | None = None
    """The one that the provider has made; left out, the server makes one."""
    overlap_seconds: Annotated[float, msgspec.Meta(ge=0, le=30 * 86_400)] = OVERLAP
    """For how long the old ones still count."""


class WebhookController(Controller):
    path = "/webhooks"
    tags = ("Webhooks",)

    @post()
    async def make(
        self, data: JSONBody[MakeWebhook], org: NamedDependency[UUID], webhooks: NamedDependency[Webhooks]
    ) -> Response[MadeWebhook]:
        """Make a webhook that starts a workflow, once that is published. Its secret is told this once."""
        made = await webhooks.add(org, data.workflow_id, data.step, data.hook, data.secret)
        return Response(made, status_code=201, headers={"Location": f"/api/v1/webhooks/{made.id}"})

    @get()
    async def page(
        self,
        org: NamedDependency[UUID],
        webhooks: NamedDependency[Webhooks],
        workflow_id: Annotated[UUID | None, QueryParameter()] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str | None, QueryParameter(name="cursor")] = None,
    ) -> Page[WebhookView]:
        """Webhooks, newest first: those of drawings, and those made here."""
        items = await webhooks.page(org, workflow=workflow_id, before=cursor(after), limit=limit + 1)
        return Page(items[:limit], str(items[limit - 1].id) if len(items) > limit else None)

    @get("/{id:uuid}")
    async def read(
        self, id: FromPath[UUID], org: NamedDependency[UUID], webhooks: NamedDependency[Webhooks]
    ) -> WebhookView:
        """A webhook with its addresses."""
        return await webhooks.get(org, id)

    @patch("/{id:uuid}")
    async def change(
        self,
        id: FromPath[UUID],
        data: JSONBody[ChangeWebhook],
        org: NamedDependency[UUID],
        webhooks: NamedDependency[Webhooks],
    ) -> WebhookView:
        """Open or close a webhook; what one of a drawing does is changed in the drawing."""
        return await webhooks.change(
            org,
            id,
            is_enabled=None if data.is_enabled is msgspec.UNSET else data.is_enabled,
            hook=None if data.hook is msgspec.UNSET else data.hook,
        )

    @delete("/{id:uuid}")
    async def delete(
        self, id: FromPath[UUID], org: NamedDependency[UUID], webhooks: NamedDependency[Webhooks]
    ) -> None:
        """Delete a webhook with its deliveries; one of a drawing goes with its box."""
        await webhooks.delete(org, id)

    @post("/{id:uuid}/secrets/rotate", status_code=200)
    async def rotate(
        self,
        id: FromPath[UUID],
        data: JSONBody[RotateSecret],
        org: NamedDependency[UUID],
        webhooks: NamedDependency[Webhooks],
    ) -> MadeWebhook:
        """Another secret, told this once; the old ones count for some time beside it."""
        return await webhooks.rotate(org, id, data.secret, data.overlap_seconds)

    @get("/{id:uuid}/statistics")
    async def statistics(
        self,
        id: FromPath[UUID],
        org: NamedDependency[UUID],
        webhooks: NamedDependency[Webhooks],
        ledger: NamedDependency[Ledger],
    ) -> Statistics:
        """What has come in, and what became of it."""
        await webhooks.get(org, id)
        return await ledger.statistics(org, id)

    @get("/{id:uuid}/deliveries")
    async def deliveries(
        self,
        id: FromPath[UUID],
        org: NamedDependency[UUID],
        webhooks: NamedDependency[Webhooks],
        ledger: NamedDependency[Ledger],
        status: Annotated[Status | None, QueryParameter()] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str | None, QueryParameter(name="cursor")] = None,
    ) -> Page[DeliveryView]:
        """What has arrived, newest first; `?status=dead` for what could start no run."""
        await webhooks.get(org, id)
        items = await ledger.page(org, id, status=status, before=cursor(after), limit=limit + 1)
        return Page(items[:limit], str(items[limit - 1].id) if len(items) > limit else None)

    @get("/{id:uuid}/deliveries/{delivery:uuid}")
    async def delivery(
        self,
        id: FromPath[UUID],
        delivery: FromPath[UUID],
        org: NamedDependency[UUID],
        ledger: NamedDependency[Ledger],
    ) -> WholeDelivery:
        """A delivery with its body."""
        return await ledger.get(org, id, delivery)

    @post("/{id:uuid}/deliveries/{delivery:uuid}/redeliver", status_code=202)
    async def redeliver(
        self,
        id: FromPath[UUID],
        delivery: FromPath[UUID],
        org: NamedDependency[UUID],
        receiver: NamedDependency[Receiver],
        ledger: NamedDependency[Ledger],
    ) -> Response[WholeDelivery]:
        """Deliver it again: another run."""
        again = await receiver.again(org, id, delivery)
        where = {"Location": f"/api/v1/runs/{again.started.id}"}
        found = await ledger.get(org, id, again.delivery.id)
        return Response(found, status_code=202, headers=where)

    @get("/{id:uuid}/listen")
    async def listen(
        self,
        id: FromPath[UUID],
        org: NamedDependency[UUID],
        webhooks: NamedDependency[Webhooks],
        receiver: NamedDependency[Receiver],
        feeds: NamedDependency[Feeds],
    ) -> Stream:
        """What arrives at the test address from now on, as server-sent events."""
        await webhooks.get(org, id)
        frames = _heard(id, receiver, feeds)
        return Stream(frames, media_type="text/event-stream", headers=HEADERS)


async def _heard(webhook: UUID, receiver: Receiver, feeds: Feeds) -> AsyncGenerator[bytes]:
    """A frame for each arrival. Two of them may be committed in another order than they came in."""
    since, seen = (
        datetime.now(UTC),
        {row["id"] for row in await receiver.heard(webhook, datetime.now(UTC) - _LATE)},
    )
    yield RETRY
    with feeds.join(webhook) as feed:
        while not feeds.closed:
            changed = feed.signal()
            rows = await receiver.heard(webhook, since - _LATE)
            new = [row for row in rows if row["id"] not in seen]
            seen |= {row["id"] for row in rows}
            since = max([since, *(row["at"] for row in rows)])
            for row in new:
                yield b"id: %b\nevent: delivery\ndata: %b\n\n" % (str(row["id"]).encode(), encode(_told(row)))
            if not new:
                yield QUIET
            try:
                async with asyncio.timeout(POLL):
                    await changed.wait()
            except TimeoutError:
                continue


def _told(row: dict[str, Any]) -> dict[str, Any]:
    body = bytes(row["body"] or b"").decode("utf-8", "replace")
    return {**row, "body": body or None}
