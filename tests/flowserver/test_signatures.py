"""Signatures: the providers' own documented examples, and everything that is nearly one."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from flowserver.signatures import is_genuine, sign
from nodes.hooks import Hook

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
STAMP = str(int(NOW.timestamp()))

# docs.github.com, "Validating webhook deliveries", "Testing the webhook payload validation"
GITHUB = (
    Hook(authentication="github"),
    "It's a Secret to Everybody",
    {"x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
    b"Hello, World!",
    NOW,
)
# docs.slack.dev, "Verifying requests from Slack", its step-by-step walk-through
SLACK = (
    Hook(authentication="slack"),
    "8f742231b10e8888abcd99yyyzzz85a5",
    {
        "x-slack-request-timestamp": "1531420618",
        "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    },
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
    datetime.fromtimestamp(1531420618, UTC),
)


def stripe(secret: str, body: bytes, at: str = STAMP) -> str:
    return hmac.new(secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()


def signed(body: bytes, secret: str = "s3cret-of-it", at: str = STAMP) -> str:
    return hmac.new(secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()


BODY = b'{"id": 1}'
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD = (Hook(authentication="standard"), WHSEC, sign([WHSEC], "msg_1", NOW, BODY), BODY, NOW)
STRIPE = (
    Hook(authentication="stripe"),
    "whsec_stripe-secret",
    {"stripe-signature": f"t={STAMP},v1={stripe('whsec_stripe-secret', BODY)}"},
    BODY,
    NOW,
)
HMAC = (
    Hook(authentication="hmac", header="X-Sig", timestamp_header="X-Time", prefix="sha256="),
    "s3cret-of-it",
    {"x-sig": "sha256=" + signed(BODY), "x-time": STAMP},
    BODY,
    NOW,
)
BEARER = (Hook(authentication="bearer"), "token-of-it", {"authorization": "Bearer token-of-it"}, BODY, NOW)
BASIC = (
    Hook(authentication="basic", username="ada"),
    "pass:word",
    {"authorization": "Basic " + b64encode(b"ada:pass:word").decode()},
    BODY,
    NOW,
)
HEADER = (
    Hook(authentication="header", header="X-Token"),
    "token-of-it",
    {"x-token": "token-of-it"},
    BODY,
    NOW,
)
ALL = {
    "github": GITHUB,
    "slack": SLACK,
    "stripe": STRIPE,
    "hmac": HMAC,
    "bearer": BEARER,
    "basic": BASIC,
    "header": HEADER,
}
SIGNED = ("github", "slack", "stripe", "hmac")


@pytest.mark.parametrize("name", ALL)
def test_who_knows_the_secret_is_let_in(name: str) -> None:
    hook, secret, headers, body, now = ALL[name]

    assert is_genuine(hook, [secret], headers, body, now)


def test_the_signature_is_that_of_the_standard_webhooks_examples() -> None:
    # The library's own test vector.
    at = datetime.fromtimestamp(1614265330, UTC)

    found = sign([WHSEC], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}')

    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "secrets", [[], [""], ["another-secret"], ["s3cret-of-i"]], ids=["none", "empty", "wrong", "near"]
)
def test_sec_80_without_the_right_secret_nobody_is_let_in(name: str, secrets: list[str]) -> None:
    hook, _, headers, body, now = ALL[name]

    assert not is_genuine(hook, secrets, headers, body, now)


@pytest.mark.parametrize("name", ALL)
def test_sec_80_without_the_header_nobody_is_let_in(name: str) -> None:
    hook, secret, _, body, now = ALL[name]

    assert not is_genuine(hook, [secret], {}, body, now)


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize("body", [b"", b'{"id": 2}', b'{"id":1}', b'{"id": 1}\n'])
def test_sec_80_mt_12_another_body_or_the_same_written_otherwise_is_not_what_was_signed(
    name: str, body: bytes
) -> None:
    hook, secret, headers, _, now = ALL[name]

    assert not is_genuine(hook, [secret], headers, body, now)


SPOILT: dict[str, Callable[[str], str]] = {
    "upper case": str.upper,
    "cut": lambda text: text[:-1],
    "longer": lambda text: text + "0",
    "another algorithm": lambda text: (
        text.replace("sha256=", "sha1=").replace("v0=", "v1=").replace("v1=", "v9=")
    ),
    "a letter before it": lambda text: "é" + text,
    "empty": lambda text: "",
}


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize("spoilt", SPOILT)
def test_sec_80_what_is_nearly_the_signature_is_none(name: str, spoilt: str) -> None:
    hook, secret, headers, body, now = ALL[name]
    key = next(key for key in headers if "sig" in key)
    changed = SPOILT[spoilt](headers[key])

    assert changed != headers[key]
    assert not is_genuine(hook, [secret], headers | {key: changed}, body, now)


@pytest.mark.parametrize("name", ["slack", "stripe", "hmac", "standard"])
@pytest.mark.parametrize("seconds", [-601, -301, 301, 601])
def test_sec_81_what_was_signed_long_ago_or_is_signed_for_later_is_refused(name: str, seconds: int) -> None:
    hook, secret, headers, body, now = {**ALL, "standard": STANDARD}[name]

    later = datetime.fromtimestamp(now.timestamp() + seconds, UTC)

    assert not is_genuine(hook, [secret], headers, body, later)


@pytest.mark.parametrize("stamp", ["", "now", "-5", "1e9", "９９９", "9" * 40, "1.5"])
def test_sec_81_a_time_that_is_none_is_refused(stamp: str) -> None:
    hook, secret, headers, body, now = HMAC

    assert not is_genuine(hook, [secret], {**headers, "x-time": stamp}, body, now)


def fresh() -> tuple[Hook, str, dict[str, str], bytes, datetime]:
    """What Standard Webhooks' library compares with its own clock."""
    now = datetime.now(UTC)
    return Hook(authentication="standard"), WHSEC, sign([WHSEC], "msg_1", now, BODY), BODY, now


