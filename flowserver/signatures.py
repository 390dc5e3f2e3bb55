"""Whether a call to a webhook comes from whom it should: tokens, passwords and signatures of the body.

The ways of signing are those that the providers document: Standard Webhooks (standardwebhooks.com), GitHub
("Validating webhook deliveries"), Stripe ("Verify webhook signatures manually"), Slack ("Verifying requests
from Slack").
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from standardwebhooks import Webhook, WebhookVerificationError

from nodes.hooks import Authentication, Hook, wrong_with_secret


def is_genuine(
    hook: Hook, secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: datetime
) -> bool:
    """Whether a request is one of `hook`'s caller: any of `secrets` may prove it.

    `headers` are by lower-case name; `body` is what came over the wire, before anything was made of it.
    Without a secret nobody is let in.
    """
    if hook.authentication == "none":
        return True
    check = _CHECKS[hook.authentication]
    good = [secret for secret in secrets if wrong_with_secret(hook.authentication, secret) is None]
    found = [check(hook, secret, headers, body, now.timestamp()) for secret in good]
    return any(found)


def _bearer(hook: Hook, secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and _same(token.strip(), secret)


def _basic(hook: Hook, secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    try:
        user, _, password = b64decode(given.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return False
    is_user = hook.username is None or _same(user, hook.username)
    return scheme.lower() == "basic" and is_user & _same(password, secret)


def _header(hook: Hook, secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    return _same(headers.get((hook.header or "").lower(), ""), secret)


def _hmac(hook: Hook, secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    signed = body
    if hook.timestamp_header is not None:
        time = headers.get(hook.timestamp_header.lower(), "")
        if not _is_recent(time, now, hook.tolerance_seconds):
            return False
        signed = time.encode() + b"." + body
    digest = hmac.digest(secret.encode(), signed, hook.algorithm)
    wanted = b64encode(digest).decode() if hook.encoding == "base64" else digest.hex()
    return _same(headers.get((hook.header or "").lower(), ""), hook.prefix + wanted)


def _standard(hook: Hook, secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    if not _is_recent(headers.get("webhook-timestamp", ""), now, hook.tolerance_seconds):
        return False
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError):  # of texts that are no base64, no UTF-8 …
        return False
    return True


def _github(hook: Hook, secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    wanted = "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()
    return _same(headers.get("x-hub-signature-256", ""), wanted)


def _stripe(hook: Hook, secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    parts = [part.strip().partition("=") for part in headers.get("stripe-signature", "").split(",")]
    time = next((value for name, _, value in parts if name == "t"), "")
    if not _is_recent(time, now, hook.tolerance_seconds):
        return False
    wanted = hmac.digest(secret.encode(), time.encode() + b"." + body, "sha256").hex()
    return any([_same(value, wanted) for name, _, value in parts if name == "v1"])


def _slack(hook: Hook, secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    time = headers.get("x-slack-request-timestamp", "")
    if not _is_recent(time, now, hook.tolerance_seconds):
        return False
    wanted = "v0=" + hmac.digest(secret.encode(), b"v0:" + time.encode() + b":" + body, "sha256").hex()
    return _same(headers.get("x-slack-signature", ""), wanted)


_CHECKS: Mapping[Authentication, Callable[[Hook, str, Mapping[str, str], bytes, float], bool]] = {
    "bearer": _bearer,
    "basic": _basic,
    "header": _header,
    "hmac": _hmac,
    "standard": _standard,
    "github": _github,
    "stripe": _stripe,
    "slack": _slack,
}


def _same(given: str, wanted: str) -> bool:
    """In constant time for texts of one length; hashing hides the length."""
    return hmac.compare_digest(_digest(given), _digest(wanted))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _is_recent(time: str, now: float, tolerance: float) -> bool:
    return time.isascii() and time.isdecimal() and len(time) < 12 and abs(now - int(time)) <= tolerance


def sign(secrets: Sequence[str], id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The headers that sign `body` as Standard Webhooks says, with every one of `secrets`."""
    signatures = [Webhook(secret).sign(id, at, body.decode()) for secret in secrets]
    return {
        "webhook-id": id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
