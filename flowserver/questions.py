"""What runs ask and people answer: the rows of `question`, where only an open one is settled, once.

An answer settles it, or its deadline. One that nobody has answered in time has the status `expired` and no
answer: a marker among the answers would have to differ from everything that people may say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from langgraph.types import Interrupt
from psycopg import AsyncConnection
from psycopg.rows import DictRow

import sql
from flowserver.db import Pool
from flowserver.errors import BadRequest, Fenced, NotFound, NotOpen
from flowserver.idempotency import Key
from flowserver.ids import new_id
from flowserver.journal import Journal
from flowserver.workflows import json
from graphs.values import UnsafeValue, clean
from nodes.question import EXPIRED, BadAnswer, Question

_QUERIES = sql.queries("questions")
_INSERT = _QUERIES["insert_question"]
_OF_RUN = _QUERIES["of_run"]
_WAIT = _QUERIES["wait"]
_FIND = _QUERIES["find_question"]
_ANSWER = _QUERIES["answer"]
_EXPIRE = _QUERIES["expire"]
_REQUEUE = _QUERIES["requeue"]
_POSITION = sql.queries("runs")["position"]

BATCH = 100
"""The most questions that expire in one transaction."""


class CancelWished(asyncio.CancelledError):
    """The run was to stop for an answer, but somebody wants it cancelled."""


async def ask(pool: Pool, journal: Journal, interrupts: Iterable[Interrupt]) -> dict[str, Any] | None:
    """Put the questions of a run and let it wait: `None`; or the answers of those settled already.

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
        settled = [row for row in rows if row["status"] in ("answered", "expired")]
        if settled:
            return {row["interrupt_id"]: _settled(row) for row in settled}
        journal.add("run.waiting", {"questions": [body(row) for row in rows if row["status"] == "open"]})
        batch = journal.take()
        numbers = await (await conn.execute(_WAIT, batch)).fetchall()
        if not numbers:
            raise await _not_held(conn, journal)
    journal.committed(batch, numbers)
    return None


async def answer(
    pool: Pool, org: UUID, run: UUID, question_id: UUID | None, given: Any, key: Key | None = None
) -> bool:
    """Answer a question of a run, which is queued again; without `question_id` the only open one.

    Returns whether the same request, by its `key`, has done it before.

    Raises:
        NotFound: There is no such question.
        NotOpen: It was answered, has expired or no longer waits; also of two equal answers the second.
        KeyReused: The key was used for another answer.
        BadRequest: The answer does not fit the question, or there are several and none is named.
    """
    async with pool.connection() as conn, conn.transaction():
        if key is not None and await key.done_before(conn, org, run) is not None:
            return True
        question = await _open_one(conn, org, run, question_id)
        values = {
            "id": question["id"],
            "runs": [run],
            "answer": json(_accepted(question["question"], given)),
        }
        if await (await conn.execute(_ANSWER, values)).fetchone() is None:
            raise NotOpen(f"question {question['id']} was answered or expired a moment ago")
        await conn.execute(_REQUEUE, values)
    return False


async def expire(pool: Pool) -> int:
    """Settle up to `BATCH` questions whose deadlines have passed, and queue their runs; return how many."""
    async with pool.connection() as conn, conn.transaction():
        rows = await (await conn.execute(_EXPIRE, {"batch": BATCH})).fetchall()
        if rows:
            await conn.execute(_REQUEUE, {"runs": [row["run_id"] for row in rows]})
    return len(rows)


def body(row: Mapping[str, Any]) -> dict[str, Any]:
    """A question as clients see it: `{id, step, within?, payload, form?, actions?, deadline?, pause?}`."""
    shown = {key: value for key, value in row["question"].items() if key != "kept"}
    told = {"id": row["id"], "step": row["step"], **shown}
    if row["deadline"] is None:
        return told
    # A row's own is in the session's time zone, one inside JSON is a text: clients are told one spelling.
    return told | {"deadline": msgspec.convert(row["deadline"], datetime).astimezone(UTC)}


def _settled(row: Mapping[str, Any]) -> Any:
    """What the step that asked gets: the answer, and what it kept to go on with."""
    given = EXPIRED if row["status"] == "expired" else row["answer"]
    kept = row["question"].get("kept")
    return given if kept is None else {"answer": given, "kept": kept}


def _row(run: UUID, interrupt: Interrupt) -> dict[str, Any]:
    asked = interrupt.value
    question = dict(asked["question"]) | ({"within": asked["within"]} if "within" in asked else {})
    return {
        "id": new_id(),
        "run": run,
        "interrupt_id": interrupt.id,
        "step": asked["step"],
        "seconds": question.pop("seconds", None),
        "until": question.pop("until", None),
        "question": json(question),
    }


async def _not_held(conn: AsyncConnection[DictRow], journal: Journal) -> BaseException:
    row = await (await conn.execute(_POSITION, {"run": journal.run})).fetchone()
    if row is not None and row["epoch"] == journal.epoch and row["cancel_requested"]:
        return CancelWished()
    return Fenced(f"run {journal.run} is no longer held under epoch {journal.epoch}")


async def _open_one(
    conn: AsyncConnection[DictRow], org: UUID, run: UUID, question_id: UUID | None
) -> Mapping[str, Any]:
    values = {"org": org, "run": run, "id": question_id}
    rows = await (await conn.execute(_FIND, values)).fetchall()
    open_ = [row for row in rows if row["status"] == "open"]
    if len(open_) == 1:
        return open_[0]
    if open_:
        raise BadRequest("several questions are open; name one with 'question_id'")
    if rows and rows[0]["status"] == "expired":
        raise NotOpen(f"question {rows[0]['id']} expired before it was answered")
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
