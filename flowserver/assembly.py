"""The composition root: everything is made and wired here, and nowhere else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from uuid import UUID

import httpx

from flowserver.accounts import Accounts
from flowserver.census import Census
from flowserver.confined import Confined
from flowserver.db import Pool, make_pool, migrate
from flowserver.dispatcher import Dispatcher
from flowserver.doors import DoorMaker
from flowserver.errors import Unavailable
from flowserver.event_batches import EventBatches
from flowserver.execution import Resources
from flowserver.executor import Executor
from flowserver.feeds import Feeds
from flowserver.files import FilesOf, FileStore
from flowserver.metrics import Metrics
from flowserver.outbound import outbound_client
from flowserver.reconciler import Reconciler
from flowserver.retention import prune
from flowserver.runs import Runs
from flowserver.settings import Settings, secrets
from flowserver.signals import Kind, Signals
from flowserver.workflows import Workflows
from flowserver.workshop import ConfinedCode, ConfinedReader
from graphs.compile import Compiler
from graphs.options import Retention
from nodes import registry
from nodes.code_runner import CodeRunner
from nodes.contract import ModelDefaults
from nodes.files import Files
from nodes.reading import Reader
from nodes.search_access import TAVILY, SearchAccess

if TYPE_CHECKING:
    from flowserver.tracing import Traces

Role: TypeAlias = Literal["worker", "own", "none"]
"""Which runs a process executes: those of the queue too, only those that it starts itself, or none."""


@dataclass(frozen=True, slots=True)
class Flowserver:
    """A server without its HTTP."""

    settings: Settings
    pool: Pool
    compiler: Compiler
    accounts: Accounts
    workflows: Workflows
    runs: Runs
    files: FileStore
    feeds: Feeds
    metrics: Metrics
    census: Census
    worker: str
    """Under which name this process holds runs."""
    new_key: str | None
    """The API key that was made just now: the one time that it is told."""


@asynccontextmanager
async def assemble(
    settings: Settings, dsn: str, *, role: Role = "worker", metrics: Metrics | None = None
) -> AsyncIterator[Flowserver]:
    """Bring the database up to date and start; stop in good order at the end.

    What happens is counted in `metrics`, where others may count, too.

    Raises:
        Unavailable: The database, or a setting, cannot be used.
    """
    await migrate(dsn)
    closed: frozenset[type[Any]] = frozenset() if settings.allow_code else frozenset({CodeRunner})
    compiler = Compiler(replace(registry.discover(), closed=closed))
    allowed = [*settings.outbound_allow, *_operators_own(settings)]
    async with contextlib.AsyncExitStack() as stack:
        pool = await stack.enter_async_context(make_pool(dsn))
        http = await stack.enter_async_context(_way_out(allowed))
        accounts = Accounts(pool)
        new_key = await accounts.ensure_default(settings.data_dir, settings.api_key, make_key=role != "own")
        signals = Signals(dsn, pool)
        feeds = Feeds(lambda run: signals.tell("events", run))
        workflows = Workflows(pool, compiler)
        models = ModelDefaults(settings.openai_base_url, settings.openai_api_key)
        metrics = metrics or Metrics()
        metrics.pool(pool.get_stats)
        metrics.registry.register(census := Census(pool))
        await stack.enter_async_context(metrics.watching_the_loop())
        traces = await stack.enter_async_context(_traces(settings))
        files = FileStore(pool)
        doors = await stack.enter_async_context(_doors(settings, files))
        resources = Resources(
            pool,
            feeds,
            EventBatches(pool),
            signals,
            workflows,
            http,
            models,
            metrics,
            traces,
            doors,
            tuple(secrets(settings)),
        )
        executor = Executor(
            resources,
            dsn,
            lease=settings.lease_seconds,
            max_runs=settings.max_runs,
            executes=role != "none",
        )
        runs = Runs(resources, executor, settings.max_attempts, _retention(settings))

        def heard(kind: Kind, run: UUID) -> None:
            if kind == "events":
                feeds.wake(run)
            else:
                executor.cancel(run)

        signals.start(heard, feeds.wake_all)
        executor.start()
        dispatcher = Dispatcher(dsn, settings.max_runs, executor.execute, lambda: prune(pool))
        reconciler = Reconciler(resources)
        if role == "worker":
            dispatcher.start()
            reconciler.start()
        try:
            yield Flowserver(
                settings,
                pool,
                compiler,
                accounts,
                workflows,
                runs,
                files,
                feeds,
                metrics,
                census,
                executor.worker,
                new_key,
            )
        finally:
            feeds.close()
            await dispatcher.stop()
            await reconciler.stop()
            await executor.stop(settings.grace_seconds)
            await signals.stop()


@asynccontextmanager
async def _doors(settings: Settings, files: FileStore) -> AsyncIterator[dict[type[Any], DoorMaker]]:
    """What steps may use of the world besides HTTP and models."""
    for_files, for_code = Confined(), Confined()  # so that slow code keeps no document waiting
    search = SearchAccess(settings.tavily_api_key, settings.tavily_base_url or TAVILY)
    doors: dict[type[Any], DoorMaker] = {
        Files: lambda visitor: FilesOf(files, visitor.org),
        Reader: lambda visitor: ConfinedReader(for_files),
        SearchAccess: lambda visitor: search,
    }
    if settings.allow_code:
        doors[CodeRunner] = lambda visitor: ConfinedCode(for_code)
    try:
        yield doors
    finally:
        await for_files.close()
        await for_code.close()


def _retention(settings: Settings) -> Retention:
    days = (settings.keep_runs_days, settings.keep_events_days, settings.keep_checkpoints_days)
    return Retention(*(each or None for each in days))


@asynccontextmanager
async def _traces(settings: Settings) -> AsyncIterator[Traces | None]:
    if settings.otlp_endpoint is None:
        yield None
        return
    try:
        from flowserver.tracing import Traces  # noqa: PLC0415  an extra, and slow to import
    except ModuleNotFoundError as exc:
        raise Unavailable(
            f"FLOWSERVER_OTLP_ENDPOINT is set, but there is no {exc.name}; install 'flowserver[otel]'"
        ) from None
    traces = Traces(settings.otlp_endpoint)
    try:
        yield traces
    finally:
        await traces.close()


def _way_out(allowed: list[str]) -> httpx.AsyncClient:
    try:
        return outbound_client(allowed)
    except ValueError as exc:
        raise Unavailable(f"FLOWSERVER_OUTBOUND_ALLOW: {exc}") from None


def _operators_own(settings: Settings) -> list[str]:
    """The model and search servers that the operator chose may be reached wherever they are."""
    chosen = [url for url in (settings.openai_base_url, settings.tavily_base_url) if url is not None]
    return [url.partition("://")[2].partition("/")[0].rpartition("@")[2] for url in chosen]
