"""Answer whoever called the webhook; the run goes on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET

from nodes.answers import Answers
from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.mistakes import Keys
from nodes.texts import to_text

HEADERS = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-language",
        "etag",
        "expires",
        "last-modified",
        "link",
        "location",
        "retry-after",
        "vary",
        "www-authenticate",
    }
)
"""Headers that an answer may have; of others only those that begin with 'X-' and mean nothing to browsers."""

_NOT_THESE = re.compile(
    r"x-(frame-options|content-type-options|xss-protection|accel-.*|forwarded-.*|request-id)"
)
_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_KIND = r"^[a-zA-Z0-9!#$&^_.+-]{1,80}/[a-zA-Z0-9!#$&^_.+-]{1,80}(; ?[a-zA-Z0-9-]+=[a-zA-Z0-9._-]+)*$"
_NO_BODY = (204, 205, 304)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    status_code: Annotated[
        int, setting("status", description="The HTTP status."), msgspec.Meta(ge=200, le=599)
    ] = 200
    response_config: Annotated[
        Literal["json", "all_incoming_items", "no_data"],
        setting(
            "respond_with",
            description="What the body is: 'response_body', what arrived here, or nothing.",
        ),
    ] = "json"
    response_body: Annotated[
        Any,
        setting(
            "body",
            description="The body: a text or JSON. Left empty, it is what arrived here.",
            when={"response_config": ["json"]},
            left_empty=True,
        ),
    ] = UNSET
    content_type: Annotated[
        Annotated[str, msgspec.Meta(pattern=_KIND)],
        setting(description="What the body is, as in application/json or text/html."),
    ] = "application/json"
    response_headers: Annotated[
        dict[str, Any] | str,
        setting("headers", description="A JSON object of further headers, as far as they may be set."),
    ] = ""
    max_response_size: Annotated[
        int, setting(description="Kilobytes that the body may have."), msgspec.Meta(ge=1, le=10_240)
    ] = 1024


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[
        tuple[Any, ...], port(many=True, description="What is answered, if the settings give no body.")
    ] = ()


class Outputs(msgspec.Struct, frozen=True):
    body: Annotated[Any, port("output", description="What was answered.")]
    status_code: Annotated[int, port(description="With which status.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    given = _body(config, inputs)
    body = _encoded(given, config)
    if len(body) > config.max_response_size * 1024:
        message = f"the body has {len(body)} bytes; 'max_response_size' allows {config.max_response_size} kB"
        raise NodeError(message, code="limit_exceeded", is_final=True)
    try:
        headers = _headers(config.response_headers)
    except ValueError as exc:
        raise NodeError(str(exc), code="bad_config", is_final=True) from None
    if body:
        headers["content-type"] = config.content_type
    await ctx.door(Answers).give(config.status_code, headers, body)
    return Outputs(None if given is UNSET else given, config.status_code)


def _body(config: Config, inputs: Inputs) -> Any:
    if config.response_config == "no_data" or config.status_code in _NO_BODY:
        return UNSET
    if config.response_config == "all_incoming_items" or config.response_body is UNSET:
        return inputs.input[0] if len(inputs.input) == 1 else list(inputs.input) or UNSET
    return config.response_body


def _encoded(body: Any, config: Config) -> bytes:
    """What goes over the wire. What is to be JSON is JSON: a text that is none becomes one."""
    if body is UNSET:
        return b""
    if not config.content_type.partition(";")[0].endswith("json"):
        return to_text(body).encode("utf-8", "replace")
    if isinstance(body, str):
        try:
            msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return msgspec.json.encode(body)
        return body.encode()
    return msgspec.json.encode(body)


def _headers(given: Mapping[str, Any] | str) -> dict[str, str]:
    """The headers, by lower-case name.

    Raises:
        ValueError: It is no JSON object of headers that may be set.
    """
    if isinstance(given, str):
        try:
            given = msgspec.json.decode(given) if given.strip() else {}
        except (msgspec.DecodeError, RecursionError):
            raise ValueError("'response_headers' is a JSON object of texts") from None
    if not isinstance(given, Mapping):
        raise ValueError("'response_headers' is a JSON object of texts")
    found = {str(name).strip().lower(): to_text(value) for name, value in given.items()}
    found.pop("content-type", None)  # it has a setting of its own
    for name, value in found.items():
        if not _NAME.fullmatch(name) or not value.isprintable():
            raise ValueError(f"the header {name[:80]!r} has characters that no header may have")
        if name not in HEADERS and (not name.startswith("x-") or _NOT_THESE.fullmatch(name)):
            allowed = ", ".join(sorted(HEADERS))
            raise ValueError(
                f"the header {name[:80]!r} may not be set by a workflow; it may set {allowed} and X-…"
            )
    return found


def mistakes(config: Config) -> Iterable[tuple[str, Keys]]:
    """Headers that no answer may have."""
    given = config.response_headers
    if "{{" in str(given):
        return
    try:
        _headers(given)
    except ValueError as exc:
        yield str(exc), ("response_headers",)


NODE = NodeType.step(
    run,
    "RespondToWebhook",
    "Respond to webhook",
    aliases=("RespondToWebhookNode",),
    answers=True,
    effect=True,
    mistakes=mistakes,
    icon="reply",
    examples=(
        {"status_code": 200, "response_body": '{"ok": true}'},
        {"status_code": 201, "content_type": "text/plain", "response_body": "Thank you, {{ input.name }}!"},
    ),
)
