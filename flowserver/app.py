"""The HTTP application."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from litestar import Litestar, Request, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.middleware import DefineMiddleware
from litestar.openapi import OpenAPIConfig

from flowserver.assembly import Flowserver, Role, assemble
from flowserver.callbacks import Callbacks
from flowserver.collections import Collections
from flowserver.credentials import Credentials
from flowserver.db import Pool
from flowserver.feeds import Feeds
from flowserver.files import FileStore
from flowserver.http.access import PUBLIC, KeyMiddleware
from flowserver.http.callbacks import CallbackController
from flowserver.http.collections import CollectionController
from flowserver.http.credentials import CredentialController
from flowserver.http.editor import execute
from flowserver.http.files import FileController
from flowserver.http.health import live, ready
from flowserver.http.hooks import call, call_test
from flowserver.http.metrics import metrics as read_metrics
from flowserver.http.nodes import NodeController
from flowserver.http.organisation import OrganisationController
from flowserver.http.problems import HANDLERS
from flowserver.http.requests import Requests
from flowserver.http.runs import RunController, StartController
from flowserver.http.schedules import ScheduleController
from flowserver.http.webhooks import WebhookController
from flowserver.http.workflows import WorkflowController
from flowserver.ledger import Ledger
from flowserver.metrics import Metrics
from flowserver.receiving import Receiver
from flowserver.runs import Runs
from flowserver.schedules import Schedules
from flowserver.settings import Settings
from flowserver.vectors import OrgVectors
from flowserver.webhooks import Webhooks
from flowserver.workflows import Workflows
from graphs.compile import Compiler
from nodes.catalogue import Catalogue

VERSION = "0.1.0"

_MOST_AROUND_A_FILE = 100_000
"""Bytes that a form may have beside the file in it."""


def create_app(settings: Settings, dsn: str, *, role: Role = "worker") -> Litestar:
    """The application on the database at `dsn`; it connects when it is started."""

    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        async with assemble(settings, dsn, role=role, metrics=metrics) as flowserver:
            app.state.flowserver = flowserver
            yield

    most_upload = int(settings.max_upload_mb * 1_000_000)
    files = Router(
        "/", route_handlers=[FileController], request_max_body_size=most_upload + _MOST_AROUND_A_FILE
    )
    api = Router(
        "/api/v1",
        route_handlers=[
            WorkflowController,
            StartController,
            RunController,
            NodeController,
            CredentialController,
            WebhookController,
            ScheduleController,
            CallbackController,
            OrganisationController,
            CollectionController,
            files,
            execute,
        ],
        dependencies={
            "org": Provide(_org, sync_to_thread=False),
            "compiler": Provide(_compiler, sync_to_thread=False),
            "catalogue": Provide(_catalogue, sync_to_thread=False),
            "workflows": Provide(_workflows, sync_to_thread=False),
            "credentials": Provide(_credentials, sync_to_thread=False),
            "runs": Provide(_runs, sync_to_thread=False),
            "collections": Provide(_collections, sync_to_thread=False),
            "vectors": Provide(_vectors, sync_to_thread=False),
            "webhooks": Provide(_webhooks, sync_to_thread=False),
            "ledger": Provide(_ledger, sync_to_thread=False),
            "receiver": Provide(_receiver, sync_to_thread=False),
            "schedules": Provide(_schedules, sync_to_thread=False),
            "callbacks": Provide(_callbacks, sync_to_thread=False),
            "feeds": Provide(_feeds, sync_to_thread=False),
            "pool": Provide(_pool, sync_to_thread=False),
            "files": Provide(_files, sync_to_thread=False),
            "most_upload": Provide(lambda: most_upload, sync_to_thread=False),
        },
    )
    app = Litestar(
        [api, call, call_test, live, ready, read_metrics],
        lifespan=[lifespan],
        middleware=[DefineMiddleware(KeyMiddleware, exclude=list(PUBLIC))],
        exception_handlers=dict(HANDLERS),
        openapi_config=OpenAPIConfig(title="flowserver", version=VERSION),
        request_max_body_size=settings.max_body_bytes,
        logging_config=None,
        debug=False,
    )
    # Around all of it: a middleware of Litestar's would not see a request that fits no route.
    app.asgi_handler = Requests(app.asgi_handler, metrics)
    return app


def create_status_app(flowserver: Flowserver) -> Litestar:
    """What a process without the API answers: how it is."""
    return Litestar(
        [live, ready, read_metrics],
        state=State({"flowserver": flowserver}),
        exception_handlers=dict(HANDLERS),
        openapi_config=None,
        logging_config=None,
        debug=False,
    )


def _org(request: Request[UUID, None, Any]) -> UUID:
    return request.user


def _compiler(state: State) -> Compiler:
    return state.flowserver.compiler  # type: ignore[no-any-return]


def _catalogue(state: State) -> Catalogue:
    return state.flowserver.catalogue  # type: ignore[no-any-return]


def _workflows(state: State) -> Workflows:
    return state.flowserver.workflows  # type: ignore[no-any-return]


def _credentials(state: State) -> Credentials:
    return state.flowserver.credentials  # type: ignore[no-any-return]


def _runs(state: State) -> Runs:
    return state.flowserver.runs  # type: ignore[no-any-return]


def _collections(state: State) -> Collections:
    return state.flowserver.collections  # type: ignore[no-any-return]


def _vectors(request: Request[UUID, None, Any], state: State) -> OrgVectors:
    return OrgVectors(state.flowserver.pool, request.user)


def _webhooks(state: State) -> Webhooks:
    return state.flowserver.webhooks  # type: ignore[no-any-return]


def _ledger(state: State) -> Ledger:
    return state.flowserver.ledger  # type: ignore[no-any-return]


def _receiver(state: State) -> Receiver:
    return state.flowserver.receiver  # type: ignore[no-any-return]


def _schedules(state: State) -> Schedules:
    return state.flowserver.schedules  # type: ignore[no-any-return]


def _callbacks(state: State) -> Callbacks:
    return state.flowserver.callbacks  # type: ignore[no-any-return]


def _feeds(state: State) -> Feeds:
    return state.flowserver.feeds  # type: ignore[no-any-return]


def _pool(state: State) -> Pool:
    return state.flowserver.pool  # type: ignore[no-any-return]


def _files(state: State) -> FileStore:
    return state.flowserver.files  # type: ignore[no-any-return]
