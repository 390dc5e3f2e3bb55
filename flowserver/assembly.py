"""The composition root: everything is made and wired here, and nowhere else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from flowserver.accounts import Accounts
from flowserver.db import Pool, make_pool, migrate
from flowserver.errors import Unavailable
from flowserver.execution import Resources
from flowserver.executor import Executor
from flowserver.feeds import Feeds
from flowserver.outbound import outbound_client
from flowserver.runs import Runs
from flowserver.settings import Settings
from flowserver.workflows import Workflows
from graphs.compile import Compiler
from nodes import registry
from nodes.contract import ModelDefaults


@dataclass(frozen=True, slots=True)
class Flowserver:
    """A server without its HTTP."""

    settings: Settings
    pool: Pool
    compiler: Compiler
    accounts: Accounts
    workflows: Workflows
    runs: Runs
    feeds: Feeds
    new_key: str | None
    """The API key that was made just now: the one time that it is told."""


@asynccontextmanager
async def assemble(settings: Settings, dsn: str, *, takes_over: bool = True) -> AsyncIterator[Flowserver]:
    """Bring the database up to date and start; stop in good order at the end.

    With `takes_over` it executes every run that waits, not only those started here.

    Raises:
        Unavailable: The database, or a setting, cannot be used.
    """
    await migrate(dsn)
    compiler = Compiler(registry.discover())
    allowed = [*settings.outbound_allow, *_operators_own(settings)]
    async with contextlib.AsyncExitStack() as stack:
        pool = await stack.enter_async_context(make_pool(dsn))
        http = await stack.enter_async_context(_way_out(allowed))
        accounts = Accounts(pool)
        new_key = await accounts.ensure_default(settings.data_dir, settings.api_key, make_key=takes_over)
        feeds = Feeds()
        workflows = Workflows(pool, compiler)
        models = ModelDefaults(settings.openai_base_url, settings.openai_api_key)
        resources = Resources(pool, feeds, workflows, http, models)
        executor = Executor(
            resources,
            dsn,
            lease=settings.lease_seconds,
            max_runs=settings.max_runs,
            takes_over=takes_over,
        )
        runs = Runs(resources, executor, settings.max_attempts)
        executor.start()
        try:
            yield Flowserver(settings, pool, compiler, accounts, workflows, runs, feeds, new_key)
        finally:
            feeds.close()
            await executor.stop(settings.grace_seconds)


def _way_out(allowed: list[str]) -> httpx.AsyncClient:
    try:
        return outbound_client(allowed)
    except ValueError as exc:
        raise Unavailable(f"FLOWSERVER_OUTBOUND_ALLOW: {exc}") from None


def _operators_own(settings: Settings) -> list[str]:
    """The model server that the operator chose may be reached wherever it is."""
    if settings.openai_base_url is None:
        return []
    _, _, rest = settings.openai_base_url.partition("://")
    return [rest.partition("/")[0].rpartition("@")[2]]
