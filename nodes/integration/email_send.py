"""Send an e-mail by your own SMTP server."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formataddr, formatdate, getaddresses
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from nodes.connections import Connections
from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.credentials import CredentialId, Credentials
from nodes.mistakes import Keys
from nodes.texts import written_or_arrived

MOST_RECIPIENTS = 100
MOST_CHARACTERS = 5_000_000
"""Of a message's text, and of its HTML."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]")
_ADDRESS = re.compile(r"[^\s@<>(),;:\"\\\[\]]{1,64}@[^\s@<>(),;:\"\\\[\]]{1,253}")
_HALF = re.compile(r"[\ud800-\udfff]")
_USUAL_PORT = {"tls": 465, "starttls": 587, "none": 25}

Addresses = str | tuple[str, ...]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    to: Annotated[
        Addresses, setting("to_email", "recipients", description="To whom: addresses with commas, or a list.")
    ]
    subject: Annotated[str, setting(description="Its subject, in one line.")] = ""
    body: Annotated[
        str | UnsetType,
        setting("text", "message", description="Its text; left empty, what arrives here.", left_empty=True),
    ] = UNSET
    html: Annotated[
        str, setting("html_body", description="The same as HTML, for those who can see it so.")
    ] = ""
    cc: Annotated[Addresses, setting("cc_email", description="Who gets a copy.")] = ""
    bcc: Annotated[Addresses, setting("bcc_email", description="Who gets a copy that nobody knows of.")] = ""
    reply_to: Annotated[str, setting(description="Where answers go, if not to the sender.")] = ""
    from_address: Annotated[
        str,
        setting(
            "from_email", "from", "sender", description="Who sends it; left empty, as the credential says."
        ),
    ] = ""
    credential_id: CredentialId = None
    timeout: Annotated[
        float, setting(description="Seconds for each step of sending."), msgspec.Meta(ge=1, le=300)
    ] = 30


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[tuple[Any, ...], port(many=True, description="Its text, if 'body' is empty.")] = ()


class Outputs(msgspec.Struct, frozen=True):
    sent: Annotated[list[str], port("output", description="The addresses that the server has taken it for.")]
    refused: Annotated[dict[str, str], port(description="Addresses that it has refused, and why.")]
    message_id: Annotated[
        str, port(description="The id of the message, which is the same if it is sent twice.")
    ]


@dataclass(frozen=True, slots=True)
class _Server:
    """Where a message is handed over."""

    host: str
    port: int
    security: Literal["tls", "starttls", "none"]
    username: str
    password: str
    sender: str


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    if not config.credential_id:
        raise NodeError("'credential_id' must say which mail server", code="bad_config", is_final=True)
    server = _server(await ctx.door(Credentials).get(config.credential_id))
    text = written_or_arrived(config.body, inputs.input)
    message, recipients = _message(config, text, server, ctx.idempotency_key)
    refused = await _sent(message, recipients, server, config.timeout, ctx)
    accepted = [each for each in recipients if each not in refused]
    return Outputs(accepted, refused, message["Message-ID"])


def _server(known: Mapping[str, str]) -> _Server:
    host = known.get("host") or ""
    security: Any = (known.get("security") or ("tls" if known.get("port") == "465" else "starttls")).lower()
    if not host or security not in _USUAL_PORT:
        message = "the credential must say 'host', and as 'security' nothing or one of tls, starttls, none"
        raise NodeError(message, code="bad_config", is_final=True)
    number = known.get("port") or str(_USUAL_PORT[security])
    if not number.isdecimal() or not 0 < int(number) < 65536:
        raise NodeError(
            "the credential's 'port' is a number from 1 to 65535", code="bad_config", is_final=True
        )
    username, password = known.get("username") or "", known.get("password") or ""
    if security == "none" and password:
        message = "with 'security' none the password would be sent for all to read; use tls or starttls"
        raise NodeError(message, code="bad_config", is_final=True)
    sender = known.get("from_address") or (username if "@" in username else "")
    return _Server(host, int(number), security, username, password, sender)


def _message(config: Config, text: str, server: _Server, key: str) -> tuple[EmailMessage, list[str]]:
    """The message, and the addresses that it goes to."""
    sender = _people(config.from_address or server.sender, "from_address")
    if len(sender) != 1:
        raise NodeError("'from_address' must be one address", code="bad_address", is_final=True)
    groups = {name: _people(getattr(config, name), name) for name in ("to", "cc", "bcc")}
    recipients = list(dict.fromkeys(address for group in groups.values() for _, address in group))
    if not groups["to"] or len(recipients) > MOST_RECIPIENTS:
        message = f"a message goes to 1 to {MOST_RECIPIENTS} addresses, not to {len(recipients)}"
        raise NodeError(message, code="bad_address", is_final=True)
    made = EmailMessage()
    made["From"] = formataddr(sender[0])
    for name in ("to", "cc"):  # those in 'bcc' are named nowhere
        if groups[name]:
            made[name.title()] = ", ".join(map(formataddr, groups[name]))
    if answers := _people(config.reply_to, "reply_to"):
        made["Reply-To"] = ", ".join(map(formataddr, answers))
    made["Subject"] = _line(config.subject, "subject")
    made["Date"] = formatdate()
    domain = sender[0][1].rpartition("@")[2]
    made["Message-ID"] = f"<{key[:40]}@{domain}>"
    made.set_content(_body(text, "body"))
    if config.html:
        made.add_alternative(_body(config.html, "html"), subtype="html")
    return made, recipients


