"""Wait for a span of time, or until a moment; what arrives is passed on then.

A long wait holds no worker and outlasts a restart: the run is put aside, and goes on at a server's next look
after its deadline, by the database's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.mistakes import Keys, Mistakes
from nodes.operands import READ, as_date, shown
from nodes.question import EXPIRED, Question

Unit: TypeAlias = Literal["seconds", "minutes", "hours", "days"]

SHORT = 5.0
"""Seconds that a step may as well sleep: to put the run aside and take it up again takes that long."""
LONGEST = 31_536_000.0
"""A year of seconds."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""What lies before it has passed all the same, and some databases' clients cannot read it."""
_LAST_YEAR = 9000
_SECONDS: dict[Unit, float] = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400}


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    duration: Annotated[
        Annotated[float, msgspec.Meta(ge=0)] | None,
        setting(
            "seconds",
            "amount",
            "delay",
            description="How long to wait, at most a year. It counts from when nothing else of the run can "
            "go on.",
        ),
    ] = None
    unit: Annotated[Unit, setting(template=False, description="What `duration` counts.")] = "seconds"
    until: Annotated[
        str | None,
        setting(
            "date",
            "time",
            "datetime",
            description="In place of `duration`: until when, as 2030-01-31T12:00:00Z. Without a zone it is "
            "UTC; what has passed is not waited for.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if found := [*_wrong(self)]:
            raise Mistakes(found)


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[Any, port(description="What is passed on after the wait.")] = None


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[Any, port(description="What arrived.")]
    ended_early: Annotated[bool, port(description="Whether somebody ended the wait before its time.")]


def _wrong(config: Config) -> Iterator[tuple[str, Keys]]:
    if (config.duration is None) == (config.until is None):
        found = "neither" if config.until is None else "both"
        yield f"there is {found} of 'duration' and 'until'; allowed is one", ()
    if config.duration is not None and config.duration * _SECONDS[config.unit] > LONGEST:
        yield f"{config.duration:g} {config.unit} are too long; allowed is a year", ("duration",)
    if config.until is not None and "{{" not in config.until and as_date(config.until) is None:
        yield f"'until' is {shown(config.until)}; allowed is {READ['date'][1]}", ("until",)


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    if config.until is not None:
        payload = {"until": _moment(config.until)}
        answer = ctx.ask(Question(payload, until=payload["until"], pause=True))
    else:
        seconds = (config.duration or 0) * _SECONDS[config.unit]
        if seconds <= SHORT:
            await asyncio.sleep(seconds)
            return Outputs(inputs.input, False)
        answer = ctx.ask(Question({"seconds": seconds}, seconds=seconds, pause=True))
    return Outputs(inputs.input, not (isinstance(answer, bytes) and answer == EXPIRED))


def _moment(text: str) -> str:
    found = as_date(text)
    if found is None:
        message = f"'until' is {shown(text)}; allowed is {READ['date'][1]}"
        raise NodeError(message, code="bad_config", is_final=True)
    if found.year > _LAST_YEAR:
        message = f"'until' is {shown(text)}; allowed are years up to {_LAST_YEAR}"
        raise NodeError(message, code="bad_config", is_final=True)
    return max(found, _LONG_AGO).astimezone(UTC).isoformat()


NODE = NodeType.step(
    run,
    "Wait",
    "Wait",
    icon="hourglass",
    aliases=("WaitNode", "Delay", "DelayNode"),
    examples=({"duration": 2, "unit": "hours"}, {"until": "{{ input.due }}"}),
    effect=True,
    asks=True,
)
