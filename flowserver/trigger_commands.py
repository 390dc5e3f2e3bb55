"""`flowserver webhooks` and `flowserver schedules`: what the API does for them, without a server."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias
from uuid import UUID

import msgspec

from flowserver.accounts import DEFAULT_ORG
from flowserver.assembly import Flowserver, assemble
from flowserver.commands import value_of
from flowserver.database import database
from flowserver.errors import FlowserverError, NotFound, Unavailable
from flowserver.settings import Settings
from graphs.problems import InvalidWorkflow
from nodes.hooks import Hook
from nodes.mistakes import Mistakes
from nodes.timing import Timing

Doing: TypeAlias = Callable[[Flowserver, argparse.Namespace], Awaitable[Any]]
OK, REFUSED = 0, 2
MOST = 1000
"""How many of a list are shown."""


def execute(settings: Settings, options: argparse.Namespace) -> int:
    """Do what was typed, and print what came of it; 2 if it was refused."""
    try:
        with database(settings) as dsn:
            found = asyncio.run(_execute(settings, dsn, options))
    except (Unavailable, FlowserverError, InvalidWorkflow, Mistakes, msgspec.ValidationError) as exc:
        print(f"flowserver: {exc}", file=sys.stderr)
        return REFUSED
    _print(found, as_json=options.json)
    return OK


async def _execute(settings: Settings, dsn: str, options: argparse.Namespace) -> Any:
    async with assemble(settings, dsn, role="none") as server:
        return await _DOINGS[options.doing](server, options)


def _print(found: Any, *, as_json: bool) -> None:
    plain = msgspec.to_builtins(found)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(plain)).decode())
    elif isinstance(plain, list):
        for row in plain:
            print("  ".join(_short(row)))
        if not plain:
            print("none", file=sys.stderr)
    elif plain is not None:
        for key, value in plain.items():
            print(f"{key}: {value if isinstance(value, str) else msgspec.json.encode(value).decode()}")


def _short(row: dict[str, Any]) -> list[str]:
    """What matters of a row of a list, in a line."""
    keys = ("id", "at", "url", "name", "status", "run_id", "run_status", "answer_status", "because", "step")
    shown = [str(row[key]) for key in keys if row.get(key) is not None]
    if "is_paused" in row:
        ahead = row["next"]
        state = "paused" if row["is_paused"] else f"next {ahead[0]}" if ahead else "not firing"
        return [*shown, state]
    if "is_enabled" in row:
        state = "open" if row["is_enabled"] and row["is_live"] else "closed"
        return [*shown, state]
    return shown


async def _workflow(server: Flowserver, ref: str | None) -> UUID | None:
    """The workflow of an id or a name.

    Raises:
        NotFound: There is none.
    """
    if ref is None:
        return None
    with suppress(ValueError):
        return (await server.workflows.get(DEFAULT_ORG, UUID(ref))).id
    found = await server.workflows.find(DEFAULT_ORG, ref)
    if found is None:
        raise NotFound("workflow", ref)
    return found.id


async def _must_be(server: Flowserver, ref: str) -> UUID:
    found = await _workflow(server, ref)
    assert found is not None
    return found


async def _webhooks(server: Flowserver, options: argparse.Namespace) -> Any:
    workflow = await _workflow(server, options.workflow)
    return await server.webhooks.page(DEFAULT_ORG, workflow=workflow, before=None, limit=MOST)


async def _webhook(server: Flowserver, options: argparse.Namespace) -> Any:
    return await server.webhooks.get(DEFAULT_ORG, options.id)


async def _add_webhook(server: Flowserver, options: argparse.Namespace) -> Any:
    given = {
        "path": options.path,
        "methods": [each.upper() for each in options.method or ["POST"]],
        "authentication": options.authentication,
        "header": options.header,
    }
    workflow = await _must_be(server, options.workflow)
    hook = msgspec.convert(given, Hook)
    return await server.webhooks.add(DEFAULT_ORG, workflow, options.step, hook, options.secret)


async def _rotate(server: Flowserver, options: argparse.Namespace) -> Any:
    return await server.webhooks.rotate(DEFAULT_ORG, options.id, options.secret, options.overlap)


async def _enable(server: Flowserver, options: argparse.Namespace) -> Any:
    return await server.webhooks.change(DEFAULT_ORG, options.id, is_enabled=True)


async def _disable(server: Flowserver, options: argparse.Namespace) -> Any:
    return await server.webhooks.change(DEFAULT_ORG, options.id, is_enabled=False)


async def _delete_webhook(server: Flowserver, options: argparse.Namespace) -> Any:
    await server.webhooks.delete(DEFAULT_ORG, options.id)


async def _deliveries(server: Flowserver, options: argparse.Namespace) -> Any:
    await server.webhooks.get(DEFAULT_ORG, options.id)
    return await server.ledger.page(DEFAULT_ORG, options.id, status=options.status, before=None, limit=MOST)


async def _redeliver(server: Flowserver, options: argparse.Namespace) -> Any:
    again = await server.receiver.again(DEFAULT_ORG, options.id, options.delivery)
    return await server.ledger.get(DEFAULT_ORG, options.id, again.delivery.id)


async def _schedules(server: Flowserver, options: argparse.Namespace) -> Any:
    workflow = await _workflow(server, options.workflow)
    return await server.schedules.page(DEFAULT_ORG, workflow=workflow, before=None, limit=MOST)


async def _schedule(server: Flowserver, options: argparse.Namespace) -> Any:
    return await server.schedules.get(DEFAULT_ORG, options.id)


async def _add_schedule(server: Flowserver, options: argparse.Namespace) -> Any:
    names = ("cron", "every", "once", "timezone", "overlap", "misfire")
    timing = msgspec.convert({name: getattr(options, name) for name in names}, Timing)
    workflow = await _must_be(server, options.workflow)
    given = value_of(options.input)
    return await server.schedules.add(DEFAULT_ORG, workflow, timing, step=options.step, input=given)


async def _pause(server: Flowserver, options: argparse.Namespace) -> Any:
    return await server.schedules.change(DEFAULT_ORG, options.id, is_paused=True)


async def _resume(server: Flowserver, options: argparse.Namespace) -> Any:
    return await server.schedules.change(DEFAULT_ORG, options.id, is_paused=False)


async def _trigger(server: Flowserver, options: argparse.Namespace) -> Any:
    run = await server.schedules.trigger(DEFAULT_ORG, options.id)
    return await server.runs.get(DEFAULT_ORG, run)


async def _firings(server: Flowserver, options: argparse.Namespace) -> Any:
    return await server.schedules.firings(DEFAULT_ORG, options.id, None, MOST)


async def _delete_schedule(server: Flowserver, options: argparse.Namespace) -> Any:
    await server.schedules.delete(DEFAULT_ORG, options.id)


_DOINGS: dict[str, Doing] = {
    "webhooks": _webhooks,
    "webhook": _webhook,
    "add_webhook": _add_webhook,
    "rotate": _rotate,
    "enable": _enable,
    "disable": _disable,
    "delete_webhook": _delete_webhook,
    "deliveries": _deliveries,
    "redeliver": _redeliver,
    "schedules": _schedules,
    "schedule": _schedule,
    "add_schedule": _add_schedule,
    "pause": _pause,
    "resume": _resume,
    "trigger": _trigger,
    "firings": _firings,
    "delete_schedule": _delete_schedule,
}
"""By the names that `trigger_options` gives them."""