def _people(given: Addresses, name: str) -> list[tuple[str, str]]:
    """Names and addresses. What could become another header, or another command, is refused."""
    texts = [_line(each, name) for each in ([given] if isinstance(given, str) else given)]
    found = getaddresses([each for each in texts if each.strip()])
    for person, address in found:
        if not _ADDRESS.fullmatch(address):
            shown = address or person or "an empty one"
            raise NodeError(
                f"{name!r}: {shown[:100]!r} is no e-mail address", code="bad_address", is_final=True
            )
    return found


def _line(text: str, name: str) -> str:
    if _CONTROL.search(text) or _HALF.search(text):
        message = f"{name!r} has a line break or control character, which could become a header of its own"
        raise NodeError(message, code="bad_header", is_final=True)
    if len(text) > 10_000:
        raise NodeError(f"{name!r} has more than 10000 characters", code="bad_header", is_final=True)
    return text


def _body(text: str, name: str) -> str:
    if len(text) > MOST_CHARACTERS:
        message = f"{name!r} has {len(text)} characters; allowed are {MOST_CHARACTERS}"
        raise NodeError(message, code="bad_input", is_final=True)
    return _HALF.sub("\ufffd", text).replace("\x00", "\ufffd")


async def _sent(
    message: EmailMessage,
    recipients: list[str],
    server: _Server,
    seconds: float,
    ctx: RunContext,
) -> dict[str, str]:
    """Hand a message over; the addresses that were refused, and why."""
    import aiosmtplib  # noqa: PLC0415  loaded with the first message

    line = await ctx.door(Connections).open(server.host, server.port, seconds)
    client = aiosmtplib.SMTP(
        hostname=server.host,
        port=None,
        sock=line,
        use_tls=server.security == "tls",
        start_tls=server.security == "starttls",
        tls_context=ssl.create_default_context(),
        username=server.username or None,
        password=server.password or None,
        local_hostname="flowserver.invalid",
        timeout=seconds,
    )
    try:
        await client.connect()
        refused, _ = await client.send_message(message, recipients=recipients)
        with suppress(aiosmtplib.SMTPException):  # it has the message
            await client.quit()
    except (aiosmtplib.SMTPException, OSError, ValueError) as exc:
        raise _told(exc, server, ctx) from None
    finally:
        client.close()  # and with it the line, which belongs to its transport since it connected
    return {
        address: ctx.redact(f"{answer.code} {answer.message}")[:500] for address, answer in refused.items()
    }


def _told(exc: Exception, server: _Server, ctx: RunContext) -> NodeError:
    import aiosmtplib  # noqa: PLC0415

    where = f"the mail server {server.host}:{server.port}"
    match exc:
        case aiosmtplib.SMTPRecipientsRefused():
            first = exc.recipients[0]
            words, status = (
                f"refused every address: {first.recipient}: {first.code} {first.message}",
                first.code,
            )
        case aiosmtplib.SMTPResponseException():
            words, status = f"answered {exc.code} {exc.message}", exc.code
        case aiosmtplib.SMTPTimeoutError() | TimeoutError():
            return NodeError(f"{where} did not answer in time", code="timeout")
        case _:
            words, status = f"could not be talked to: {exc}", 0
    return NodeError(ctx.redact(f"{where} {words}")[:1000], code="smtp_error", is_final=500 <= status < 600)


def mistakes(config: Config) -> Iterator[tuple[str, Keys]]:
    if not config.credential_id:
        yield "'credential_id' must say which mail server", ()
    for name in ("to", "cc", "bcc", "reply_to", "from_address", "subject"):
        value = getattr(config, name)
        if value and "{{" not in str(value):
            try:
                _line(value, name) if name == "subject" else _people(value, name)
            except NodeError as exc:
                yield exc.message, (name,)


NODE = NodeType.step(
    run,
    "EmailSend",
    "Send an e-mail",
    effect=True,
    mistakes=mistakes,
    imports=("aiosmtplib",),
    aliases=("EmailSendNode", "SendEmail", "EmailNode"),
    icon="mail",
    examples=(
        {
            "to": "ada@example.com",
            "subject": "Your order {{ input }}",
            "body": "It is on its way.",
            "credential_id": "00000000-0000-7000-8000-000000000000",
        },
    ),
)
