"""What runs ask and people answer: the rows of `question`, where only an open one takes an answer, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

import msgspec
from langgraph.types import Interrupt
from psycopg import AsyncConnection
from psycopg.rows import DictRow

import sql
from flowserver.db import Pool
from flowserver.errors import BadRequest, Fenced, NotFound, NotOpen
from flowserver.ids import new_id
from flowserver.journal import Journal
from flowserver.workflows import json
from graphs.values import UnsafeValue, clean
from nodes.question import BadAnswer, Question

_QUERIES = sql.queries("questions")
_INSERT = _QUERIES["insert_question"]
_OF_RUN = _QUERIES["of_run"]
_WAIT = _QUERIES["wait"]
_FIND = _QUERIES["find_question"]
_ANSWER = _QUERIES["answer"]
_REQUEUE = _QUERIES["requeue"]
_POSITION = sql.queries("runs")["position"]


class CancelWished(asyncio.CancelledError):
    """The run was to stop for an answer, but somebody wants it cancelled."""


async def ask(pool: Pool, journal: Journal, interrupts: Iterable[Interrupt]) -> dict[str, Any] | None:
    """Put the questions of a run and let it wait: `None`; or the answers of those answered already.

    Raises:
        Fenced: The run has been lost.
        CancelWished: It is to be cancelled instead.
    """
    asked = list(interrupts)
    wanted = {"run": journal.run, "interrupts": [each.id for each in asked]}
    async with journal.writing, pool.connection() as conn, conn.transaction():
        for each in asked:
            await conn.execute(_INSERT, _row(journal.run, each))
        rows = await (await conn.execute(_OF_RUN, wanted)).fetchall()
        answers = {row["interrupt_id"]: row["answer"] for row in rows if row["status"] == "answered"}
        if answers:
            return answers
        journal.add("run.waiting", {"questions": [body(row) for row in rows if row["status"] == "open"]})
        batch = journal.take()
        numbers = await (await conn.execute(_WAIT, batch)).fetchall()
        if not numbers:
            raise await _not_held(conn, journal)
    journal.committed(batch, numbers)
    return None


async def answer(pool: Pool, org: UUID, run: UUID, question_id: UUID | None, given: Any) -> None:
    """Answer a question of a run, which is queued again; without `question_id` the only open one.

    Raises:
        NotFound: There is no such question.
        NotOpen: It has been answered, or no longer waits; also of two equal answers the second.
        BadRequest: The answer does not fit the question, or there are several and none is named.
    """
    question = await _open_one(pool, org, run, question_id)
    accepted = _accepted(question["question"], given)
    values = {"id": question["id"], "run": run, "answer": json(accepted)}
    async with pool.connection() as conn, conn.transaction():
        if await (await conn.execute(_ANSWER, values)).fetchone() is None:
            raise NotOpen(f"question {question['id']} has been answered already")
        await conn.execute(_REQUEUE, values)


def body(row: Mapping[str, Any]) -> dict[str, Any]:
    """A question as clients see it: `{id, step, payload, form?, actions?, deadline?}`."""
    told = {"id": row["id"], "step": row["step"], **row["question"]}
    return told | ({"deadline": row["deadline"]} if row["deadline"] else {})


def _row(run: UUID, interrupt: Interrupt) -> dict[str, Any]:
    return {
        "id": new_id(),
        "run": run,
        "interrupt_id": interrupt.id,
        "step": interrupt.value["step"],
        "question": json(interrupt.value["question"]),
        "deadline": None,
    }


async def _not_held(conn: AsyncConnection[DictRow], journal: Journal) -> BaseException:
    row = await (await conn.execute(_POSITION, {"run": journal.run})).fetchone()
    if row is not None and row["epoch"] == journal.epoch and row["cancel_requested"]:
        return CancelWished()
    return Fenced(f"run {journal.run} is no longer held under epoch {journal.epoch}")


async def _open_one(pool: Pool, org: UUID, run: UUID, question_id: UUID | None) -> Mapping[str, Any]:
    values = {"org": org, "run": run, "id": question_id}
    async with pool.connection() as conn:
        rows = await (await conn.execute(_FIND, values)).fetchall()
    open_ = [row for row in rows if row["status"] == "open"]
    if len(open_) == 1:
        return open_[0]
    if open_:
        raise BadRequest("several questions are open; name one with 'question_id'")
    if question_id is None:
        raise NotOpen(f"run {run} has no open question")
    if not rows:
        raise NotFound("question", question_id)
    raise NotOpen(f"question {question_id} is {rows[0]['status']}")


def _accepted(question: Mapping[str, Any], given: Any) -> Any:
    try:
        return msgspec.convert(question, Question).accept(clean(given))
    except (BadAnswer, UnsafeValue) as exc:
        raise BadRequest(f"the answer does not fit the question: {exc}") from None
