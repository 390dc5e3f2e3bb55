"""What metadata must say: conditions in JSON, put as one SQL/JSON path for the database to test in its query.

    {"lang": "en", "year": {"$gte": 2020}, "$or": [{"tag": "news"}, {"author": {"$contains": "Lovelace"}}]}

A value in a list counts as the value: `{"tags": "news"}` fits `{"tags": ["news", "ai"]}`. A dot leads into an
object: `{"author.name": "Ada"}`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from nodes.contract import NodeError

Strategy: TypeAlias = Literal["exact", "contains", "or"]

MOST_CONDITIONS = 100
MOST_DEPTH = 10
MOST_TEXT = 1000

_COMPARED = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


class BadFilter(NodeError):
    """The filter is none."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="bad_filter", is_final=True)


def by_strategy(wanted: Mapping[str, Any], strategy: Strategy) -> Mapping[str, Any]:
    """The filter that the editors' form means: all keys equal, all contained, or any equal."""
    if strategy == "or" and wanted:
        return {"$or": [{key: value} for key, value in wanted.items()]}
    if strategy == "contains":
        return {
            key: value if key.startswith("$") or isinstance(value, Mapping) else {"$contains": value}
            for key, value in wanted.items()
        }
    return wanted


def json_path(wanted: Mapping[str, Any] | None) -> str | None:
    """The predicate of `wanted` in the language of Postgres' `jsonpath`; `None` if anything will do.

    Raises:
        BadFilter: It is no filter, or too large.
    """
    if not wanted:
        return None
    budget = iter(range(MOST_CONDITIONS))
    return _all(wanted, budget, 0)


def _all(wanted: Any, budget: Iterator[int], depth: int) -> str:
    if not isinstance(wanted, Mapping):
        raise BadFilter(f"a filter is an object of conditions, not {_shown(wanted)}")
    if depth > MOST_DEPTH:
        raise BadFilter(f"the filter is nested deeper than {MOST_DEPTH} levels")
    parts = [_condition(str(key), value, budget, depth) for key, value in wanted.items()]
    return _joined(parts, "&&")


def _joined(parts: list[str], how: str) -> str:
    if not parts:
        return "(1 == 1)" if how == "&&" else "(1 == 0)"
    return f"({f' {how} '.join(parts)})"


def _condition(key: str, value: Any, budget: Iterator[int], depth: int) -> str:
    if next(budget, None) is None:
        raise BadFilter(f"the filter has more than {MOST_CONDITIONS} conditions")
    if key in ("$and", "$or"):
        if not isinstance(value, list | tuple):
            raise BadFilter(f"{key!r} takes a list of filters, not {_shown(value)}")
        return _joined([_all(each, budget, depth + 1) for each in value], "&&" if key == "$and" else "||")
    if key == "$not":
        return f"(!{_all(value, budget, depth + 1)})"
    if key.startswith("$"):
        raise BadFilter(f"unknown condition {_shown(key)}; known: $and, $or, $not, or a key of the metadata")
    return _of_key(key, value, budget)


def _of_key(key: str, value: Any, budget: Iterator[int]) -> str:
    paths = _paths(key)
    if not isinstance(value, Mapping):
        return _equal(paths, value)
    if not value:
        raise BadFilter(f"the condition on {_shown(key)} is an empty object")
    parts = []
    for operation, operand in value.items():
        if next(budget, None) is None:
            raise BadFilter(f"the filter has more than {MOST_CONDITIONS} conditions")
        test = _OPERATIONS.get(str(operation))
        if test is None:
            known = ", ".join(_OPERATIONS)
            raise BadFilter(f"unknown operation {_shown(operation)} on {_shown(key)}; known: {known}")
        parts.append(test(paths, operand))
    return _joined(parts, "&&")


def _paths(key: str) -> list[str]:
    """Where `key` may be: a dot leads into an object, or is part of the name."""
    if not key:
        raise BadFilter("a key of the filter is empty")
    paths = [f"$.{_text(key)}"]
    if "." in key and all(key.split(".")):
        paths.append("$" + "".join(f".{_text(part)}" for part in key.split(".")))
    return paths


def _holds(paths: list[str], test: str) -> str:
    return _joined([f"exists({path} ? ({test}))" for path in paths], "||")


def _equal(paths: list[str], value: Any) -> str:
    if value is None:
        missing = _joined([f"(!exists({path}))" for path in paths], "&&")
        return f"({missing} || {_holds(paths, '@ == null')})"
    return _holds(paths, f"@ == {_literal(value)}")


def _not(test: Callable[[list[str], Any], str]) -> Callable[[list[str], Any], str]:
    return lambda paths, value: f"(!{test(paths, value)})"


def _in(paths: list[str], value: Any) -> str:
    if not isinstance(value, list | tuple):
        raise BadFilter(f"'$in' and '$nin' take a list, not {_shown(value)}")
    if len(value) > MOST_CONDITIONS:
        raise BadFilter(f"'$in' and '$nin' take at most {MOST_CONDITIONS} values, not {len(value)}")
    return _joined([_equal(paths, each) for each in value], "||")


def _contains(paths: list[str], value: Any) -> str:
    if not isinstance(value, str):
        return _equal(paths, value)
    return _holds(paths, f'@ like_regex {_text(value)} flag "q"')


def _exists(paths: list[str], value: Any) -> str:
    if not isinstance(value, bool):
        raise BadFilter(f"'$exists' takes true or false, not {_shown(value)}")
    found = _joined([f"exists({path})" for path in paths], "||")
    return found if value else f"(!{found})"


def _compared(sign: str) -> Callable[[list[str], Any], str]:
    def test(paths: list[str], value: Any) -> str:
        if value is None or isinstance(value, bool):
            raise BadFilter(f"a comparison takes a number or a text, not {_shown(value)}")
        return _holds(paths, f"@ {sign} {_literal(value)}")

    return test


_OPERATIONS: Mapping[str, Callable[[list[str], Any], str]] = {
    "$eq": _equal,
    "$ne": _not(_equal),
    **{name: _compared(sign) for name, sign in _COMPARED.items()},
    "$in": _in,
    "$nin": _not(_in),
    "$contains": _contains,
    "$exists": _exists,
}


def _literal(value: Any) -> str:
    match value:
        case str():
            return _text(value)
        case bool():
            return "true" if value else "false"
        case int() if abs(value) < 10**30:
            return f"({value})"
        case float() if math.isfinite(value):
            return f"({value!r})"
    raise BadFilter(f"a filter compares texts, numbers, true and false, not {_shown(value)}")


def _text(value: str) -> str:
    """A string literal; the path language has those of JSON."""
    if len(value) > MOST_TEXT:
        raise BadFilter(f"a text of the filter has {len(value)} characters; at most {MOST_TEXT} are allowed")
    if "\x00" in value or (not value.isascii() and any("\ud800" <= each <= "\udfff" for each in value)):
        raise BadFilter("a text of the filter holds a character that no text in the database can hold")
    return json.dumps(value, ensure_ascii=False)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
