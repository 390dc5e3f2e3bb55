"""One HTTP request as a node sends it: its parts, when it is sent again, how the answer is read."""

from __future__ import annotations

import asyncio
import base64
import http
import json
import random
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote_plus, urlencode

import httpx
import msgspec

from nodes.contract import NodeError
from nodes.encodings import decoded
from nodes.pauses import LONGEST_PAUSE, retry_after
from nodes.texts import to_text


@dataclass(frozen=True, slots=True)
class Call:
    """What is sent, and how stubbornly."""

    method: str
    url: httpx.URL
    headers: httpx.Headers
    content: bytes | None
    timeout: float
    """Seconds for one attempt, from the connection to the last byte of the answer."""
    retries: int
    delay: float
    follow_redirects: bool


@dataclass(frozen=True, slots=True)
class Content:
    """The body of an answer."""

    value: Any
    """Parsed JSON, or a text, which is base64 for what is neither."""
    text: str | None
    """As text, if it is one."""
    is_json: bool


# Line breaks as HTTP and as Unicode know them, and everything else that ends or hides what follows.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")

_KINDS = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
    "multipart": "multipart/form-data",
    "text": "text/plain",
    "xml": "application/xml",
}


def as_object(value: Any, name: str) -> dict[str, Any]:
    """The object that the setting `name` holds, or holds as JSON text."""
    if isinstance(value, str):
        value = _from_json(value, name) if value.strip() else {}
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise NodeError(f"{name!r} must be an object", code="bad_config")
    return {str(key): item for key, item in value.items()}


def _from_json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as wrong:
        place = f"line {wrong.lineno}, column {wrong.colno}: {wrong.msg}"
    except (ValueError, RecursionError):
        place = "it is nested too deeply, or has a number too long"
    hint = "a value inside JSON is written {{ path | json }}, without quotes around it"
    raise NodeError(f"{name!r} is not valid JSON, {place} ({hint})", code="bad_json")


def parse_url(text: str) -> httpx.URL:
    text = text.strip(" \t\r\n")
    if CONTROL.search(text) or "\t" in text:
        raise NodeError("'url' has a line break or control character", code="bad_url")
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise NodeError("'url' must begin with http:// or https://", code="bad_url")
    try:
        return httpx.URL(text)
    except httpx.InvalidURL:
        raise NodeError("'url' is not a valid URL", code="bad_url") from None


def with_params(url: httpx.URL, params: dict[str, Any]) -> httpx.URL:
    """Return `url` with `params` after its own, which stay as written; one of the same name is replaced."""
    texts = _texts(params)
    if not texts:
        return url
    own = [part for part in url.query.decode("ascii").split("&") if part and _name(part) not in texts]
    query = "&".join([*own, *([new] if (new := urlencode(texts, doseq=True, quote_via=quote)) else [])])
    try:
        return url.copy_with(query=query.encode("ascii"))
    except httpx.InvalidURL:
        raise NodeError("'url' is too long with its parameters", code="bad_url") from None


def _name(part: str) -> str:
    return unquote_plus(part.partition("=")[0])


def _texts(params: dict[str, Any]) -> dict[str, str | list[str]]:
    """Lists give a parameter several times, null leaves it out."""
    return {
        name: [to_text(item) for item in value] if isinstance(value, list) else to_text(value)
        for name, value in params.items()
        if name and value is not None
    }


def encode(body: Any, kind: str) -> tuple[bytes, str]:
    """The bytes of `body` and their Content-Type."""
    mime = _KINDS.get(kind, kind)
    match mime:
        case "application/json":
            if isinstance(body, str):
                _from_json(body, "body")
                return body.encode(), mime
            return msgspec.json.encode(body), mime
        case "application/x-www-form-urlencoded":
            if isinstance(body, str) and not body.lstrip().startswith("{"):
                return body.strip().encode(), mime
            return str(httpx.QueryParams(_texts(as_object(body, "body")))).encode(), mime
        case "multipart/form-data":
            parts = [(name, (None, to_text(value))) for name, value in as_object(body, "body").items()]
            form = httpx.Request("POST", "http://form", files=parts)
            return form.read(), form.headers["content-type"]
    return to_text(body).encode(), f"{mime}; charset=utf-8"


class NoAnswer(NodeError):
    """The other side did not answer; `sent` says whether it may have acted on the request all the same."""

    def __init__(self, message: str, *, sent: bool, code: str = "no_answer") -> None:
        super().__init__(message, code=code)
        self.sent = sent


async def send(client: httpx.AsyncClient, call: Call) -> httpx.Response:
    """Return the last answer, of whatever status.

    Raises:
        NoAnswer: The last attempt got none.
        NodeError: There is nothing to repeat: the guard refused, or the request or the answer is broken.
    """
    attempt = 0
    while True:
        outcome = await _attempt(client, call)
        wait = pause(outcome, call, attempt) if attempt < call.retries else None
        if wait is not None:
            await asyncio.sleep(wait)
            attempt += 1
        elif isinstance(outcome, NoAnswer):
            raise outcome
        else:
            return outcome


