"""`/nodes`: the catalogue of node types, and one node checked or tried by itself."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from flowserver.callbacks import Callbacks
from flowserver.errors import BadRequest, NotFound
from flowserver.http.bodies import CheckedNode, CheckNode, Page, TryNode
from flowserver.http.runs import IdempotencyKey, Timeout, callback_of, key_of, start_of, started
from flowserver.runs import Runs
from flowserver.workflows import Workflows
from graphs.alone import CannotRunAlone, Trial, alone, check_alone, told
from graphs.problems import InvalidWorkflow
from nodes.catalogue import Catalogue, Category, Entry, Found
from nodes.contract import NodeType

MAX_FOUND = 50

IfNoneMatch = Annotated[
    str | None, HeaderParameter(name="If-None-Match", description="The ETag of what the client has.")
]


class NodeController(Controller):
    path = "/nodes"
    tags = ("Nodes",)

    @get()
    async def page(
        self, catalogue: NamedDependency[Catalogue], if_none_match: IfNoneMatch = None
    ) -> Response[Page[Entry]]:
        """Every node type: ports, settings as JSON Schema, examples."""
        headers = {"ETag": f'"{catalogue.tag}"', "Cache-Control": "private, no-cache"}
        if _has(if_none_match, catalogue.tag):
            return Response(None, status_code=304, headers=headers)  # type: ignore[arg-type]
        body: Any = b'{"items":%b,"next":null}' % catalogue.encoded
        return Response(body, media_type="application/json", headers=headers)

    @get("/categories")
    async def categories(self, catalogue: NamedDependency[Catalogue]) -> Page[Category]:
        """The shelves of the palette, with the names of the types on each."""
        return Page(list(catalogue.categories), None)

    @get("/search")
    async def search(
        self,
        catalogue: NamedDependency[Catalogue],
        text: Annotated[str, QueryParameter(name="q", max_length=200, description="Some words.")],
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_FOUND)] = 20,
    ) -> Page[Found]:
        """Node types that fit some words, best first."""
        return Page(catalogue.search(text)[:limit], None)

    @get("/{type:str}")
    async def read(self, type: FromPath[str], catalogue: NamedDependency[Catalogue]) -> Entry:
        """A node type, also by a name of older drawings."""
        found = catalogue.get(type)
        if found is None:
            raise _unknown(type, catalogue)
        return found

    @post("/{type:str}/check", status_code=200)
    async def check(
        self, type: FromPath[str], data: JSONBody[CheckNode], catalogue: NamedDependency[Catalogue]
    ) -> CheckedNode:
        """Name every mistake in the settings of one node."""
        return CheckedNode(check_alone(_type(type, catalogue), data.config))

    @post("/{type:str}/try", status_code=200)
    async def try_alone(
        self,
        type: FromPath[str],
        data: JSONBody[TryNode],
        request: Request[UUID, None, Any],
        org: NamedDependency[UUID],
        catalogue: NamedDependency[Catalogue],
        workflows: NamedDependency[Workflows],
        runs: NamedDependency[Runs],
        callbacks: NamedDependency[Callbacks],
        timeout: Timeout = 60,  # noqa: ASYNC109  the name that callers write
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Any]:
        """Run one node by itself, on given values: a run like any other, with journal and limits."""
        trial = Trial(data.config, data.inputs, data.bindings, data.steps, data.vars)
        try:
            flow_data = alone(_type(type, catalogue), trial)
            compiled, whole = await workflows.drawn(org, flow_data)
        except CannotRunAlone as exc:
            raise BadRequest(str(exc)) from None
        except InvalidWorkflow as exc:
            raise InvalidWorkflow(told(exc.problems)) from None
        key = await key_of(request, idempotency_key)
        start = start_of(
            request,
            data,
            compiled,
            flow_data=whole,
            once=key,
            callback=await callback_of(callbacks, org, data),
            kind="try",
        )
        return await started(request, runs, org, start, data, timeout)


def _type(name: str, catalogue: Catalogue) -> NodeType:
    found = catalogue.registry.find(name)
    if found is None:
        raise _unknown(name, catalogue)
    return found


def _unknown(name: str, catalogue: Catalogue) -> NotFound:
    near = catalogue.near(name)
    return NotFound("node type", f"{name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))


def _has(if_none_match: str | None, tag: str) -> bool:
    """Whether a client has what the tag stands for (RFC 9110, weak comparison)."""
    tags = [each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")]
    return "*" in tags or f'"{tag}"' in tags
