"""Begin a run at certain times: by a cron expression, at an interval, or once."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from nodes.contract import NodeType, RunContext, port, setting
from nodes.mistakes import Keys, Mistakes
from nodes.timing import LONGEST_INTERVAL, Misfire, Overlap, Timing

_KEYS = {
    "cron": "cron_expression",
    "every": "interval_seconds",
    "once": "scheduled_time",
    "max_count": "max_executions",
}


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schedule_type: Annotated[
        Literal["interval", "cron", "once", "manual"],
        setting("timer_type", template=False, description="What says when it fires; 'manual': only by hand."),
    ] = "interval"
    interval_seconds: Annotated[
        float,
        setting(
            "every",
            template=False,
            description="Seconds between two firings.",
            when={"schedule_type": ["interval"]},
        ),
        msgspec.Meta(ge=1, le=LONGEST_INTERVAL),
    ] = 3600
    cron_expression: Annotated[
        str,
        setting(
            "cron",
            template=False,
            description="Five fields: minute, hour, day of month, month, day of week.",
            when={"schedule_type": ["cron"]},
        ),
    ] = "0 */1 * * *"
    scheduled_time: Annotated[
        str | None,
        setting(
            "once",
            template=False,
            description="The instant, as in 2027-01-31T09:00; without an offset in the time zone below.",
            when={"schedule_type": ["once"]},
        ),
    ] = None
    timezone: Annotated[
        str, setting(template=False, description="An IANA name, as in Europe/Berlin; its clocks count.")
    ] = "UTC"
    enabled: Annotated[bool, setting("is_enabled", template=False, description="Whether it fires.")] = True
    trigger_data: Annotated[
        Any, setting("input", template=False, description="What its runs start with: JSON, or a text.")
    ] = None
    starts_at: Annotated[
        str | None, setting(template=False, description="It does not fire before this instant.")
    ] = None
    ends_at: Annotated[
        str | None, setting(template=False, description="It does not fire after this instant.")
    ] = None
    jitter: Annotated[
        float,
        setting(
            "jitter_seconds", template=False, description="Each firing comes up to so many seconds later."
        ),
        msgspec.Meta(ge=0, le=3600),
    ] = 0
    max_executions: Annotated[
        int,
        setting("max_count", template=False, description="After so many firings it is over; 0: never."),
        msgspec.Meta(ge=0),
    ] = 0
    misfire: Annotated[
        Misfire,
        setting(
            template=False,
            description="What becomes of firings that came due while the server was away: one run for all of "
            "them, none, or one for each of the newest.",
        ),
    ] = "coalesce"
    misfire_limit: Annotated[
        int,
        setting(template=False, description="How many runs 'all' makes at most.", when={"misfire": ["all"]}),
        msgspec.Meta(ge=1, le=1000),
    ] = 10
    overlap: Annotated[
        Overlap,
        setting(
            template=False,
            description="While a run of an earlier firing is not over: start anyway, leave this one out, let "
            "it wait, or cancel the earlier one.",
        ),
    ] = "allow"


class Inputs(msgspec.Struct, frozen=True):
    pass


class Outputs(msgspec.Struct, frozen=True):
    timer_data: Annotated[Any, port("output", description="What its runs start with.")] = None
    schedule_info: Annotated[
        dict[str, Any],
        port("timer_stats", "timer_control", description="Which schedule fired, and the instant it was due."),
    ] = {}


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    given = _read(config.trigger_data) if ctx.input in (None, "") else ctx.input
    info = {key: value for key in ("schedule", "due") if (value := ctx.trigger.get(key)) is not None}
    return Outputs(given, {"type": config.schedule_type, "timezone": config.timezone, **info})


def given(config: Config) -> Any:
    """What its runs start with."""
    return _read(config.trigger_data)


def _read(data: Any) -> Any:
    """Editors keep an object as its JSON text."""
    if isinstance(data, str) and data.lstrip()[:1] in ("{", "["):
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError):
            return data
    return data


def timing(config: Config) -> Timing | None:
    """What the settings say, in our own words; `None` where it fires by hand only.

    Raises:
        Mistakes: They do not go together.
    """
    if config.schedule_type == "manual" or not config.enabled:
        return None
    match config.schedule_type:
        case "interval":
            when: dict[str, Any] = {"every": config.interval_seconds}
        case "cron":
            when = {"cron": config.cron_expression.strip()}
        case _:
            when = {"once": _moment(config, "scheduled_time")}
    return Timing(
        **when,
        timezone=config.timezone,
        starts_at=_moment(config, "starts_at"),
        ends_at=_moment(config, "ends_at"),
        jitter=config.jitter,
        max_count=config.max_executions or None,
        misfire=config.misfire,
        misfire_limit=config.misfire_limit,
        overlap=config.overlap,
    )


def _moment(config: Config, key: str) -> datetime | None:
    text = getattr(config, key)
    if not text:
        if key == "scheduled_time":
            raise Mistakes([("'scheduled_time' says when, as in 2027-01-31T09:00", (key,))])
        return None
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise Mistakes([(f"{text[:80]!r} is no instant such as 2027-01-31T09:00+01:00", (key,))]) from None


def mistakes(config: Config) -> Iterable[tuple[str, Keys]]:
    """What is wrong with the settings together."""
    try:
        timing(config)
    except Mistakes as exc:
        for message, keys in exc.found:
            yield message, (_KEYS.get(str(keys[0]), keys[0]), *keys[1:]) if keys else ()


NODE = NodeType.step(
    run,
    "TimerStart",
    "Timer",
    trigger=True,
    aliases=("TimerStartNode", "Timer", "Schedule"),
    ignores=("auto_trigger_workflow", "timeout_seconds", "retry_on_failure", "retry_count"),
    timing=timing,
    timing_input=given,
    mistakes=mistakes,
    icon="timer",
    examples=(
        {"schedule_type": "cron", "cron_expression": "0 9 * * 1-5", "timezone": "Europe/Berlin"},
        {"schedule_type": "interval", "interval_seconds": 900, "overlap": "skip"},
    ),
)
