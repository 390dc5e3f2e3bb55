"""What makes a workflow callable from outside: the address, who may call, and how a caller is answered."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from nodes.mistakes import Keys, Mistakes

Method: TypeAlias = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
Authentication: TypeAlias = Literal[
    "none", "bearer", "basic", "header", "hmac", "standard", "github", "stripe", "slack"
]
Answer: TypeAlias = Literal["auto", "at_once", "result", "step", "stream"]

SIGNED: frozenset[Authentication] = frozenset({"hmac", "standard", "github", "stripe", "slack"})
"""Ways of authentication in which the body is signed."""

_PATH = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]*(/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
LONGEST_PATH = 200
SHORTEST_SECRET = 8
"""Characters; what is shorter can be guessed."""


class Hook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a webhook behaves. Its secrets are kept elsewhere."""

    path: str | None = None
    """What its address ends with; `None` lets the server choose one that nobody guesses."""
    methods: Annotated[tuple[Method, ...], msgspec.Meta(min_length=1)] = ("POST",)
    authentication: Authentication = "none"
    """`hmac` is a signature as `header`, `algorithm` … describe it; `standard` that of Standard Webhooks."""
    credential_id: str | None = None
    """The credential that holds the secret, instead of one kept with the webhook."""
    username: str | None = None
    """With `basic`: who the caller must be."""
    header: str | None = None
    """With `header` and `hmac`: the header that carries the token or the signature."""
    algorithm: Literal["sha1", "sha256", "sha384", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = ""
    """With `hmac`: what stands before the signature, as in `sha256=`."""
    timestamp_header: str | None = None
    """With `hmac`: the header with the Unix time that is signed as `<time>.<body>`."""
    tolerance_seconds: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 300
    """How old, or ahead of us, a signed time may be."""
    allowed_ips: tuple[str, ...] = ()
    """Addresses and networks that may call; empty means all."""
    dedupe: Literal["auto", "none", "body"] = "auto"
    """What makes two deliveries the same: the provider's id of it, nothing, or the whole body."""
    dedupe_header: str | None = None
    """The header that tells deliveries apart, instead."""
    dedupe_pointer: str | None = None
    """The JSON pointer to what tells deliveries apart, instead."""
    answer: Answer = "auto"
    """`auto` is `step` where the drawing has a RespondToWebhook, else `result`."""
    timeout_seconds: Annotated[float, msgspec.Meta(ge=1, le=300)] = 30
    """How long a caller waits at most; then it is told where the run is."""
    status: Annotated[int, msgspec.Meta(ge=200, le=299)] = 202
    """With `at_once`: the status."""
    body: Any = None
    """With `at_once`: the body; without one it names the run."""
    max_body_kb: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1024
    per_minute: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    """How many deliveries a minute are taken; 0 sets no limit."""
    cors: bool = False
    """Whether pages of other sites may call it."""

    def __post_init__(self) -> None:
        found: list[tuple[str, Keys]] = []
        if self.path is not None and not _is_path(self.path):
            message = (
                f"a path has 1 to {LONGEST_PATH} letters, digits, '_', '-', '.', '~' and '/' between them"
            )
            found.append((f"{message}, not {self.path[:80]!r}", ("path",)))
        found += self._headers()
        if self.dedupe_pointer is not None and not self.dedupe_pointer.startswith("/"):
            found.append(("a JSON pointer begins with '/', as in '/event/id'", ("dedupe_pointer",)))
        for index, each in enumerate(self.allowed_ips):
            if not _is_network(each):
                found.append((f"{each[:80]!r} is no IP address or network", ("allowed_ips", index)))
        if found:
            raise Mistakes(found)

    def _headers(self) -> Iterator[tuple[str, Keys]]:
        for name in ("header", "timestamp_header", "dedupe_header"):
            value = getattr(self, name)
            if value is not None and not _HEADER.fullmatch(value):
                yield f"{value[:80]!r} is no name of a header", (name,)
        if self.authentication in ("header", "hmac") and self.header is None:
            yield f"with {self.authentication!r} 'header' says where to look", ("header",)


def wrong_with_secret(authentication: Authentication, secret: str) -> str | None:
    """Why nobody could prove himself with `secret`, or anybody; `None` where it is good."""
    if len(secret) < SHORTEST_SECRET or not secret.isprintable():
        return f"a secret has at least {SHORTEST_SECRET} printable characters"
    if authentication == "standard":
        try:
            known = b64decode(secret.removeprefix("whsec_") + "==", validate=False)
        except ValueError:
            known = b""
        if len(known) < SHORTEST_SECRET:
            return "a secret of Standard Webhooks is 'whsec_' and base64"
    return None


def _is_path(path: str) -> bool:
    return len(path) <= LONGEST_PATH and _PATH.fullmatch(path) is not None


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True
