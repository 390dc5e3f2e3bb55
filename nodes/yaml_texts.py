"""YAML as JSON has it, read as YAML 1.2 says and people mean it: `NO`, `on`, `12:30` and dates are texts.

YAML 1.1, which PyYAML reads by itself, makes false, true and 750 of the first three. A number that begins
with a zero stays a text too, as in postal codes and telephone numbers: 1.1 makes 83 of 0123, 1.2 makes 123.
"""

from __future__ import annotations

import datetime
import functools
import math
import re
from collections.abc import Iterable
from typing import Any, ClassVar

from nodes.contract import NodeError
from nodes.texts import to_text

MOST_YAML = 1_000_000
"""Characters of a YAML text, which takes some seconds to read."""
_MOST_VALUES = 200_000
_MOST_DEPTH = 100

_PLAIN = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+))"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
)
"""Values that need no quotes to be something else than texts: their tag, pattern and first characters."""


def read_yaml(text: str) -> Any:
    """The value that `text` is.

    Raises:
        NodeError: `bad_yaml`, it is none; `too_large`, it is too long, or has too many values or levels.
    """
    import yaml  # noqa: PLC0415  few need it

    if len(text) > MOST_YAML:
        message = f"the YAML has {len(text):,} characters; allowed are {MOST_YAML:,}"
        raise NodeError(message, code="too_large", is_final=True)
    try:
        # What builds the values goes down as deep as the text says, and may take the process along.
        _check_depth(yaml.parse(text, _loader()), yaml.CollectionStartEvent, yaml.CollectionEndEvent)
        found = yaml.load(text, _loader())
    except yaml.MarkedYAMLError as wrong:
        mark = wrong.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise NodeError(f"the text is not YAML: {wrong.problem}{place}", code="bad_yaml") from None
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError):
        message = (
            "the text is not YAML: it has a value or character that cannot be read, or is nested too deeply"
        )
        raise NodeError(message, code="bad_yaml", is_final=True) from None
    return _Plain().of(found)


@functools.cache
def _loader() -> Any:
    import yaml  # noqa: PLC0415

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """PyYAML's safe loader with the values of YAML 1.2's core schema."""

        yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}

    for tag, pattern, first in _PLAIN:
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), list(first))
    return Loader


def _check_depth(events: Iterable[Any], begins: type, ends: type) -> None:
    depth = 0
    for event in events:
        depth += isinstance(event, begins) - isinstance(event, ends)
        if depth > _MOST_DEPTH:
            raise NodeError(f"the YAML has more than {_MOST_DEPTH} levels", code="too_large", is_final=True)


class _Plain:
    """YAML's values as JSON has them; an alias that is used again and again is counted each time."""

    def __init__(self) -> None:
        self._left = _MOST_VALUES

    def of(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1
        if self._left < 0 or depth > _MOST_DEPTH:
            message = f"the YAML has more than {_MOST_VALUES:,} values, or more than {_MOST_DEPTH} levels"
            raise NodeError(message, code="too_large", is_final=True)
        match value:
            case dict():
                return {_key(key): self.of(item, depth + 1) for key, item in value.items()}
            case list() | tuple() | set():
                return [self.of(item, depth + 1) for item in value]
            case _:
                return _scalar(value)


def _scalar(value: Any) -> Any:
    match value:
        case datetime.date():
            return value.isoformat()
        case bytes():
            return value.decode("utf-8", "replace")
        case float() if not math.isfinite(value):
            return None
    return value


def _key(key: Any) -> str:
    return to_text([_scalar(each) for each in key] if isinstance(key, tuple) else _scalar(key))
