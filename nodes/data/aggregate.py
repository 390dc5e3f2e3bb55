"""Sum up the items of a list, all or in groups: count, sum, average, least, greatest, or all values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET

from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.isolated import isolated_if_heavy, weight
from nodes.lists import identity, is_nothing, items_of, order_of, path_of
from nodes.mistakes import Keys, Mistakes, twice
from nodes.operands import as_number, shown
from nodes.paths import Steps, follow, wrong_path

Function: TypeAlias = Literal["count", "sum", "average", "min", "max", "collect"]


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that is said of every group."""

    function: Annotated[
        Function,
        msgspec.Meta(
            description="`count`, `sum`, `average`, `min` and `max` leave out what is null; the last two "
            "take values of any type, in the order of `Sort`. `collect` is the list of all values."
        ),
    ]
    path: Annotated[
        str,
        msgspec.Meta(
            description="Where the value lies in an item, as in `order.total`; empty is the item itself."
        ),
    ] = ""
    name: Annotated[
        str, msgspec.Meta(description="What it is called; left empty, as in `sum_order_total`.")
    ] = ""

    @property
    def called(self) -> str:
        if self.name:
            return self.name
        words = "".join(each if each.isalnum() else "_" for each in self.path).strip("_")
        return f"{self.function}_{words}" if words else self.function


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    figures: Annotated[
        Annotated[tuple[Function | Figure, ...], msgspec.Meta(max_length=100)],
        setting(
            "operations",
            "aggregations",
            "fields",
            description="What is said of every group: names of functions, or objects that say of what.",
        ),
    ] = ("count",)
    by: Annotated[
        str | tuple[str, ...],
        setting(
            "group_by",
            "key",
            description="Paths by whose values the items are grouped, as in `customer.country`. Left empty, "
            "all items are one group.",
        ),
    ] = ()
    items: Annotated[
        Any, setting("list", description="The list; left empty, what arrives at the input.", left_empty=True)
    ] = UNSET

    def __post_init__(self) -> None:
        if found := [*_wrong_paths(self), *_same_names(self)]:
            raise Mistakes(found)


class Inputs(msgspec.Struct, frozen=True):
    items: Annotated[Any, port("input", description="The list, if the setting does not give it.")] = None


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[
        Any,
        port(
            "result",
            "items",
            description="An object for each group, in the order of their first items, with what it is "
            "grouped by and its figures; without `by` one object.",
        ),
    ]
    groups: Annotated[int, port(description="How many groups there are.")]


def figures(config: Config) -> list[Figure]:
    """What is said of every group, in full."""
    return [each if isinstance(each, Figure) else Figure(each) for each in config.figures]


def groups_by(config: Config) -> tuple[str, ...]:
    if isinstance(config.by, str):
        return (config.by,) if config.by else ()
    return config.by


def _wrong_paths(config: Config) -> Iterator[tuple[str, Keys]]:
    for at, path in enumerate(groups_by(config)):
        if wrong := wrong_path(path):
            yield f"{shown(path)} {wrong}", ("by",) if isinstance(config.by, str) else ("by", at)
    for at, figure in enumerate(figures(config)):
        if wrong := wrong_path(figure.path):
            yield f"'path' {wrong}", ("figures", at, "path")


def _same_names(config: Config) -> Iterator[tuple[str, Keys]]:
    paths = groups_by(config)
    for at in twice([*paths, *(each.called for each in figures(config))]):
        if at < len(paths):
            yield f"the items are grouped by {shown(paths[at])} twice", ("by", at)
        else:
            place = at - len(paths)
            name = figures(config)[place].called
            message = f"two values of a group are called {shown(name)}; give one of them another 'name'"
            yield message, ("figures", place)


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    items = items_of(config.items, inputs.items)
    work = weight(items) * (len(groups_by(config)) + len(config.figures))
    made = await isolated_if_heavy(ctx, work, _groups, config, items)
    return Outputs(made if groups_by(config) else made[0], len(made))


def _groups(config: Config, items: Sequence[Any]) -> list[dict[str, Any]]:
    by = [(path, path_of(path, "by")) for path in groups_by(config)]
    told = [(each, path_of(each.path, "path")) for each in figures(config)]
    members: dict[Any, list[int]] = {} if by else {(): []}
    for at, item in enumerate(items):
        key = tuple(identity(follow(item, path)) for _, path in by)
        members.setdefault(key, []).append(at)
    return [_group(items, places, by, told) for places in members.values()]


def _group(
    items: Sequence[Any],
    places: Sequence[int],
    by: Sequence[tuple[str, Steps]],
    told: Sequence[tuple[Figure, Steps]],
) -> dict[str, Any]:
    made = {name: follow(items[places[0]], path) for name, path in by}
    for figure, path in told:
        values = [(at, follow(items[at], path)) for at in places]
        made[figure.called] = _FUNCTIONS[figure.function](figure, values)
    return made


Values: TypeAlias = Sequence[tuple[int, Any]]
"""Values with the places of their items."""


def _there(values: Values) -> Values:
    return [(at, value) for at, value in values if not is_nothing(value)]


def _count(figure: Figure, values: Values) -> int:
    return len(_there(values)) if figure.path else len(values)


def _sum(figure: Figure, values: Values) -> int | float:
    return _total(figure, _numbers(figure, values))


def _average(figure: Figure, values: Values) -> int | float | None:
    numbers = _numbers(figure, values)
    if not numbers:
        return None
    total = _total(figure, numbers)
    try:
        return total / len(numbers)
    except OverflowError:
        raise _too_large(figure) from None


def _numbers(figure: Figure, values: Values) -> list[int | float]:
    found: list[int | float] = []
    for at, value in _there(values):
        number = as_number(value)
        if number is None:
            where = f"{shown(figure.path)} of item {at}" if figure.path else f"item {at}"
            message = (
                f"{where} is {shown(value)}; allowed in {figure.function!r} is a number or a text of one"
            )
            raise NodeError(message, code="bad_input")
        found.append(number)
    return found


def _total(figure: Figure, numbers: Sequence[int | float]) -> int | float:
    """Exact for whole numbers, and as exact as can be for others, whatever their order."""
    if all(isinstance(each, int) for each in numbers):
        return sum(numbers)
    try:
        return math.fsum(numbers)
    except OverflowError:
        raise _too_large(figure) from None


def _too_large(figure: Figure) -> NodeError:
    return NodeError(
        f"{shown(figure.called)} is too large for a number", code="limit_exceeded", is_final=True
    )


def _least(figure: Figure, values: Values) -> Any:
    return min((value for _, value in _there(values)), key=order_of, default=None)


def _greatest(figure: Figure, values: Values) -> Any:
    return max((value for _, value in _there(values)), key=order_of, default=None)


def _collect(figure: Figure, values: Values) -> list[Any]:
    return [value for _, value in values]


_FUNCTIONS: Mapping[Function, Callable[[Figure, Values], Any]] = {
    "count": _count,
    "sum": _sum,
    "average": _average,
    "min": _least,
    "max": _greatest,
    "collect": _collect,
}

NODE = NodeType.step(
    run,
    "Aggregate",
    "Aggregate a list",
    icon="sigma",
    aliases=("AggregateNode", "Summarize"),
    examples=(
        {"by": "country", "figures": ["count", {"function": "sum", "path": "total", "name": "revenue"}]},
        {"figures": [{"function": "average", "path": "rating"}, {"function": "max", "path": "rating"}]},
    ),
)
