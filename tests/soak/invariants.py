"""What must hold of everything that was accepted, once the faults are over (RELIABILITY.md I1 to I13)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from tests.soak.load import EXPECTED, LAST, SECRET, Accepted, Effects

_OPEN: LiteralString = "SELECT count(*) AS count FROM run WHERE status IN ('queued', 'running')"
_RUNS: LiteralString = (
    "SELECT id::text, status, output, error, input->>'label' AS label, attempt, next_seq FROM run"
)
_EVENTS: LiteralString = (
    "SELECT run_id::text AS run, seq, type, data->>'step' AS step, data->'within' AS within"
    " FROM run_event ORDER BY run_id, seq"
)
_BRANCHES: LiteralString = (
    "SELECT thread_id, metadata->>'fs_run_id' AS run, parent_checkpoint_id, count(*) FROM checkpoints"
    " WHERE checkpoint_ns = '' AND parent_checkpoint_id IS NOT NULL GROUP BY 1, 2, 3 HAVING count(*) > 1"
)
_ANSWERS: LiteralString = "SELECT run_id::text AS run, status, answer FROM question"
_JOBS: LiteralString = (
    "SELECT job.id, job.status::text, run.status AS run FROM procrastinate_jobs AS job"
    " LEFT JOIN run ON run.id::text = job.args->>'run'"
    " WHERE job.queue_name = 'runs' AND (run.id IS NULL OR job.status = 'todo')"
)
_UNHELD: LiteralString = "SELECT id::text FROM run WHERE status = 'running' AND lease_until IS NULL"


class State:
    """What the database holds at the end."""

    def __init__(self, dsn: str) -> None:
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as conn:
            self.runs = {row["id"]: row for row in conn.execute(_RUNS)}
            self.events: dict[str, list[dict[str, Any]]] = {}
            for row in conn.execute(_EVENTS):
                self.events.setdefault(row["run"], []).append(row)
            self.branches = conn.execute(_BRANCHES).fetchall()
            self.answers = {row["run"]: row for row in conn.execute(_ANSWERS)}
            self.jobs = conn.execute(_JOBS).fetchall()
            self.unheld = conn.execute(_UNHELD).fetchall()
            self.leaks = [table for table in TABLES if conn.execute(_leak(table)).fetchone() != {"count": 0}]


TABLES = (
    "run",
    "run_event",
    "question",
    "checkpoints",
    "checkpoint_blobs",
    "checkpoint_writes",
    "procrastinate_jobs",
)


def _leak(table: str) -> Any:
    return psycopg.sql.SQL(
        "SELECT count(*) AS count FROM {} AS held WHERE position({} in held::text) > 0"
        " OR position(encode({}, 'hex') in held::text) > 0"
    ).format(psycopg.sql.Identifier(table), SECRET, SECRET.encode())


def open_runs(dsn: str) -> int:
    """How many runs are neither over nor wait for an answer."""
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as conn:
        row = conn.execute(_OPEN).fetchone()
    return int(row["count"]) if row else 0


def broken(state: State, accepted: Sequence[Accepted], effects: Effects, logs: Path) -> Iterator[str]:
    """Every broken invariant, in words."""
    for run in accepted:
        yield from _of_run(state, run, effects)
    labels = Counter(row["label"] for row in state.runs.values())
    yield from (f"I10 {label}: {count} runs under one key" for label, count in labels.items() if count > 1)
    yield from _of_sessions(state, accepted)
    yield from (f"I8 the checkpoints of run {row['run']} branch" for row in state.branches)
    yield from (f"I12 job {row['id']} is {row['status']}, its run {row['run']}" for row in state.jobs)
    yield from (f"I12 run {row['id']} is running without a lease" for row in state.unheld)
    yield from (f"I13 the secret is in the table {table}" for table in state.leaks)
    yield from (f"I13 the secret is in {log}" for log in logs.rglob("log") if SECRET in log.read_text())


def _of_run(state: State, run: Accepted, effects: Effects) -> Iterator[str]:
    found = state.runs.get(run.id)
    if found is None:
        yield f"I1 {run.label}: accepted as {run.id}, and lost"
        return
    events = state.events.get(run.id, [])
    if found["status"] != "succeeded":
        yield f"I1 {run} is {found['status']} after {found['attempt']} attempts: {found['error']}"
    yield from _of_events(run, [event["type"] for event in events])
    numbers = list(range(1, found["next_seq"]))
    if [event["seq"] for event in events] != numbers:
        yield f"I3 {run}: its events have a gap"
    if run.followed and run.streamed != numbers:
        yield f"I4 {run}: a client saw {run.streamed} of {numbers[-1]}"
    yield from _of_effects(run, events, effects)
    if run.kind == "ask":
        yield from _of_answer(run, found, (state.answers.get(run.id) or {}).get("answer"))


def _of_events(run: Accepted, types: Sequence[str]) -> Iterator[str]:
    if types[:1] != ["run.created"] or sum(type in LAST for type in types) != 1 or types[-1] not in LAST:
        yield f"I2 {run}: its events begin with {types[:1]} and end with {types[-2:]}"


def _of_answer(run: Accepted, found: Mapping[str, Any], answer: Any) -> Iterator[str]:
    if answer != f"answer to {run.label}" or found["output"] != answer:
        yield f"I9 {run}: answered {answer!r}, went on with {found['output']!r}"
    if run.answers.count(202) > 1:
        yield f"I9 {run}: accepted two answers at once"


def _of_effects(run: Accepted, events: Sequence[dict[str, Any]], effects: Effects) -> Iterator[str]:
    starts = Counter(_effect(event) for event in events if event["type"] == "step.started")
    executions = sum(event["type"] == "run.started" for event in events)
    for step in EXPECTED[run.kind]:
        times = effects.done[run.label, step]
        if times < 1:
            yield f"I5 {run}: the effect {step} was never had"
        if times > starts[step] or starts[step] > executions:
            yield (
                f"I5 {run}: the effect {step} was had {times} times,"
                f" told {starts[step]} times, in {executions} executions"
            )
        if len(effects.keys.get((run.label, step), ())) > 1:
            yield f"I5 {run}: the effect {step} came with several keys"


def _effect(event: dict[str, Any]) -> str:
    return f"{event['step']}{event['within'][0]['item']}" if event["within"] else str(event["step"])


def _of_sessions(state: State, accepted: Sequence[Accepted]) -> Iterator[str]:
    sessions: dict[str, list[Accepted]] = {}
    for run in accepted:
        if run.session is not None:
            sessions.setdefault(run.session, []).append(run)
    for name, runs in sessions.items():
        runs.sort(key=lambda run: run.place)
        labels = [run.label for run in runs]
        for run in runs:
            kept = (state.runs.get(run.id) or {}).get("output")
            if kept is None or json.loads(kept) != labels[: run.place]:
                yield f"I7 I11 {name}, {run}: it knew of {kept}, not of {labels[: run.place]}"
