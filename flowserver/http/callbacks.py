"""`/callbacks`: the messages about runs' ends, and the secret that they are signed with."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from flowserver.callbacks import Callbacks, CallbackView, Status
from flowserver.http.bodies import MAX_PAGE, Page, moment


class SigningSecret(msgspec.Struct, frozen=True):
    """What a receiver checks the messages with, as Standard Webhooks says."""

    secret: str


class CallbackController(Controller):
    path = "/callbacks"
    tags = ("Callbacks",)

    @get()
    async def page(
        self,
        org: NamedDependency[UUID],
        callbacks: NamedDependency[Callbacks],
        run_id: Annotated[UUID | None, QueryParameter()] = None,
        status: Annotated[Status | None, QueryParameter()] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str | None, QueryParameter(name="cursor")] = None,
    ) -> Page[CallbackView]:
        """Messages, newest first; `?status=dead` for those that nobody has taken."""
        items = await callbacks.page(org, run=run_id, status=status, before=moment(after), limit=limit + 1)
        return Page(items[:limit], items[limit - 1].at.isoformat() if len(items) > limit else None)

    @get("/secret")
    async def secret(
        self, org: NamedDependency[UUID], callbacks: NamedDependency[Callbacks]
    ) -> SigningSecret:
        """The secret that messages are signed with whose run names none."""
        return SigningSecret(await callbacks.secret(org))

    @post("/secret/rotate", status_code=200)
    async def rotate(
        self, org: NamedDependency[UUID], callbacks: NamedDependency[Callbacks]
    ) -> SigningSecret:
        """Another one; for a day messages carry a signature of both."""
        return SigningSecret(await callbacks.rotate(org))

    @get("/{id:uuid}")
    async def read(
        self, id: FromPath[UUID], org: NamedDependency[UUID], callbacks: NamedDependency[Callbacks]
    ) -> CallbackView:
        """A message, and what became of it."""
        return await callbacks.get(org, id)

    @post("/{id:uuid}/redeliver", status_code=202)
    async def redeliver(
        self, id: FromPath[UUID], org: NamedDependency[UUID], callbacks: NamedDependency[Callbacks]
    ) -> CallbackView:
        """Send it once more."""
        return await callbacks.again(org, id)
