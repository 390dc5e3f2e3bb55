"""The composition root: everything is made and wired here, and nowhere else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias
from uuid import UUID

from flowserver.accounts import Accounts
from flowserver.answering import Answers
from flowserver.callbacks import Callbacks
from flowserver.census import Census
from flowserver.collections import Collections
from flowserver.credentials import Credentials
from flowserver.db import Pool, make_pool, migrate
from flowserver.dispatcher import Dispatcher
from flowserver.drawings import Drawings
from flowserver.errors import Unavailable
from flowserver.event_batches import EventBatches
from flowserver.execution import Resources
from flowserver.executor import Executor
from flowserver.failures import Failures
from flowserver.feeds import Feeds
from flowserver.files import FileStore
from flowserver.ledger import Ledger
from flowserver.metrics import Metrics
from flowserver.open_doors import closed_doors, open_doors
from flowserver.outbound import OutboundClient, outbound_client
from flowserver.receiving import Receiver
from flowserver.reconciler import Reconciler
from flowserver.retention import prune
from flowserver.rounds import OFTEN, Rounds
from flowserver.runs import Runs
from flowserver.schedules import Schedules
from flowserver.settings import Settings, secrets
from flowserver.signals import Kind, Signals
from flowserver.ticker import Ticker
from flowserver.triggers import Triggers
from flowserver.vault import Vault, open_vault
from flowserver.webhooks import Webhooks
from flowserver.workflows import Workflows
from graphs.compile import Compiler
from graphs.options import Limits, Retention
from nodes import registry
from nodes.catalogue import Catalogue
from nodes.contract import ModelDefaults

if TYPE_CHECKING:
    from flowserver.tracing import Traces

Role: TypeAlias = Literal["worker", "own", "none"]
"""Which runs a process executes: those of the queue too, only those that it starts itself, or none."""


@dataclass(frozen=True, slots=True)
class Flowserver:
    """A server without its HTTP."""

    settings: Settings
    pool: Pool
    http: OutboundClient
    compiler: Compiler
    catalogue: Catalogue
    accounts: Accounts
    workflows: Workflows
    vault: Vault
    credentials: Credentials
    webhooks: Webhooks
    ledger: Ledger
    receiver: Receiver
    answers: Answers
    schedules: Schedules
    callbacks: Callbacks
    runs: Runs
    collections: Collections
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
    compiler = Compiler(replace(registry.discover(), closed=closed_doors(settings)))
    allowed = [*settings.outbound_allow, *_operators_own(settings)]
    async with contextlib.AsyncExitStack() as stack:
        pool = await stack.enter_async_context(make_pool(dsn))
        http = await stack.enter_async_context(_way_out(allowed, settings.outbound_connections))
        accounts = Accounts(pool)
        new_key = await accounts.ensure_default(settings.data_dir, settings.api_key, make_key=role != "own")
        vault = open_vault(settings)
        kept = Credentials(pool, vault)
        await kept.must_open()
        signals = Signals(dsn, pool)
        feeds = Feeds(lambda run: signals.tell("events", run))
        workflows = Workflows(
            pool, compiler, Triggers(compiler.registry, vault), _drawings(settings, compiler, vault)
        )
        models = ModelDefaults(settings.openai_base_url, settings.openai_api_key)
        metrics = metrics or Metrics()
        metrics.pool(pool.get_stats)
        metrics.outbound(http.usage)
        metrics.registry.register(census := Census(pool))
        await stack.enter_async_context(metrics.watching_the_loop())
        traces = await stack.enter_async_context(_traces(settings))
        files = FileStore(pool)
        doors = await stack.enter_async_context(open_doors(settings, pool, allowed, kept, files))
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
            Limits(output_bytes=settings.max_output_bytes),
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
        public_url = settings.public_url or ""
        webhooks = Webhooks(pool, vault, kept, workflows, public_url)
        per_minute = settings.deliveries_per_minute
        receiver = Receiver(pool, feeds, webhooks, workflows, runs, per_minute)
        callbacks = Callbacks(pool, vault, http, runs)
        days = settings.keep_deliveries_days
        old = timedelta(days=days) if days else None
        dispatcher = Dispatcher(dsn, settings.max_runs, executor.execute, lambda: prune(pool, old))
        rounds = [
            Rounds("runs left behind", Reconciler(resources).look, 2 * OFTEN),
            Rounds("schedules", Ticker(pool, workflows, runs).look, OFTEN),
            Rounds("callbacks", callbacks.look, OFTEN),
            Rounds("failed runs", Failures(pool, workflows, runs, public_url).look, OFTEN),
        ]
        if role == "worker":
            dispatcher.start()
            for each in rounds:
                each.start()
        try:
            yield Flowserver(
                settings,
                pool,
                http,
                compiler,
                Catalogue(compiler.registry),
                accounts,
                workflows,
                vault,
                kept,
                webhooks,
                Ledger(pool),
                receiver,
                Answers(pool, runs),
                Schedules(pool, workflows, runs),
                callbacks,
                runs,
                Collections(pool),
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
            for each in rounds:
                await each.stop()
            await executor.stop(settings.grace_seconds)
            await signals.stop()


def _drawings(settings: Settings, compiler: Compiler, vault: Vault) -> Drawings:
    """Secrets in drawings are sealed where every process that runs them is sure to have the key.

    It was chosen for all of them, or lies beside the embedded Postgres.
    """
    is_everywhere = bool(settings.encryption_keys) or settings.database_url is None
    return Drawings(compiler.registry, vault if is_everywhere else None)


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


def _way_out(allowed: list[str], size: int) -> OutboundClient:
    try:
        return outbound_client(allowed, size=size)
    except ValueError as exc:
        raise Unavailable(f"FLOWSERVER_OUTBOUND_ALLOW: {exc}") from None


def _operators_own(settings: Settings) -> list[str]:
    """The model and search servers that the operator chose may be reached wherever they are."""
    chosen = [url for url in (settings.openai_base_url, settings.tavily_base_url) if url is not None]
    return [url.partition("://")[2].partition("/")[0].rpartition("@")[2] for url in chosen]