async def _attempt(client: httpx.AsyncClient, call: Call) -> httpx.Response | NoAnswer:
    where = f"{call.method} {redacted(call.url)}"
    try:
        request = client.build_request(
            call.method, call.url, headers=call.headers, content=call.content, timeout=_patience(call)
        )
        async with asyncio.timeout(call.timeout):
            return await client.send(request, follow_redirects=call.follow_redirects)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as failed:
        # After a redirect the first server has had its request already.
        return NoAnswer(f"{where}: {_why(failed)}", sent=failed.request.url != call.url)
    except (TimeoutError, httpx.TimeoutException):
        return NoAnswer(f"{where}: no answer in {call.timeout:g} seconds", sent=True, code="timeout")
    except (httpx.LocalProtocolError, httpx.UnsupportedProtocol):
        raise NodeError(f"{where}: this is not a valid HTTP request", code="bad_request") from None
    except httpx.TransportError:
        return NoAnswer(f"{where}: the connection broke", sent=True)
    except httpx.TooManyRedirects:
        raise NodeError(f"{where}: too many redirects", code="too_many_redirects") from None
    except httpx.InvalidURL:
        raise NodeError(f"{where}: redirected to an invalid URL", code="bad_answer") from None
    except httpx.DecodingError:
        raise NodeError(f"{where}: the answer's compression cannot be read", code="bad_answer") from None


def _patience(call: Call) -> httpx.Timeout:
    return httpx.Timeout(call.timeout, connect=min(call.timeout, 10.0))


def _why(failed: httpx.TransportError) -> str:
    return str(failed) or "could not connect"


_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
_KEY = "idempotency-key"
"""By this header the other side recognises a request that it has carried out before."""
_PASSING = frozenset({429, 502, 503, 504})
# With a Retry-After these say that the request was turned away, so that even a POST may come again.
_TURNED_AWAY = frozenset({429, 503})


def pause(outcome: httpx.Response | NoAnswer, call: Call, attempt: int) -> float | None:
    """Seconds until the next attempt, or `None` if it would not help or could do something twice."""
    again = call.method in _IDEMPOTENT or _KEY in call.headers
    backoff = min(call.delay * 2.0**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1.0)
    if isinstance(outcome, NoAnswer):
        return backoff if again or not outcome.sent else None
    asked = retry_after(outcome.headers.get("retry-after", ""), datetime.now(UTC))
    if again and outcome.status_code in _PASSING:
        return backoff if asked is None else asked
    # Behind a redirect the first server may have done its part already.
    return asked if outcome.status_code in _TURNED_AWAY and not outcome.history else None


_SECRET = re.compile(
    r"(?i:key|token|secret|password|passwd|passphrase|pwd|signature|sig|auth|authorization|cookie|credential"
    r"|session|jwt)s?(?![a-z])"
)


def is_secret_name(name: str) -> bool:
    """Whether a header or query key of this name likely holds a secret."""
    return _SECRET.search(name) is not None


def redacted(url: httpx.URL) -> str:
    """`url` for messages and outputs: without user part, fragment and the values of secret query keys."""
    plain = url.copy_with(userinfo=b"", fragment=None)
    if any(map(is_secret_name, url.params)):
        query = [(key, "***" if is_secret_name(key) else value) for key, value in url.params.multi_items()]
        plain = plain.copy_with(params=query)
    return str(plain).replace("%2A%2A%2A", "***")


def status_line(response: httpx.Response) -> str:
    """The status in the standard's words; the server's own could hold anything."""
    try:
        return f"{response.status_code} {http.HTTPStatus(response.status_code).phrase}"
    except ValueError:
        return str(response.status_code)


_TEXTUAL = frozenset(
    {"application/javascript", "application/x-www-form-urlencoded", "application/x-ndjson"}
    | {"application/xml", "application/yaml", "application/x-yaml", "application/graphql", "application/sql"}
)


def read(response: httpx.Response) -> Content:
    """The body of `response`, understood as its Content-Type says."""
    mime = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = mime.endswith(("/json", "+json"))
    text = _text(response, mime, is_json)
    if text is None:
        return Content(base64.b64encode(response.content).decode("ascii"), None, False)
    if is_json:
        try:
            return Content(msgspec.json.decode(text), text, True)
        except (msgspec.MsgspecError, RecursionError):
            pass
    return Content(text, text, False)


def _text(response: httpx.Response, mime: str, is_json: bool) -> str | None:
    if not mime:
        try:
            return response.content.decode("utf-8")
        except UnicodeDecodeError:
            return None
    if is_json or mime.startswith("text/") or mime.endswith("+xml") or mime in _TEXTUAL:
        is_markup = mime.endswith(("html", "xml"))
        return decoded(
            response.content, response.charset_encoding or "", is_markup=is_markup, trust=True
        ).text
    return None