def test_sec_81_the_id_is_part_of_what_is_signed() -> None:
    hook, secret, headers, body, now = fresh()

    assert is_genuine(hook, [secret], headers, body, now)
    assert not is_genuine(hook, [secret], {**headers, "webhook-id": "msg_2"}, body, now)


@pytest.mark.parametrize("value", ["", "v1", "v1,", "v1,!!!", "v2,abc", ",", "v1,a,b", "\x00"])
def test_sec_80_a_signature_that_cannot_be_read_is_none(value: str) -> None:
    hook, secret, headers, body, now = fresh()

    assert not is_genuine(hook, [secret], {**headers, "webhook-signature": value}, body, now)


def test_sec_80_a_body_that_is_no_text_is_not_what_was_signed() -> None:
    hook, secret, headers, _, now = fresh()

    assert not is_genuine(hook, [secret], headers, b"\xff\xfe", now)


def test_sec_82_of_several_secrets_each_lets_in_and_a_header_may_have_several_signatures() -> None:
    hook, secret, headers, body, now = fresh()
    other = "whsec_" + b64encode(b"another secret of it").decode()
    both = sign([other, secret], "msg_1", now, body)

    assert is_genuine(hook, [other, secret], headers, body, now)
    assert is_genuine(hook, [secret], both, body, now)
    assert not is_genuine(hook, [other], headers, body, now)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha384", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_a_signature_of_any_algorithm_and_encoding_is_checked(algorithm: str, encoding: str) -> None:
    digest = hmac.new(b"s3cret-of-it", BODY, algorithm).digest()
    text = digest.hex() if encoding == "hex" else b64encode(digest).decode()
    hook = Hook(authentication="hmac", header="X-Sig", algorithm=algorithm, encoding=encoding)  # type: ignore[arg-type]

    assert is_genuine(hook, ["s3cret-of-it"], {"x-sig": text}, BODY, NOW)
    assert not is_genuine(hook, ["s3cret-of-it"], {"x-sig": text[:-2] + "00"}, BODY, NOW)
