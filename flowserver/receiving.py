"""From a call at a webhook's address to a run: who calls, whether it came before, and what it starts."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Any
from uuid import UUID

import sql
from flowserver.arrivals import Arrival
from flowserver.db import Pool
from flowserver.errors import FlowserverError, NotFound, NotGenuine, TooMany
from flowserver.feeds import Feeds
from flowserver.ledger import Delivery, Ledger, unique_key
from flowserver.runs import Runs
from flowserver.signatures import is_genuine
from flowserver.starts import Start, Started
from flowserver.webhooks import Called, Webhooks
from flowserver.workflows import Workflows
from graphs.compile import Compiled
from graphs.problems import InvalidWorkflow
from nodes.hooks import Answer, Hook

_COUNT = sql.queries("webhooks")["count_delivery"]
_HEARD = sql.queries("deliveries")["heard"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    """A delivery that has started a run, now or when it came before."""

    called: Called
    delivery: Delivery
    started: Started
    compiled: Compiled
    answer: Answer
    """How its caller is answered: never `auto`."""


class Receiver:
    """Takes what arrives at webhooks."""

    def __init__(
        self, pool: Pool, feeds: Feeds, webhooks: Webhooks, workflows: Workflows, runs: Runs, per_minute: int
    ) -> None:
        """`per_minute`: how many deliveries of one organisation are taken; 0 sets no limit."""
        self._pool = pool
        self._feeds = feeds
        self._webhooks = webhooks
        self._workflows = workflows
        self._runs = runs
        self._ledger = Ledger(pool)
        self._per_minute = per_minute

    async def find(self, path: str, method: str, client_ip: str, *, is_test: bool) -> Called:
        """The webhook that a request is for, before its body is read.

        Raises:
            NotFound: There is none, it does not take the method, or not from this address: a stranger is
                not told which.
        """
        called = await self._webhooks.at(path, is_test=is_test)
        if called is None or method not in called.hook.methods or not _may_call(called.hook, client_ip):
            raise NotFound("webhook", "here")
        return called

    async def receive(self, called: Called, arrival: Arrival, *, is_test: bool) -> Received | dict[str, Any]:
        """Take a delivery, with its body: start its run, or find the one that it has started before.

        Returns the answer itself where a provider only wants to know whether somebody is here.

        Raises:
            NotGenuine: The caller has not shown that he may.
            BadRequest, TooLarge: The body is not what it says it is.
            TooMany: There have been too many deliveries this minute.
            InvalidWorkflow, NotFound: The workflow cannot run; the delivery is kept as dead.
        """
        hook = called.hook
        if not is_genuine(hook, await self._secrets(called), arrival.headers, arrival.body, called.now):
            logger.info("webhook %s: a request was not genuine", called.id)
            raise NotGenuine
        data = arrival.data(hook.max_body_kb * 1024)
        if hook.authentication == "slack" and (challenge := _challenge(data)) is not None:
            return challenge
        await self._count(called)
        key = None if is_test else arrival.key(hook, data)
        delivery = Delivery(called.id, hook, arrival, key or unique_key(), is_test)
        return await self._start(called, delivery, data)

    async def _secrets(self, called: Called) -> list[str]:
        return await self._webhooks.secrets(called) if called.hook.authentication != "none" else []

    async def again(self, org: UUID, webhook: UUID, id: UUID) -> Received:
        """Deliver by hand what was delivered before: another delivery, and another run.

        Raises:
            NotFound: There is no such webhook or delivery in `org`, or nothing answers at its address.
            InvalidWorkflow: The workflow cannot run.
        """
        row = await self._ledger.row(org, webhook, id)
        path = await self._webhooks.path(org, webhook, is_test=row["is_test"])
        called = await self._webhooks.at(path, is_test=row["is_test"]) if path else None
        if called is None:
            raise NotFound("open webhook", webhook)
        arrival = Arrival(
            row["method"],
            row["url"],
            row["query"] or {},
            row["headers"] or {},
            bytes(row["body"] or b""),
            row["client_ip"] or "",
        )
        delivery = Delivery(webhook, called.hook, arrival, unique_key(), row["is_test"], id)
        return await self._start(called, delivery, arrival.data(called.hook.max_body_kb * 1024))

    async def _start(self, called: Called, delivery: Delivery, data: Any) -> Received:
        try:
            received = await self._run(called, delivery, data)
        except (InvalidWorkflow, FlowserverError) as exc:
            code = exc.code if isinstance(exc, FlowserverError) else "invalid_workflow"
            await delivery.bury(self._pool, called.org_id, {"code": code, "message": str(exc)[:2000]})
            self._tell(delivery)
            raise
        self._tell(delivery)
        return received

    async def _run(self, called: Called, delivery: Delivery, data: Any) -> Received:
        org, hook, arrival = called.org_id, called.hook, delivery.arrival
        compiled, keeps = await self._workflows.runnable(org, called.workflow_id, called.version)
        answer = hook.answer
        if answer == "auto":
            answers = any(step.type.answers for step in compiled.plan.steps.values())
            answer = "step" if answers else "result"
        about = {
            "webhook": str(called.id),
            "method": arrival.method,
            "path": arrival.path,
            "query": arrival.shown_query(),
            "headers": arrival.shown(hook),
            **({"is_test": True} if delivery.is_test else {}),
        }
        start = Start(
            compiled=compiled,
            flow_data=keeps,
            workflow_id=called.workflow_id,
            input=data,
            trigger=called.step,
            kind="webhook",
            about=about,
            now=answer != "at_once" and delivery.redelivers is None,
            is_watched=answer == "stream" or delivery.is_test,
            once=delivery,
        )
        return Received(called, delivery, await self._runs.start(org, start), compiled, answer)

    def _tell(self, delivery: Delivery) -> None:
        if delivery.is_test:
            self._feeds.changed(delivery.webhook)

    async def _count(self, called: Called) -> None:
        """Count a delivery against the limits of its webhook and its organisation."""
        limits = {called.id: called.hook.per_minute, called.org_id: self._per_minute}
        counted = [id for id, most in limits.items() if most]
        if not counted:
            return
        async with self._pool.connection() as conn:
            rows = await (await conn.execute(_COUNT, {"of": counted})).fetchall()
        for row in rows:
            if row["count"] > limits[row["of"]]:
                of = "webhook" if row["of"] == called.id else "organisation"
                what = f"this {of} takes {limits[row['of']]} deliveries a minute"
                raise TooMany(what, max(1.0, row["seconds_left"]))

    async def heard(self, webhook: UUID, since: datetime) -> list[dict[str, Any]]:
        """What has arrived at a webhook's test address since then."""
        async with self._pool.connection() as conn:
            return await (await conn.execute(_HEARD, {"webhook": webhook, "since": since})).fetchall()


def _may_call(hook: Hook, client_ip: str) -> bool:
    if not hook.allowed_ips:
        return True
    try:
        address = ip_address(client_ip)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped in ip_network(each, strict=False) for each in hook.allowed_ips)


def _challenge(data: Any) -> dict[str, Any] | None:
    """What Slack asks of a new address: to say again what it says."""
    if isinstance(data, dict) and data.get("type") == "url_verification":
        return {"challenge": data.get("challenge")}
    return None
