"""Read JSON or YAML: from what arrives, or from a text with paths that is filled first."""

from __future__ import annotations

import asyncio
import datetime
import json
import math
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec

from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.texts import to_text

MOST_YAML = 1_000_000
"""Characters of a YAML text, which takes some seconds to read."""
_MOST_VALUES = 200_000
_MOST_DEPTH = 100
_FENCED = re.compile(r"\s*```[\w-]*[ \t]*\n(.*?)\n?[ \t]*```\s*", re.S)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Annotated[Literal["json", "yaml"], setting(description="What the text is.")] = "json"
    template: Annotated[
        str,
        setting(
            description="A text with {{ paths }}, read in place of what arrives; a value inside JSON is "
            "written {{ path | json }}."
        ),
    ] = ""


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[
        tuple[Any, ...],
        port(
            "text", many=True, description="The text to read; what is no text any more is passed on as it is."
        ),
    ] = ()


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[Any, port("parsed", "result", description="What the text says: an object, a list, …")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    if config.template.strip():
        return Outputs(await _read(config.template, config.format))
    if not inputs.input:
        raise NodeError("nothing arrived, and 'template' is empty", code="missing_value")
    read = [await _read(each, config.format) if isinstance(each, str) else each for each in inputs.input]
    return Outputs(read[0] if len(read) == 1 else read)


async def _read(text: str, kind: str) -> Any:
    fenced = _FENCED.fullmatch(text)  # models like to fence what they were asked for
    text = fenced[1] if fenced else text
    if not text.strip():
        raise NodeError(f"the text is empty, which is not {kind.upper()}", code=f"bad_{kind}")
    return _json(text) if kind == "json" else await asyncio.to_thread(_yaml, text)


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        raise NodeError("the JSON is nested too deeply", code="bad_json", is_final=True) from None
    except (msgspec.MsgspecError, UnicodeEncodeError):
        raise NodeError(_wrong_json(text), code="bad_json", is_final=True) from None


def _wrong_json(text: str) -> str:
    """Where JSON is wrong; of the text itself only what stands there."""
    try:
        json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as wrong:
        found = text[wrong.pos : wrong.pos + 20]
        place = f"line {wrong.lineno}, column {wrong.colno}"
        return f"the text is not JSON: {wrong.msg} at {place}" + (
            f", where it says {found!r}" if found else ""
        )
    except (ValueError, RecursionError):
        pass
    return "the text is not JSON: it has a number or a character that JSON does not know"


def _refuse(name: str) -> None:
    raise ValueError(name)


def _yaml(text: str) -> Any:
    import yaml  # noqa: PLC0415  few need it

    if len(text) > MOST_YAML:
        message = f"the YAML has {len(text):,} characters; allowed are {MOST_YAML:,}"
        raise NodeError(message, code="too_large", is_final=True)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # What builds the values goes down as deep as the text says, and may take the process along.
        _check_depth(yaml.parse(text, loader), yaml.CollectionStartEvent, yaml.CollectionEndEvent)
        found = yaml.load(text, loader)
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


NODE = NodeType.step(
    run,
    "JsonParserNode",
    "Read JSON or YAML",
    aliases=("JsonParser", "JSONParser", "JSONParserNode"),
    icon="braces",
    examples=({"format": "json"}, {"format": "json", "template": '{"name": {{ input | json }}}'}),
)
