"""Make one value of everything that arrives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.operands import shortened

Mode: TypeAlias = Literal["collect", "first", "combine", "by_key"]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mode: Annotated[
        Mode,
        setting(
            template=False,
            description="A list of all values, the first that is not null, objects joined into one, "
            "or lists of objects joined by a key.",
        ),
    ] = "collect"
    key: Annotated[
        str, setting(description="The field that the objects are joined by.", when={"mode": ["by_key"]})
    ] = ""
    how: Annotated[
        Literal["outer", "inner"],
        setting(
            template=False,
            description="Every key, or only those found in every input.",
            when={"mode": ["by_key"]},
        ),
    ] = "outer"

    def __post_init__(self) -> None:
        if self.mode == "by_key" and not self.key:
            raise ValueError("the mode 'by_key' needs 'key', the name of the field that the objects share")


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[
        tuple[Any, ...], port(many=True, description="What is merged, in the order of the arrows.")
    ] = ()


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[Any, port(description="The value that was made of all.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    return Outputs(MODES[config.mode](config, inputs.input))


def _collect(config: Config, values: Sequence[Any]) -> list[Any]:
    return list(values)


def _first(config: Config, values: Sequence[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _combine(config: Config, values: Sequence[Any]) -> dict[str, Any]:
    combined: dict[str, Any] = {}
    for number, value in enumerate(values, 1):
        combined |= _object(f"input {number}", value)
    return combined


def _by_key(config: Config, values: Sequence[Any]) -> list[dict[str, Any]]:
    joined: dict[tuple[type, Any], dict[str, Any]] = {}
    found_in: dict[tuple[type, Any], set[int]] = {}
    for number, items in enumerate(values, 1):
        if not isinstance(items, list | tuple):
            raise _bad(f"input {number}", items, "a list of objects")
        for index, item in enumerate(items):
            where = f"item {index} of input {number}"
            key = _key(where, _object(where, item), config.key)
            joined.setdefault(key, {}).update(item)
            found_in.setdefault(key, set()).add(number)
    if config.how == "outer":
        return list(joined.values())
    return [item for key, item in joined.items() if len(found_in[key]) == len(values)]


def _object(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _bad(where, value, "an object")
    return value


def _key(where: str, item: Mapping[str, Any], name: str) -> tuple[type, Any]:
    if name not in item:
        fields = ", ".join(map(repr, list(item)[:20])) or "none"
        message = f"{where} has no field {name!r}, by which it is joined; its fields: {fields}"
        raise NodeError(message, code="bad_input")
    value = item[name]
    if value is None or not isinstance(value, str | int | float):
        raise _bad(f"{name!r} of {where}", value, "a text, a number, true or false")
    return (float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)), value


def _bad(where: str, value: Any, allowed: str) -> NodeError:
    found = "null" if value is None else shortened(value)
    shown = repr(found) if isinstance(value, str) else found
    return NodeError(f"{where} is {shown}; allowed is {allowed}", code="bad_input")


MODES: Mapping[Mode, Callable[[Config, Sequence[Any]], Any]] = {
    "collect": _collect,
    "first": _first,
    "combine": _combine,
    "by_key": _by_key,
}

NODE = NodeType.step(
    run,
    "Merge",
    "Merge",
    icon="merge",
    aliases=("MergeNode",),
    examples=({"mode": "collect"}, {"mode": "by_key", "key": "id", "how": "inner"}),
)
