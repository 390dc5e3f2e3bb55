"""Read JSON or YAML: from what arrives, or from a text with paths that is filled first."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.fences import inner_fence, unfenced
from nodes.isolated import LIGHT, isolated_if_heavy
from nodes.yaml_texts import read_yaml


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Annotated[Literal["json", "yaml"], setting(description="What the text is.")] = "json"
    template: Annotated[
        str | UnsetType,
        setting(
            description="A text with {{ paths }}, read in place of what arrives; a value inside JSON is "
            "written {{ path | json }}.",
            left_empty=True,
        ),
    ] = UNSET


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
    if not isinstance(config.template, UnsetType):
        return Outputs(await _read(config.template, config.format, ctx))
    if not inputs.input:
        raise NodeError("nothing arrived, and 'template' is empty", code="missing_value")
    read = [await _read(each, config.format, ctx) if isinstance(each, str) else each for each in inputs.input]
    return Outputs(read[0] if len(read) == 1 else read)


async def _read(text: str, kind: str, ctx: RunContext) -> Any:
    bare = unfenced(text)  # models like to fence what they were asked for
    if not bare:
        raise NodeError(f"the text is empty, which is not {kind.upper()}", code=f"bad_{kind}")
    if kind == "yaml":
        # Anchors and merges can make much of little.
        work = len(bare) * 5 if "&" not in bare else LIGHT + 1
        return await isolated_if_heavy(ctx, work, read_yaml, bare)
    inner = inner_fence(bare) if bare[0] not in "{[" else None
    return _json(bare if inner is None else inner.strip())


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


NODE = NodeType.step(
    run,
    "JsonParserNode",
    "Read JSON or YAML",
    aliases=("JsonParser", "JSONParser", "JSONParserNode"),
    icon="braces",
    examples=({"format": "json"}, {"format": "json", "template": '{"name": {{ input | json }}}'}),
)
