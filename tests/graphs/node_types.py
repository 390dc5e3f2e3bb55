"""Node types for tests, written as a third party would."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from typing import Annotated, Any

import msgspec

from nodes.contract import Choice, NodeError, NodeType, Nothing, RunContext, port, setting


class EchoConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    uses: list[Any] = []


class Many(msgspec.Struct, frozen=True):
    input: Annotated[tuple[Any, ...], port(many=True)] = ()


class One(msgspec.Struct, frozen=True):
    output: Any


async def echo(config: EchoConfig, inputs: Many, ctx: RunContext) -> One:
    return One({"step": ctx.step, "inputs": list(inputs.input), "uses": config.uses})


class ChooserConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ways: Annotated[list[str], setting(template=False)]
    takes: str = ""


async def choose(config: ChooserConfig, inputs: Many, ctx: RunContext) -> Choice:
    return Choice(config.takes, One(list(inputs.input)), {"takes": config.takes})


class Typed(msgspec.Struct, frozen=True):
    text: str
    number: int
    more: Annotated[tuple[Any, ...], port("others", many=True)] = ()


class Sum(msgspec.Struct, frozen=True):
    total: int
    text: str


async def typed(config: Nothing, inputs: Typed, ctx: RunContext) -> Sum:
    return Sum(inputs.number + len(inputs.more), inputs.text)


class Text:
    """What a giver gives."""

    def __init__(self, text: str) -> None:
        self.text = text


class GiverConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str


class Given(msgspec.Struct, frozen=True):
    text: Any


def give(config: GiverConfig, bindings: Nothing, ctx: RunContext) -> Text:
    return Text(config.text)


class Texts(msgspec.Struct, frozen=True):
    texts: tuple[Text, ...]


async def use(config: Nothing, inputs: Many, bindings: Texts, ctx: RunContext) -> One:
    return One([each.text for each in bindings.texts])


ECHO = NodeType.step(echo, "Echo", "Says what it got")
CHOOSER = NodeType.step(choose, "Chooser", "Takes a way", outputs=One, routes=lambda config: config.ways)
TYPED = NodeType.step(typed, "Typed", "Needs a text and a number")
GIVER = NodeType.provider(give, "Giver", "Gives a text", gives=Text, outputs=Given)
USER = NodeType.step(use, "User", "Uses texts")


class Fate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a step of a random drawing does hangs on nothing but its place in the run."""

    ways: Annotated[tuple[str, ...], setting(template=False)] = ()
    fails: Annotated[int, setting(template=False)] = 0
    """It fails in one of so many cases."""
    any: bool = False
    uses: list[Any] = []


class Sighted(msgspec.Struct, frozen=True):
    input: Annotated[tuple[Any, ...], port(many=True)] = ()


def fate(key: str, of: int) -> int:
    """One of `of` numbers, the same for the same `key`."""
    return zlib.crc32(key.encode()) % of


def seal(*parts: Any) -> str:
    """A short text that is another one for other `parts`."""
    return hashlib.sha1(msgspec.json.encode(parts)).hexdigest()[:8]


async def fated(config: Fate, inputs: Sighted, ctx: RunContext) -> Choice | One:
    await asyncio.sleep(0)
    if config.fails and fate(f"{ctx.idempotency_key} fails", config.fails) == 0:
        raise NodeError(f"{ctx.step} fails", code="fated", is_final=True)
    came = list(inputs.input)
    output = One(came if config.any else seal(ctx.step, came, config.uses))
    if not config.ways:
        return output
    return Choice(config.ways[fate(ctx.idempotency_key, len(config.ways))], output, {})


def passed_on(inputs: Sighted, port: str, ctx: RunContext) -> One:
    return One([port, *inputs.input])


FATED = NodeType.step(fated, "Fated", "Does as fate has it", outputs=One)
ACTING = NodeType.step(fated, "FatedEffect", "Does so outside", outputs=One, effect=True)
CHOOSING = NodeType.step(
    fated,
    "FatedRouter",
    "Chooses so",
    outputs=One,
    routes=lambda config: config.ways,
    instead=passed_on,
)
ACTING_ROUTER = NodeType.step(
    fated,
    "FatedEffectRouter",
    "Acts and chooses",
    outputs=One,
    routes=lambda config: config.ways,
    instead=passed_on,
    effect=True,
)
