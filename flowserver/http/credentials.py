"""`/credentials`: keep, list, change, delete. What is in one never comes back."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from flowserver.credentials import Credential, Credentials
from flowserver.http.bodies import MAX_PAGE, Body, Page, cursor


class SaveCredential(Body, frozen=True, kw_only=True):
    """A new credential."""

    name: str
    data: dict[str, Any]
    """Its secrets by name: texts; numbers, true and false are taken as texts."""
    service_type: str | None = None
    """`openai`, `postgresql_vectorstore` …; left out, it is told by the fields."""
    hosts: tuple[str, ...] = ()
    """The only hosts that its secrets may be sent to, as `api.example.com` or `*.example.com`."""


class ChangeCredential(Body, frozen=True, kw_only=True):
    """What is to become different; what is left out stays."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    service_type: str | msgspec.UnsetType = msgspec.UNSET
    data: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    """Fields to set; null removes one."""
    hosts: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class CredentialController(Controller):
    path = "/credentials"
    tags = ("Credentials",)

    @post()
    async def save(
        self,
        data: JSONBody[SaveCredential],
        org: NamedDependency[UUID],
        credentials: NamedDependency[Credentials],
    ) -> Response[Credential]:
        """Keep a new credential, sealed; from now on only its fields' names are told."""
        made = await credentials.add(org, data.name, data.data, data.service_type, data.hosts)
        return Response(made, status_code=201, headers={"Location": f"/api/v1/credentials/{made.id}"})

    @get()
    async def page(
        self,
        org: NamedDependency[UUID],
        credentials: NamedDependency[Credentials],
        name: Annotated[str | None, QueryParameter(description="Only the one of this name.")] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str | None, QueryParameter(name="cursor")] = None,
    ) -> Page[Credential]:
        """Credentials, newest first."""
        items = await credentials.page(org, before=cursor(after), limit=limit + 1, name=name)
        return Page(items[:limit], str(items[limit - 1].id) if len(items) > limit else None)

    @get("/{id:uuid}")
    async def read(
        self, id: FromPath[UUID], org: NamedDependency[UUID], credentials: NamedDependency[Credentials]
    ) -> Credential:
        """A credential without its secrets."""
        return await credentials.get(org, id)

    @patch("/{id:uuid}")
    async def change(
        self,
        id: FromPath[UUID],
        data: JSONBody[ChangeCredential],
        org: NamedDependency[UUID],
        credentials: NamedDependency[Credentials],
    ) -> Credential:
        """Change what is given; runs use it from their next step on."""
        given = {
            name: value for name, value in msgspec.structs.asdict(data).items() if value is not msgspec.UNSET
        }
        return await credentials.change(org, id, **given)

    @delete("/{id:uuid}")
    async def delete(
        self, id: FromPath[UUID], org: NamedDependency[UUID], credentials: NamedDependency[Credentials]
    ) -> None:
        """Delete a credential; steps that name it fail from now on."""
        await credentials.delete(org, id)
