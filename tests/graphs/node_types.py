"""Node types for tests, written as a third party would."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from nodes.contract import Choice, NodeType, Nothing, RunContext, port, setting


class EchoConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    uses: list[Any] = []


class Many(msgspec.Struct, frozen=True):
    input: Annotated[tuple[Any, ...], port(many=True)] = ()


class One(msgspec.Struct, frozen=True):
    output: Any


async def echo(config: EchoConfig, inputs: Many, ctx: RunContext) -> One:
    return One({"step": ctx.step, "inputs": list(inputs.input), "uses": config.uses})


class SwitchConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ways: Annotated[list[str], setting(template=False)]
    takes: str = ""


async def switch(config: SwitchConfig, inputs: Many, ctx: RunContext) -> Choice:
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
SWITCH = NodeType.step(switch, "Switch", "Takes a way", outputs=One, routes=lambda config: config.ways)
TYPED = NodeType.step(typed, "Typed", "Needs a text and a number")
GIVER = NodeType.provider(give, "Giver", "Gives a text", gives=Text, outputs=Given)
USER = NodeType.step(use, "User", "Uses texts")
