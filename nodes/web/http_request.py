"""Send an HTTP request; as an agent's tool, let the model send it."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import UNSET, UnsetType

from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.keys import as_key, trimmed
from nodes.mistakes import Keys
from nodes.pauses import may_get_better, retry_after
from nodes.texts import to_text
from nodes.web.exchange import (
    CONTROL,
    Call,
    Content,
    NoAnswer,
    as_object,
    encode,
    is_secret_name,
    parse_url,
    read,
    redacted,
    send,
    status_line,
    with_params,
)

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

_EMPTY = (None, "")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# How a message is framed and packed is the client's business; people paste these from browsers.
_FRAMING = frozenset(
    {"", "accept-encoding", "connection", "content-length", "keep-alive", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
_MOST_SECONDS = 60
_MOST_FOR_MODEL = 50_000


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: Annotated[
        str | UnsetType,
        setting(
            description="With http:// or https://. As a tool: left empty, the model chooses.", left_empty=True
        ),
    ] = UNSET
    method: Annotated[
        Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"],
        setting(description="What is asked of the server."),
    ] = "GET"
    headers: Annotated[dict[str, Any] | str, setting("custom_headers", description="A JSON object.")] = ""
    url_params: Annotated[
        dict[str, Any] | str,
        setting("query_params", description="A JSON object; joins what the URL has behind its '?'."),
    ] = ""
    body: Annotated[
        Any,
        setting(
            "request_body",
            description="A text, or JSON.",
            when={"method": ["POST", "PUT", "PATCH", "DELETE"]},
            left_empty=True,
        ),
    ] = UNSET
    content_type: Annotated[
        Literal[
            "json",
            "form",
            "multipart",
            "text",
            "xml",
            "application/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "text/plain",
            "application/xml",
            "text/xml",
        ],
        setting(description="What the body is.", when={"method": ["POST", "PUT", "PATCH", "DELETE"]}),
    ] = "json"
    auth_type: Annotated[
        Literal["none", "bearer", "basic", "api_key"],
        setting(description="How the request says who sends it."),
    ] = "none"
    auth_token: Annotated[
        str,
        setting(
            "api_key_value",
            secret=True,
            description="The token, or the key.",
            when={"auth_type": ["bearer", "api_key"]},
        ),
    ] = ""
    auth_username: Annotated[str, setting(description="The user's name.", when={"auth_type": ["basic"]})] = ""
    auth_password: Annotated[
        str, setting(secret=True, description="The user's password.", when={"auth_type": ["basic"]})
    ] = ""
    api_key_header: Annotated[
        str, setting(description="The header that carries the key.", when={"auth_type": ["api_key"]})
    ] = "X-API-Key"
    timeout: Annotated[
        float, setting(description="Seconds for one attempt."), msgspec.Meta(ge=0.1, le=3600)
    ] = 30.0
    max_retries: Annotated[
        int,
        setting(
            "retry_count",
            description="Attempts after the first one, by any method: each carries the same Idempotency-Key.",
        ),
        msgspec.Meta(ge=0, le=10),
    ] = 3
    retry_delay: Annotated[
        float,
        setting(
            description="Seconds before the first retry, doubled each time. More than 60 are milliseconds."
        ),
        msgspec.Meta(ge=0, le=60_000),
    ] = 1.0
    follow_redirects: Annotated[
        bool, setting(description="Whether to go where the server says that it is.")
    ] = True
    verify_ssl: Annotated[bool, setting(description="Cannot be switched off.")] = True
    enable_templating: Annotated[
        bool, setting(description="Of older drawings, without effect: templates are always filled.")
    ] = True
    fail_on_error: Annotated[
        bool, setting(description="Whether no answer, or one of status 400 and above, fails the step.")
    ] = True
    tool_description: Annotated[str, setting(description="As a tool: tells the model what it is for.")] = ""


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[
        tuple[Any, ...],
        port("execute", "url", "template_context", many=True, description="What must have arrived before."),
    ] = ()


class Outputs(msgspec.Struct, frozen=True):
    content: Annotated[Any, port(description="Parsed JSON or a text; base64 where it is neither.")]
    response: Annotated[
        dict[str, Any],
        port(
            description="All of it: `status_code`, `headers`, `content`, `is_json`, `url`, `method` and "
            "`duration_ms`."
        ),
    ]
    status_code: Annotated[int, port(description="The status of the answer; 0 where there was none.")]
    headers: Annotated[dict[str, str], port(description="The headers of the answer, in small letters.")]
    success: Annotated[bool, port(description="Whether there was an answer, of a status below 400.")]
    documents: Annotated[
        list[dict[str, Any]],
        port(
            "document",
            description="The answer as a document, for splitters and stores; none where it is no text.",
        ),
    ]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    call = _call(config, ctx.idempotency_key)
    started = time.monotonic()
    try:
        response = await send(ctx.http, call)
    except NoAnswer as failed:
        if config.fail_on_error:
            raise
        return _outputs(call, started, None, Content(failed.message, failed.message, False))
    if response.status_code >= 400 and config.fail_on_error:
        message = f"{call.method} {redacted(call.url)} answered {status_line(response)}"
        raise NodeError(
            message,
            code="http_status",
            retry_after=retry_after(response.headers.get("retry-after", ""), datetime.now(UTC)),
            is_final=not may_get_better(response.status_code),
        )
    return _outputs(call, started, response, read(response))


def _outputs(call: Call, started: float, response: httpx.Response | None, content: Content) -> Outputs:
    """What a request came to; without a response its status is 0."""
    status = 0 if response is None else response.status_code
    headers = {} if response is None else dict(response.headers)
    if content.text is None:
        headers["content-transfer-encoding"] = "base64"
    url = redacted(call.url if response is None else response.url)
    whole = {
        "status_code": status,
        "headers": headers,
        "content": content.value,
        "is_json": content.is_json,
        "url": url,
        "method": call.method if response is None else response.request.method,
        "duration_ms": round((time.monotonic() - started) * 1000),
    }
    facts = {"source": url, "status_code": status, "content_type": headers.get("content-type", "")}
    documents = [] if content.text is None else [{"page_content": content.text, "metadata": facts}]
    return Outputs(content.value, whole, status, headers, 0 < status < 400, documents)


def _call(config: Config, key: str, *, url: str = "", query: Any = None, body: Any = None) -> Call:
    """What `config` sends; what it leaves open may come from a model, and what it fixes wins."""
    _check_certificates(config)
    if not (whole := _url(config) or url):
        raise NodeError("'url' is empty", code="missing_value")
    address = parse_url(whole)
    chosen = {name: value for name, value in as_object(query, "query").items() if name not in address.params}
    headers = httpx.Headers(_headers(config), encoding="utf-8")
    headers.update(_credentials(config))
    content = None
    given = body if config.body is UNSET else config.body
    if config.method in _WITH_BODY and given not in _EMPTY:
        content, kind = encode(given, config.content_type)
        if "content-type" not in headers or kind.startswith("multipart/"):
            headers["Content-Type"] = kind
    if key:
        headers.setdefault("Idempotency-Key", key)
    return Call(
        config.method,
        with_params(address, chosen | as_object(config.url_params, "url_params")),
        headers,
        content,
        timeout=config.timeout,
        retries=config.max_retries,
        delay=config.retry_delay / 1000 if config.retry_delay > _MOST_SECONDS else config.retry_delay,
        follow_redirects=config.follow_redirects,
    )


def _url(config: Config) -> str:
    """The URL that is set, empty where it is left to a model."""
    return config.url if isinstance(config.url, str) else ""


def _headers(config: Config) -> dict[str, str]:
    given = as_object(config.headers, "headers")
    return {
        trimmed(name): _header(trimmed(name), to_text(value))
        for name, value in given.items()
        if trimmed(name).lower() not in _FRAMING and value is not None
    }


def _credentials(config: Config) -> dict[str, str]:
    match config.auth_type:
        case "none":
            return {}
        case "basic":
            # A password may begin or end with a blank, but no form takes one with a line break.
            password = config.auth_password.strip("\r\n")
            pair = f"{config.auth_username.strip()}:{password}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}
    token = as_key(config.auth_token, "the setting 'auth_token'")
    if not token:
        message = f"'auth_token' is empty, and 'auth_type' {config.auth_type!r} needs one"
        raise NodeError(message, code="missing_value")
    if config.auth_type == "bearer":
        return {"Authorization": f"Bearer {token}"}
    name = trimmed(config.api_key_header)
    return {name: _header(name, token)}


def _header(name: str, value: str) -> str:
    """`value`, if it and `name` can be sent without becoming something else."""
    good = _HEADER_NAME.match(name)
    if good is None or good[0] != name:
        # Only its good start is shown: people paste whole header lines, secrets and all.
        start = good[0] if good else ""
        raise NodeError(f"a header's name has a bad character after {start!r}", code="bad_header")
    value = trimmed(value)
    if CONTROL.search(value):
        raise NodeError(f"the header {name!r} has a line break or control character", code="bad_header")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise NodeError(f"the header {name!r} holds half a character", code="bad_header")
    return value


def tool(config: Config, ctx: RunContext) -> BaseTool:
    """This request for a model: it chooses the query, and what the author left empty of URL and body."""
    from langchain_core.tools import StructuredTool  # noqa: PLC0415  loaded with the first agent

    names = [*_headers(config), *as_object(config.url_params, "url_params")]
    if config.url is UNSET and (config.auth_type != "none" or any(map(is_secret_name, names))):
        message = "a model that chooses the 'url' must not be given credentials to send there"
        raise NodeError(message, code="bad_config")
    arguments = _arguments(config)
    calls: Counter[str] = Counter()

    async def request(**given: Any) -> str:
        try:
            if unknown := sorted(given.keys() - arguments.keys()):
                message = f"no argument {unknown[0]!r}; allowed: {', '.join(arguments)}"
                raise NodeError(message, code="bad_argument")
            call = _call(config, "", **given)
            # One step may call often: each call has a key of its own, and the same one after a crash.
            same = hashlib.sha256(repr((str(call.url), call.content)).encode()).hexdigest()[:16]
            calls[same] += 1
            call.headers.setdefault("Idempotency-Key", f"{ctx.idempotency_key}-{same}-{calls[same]}")
            return _for_model(await send(ctx.http, call))
        except NodeError as failed:
            return f"{failed.code}: {failed.message}"
        except UnicodeError:
            return "bad_argument: the arguments hold half a character"

    where = parse_url(_url(config)).host if config.url is not UNSET else "an address of your choice"
    return StructuredTool(
        name=re.sub(r"[^a-zA-Z0-9_-]+", "_", ctx.name).strip("_")[:64] or "http_request",
        description=config.tool_description or f"Send {config.method} to {where}",
        args_schema={
            "type": "object",
            "properties": arguments,
            "required": ["url"] if config.url is UNSET else [],
        },
        coroutine=request,
    )


def _arguments(config: Config) -> dict[str, Any]:
    arguments: dict[str, Any] = {"query": {"type": "object", "description": "Query parameters by name."}}
    if config.url is UNSET:
        arguments["url"] = {"type": "string", "description": "The whole URL, with https://."}
    if config.method in _WITH_BODY and config.body is UNSET:
        kinds = [{"type": "object"}, {"type": "string"}]
        arguments["body"] = {"anyOf": kinds, "description": f"The body, as {config.content_type}."}
    return arguments


def _for_model(response: httpx.Response) -> str:
    content = read(response)
    if content.text is None:
        kind = response.headers.get("content-type", "unknown type")
        return f"{status_line(response)}: {len(response.content)} bytes of {kind}"
    text = content.text[:_MOST_FOR_MODEL] + ("…" if len(content.text) > _MOST_FOR_MODEL else "")
    return text if response.is_success and text else f"{status_line(response)}\n{text}".strip()


def mistakes(config: Config) -> Iterator[tuple[str, Keys]]:
    """What no answer could come of, as far as it is known before the run."""
    checks: dict[str, Callable[[], object]] = {
        "url": lambda: _check_url(_url(config)),
        "headers": lambda: _headers(config),
        "url_params": lambda: as_object(config.url_params, "url_params"),
        "body": lambda: _check_body(config),
        "auth_token": lambda: _credentials(config),
        "verify_ssl": lambda: _check_certificates(config),
    }
    for name, check in checks.items():
        value = getattr(config, name)
        if not (isinstance(value, str) and "{{" in value and name != "url"):
            try:
                check()
            except NodeError as exc:
                yield exc.message, (name,)


def _check_url(url: str) -> None:
    known, *rest = url.split("{{", 1)
    known = known.strip()
    begins = known.lower()
    if rest and ("https://".startswith(begins) or "http://".startswith(begins)):
        return
    if known and parse_url(f"{known}x" if rest else known).scheme not in ("http", "https"):
        raise NodeError("'url' must begin with http:// or https://", code="bad_url")


def _check_body(config: Config) -> None:
    if config.method in _WITH_BODY and isinstance(config.body, str) and config.body:
        encode(config.body, config.content_type)


def _check_certificates(config: Config) -> None:
    if not config.verify_ssl:
        raise NodeError("certificates are always verified: switch 'verify_ssl' on", code="not_supported")


def hosts(config: Config) -> list[str]:
    host = urlsplit(_url(config)).hostname
    return [host] if host else []


NODE = NodeType.step(
    run,
    "HttpRequest",
    "HTTP request",
    icon="globe",
    examples=(
        {"url": "https://example.com/orders/{{ input.order }}"},
        {
            "method": "POST",
            "url": "https://example.com/orders",
            "body": {"customer": "{{ input.customer }}"},
            "auth_type": "bearer",
            "auth_token": "a-token",
        },
    ),
    effect=True,
    tool=tool,
    aliases=("HttpClient", "HttpRequestNode", "HttpClientNode"),
    ignores=("template_context",),
    hosts=hosts,
    mistakes=mistakes,
    needs=("url",),
)
