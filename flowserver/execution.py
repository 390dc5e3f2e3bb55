"""One claimed run, driven through its graph to an end, to a question, or back into the queue."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import sys
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, LiteralString, TypeAlias
from uuid import UUID

import httpx
import msgspec
import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphDrained, GraphRecursionError
from langgraph.runtime import RunControl
from langgraph.types import Command, Interrupt

import sql
from flowserver.checkpoints import seed_of
from flowserver.db import Pool, is_outage, row_of
from flowserver.doors import DoorMaker, Doors, Visitor
from flowserver.errors import Fenced, NotFound
from flowserver.event_batches import EventBatches
from flowserver.events import FINAL, Event
from flowserver.feeds import Feeds
from flowserver.journal import Journal
from flowserver.large_values import RunValues
from flowserver.metrics import Metrics
from flowserver.observation import Observation, Observed, observed
from flowserver.questions import CancelWished, ask
from flowserver.recorder import Recorder
from flowserver.saver import MARK, FencedSaver
from flowserver.signals import Signals
from flowserver.workflows import Workflows, json
from graphs.build import ENOUGH
from graphs.compile import Compiled
from graphs.large import LargeValues
from graphs.options import NO_LIMITS, Limits
from graphs.plan import Plan
from graphs.problems import InvalidWorkflow
from graphs.rerun import seed
from graphs.runtime import LimitReached, Meter, Run, StepFailed, asked_at
from graphs.state import ENTRY, persistent, result
from graphs.values import clean
from nodes.contract import ModelDefaults, ServerTrouble

if TYPE_CHECKING:
    from flowserver.tracing import Traces

_RUNS = sql.queries("runs")
_FINISH = _RUNS["finish"]
_RELEASE = _RUNS["release"]
_PAST = _RUNS["past_events"]
_SPENT = _RUNS["seconds_spent"]
_ASKED = sql.queries("questions")["asked_steps"]

Stop: TypeAlias = Literal["cancelled", "lost", "drained"]

logger = logging.getLogger(__name__)


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A run that this process has claimed: the columns that executing it needs."""

    id: UUID
    org_id: UUID
    workflow_id: UUID | None
    version: str
    thread_id: str
    session_id: str | None
    trigger: dict[str, Any]
    input: Any
    durability: Literal["sync", "exit"] | None
    limits: Limits | None
    forked_from: dict[str, Any] | None
    attempt: int
    epoch: int
    next_seq: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Resources:
    """What executions share: made once per process."""

    pool: Pool
    feeds: Feeds
    batches: EventBatches
    signals: Signals
    workflows: Workflows
    http: httpx.AsyncClient
    models: ModelDefaults
    metrics: Metrics
    traces: Traces | None = None
    doors: Mapping[type[Any], DoorMaker] = field(default_factory=dict)
    """What else of the world runs may use."""
    limits: Limits = NO_LIMITS
    """The operator's, of every run."""
    secrets: tuple[str, ...] = ()
    """The operator's own, which nothing that a run tells may hold."""


