"""`/organisation`: what counts for all workflows of an organisation."""

from __future__ import annotations

from uuid import UUID

import msgspec
from litestar import Controller, get, patch
from litestar.di import NamedDependency
from litestar.params import JSONBody

from flowserver.db import Pool
from flowserver.failures import error_workflow, set_error_workflow
from flowserver.http.bodies import Body


class Organisation(msgspec.Struct, frozen=True):
    id: UUID
    error_workflow: UUID | None
    """The workflow that runs when one fails that names none."""


class ChangeOrganisation(Body, frozen=True, kw_only=True):
    error_workflow: UUID | msgspec.UnsetType | None = msgspec.UNSET


class OrganisationController(Controller):
    path = "/organisation"
    tags = ("Organisation",)

    @get()
    async def read(self, org: NamedDependency[UUID], pool: NamedDependency[Pool]) -> Organisation:
        """The caller's organisation."""
        return Organisation(org, await error_workflow(pool, org))

    @patch()
    async def change(
        self, data: JSONBody[ChangeOrganisation], org: NamedDependency[UUID], pool: NamedDependency[Pool]
    ) -> Organisation:
        """Change what is given."""
        if data.error_workflow is not msgspec.UNSET:
            await set_error_workflow(pool, org, data.error_workflow)
        return Organisation(org, await error_workflow(pool, org))
