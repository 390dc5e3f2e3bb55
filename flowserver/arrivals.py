"""What arrives at a webhook, made into data: its body, what tells it from others, what of it may be shown."""

from __future__ import annotations

import codecs
import hashlib
import zlib
from base64 import b64encode
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import parse_qs

import msgspec

from flowserver.errors import BadRequest, TooLarge
from nodes.encodings import known
from nodes.hooks import Hook
from nodes.web.exchange import is_secret_name

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
HIDDEN = "(hidden)"
LONGEST_KEY = 200

_DISTRIBUTED_BY = {"standard": "webhook-id", "github": "x-github-delivery"}
_NAMED_BY = {"stripe": "/id", "slack": "/event_id"}
_ANYBODYS = ("webhook-id", "idempotency-key", "x-github-delivery")
_SIGNED_BY = {
    "bearer": ("authorization",),
    "basic": ("authorization",),
    "standard": ("webhook-id", "webhook-timestamp", "webhook-signature"),
    "github": ("x-hub-signature-256", "x-hub-signature", "x-github-delivery"),
    "stripe": ("stripe-signature",),
    "slack": ("x-slack-request-timestamp", "x-slack-signature"),
}
_ONE_AT_MOST = ("content-type", "content-encoding", "authorization", *_ANYBODYS)
_TIMES = {"slack": "x-slack-request-timestamp", "standard": "webhook-timestamp", "stripe": "stripe-signature"}


def authenticating(hook: Hook) -> Set[str]:
    """Return the headers, in lower case, that say who calls `hook` and what the delivery is."""
    own = (hook.header, hook.timestamp_header, hook.dedupe_header)
    return {*_ONE_AT_MOST, *_SIGNED_BY.get(hook.authentication, ()), *(name.lower() for name in own if name)}


def single(fields: Iterable[tuple[str, str]], once: Set[str]) -> dict[str, str]:
    """Return header fields by name; the values of one that comes several times are joined (RFC 9110, 5.3).

    Raises:
        BadRequest: One of those that come `once` at most comes again: which of them counts would be a guess.
    """
    found: dict[str, str] = {}
    for name, value in fields:
        if name in found and name in once:
            raise BadRequest(f"the header {name!r} comes more than once; this webhook takes it once")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request at a webhook's address."""

    method: str
    path: str
    query: Mapping[str, Any]
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes
    """As it came over the wire."""
    client_ip: str

    def shown(self, hook: Hook) -> dict[str, str]:
        """The headers without those that may hold a secret."""
        secret = {(hook.header or "").lower()}
        return {
            name: HIDDEN if name in secret or is_secret_name(name) else value
            for name, value in self.headers.items()
        }

    def shown_query(self) -> dict[str, Any]:
        return {name: HIDDEN if is_secret_name(name) else value for name, value in self.query.items()}

    def data(self, most: int) -> Any:
        """What a run starts with: JSON and forms as data, other texts as they are, bytes as base64.

        Without a body it is the query, or nothing. `most` is how many bytes it may unpack to.

        Raises:
            BadRequest: It is not what it says it is.
            TooLarge: It is more than `most` bytes.
        """
        body = unpacked(self.body, self.headers.get("content-encoding", ""), most)
        if not body:
            return dict(self.query) or None
        kind, charset = _content_type(self.headers.get("content-type", ""))
        text = _text(body, charset)
        if kind in ("application/json", "text/json") or kind.endswith("+json"):
            return _json(body if text is None else text.encode())
        if text is None:
            return {"content_type": kind or "application/octet-stream", "base64": b64encode(body).decode()}
        if kind == "application/x-www-form-urlencoded":
            return flat(text, charset)
        if not kind:
            try:
                return _json(text.encode())
            except BadRequest:
                return text
        return text

    def key(self, hook: Hook, data: Any) -> str | None:
        """What tells this delivery from others; the same when it comes again. `None`: nothing does."""
        name, value = self._id(hook, data)
        if value in (None, ""):
            return None
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        if len(text) > LONGEST_KEY or not text.isprintable():
            text = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{name}:{text}"

    def _id(self, hook: Hook, data: Any) -> tuple[str, Any]:
        if hook.dedupe_header is not None:
            return "header", self.headers.get(hook.dedupe_header.lower())
        if hook.dedupe_pointer is not None:
            return "pointer", at(data, hook.dedupe_pointer)
        if hook.dedupe == "none":
            return "none", None
        if hook.dedupe == "body":
            return "body", self._digest(hook)
        if (header := _DISTRIBUTED_BY.get(hook.authentication)) is not None:
            return "id", self.headers.get(header)
        if (pointer := _NAMED_BY.get(hook.authentication)) is not None and (found := at(data, pointer)):
            return "id", found
        if hook.authentication == "slack" or (hook.authentication == "hmac" and hook.timestamp_header):
            return "body", self._digest(hook)
        return "id", next((self.headers[name] for name in _ANYBODYS if self.headers.get(name)), None)

    def _digest(self, hook: Hook) -> str:
        """Of all that the caller has said, with the time that it has signed."""
        time = self.headers.get((hook.timestamp_header or _TIMES.get(hook.authentication, "")).lower(), "")
        query = msgspec.json.encode(self.query, order="sorted")
        return hashlib.sha256(b"\n".join((self.method.encode(), time.encode(), query, self.body))).hexdigest()


def _content_type(header: str) -> tuple[str, str]:
    """The media type in lower case, and the encoding of characters that it names, empty if it names none."""
    parsed = Message()
    parsed["content-type"] = header
    return (parsed.get_content_type() if "/" in header else ""), str(parsed.get_content_charset() or "")


def _text(body: bytes, charset: str) -> str | None:
    """`body` by its byte order mark, as it is declared, or as UTF-8; `None` if it is no text so."""
    for mark, marked in _MARKS:
        if body.startswith(mark):
            charset, body = marked, body[len(mark) :]
            break
    encoding = known(charset or "utf-8")
    if encoding is None:
        raise BadRequest(f"the charset {charset[:40]!r} of the body is not known")
    try:
        return body.decode(encoding)
    except UnicodeDecodeError:
        if charset:
            raise BadRequest(f"the body is not in {charset}, as it says") from None
        return None


def flat(text: str, charset: str = "") -> dict[str, Any]:
    """A form or a query: a name that stands there several times has a list."""
    encoding = known(charset) or "utf-8"
    try:
        found = parse_qs(text, keep_blank_values=True, max_num_fields=1000, encoding=encoding)
    except ValueError:
        raise BadRequest("a form or query has at most 1000 fields") from None
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def at(data: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) leads to; `None` where that is nothing."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(data, Mapping):
            data = data.get(key)
        elif isinstance(data, list) and key.isdecimal() and key.isascii() and int(key) < len(data):
            data = data[int(key)]
        else:
            return None
    return data


def unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """The body as it was before it was packed.

    Raises:
        BadRequest: It cannot be unpacked.
        TooLarge: It unpacks to more than `most` bytes.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity") or not body:
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise BadRequest(
            f"a body packed as {encoding[:40]!r} cannot be read; it may be packed by gzip or deflate"
        )
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        found = unpacker.decompress(body, most + 1)
    except zlib.error:
        raise BadRequest(f"the body is not packed by {encoding}, as it says") from None
    if len(found) > most:
        raise TooLarge(most, "the webhook's max_body_kb")
    if not unpacker.eof:
        raise BadRequest(f"the body is not all that was packed by {encoding}")
    return found


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise BadRequest("the JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BadRequest(f"the body is not JSON, as it says: {exc}") from None