class Execution:
    """The execution of one claim by this process."""

    def __init__(
        self,
        claim: Claim,
        resources: Resources,
        compiled: Compiled | None = None,
        created: Event | None = None,
        *,
        is_watched: bool = True,
    ) -> None:
        """Of a new run `created` is the first event.

        `is_watched` says whether anybody may want partial output who does not watch yet.
        """
        self.claim = claim
        self._is_watched = is_watched
        # At once, so that whoever begins to watch now need not ask the database.
        self._joined = resources.feeds.join(claim.id)
        self._feed = self._joined.__enter__()
        self._feed.is_live = True
        if created is not None:
            self._feed.remember(created)
        self._with = resources
        self._compiled = compiled
        self._learned: set[str] = set()
        self._control = RunControl()
        self._stop: Stop | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self.has_met_outage = False
        """Whether the run was left because the database was away: that is no fault of the run's."""

    def stop(self, why: Stop) -> None:
        """Stop at once; the first reason counts."""
        self._stop = self._stop or why
        if self._task is not None:
            if self._stop == "lost":
                self._journal.give_up()
            self._task.cancel()

    def drain(self) -> None:
        """Stop after the steps that run now; the run goes back into the queue."""
        self._control.request_drain()

    async def go(self) -> None:
        """Drive the run as far as it goes; what cannot be done here is left for whoever claims it next."""
        self._task = asyncio.current_task()
        feed, claim = self._feed, self.claim
        with self._observed() as self._observation:
            self._journal = Journal(
                self._with.pool,
                feed,
                claim.id,
                claim.epoch,
                claim.next_seq,
                self._observation.committed,
                self._with.batches,
            )
            self._recorder = Recorder(self._journal, holds=self.claim.durability != "exit")
            writer = asyncio.create_task(self._journal.write())
            writer.add_done_callback(self._writer_ended)
            try:
                await self._attempt()
            except (Fenced, psycopg.Error, ServerTrouble) as exc:
                # Lost, or the database is away: whoever claims the run next goes on from its last checkpoint.
                self._leave(exc.__cause__ or exc if isinstance(exc, ServerTrouble) else exc)
            finally:
                feed.is_live = False
                writer.cancel()
                feed.wake()
                self._joined.__exit__(None, None, None)

    def _leave(self, exc: BaseException) -> None:
        logger.warning("run %s: left after %s: %s", self.claim.id, type(exc).__name__, exc)
        if isinstance(exc, Fenced):
            self._observation.lost()
        self.has_met_outage = _is_outage(exc) and not isinstance(exc, Fenced)

    def _observed(self) -> AbstractContextManager[Observation]:
        claim = self.claim
        told = {
            "attempt": claim.attempt,
            "trigger": claim.trigger.get("type"),
            "version": claim.version,
            "workflow_id": str(claim.workflow_id) if claim.workflow_id else None,
        }
        return observed(self._with.metrics, self._with.traces, claim.id, told)

    def _writer_ended(self, writer: asyncio.Task[None]) -> None:
        if writer.cancelled() or (failed := writer.exception()) is None:
            return
        if not isinstance(failed, Fenced):
            logger.error("run %s: its events cannot be written", self.claim.id, exc_info=failed)
        self.stop("lost")

    async def _attempt(self) -> None:
        try:
            await self._drive()
        except StepFailed as exc:
            await self._end("failed", error=clean(exc.error))
        except GraphDrained:
            await self._release()
        except GraphRecursionError:
            await self._end(
                "failed", error={"code": "limit_exceeded", "message": "the run took too many turns"}
            )
        except (InvalidWorkflow, NotFound) as exc:
            message = f"this server cannot run version {self.claim.version[:12]} of the workflow: {exc}"
            await self._end("failed", error={"code": "incompatible_version", "message": message})
        except asyncio.CancelledError as exc:
            await self._stopped(exc)
        except (Fenced, psycopg.Error, ServerTrouble):
            raise
        except (
            Exception
        ) as exc:  # the edge of a run: nothing that goes wrong in it may take the process along
            logger.exception("run %s failed", self.claim.id)
            message = f"the server failed to execute the run ({type(exc).__name__}); see its log"
            await self._end("failed", error={"code": "internal", "message": message})

    async def _stopped(self, exc: asyncio.CancelledError) -> None:
        if isinstance(exc, CancelWished):
            self._stop = self._stop or "cancelled"
        if self._task is not None:
            self._task.uncancel()
        match self._stop:
            case "cancelled":
                await self._end("cancelled")
            case "drained":
                await self._release()
            case "lost":
                logger.warning("run %s: another process has it now", self.claim.id)
                self._observation.lost()
            case None:  # the process is going down; the lease runs out
                raise asyncio.CancelledError

    async def _drive(self) -> None:
        claim = self.claim
        self._journal.add("run.started", {"attempt": claim.attempt})
        compiled = self._compiled or await self._with.workflows.compiled(claim.org_id, claim.version)
        plan = compiled.plan
        await _loaded(plan.imports)
        is_new = claim.epoch == 1 and claim.session_id is None
        saver = FencedSaver(self._with.pool, self._journal, persistent(plan), is_new=is_new)
        graph = compiled.graph.copy({"checkpointer": saver})
        config: RunnableConfig = {
            "configurable": {"thread_id": claim.thread_id, "__pregel_strict_resume": True},
            "metadata": {MARK: str(claim.id)},
            "recursion_limit": ENOUGH,
        }
        given: Any = {ENTRY: {"run": str(claim.id)}, **await self._seed(plan)}
        limits = compiled.plan.limits.under(claim.limits or NO_LIMITS).under(self._with.limits)
        asked: Sequence[Interrupt] = ()
        answers: dict[str, Any] | None = {}
        if claim.epoch > 1:
            await self._remember()
            found = await graph.aget_state(config)
            if (found.metadata or {}).get(MARK) == str(claim.id):
                given = None
                if asked := found.interrupts:
                    if (answers := await ask(self._with.pool, self._journal, asked)) is None:
                        return
                    given = Command(resume=answers)
        context = self._context(compiled, limits)
        while True:
            context.kept = _still_open(asked, answers or {})
            async with self._in_time(limits.seconds):
                state = await graph.ainvoke(
                    given,
                    config,
                    context=context,
                    durability=claim.durability or compiled.durability,
                    control=self._control,
                )
            if not (asked := state.get("__interrupt__") or ()):
                break
            if (answers := await ask(self._with.pool, self._journal, asked)) is None:
                return
            given = Command(resume=answers)
        await self._end("succeeded", output=result(plan, await context.large.whole(state)))

    async def _seed(self, plan: Plan) -> dict[str, Any]:
        """What the run takes over from another one."""
        if self.claim.forked_from is None:
            return {}
        return seed(plan, await seed_of(self._with.pool, self.claim.id))

    @asynccontextmanager
    async def _in_time(self, most: float | None) -> AsyncIterator[None]:
        """Give what is done inside what is left of the seconds that the run may execute."""
        if most is None:
            yield
            return
        async with self._with.pool.connection() as conn:
            row = row_of(await (await conn.execute(_SPENT, {"run": self.claim.id})).fetchone())
        scope = asyncio.timeout(max(most - row["seconds"], 0))
        try:
            async with scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            message = f"the run may execute for {most:g} seconds, and has not ended in them"
            raise LimitReached("", "limit_exceeded", message, limit="seconds") from None

    def _context(self, compiled: Compiled, limits: Limits) -> Run:
        claim = self.claim
        run = {
            "id": str(claim.id),
            "workflow_id": str(claim.workflow_id) if claim.workflow_id else None,
            "session_id": claim.session_id,
            "created_at": claim.created_at.isoformat(),
        }
        return Run(
            id=str(claim.id),
            trigger=claim.trigger.get("step"),
            roots={"input": claim.input, "trigger": claim.trigger, "run": run},
            reporter=Observed(self._recorder, self._observation),
            http=self._with.http,
            models=self._with.models,
            redact=lambda text: _redact(text, compiled, self._with, self._learned),
            is_watched=lambda: self._is_watched or self._feed.is_watched,
            is_outage=_is_outage,
            doors=Doors(self._with.doors, self._visitor()),
            slots=asyncio.Semaphore(compiled.plan.max_concurrency),
            large=LargeValues(RunValues(self._with.pool, claim.id)),
            meter=Meter(limits, dict(self._recorder.spent)),
        )

    def _visitor(self) -> Visitor:
        claim = self.claim
        return Visitor(claim.org_id, claim.id, claim.workflow_id, claim.session_id, self._learned.add)

    async def _remember(self) -> None:
        """Learn what earlier executions have told, so that nothing is told twice."""
        async with self._with.pool.connection() as conn:
            past = await (await conn.execute(_PAST, {"run": self.claim.id})).fetchall()
            asked = await (await conn.execute(_ASKED, {"run": self.claim.id})).fetchall()
        self._recorder.remember(past, [row["step"] for row in asked])

    async def _end(self, status: str, *, output: Any = None, error: Mapping[str, Any] | None = None) -> None:
        """Give the run its final status, with its last event, in one statement; the first one counts."""
        if self._ending is None:
            ending = self._journal.append_with(*self._last(status, output, error))
            self._ending = asyncio.create_task(ending)
        await asyncio.shield(self._ending)

    def _last(
        self, status: str, output: Any, error: Mapping[str, Any] | None
    ) -> tuple[list[tuple[str, dict[str, Any]]], LiteralString, dict[str, Any]]:
        told = {"output": output} if status == "succeeded" else {"error": error} if error else {}
        usage = {key: amount for key, amount in self._recorder.usage.items() if amount}
        values = {
            "status": status,
            "output": json(output),
            "error": json(error) if error else None,
            "usage": json(usage),
            "had_errors": self._recorder.had_errors,
        }
        ends = [] if status == "succeeded" else self._recorder.broken_off(error)
        return [*ends, (FINAL[status], told)], _FINISH, values

    async def _release(self) -> None:
        with contextlib.suppress(Fenced):
            await self._journal.flush()
        async with self._with.pool.connection() as conn:
            await conn.execute(_RELEASE, {"run": self.claim.id, "epoch": self.claim.epoch})


def _is_outage(exc: BaseException) -> bool:
    """Whether `exc` ends this execution without being a failure of the run's."""
    return isinstance(exc, ServerTrouble | Fenced) or is_outage(exc)


def _still_open(asked: Sequence[Interrupt], answers: Mapping[str, Any]) -> dict[bytes, Any]:
    """What was kept with the questions that have no answer yet."""
    waiting = [each.value for each in asked if each.id not in answers]
    kept = ((asked_at(each), each["question"].get("kept")) for each in waiting)
    return {place: found for place, found in kept if found is not None}


async def _loaded(modules: frozenset[str]) -> None:
    """Import what the steps need, outside the event loop: a provider's library can take most of a second."""
    if not modules <= sys.modules.keys():
        await asyncio.to_thread(_load, modules)


def _load(modules: frozenset[str]) -> None:
    for module in modules:
        importlib.import_module(module)


def _redact(text: str, compiled: Compiled, resources: Resources, learned: Set[str]) -> str:
    """`text` without the secrets that the run has to do with; longer ones first, as they may hold others."""
    operators = {*resources.secrets, *filter(None, [resources.models.api_key])}
    secrets = {*compiled.plan.secrets, *operators, *learned}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
