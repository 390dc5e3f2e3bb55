"""The commands that need no HTTP: check, picture, run, migrate."""

from __future__ import annotations

import asyncio
import logging
import sys
from codecs import BOM_UTF8
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from flowserver import db
from flowserver.accounts import DEFAULT_ORG
from flowserver.assembly import Flowserver, assemble
from flowserver.database import database
from flowserver.errors import BadRequest, Conflict, RunEnded, ThreadBusy, Unavailable
from flowserver.events import Event
from flowserver.http.bodies import Checked
from flowserver.questions import expire
from flowserver.run_views import RunView
from flowserver.settings import Settings
from flowserver.show import plan_in_words, show, shown
from flowserver.starts import Start
from graphs.compile import Compiler
from graphs.mermaid import mermaid
from graphs.problems import InvalidWorkflow
from graphs.summary import summary
from graphs.svg import svg
from nodes import registry

TURN = 0.5
"""Seconds between two looks whether it is the run's turn."""
OK, FAILED, REFUSED, WAITING = 0, 1, 2, 3


class Unreadable(Exception):
    """The file is not a drawing in JSON."""


def drawing(file: Path) -> Any:
    """Read a drawing: `flow_data` itself, or an export that holds one.

    Raises:
        Unreadable: There is no such file, or no JSON in it.
    """
    piped = str(file) == "-"
    name = "standard input" if piped else str(file)
    try:
        raw = sys.stdin.buffer.read() if piped else file.read_bytes()
        found = msgspec.json.decode(raw.removeprefix(BOM_UTF8))  # some Windows editors write one
    except OSError as exc:
        raise Unreadable(f"{name}: {exc.strerror}") from None
    except RecursionError:
        raise Unreadable(f"{name} is JSON that is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise Unreadable(f"{name} is not JSON: {exc}") from None
    wrapped = isinstance(found, dict) and "nodes" not in found and "flow_data" in found
    return found["flow_data"] if wrapped else found


def check(file: Path, *, as_json: bool, plan: bool = False) -> int:
    """Print what is wrong with a drawing, and with `plan` what it would do; 1 if there is an error."""
    try:
        found = Compiler(registry.discover()).check(drawing(file))
    except Unreadable as exc:
        print(f"flowserver: {exc}", file=sys.stderr)
        return REFUSED
    if as_json:
        told = Checked(found.problems, summary(found.plan) if found.plan else None)
        print(msgspec.json.format(msgspec.json.encode(told)).decode())
    else:
        for problem in found.problems:
            print(problem)
        errors = sum(problem.severity == "error" for problem in found.problems)
        print(f"{_count(errors, 'error')}, {_count(len(found.problems) - errors, 'warning')}")
        if plan and found.plan:
            print(plan_in_words(summary(found.plan)))
    return OK if found.plan else FAILED


def picture(file: Path, *, as_mermaid: bool, output: Path | None) -> int:
    """Draw a picture of a drawing; 1 if it has an error."""
    try:
        found = Compiler(registry.discover()).check(drawing(file))
        if found.plan is None:
            print("\n".join(map(str, found.problems)), file=sys.stderr)
            return FAILED
        text = mermaid(found.plan) if as_mermaid else svg(found.plan)
        if output is None:
            print(text)
        else:
            output.write_text(text, encoding="utf-8")
    except (Unreadable, OSError) as exc:
        print(f"flowserver: {exc}", file=sys.stderr)
        return REFUSED
    return OK


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def migrate(settings: Settings, *, status: bool = False) -> int:
    """Bring the database up to date and say what was applied; or only show its `status`, 1 if it is not."""
    try:
        with database(settings) as dsn:
            if status:
                return _show(asyncio.run(db.migrations(dsn)))
            applied = asyncio.run(db.migrate(dsn))
    except Unavailable as exc:
        print(f"flowserver: {exc}", file=sys.stderr)
        return REFUSED
    for name in applied:
        print(f"applied {name}")
    print("the database is up to date")
    return OK


def _show(found: db.Migrations) -> int:
    for names, what in zip(found, ("applied", "missing", "unknown"), strict=True):
        for name in names:
            print(f"{what:8} {name}")
    if found.unknown:
        print("the database is of a newer version of flowserver than this one")
    elif found.missing:
        print("the database lacks what is missing; 'flowserver migrate' applies it")
    else:
        print("the database is up to date")
    return FAILED if found.unknown or found.missing else OK


def run(
    settings: Settings, file: Path, given: str | None, session: str | None, *, stream: bool, as_json: bool
) -> int:
    """Run a drawing and print its output; 1 if it failed, 3 if it waits for an answer."""
    # It warns of every query that is cut off, as happens to a run that is interrupted.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    try:
        flow_data = drawing(file)
        with database(settings) as dsn:
            return asyncio.run(_run(settings, dsn, flow_data, value_of(given), session, stream, as_json))
    except (Unreadable, Unavailable, BadRequest, ThreadBusy) as exc:
        print(f"flowserver: {exc}", file=sys.stderr)
        return REFUSED
    except InvalidWorkflow as exc:
        print(exc, file=sys.stderr)
        return REFUSED


def value_of(given: str | None) -> Any:
    """`--input`: JSON if it is an object, a list, or a quoted text; else the text as it is."""
    if given is not None and given.lstrip()[:1] in ("{", "[", '"'):
        try:
            return msgspec.json.decode(given)
        except (msgspec.DecodeError, RecursionError):
            return given
    return given


async def _run(
    settings: Settings, dsn: str, flow_data: Any, given: Any, session: str | None, stream: bool, as_json: bool
) -> int:
    async with assemble(settings, dsn, role="own") as flowserver:
        compiled, whole = await flowserver.workflows.drawn(DEFAULT_ORG, flow_data)
        for warning in compiled.warnings:
            print(warning, file=sys.stderr)
        start = Start(
            compiled=compiled, flow_data=whole, input=given, session_id=session, kind="cli", is_watched=stream
        )
        id = (await flowserver.runs.start(DEFAULT_ORG, start)).id
        following = asyncio.create_task(_follow(flowserver, id, stream, as_json))
        try:
            # A task of its own, for the `wait_for` of Python 3.11 that it sits in may swallow Ctrl-C.
            while not following.done():
                await asyncio.wait([following], timeout=TURN)
                await expire(flowserver.pool)  # as no worker looks after it
                await flowserver.runs.take_up(id)  # once the runs before it in its session have ended
            ended = following.result()
        except BaseException:
            following.cancel()
            # Whoever started the run has left; the next server would take it up and go on.
            with suppress(RunEnded):
                await flowserver.runs.cancel(DEFAULT_ORG, id)
            raise
    if as_json and not stream:
        print(msgspec.json.format(msgspec.json.encode(ended)).decode())
    elif not stream:
        _print(ended)
    return {"succeeded": OK, "waiting": WAITING}.get(ended.status, FAILED)


async def _follow(flowserver: Flowserver, id: UUID, stream: bool, as_json: bool) -> RunView:
    """Follow a run to its end; at a terminal, its questions are asked there."""
    after = 0
    while True:
        async for events in flowserver.runs.watch(id, after):
            for event in events:
                after = event.seq
                if stream:
                    print(_line(event, as_json), flush=True)
        found = await flowserver.runs.get(DEFAULT_ORG, id)
        asked = [each for each in found.questions if not each.get("pause")]
        is_asking = found.status == "waiting" and asked
        if found.is_over or (is_asking and not await _answered(flowserver, found, asked[0])):
            return found


async def _answered(flowserver: Flowserver, waiting: RunView, question: dict[str, Any]) -> bool:
    """Ask one of the run's questions at the terminal until an answer fits; `False` if there will be none."""
    if not (sys.stdin and sys.stdin.isatty()):
        return False
    _say(f"\n{shown(question['payload'])}")
    if hint := _hint(question):
        _say(f"  {hint}")
    while True:
        _say("> ", end="")
        if not (line := await _typed()):
            return False
        try:
            answer = value_of(line.rstrip("\r\n"))
            await flowserver.runs.resume(DEFAULT_ORG, waiting.id, UUID(str(question["id"])), answer)
        except BadRequest as exc:
            _say(str(exc))
        except Conflict as exc:  # answered elsewhere in the meantime, or too late
            _say(str(exc))
            await expire(flowserver.pool)
            return True
        else:
            return True


def _hint(question: dict[str, Any]) -> str:
    """What an answer looks like."""
    actions = [each["id"] for each in question.get("actions", ())]
    names = [field["name"] for field in question.get("form", ())]
    fields = ", ".join(f'"{name}": …' for name in names)
    if actions:
        more = f', or with fields: {{"action": "{actions[0]}", "values": {{{fields}}}}}' if names else ""
        return f"one of: {', '.join(actions)}{more}"
    return f"as JSON: {{{fields}}}" if names else ""


async def _typed() -> str:
    """The next line; empty at the end. Ctrl-C ends the wait, which it does not for `input` in a thread."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline()


def _say(text: str, end: str = "\n") -> None:
    """Speak to the person, who may have sent the output elsewhere."""
    print(text, end=end, file=sys.stderr, flush=True)


def _line(event: Event, as_json: bool) -> str:
    return msgspec.json.encode(event.body).decode() if as_json else show(event)


def _print(ended: RunView) -> None:
    match ended.status:
        case "succeeded":
            print(shown(ended.output))
        case "waiting":
            for question in ended.questions:
                print(f"run {ended.id} waits for an answer to {question['id']}: {shown(question['payload'])}")
            _say(f"answer it at a server on this database: POST /api/v1/runs/{ended.id}/resume")
        case "failed":
            error = ended.error or {}
            place = f"{error['step']}: " if "step" in error else ""
            print(f"the run failed: {place}{error.get('message')} [{error.get('code')}]", file=sys.stderr)
        case _:
            print(f"the run is {ended.status}", file=sys.stderr)
