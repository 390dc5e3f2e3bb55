"""Put the items of a list in order; items that are equal stay as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET

from nodes.contract import NodeType, RunContext, port, setting
from nodes.isolated import isolated_if_heavy, weight
from nodes.lists import Order, is_nothing, items_of, order_of, path_of
from nodes.mistakes import Keys, Mistakes
from nodes.operands import as_date, as_number, as_text, shown
from nodes.paths import follow, wrong_path

As: TypeAlias = Literal["any", "text", "number", "date"]


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What items are put in order by."""

    path: Annotated[
        str, msgspec.Meta(description="Where it lies in an item, as in `customer.name`; empty is the item.")
    ] = ""
    order: Annotated[
        Literal["ascending", "descending", "asc", "desc"],
        msgspec.Meta(description="The smallest first, or the greatest."),
    ] = "ascending"
    type: Annotated[
        As,
        msgspec.Meta(
            description="As what values are read. `any` takes them as they are: booleans come before "
            "numbers, then texts, lists and objects. What cannot be read so counts as null."
        ),
    ] = "any"
    nulls: Annotated[
        Literal["first", "last"],
        msgspec.Meta(description="Where items go that have nothing there, whatever the order."),
    ] = "last"
    case_sensitive: Annotated[
        bool, msgspec.Meta(description="Whether capital letters come before all small ones.")
    ] = False


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    by: Annotated[
        str | tuple[str | Key, ...],
        setting(
            "keys",
            "sort_by",
            "field",
            description="What the items are put in order by, the most important first: paths, with a `-` "
            "before them for the greatest first, or objects that say more. Left empty, the items themselves.",
        ),
    ] = ()
    items: Annotated[
        Any, setting("list", description="The list; left empty, what arrives at the input.", left_empty=True)
    ] = UNSET

    def __post_init__(self) -> None:
        if found := [*_wrong_paths(self)]:
            raise Mistakes(found)


class Inputs(msgspec.Struct, frozen=True):
    items: Annotated[Any, port("input", description="The list, if the setting does not give it.")] = None


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[list[Any], port("items", "sorted", description="The same items, in order.")]


def keys(config: Config) -> list[Key]:
    """What the items are put in order by, in full."""
    by = (config.by,) if isinstance(config.by, str) else config.by
    full = [_in_full(each) if isinstance(each, str) else each for each in by]
    return full or [Key()]


def _in_full(text: str) -> Key:
    return Key(text[1:], "descending") if text.startswith("-") else Key(text)


def _wrong_paths(config: Config) -> Iterator[tuple[str, Keys]]:
    if config.by is None:  # a template whose value is not known yet
        return
    for at, key in enumerate(keys(config)):
        if wrong := wrong_path(key.path):
            named = config.by if isinstance(config.by, str) or not config.by else config.by[at]
            if isinstance(named, Key):
                yield f"'path' {wrong}", ("by", at, "path")
            else:
                yield f"{shown(named)} {wrong}", ("by",) if isinstance(config.by, str) else ("by", at)


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    items = items_of(config.items, inputs.items)
    by = keys(config)
    order = await isolated_if_heavy(ctx, weight(items) * len(by), _order, items, by)
    return Outputs([items[place] for place in order])


def _order(items: Sequence[Any], by: Sequence[Key]) -> list[int]:
    """The places of the items, in the order that is asked for."""
    found = list(range(len(items)))
    for key in reversed(by):  # each is stable, so what an earlier one has decided outlasts it
        path, read = path_of(key.path, "path"), _READ[key.type]
        placed: list[tuple[Order, int]] = []
        nulls: list[int] = []
        for place in found:
            value = read(follow(items[place], path))
            if is_nothing(value):
                nulls.append(place)
            else:
                placed.append((_rank(value, key), place))
        placed.sort(key=lambda pair: pair[0], reverse=key.order in ("descending", "desc"))
        rest = [place for _, place in placed]
        found = nulls + rest if key.nulls == "first" else rest + nulls
    return found


def _rank(value: Any, key: Key) -> Order:
    return (0, value) if key.type == "date" else order_of(value, case_sensitive=key.case_sensitive)


_READ: Mapping[As, Callable[[Any], Any]] = {
    "any": lambda value: value,
    "text": lambda value: None if value is None else as_text(value),
    "number": as_number,
    "date": as_date,
}

NODE = NodeType.step(
    run,
    "Sort",
    "Sort a list",
    icon="arrow-down-a-z",
    aliases=("SortNode",),
    examples=(
        {"by": "-price"},
        {"by": ["customer.name", {"path": "created", "type": "date", "order": "descending"}]},
    ),
)
