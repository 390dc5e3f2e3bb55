"""`/workflows`: check, save, read, change, delete."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from flowserver.errors import BadRequest, TooMany
from flowserver.http.bodies import (
    MAX_PAGE,
    MAX_SKIP,
    ChangeWorkflow,
    Checked,
    CheckWorkflow,
    Page,
    PublishWorkflow,
    SaveWorkflow,
    cursor,
    moment,
)
from flowserver.runs import Runs
from flowserver.threads import Threads
from flowserver.workflows import Version, Workflow, WorkflowEntry, Workflows
from graphs import compile
from graphs.mermaid import mermaid
from graphs.picture import Mark
from graphs.summary import summary
from graphs.svg import svg

_DRAWING = Threads(2)
_SECONDS = 20
IfMatch = Annotated[str | None, HeaderParameter(name="If-Match", description="The ETag that was read.")]


class WorkflowController(Controller):
    path = "/workflows"
    tags = ("Workflows",)

    @post("/check", status_code=200)
    async def check(
        self,
        data: JSONBody[CheckWorkflow],
        org: NamedDependency[UUID],
        workflows: NamedDependency[Workflows],
    ) -> Checked:
        """Name every mistake of a drawing, and say what it would do; nothing is saved or run."""
        return _checked(await workflows.check(org, data.flow_data))

    @post()
    async def save(
        self,
        data: JSONBody[SaveWorkflow],
        org: NamedDependency[UUID],
        workflows: NamedDependency[Workflows],
    ) -> Response[Workflow]:
        """Save a new workflow; one with errors can be saved, but not run."""
        made = await workflows.add(org, _name(data.name), data.description, data.flow_data)
        return _tagged(made, 201, {"Location": f"/api/v1/workflows/{made.id}"})

    @get()
    async def page(
        self,
        org: NamedDependency[UUID],
        workflows: NamedDependency[Workflows],
        name: Annotated[str | None, QueryParameter(description="Only workflows of this name.")] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str | None, QueryParameter(name="cursor")] = None,
        skip: Annotated[int, QueryParameter(ge=0, le=MAX_SKIP, description="How many to leave out.")] = 0,
    ) -> Page[WorkflowEntry]:
        """Saved workflows, newest first, without their drawings; editors count pages by `skip`."""
        items = await workflows.page(org, before=cursor(after), limit=limit + 1, name=name, skip=skip)
        return Page(items[:limit], str(items[limit - 1].id) if len(items) > limit else None)

    @get("/{id:uuid}")
    async def read(
        self, id: FromPath[UUID], org: NamedDependency[UUID], workflows: NamedDependency[Workflows]
    ) -> Response[Workflow]:
        """A workflow with its drawing, as it was sent, and its problems."""
        return _tagged(await workflows.get(org, id))

    @get("/{id:uuid}/plan")
    async def plan(
        self, id: FromPath[UUID], org: NamedDependency[UUID], workflows: NamedDependency[Workflows]
    ) -> Checked:
        """What a workflow would do: order, loops, model calls, hosts …; or why it cannot run."""
        found = await workflows.get(org, id)
        return _checked(await workflows.check(org, found.flow_data))

    @get("/{id:uuid}/picture")
    async def picture(
        self,
        id: FromPath[UUID],
        org: NamedDependency[UUID],
        workflows: NamedDependency[Workflows],
        runs: NamedDependency[Runs],
        run: Annotated[UUID | None, QueryParameter(description="Colour the steps by this run.")] = None,
        format: Annotated[Literal["svg", "mermaid"], QueryParameter()] = "svg",
    ) -> Response[str]:
        """The drawing as SVG or Mermaid; with `run` as it was then, coloured by what became of each step."""
        marks: Mapping[str, Mark] = {}
        if run is None:
            compiled, _ = await workflows.runnable(org, id)
        else:
            found = await runs.get(org, run)
            if found.workflow_id != id:
                raise BadRequest(f"run {run} is not one of workflow {id}")
            compiled, marks = await workflows.compiled(org, found.version), await runs.marks(org, run)
        draw, kind = (svg, "image/svg+xml") if format == "svg" else (mermaid, "text/vnd.mermaid")
        try:
            text = await _DRAWING.call(_SECONDS, draw, compiled.plan, marks)
        except TimeoutError:
            raise TooMany(f"the picture was not drawn within {_SECONDS} seconds", _SECONDS) from None
        return Response(text, media_type=f"{kind}; charset=utf-8", headers=_AS_PICTURE)

    @post("/{id:uuid}/publish", status_code=200)
    async def publish(
        self,
        id: FromPath[UUID],
        org: NamedDependency[UUID],
        workflows: NamedDependency[Workflows],
        data: JSONBody[PublishWorkflow | None] = None,
    ) -> Response[Workflow]:
        """Let the workflow's triggers start it as it stands, or one of its versions."""
        return _tagged(await workflows.publish(org, id, data.version if data else None))

    @post("/{id:uuid}/unpublish", status_code=200)
    async def unpublish(
        self, id: FromPath[UUID], org: NamedDependency[UUID], workflows: NamedDependency[Workflows]
    ) -> Response[Workflow]:
        """Let no webhook or schedule start it any more; its runs go on."""
        return _tagged(await workflows.unpublish(org, id))

    @get("/{id:uuid}/versions")
    async def versions(
        self,
        id: FromPath[UUID],
        org: NamedDependency[UUID],
        workflows: NamedDependency[Workflows],
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str | None, QueryParameter(name="cursor")] = None,
    ) -> Page[Version]:
        """The versions that a workflow has had, newest first."""
        items = await workflows.versions(org, id, moment(after), limit + 1)
        return Page(items[:limit], items[limit - 1].saved_at.isoformat() if len(items) > limit else None)

    @put("/{id:uuid}")
    async def change(
        self,
        id: FromPath[UUID],
        data: JSONBody[ChangeWorkflow],
        org: NamedDependency[UUID],
        workflows: NamedDependency[Workflows],
        if_match: IfMatch = None,
    ) -> Response[Workflow]:
        """Change what is given; with `If-Match` only if nobody else has in between."""
        changed = await workflows.change(
            org,
            id,
            name=None if data.name is msgspec.UNSET else _name(data.name),
            description=data.description,
            flow_data=None if data.flow_data is msgspec.UNSET else data.flow_data,
            revision=_revision(if_match),
        )
        return _tagged(changed)

    @delete("/{id:uuid}")
    async def delete(
        self,
        id: FromPath[UUID],
        org: NamedDependency[UUID],
        workflows: NamedDependency[Workflows],
        if_match: IfMatch = None,
    ) -> None:
        """Delete a workflow; its runs stay."""
        await workflows.delete(org, id, _revision(if_match))


_AS_PICTURE = {
    # Opened by itself it is a document of ours: nothing that a drawing says may act there.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def _checked(found: compile.Checked) -> Checked:
    return Checked(found.problems, summary(found.plan) if found.plan else None)


def _tagged(
    workflow: Workflow, status: int = 200, headers: dict[str, str] | None = None
) -> Response[Workflow]:
    return Response(
        workflow, status_code=status, headers={"ETag": f'"{workflow.revision}"'} | (headers or {})
    )


def _revision(if_match: str | None) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    found = re.fullmatch(r'(?:W/)?"(\d{1,9})"', if_match.strip())
    if found is None:
        raise BadRequest("'If-Match' must be the ETag of a workflow, such as \"3\", or *")
    return int(found[1])


def _name(name: str) -> str:
    if not 0 < len(name.strip()) <= 200 or "\x00" in name:
        raise BadRequest("'name' must have 1 to 200 characters")
    return name
