"""A node type that has changed its meaning twice, as a third party's may."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from nodes.contract import NodeType, RunContext, port, setting


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    every_seconds: Annotated[
        Annotated[float, msgspec.Meta(ge=0.1)],
        setting("interval", description="Seconds between two strokes."),
    ] = 1.0
    sound: Annotated[
        Literal["tick", "silent", "bell"], setting(template=False, description="What is heard.")
    ] = "tick"
    text: Annotated[str, setting(description="What is said.")] = ""


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[Any, port(description="Anything.")] = None


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[dict[str, Any], port(description="The settings.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    return Outputs(msgspec.to_builtins(config))


def upgrade(saved: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Version 1 counted milliseconds; 2 had a switch for the sound, which 3 has choices for."""
    new = dict(saved)
    if version < 2 and "interval" in new:
        new["interval"] = float(new["interval"]) / 1000
    if version < 3 and "quiet" in new:
        new["sound"] = "silent" if new.pop("quiet") in (True, "true") else "tick"
    return new


CLOCK = NodeType.step(
    run, "Clock", "A clock", icon="clock", version=3, upgrade=upgrade, examples=({"every_seconds": 2},)
)
