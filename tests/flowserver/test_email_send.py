"""EmailSend against a real SMTP server on this machine."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flowserver.app import create_app
from flowserver.settings import Settings
from tests.server import KEY, drawing, edge, node, serving

Client = httpx.AsyncClient

CANARY = "pw-CNRY-mail"


class Post:
    """Takes every message, but for addresses that are not known."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []
        self.logins: list[Any] = []

    async def handle_RCPT(
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("nobody"):
            return f"550 no such user here, {CANARY}"
        if address.startswith("later"):
            return "451 try again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:
        self.taken.append(envelope)
        return "250 OK"

    def login(
        self, server: Any, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == CANARY.encode(), handled=False)


def certificate(folder: Path) -> ssl.SSLContext:
    """A certificate for 127.0.0.1 that signs itself, in `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


class Server:
    """An SMTP server on a free port."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None, **how: Any) -> None:
        self.post = Post()
        self.port = 0
        self._ssl = ssl_context
        self._how = how
        self._talks: list[SMTP] = []

    async def __aenter__(self) -> Server:
        def talk() -> SMTP:
            self._talks.append(SMTP(self.post, authenticator=self.post.login, **self._how))
            return self._talks[-1]

        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(talk, "127.0.0.1", 0, ssl=self._ssl)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for talk in self._talks:
            for transport in (talk.transport, talk._original_transport):  # the second one, under TLS
                if transport is not None:
                    transport.abort()
        await self._server.wait_closed()


@pytest.fixture
async def client(tmp_path: Path, dsn: str) -> AsyncIterator[Client]:
    settings = Settings(data_dir=tmp_path / "data", api_key=KEY, outbound_allow=("127.0.0.1",))
    async with serving(create_app(settings, dsn)) as client:
        yield client


async def send(
    client: Client, server: dict[str, Any], given: Any = "hello", **settings: Any
) -> dict[str, Any]:
    made = await client.post("/credentials", json={"name": str(uuid4()), "data": server})
    settings = {"to": "ada@example.com", "credential_id": made.json()["id"]} | settings
    flow = drawing(node("start", "StartNode"), node("m", "EmailSend", **settings), edge("start", "m"))
    response = await client.post("/runs", json={"flow_data": flow, "input": given})
    assert response.status_code == 200, response.text
    return dict(response.json())


def plain(server: Server, **more: Any) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": server.port,
        "security": "none",
        "from_address": "me@example.com",
    } | more


async def test_a_message_arrives_as_it_was_written(client: Client) -> None:
    async with Server() as server:
        run = await send(
            client,
            plain(server),
            to="Ada <ada@example.com>, bob@example.com",
            cc=["carl@example.com"],
            bcc="dora@example.com",
            reply_to="answers@example.com",
            subject="Grüße {{ input }}",
            body="Hallo, {{ input }}!\n.\nEnde ✓",
            html="<b>Hallo</b>",
        )

    assert run["status"] == "succeeded", run
    (envelope,) = server.post.taken
    assert envelope.mail_from == "me@example.com"
    assert (
        envelope.rcpt_tos
        == run["output"]
        == [f"{each}@example.com" for each in ("ada", "bob", "carl", "dora")]
    )
    message: Any = message_from_bytes(bytes(envelope.content or b""), policy=policy.default)
    assert message["Subject"] == "Grüße hello"
    assert message["To"] == "Ada <ada@example.com>, bob@example.com"
    assert (message["Cc"], message["Bcc"], message["Reply-To"]) == (
        "carl@example.com",
        None,
        "answers@example.com",
    )
    assert (
        message.get_body(("plain",)).get_content().replace("\r\n", "\n").strip() == "Hallo, hello!\n.\nEnde ✓"
    )
    assert message.get_body(("html",)).get_content().strip() == "<b>Hallo</b>"
    assert b"dora" not in bytes(envelope.content or b"")


async def test_what_arrives_is_the_text_if_there_is_none(client: Client) -> None:
    async with Server() as server:
        await send(client, plain(server), given={"a": 1})

    assert b'{"a": 1}' in bytes(server.post.taken[0].content or b"")


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_login_goes_over_tls_only(
    client: Client, security: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    how = (
        {"ssl_context": context} if security == "tls" else {"tls_context": context, "require_starttls": True}
    )
    async with Server(**how, **({"auth_require_tls": False} if security == "tls" else {})) as server:
        login = plain(server, security=security, username="me@example.com", password=CANARY)

        fine = await send(client, login)
        wrong = await send(client, login | {"password": "wrong-password"})

    assert fine["status"] == "succeeded", fine
    assert server.post.logins[0] == (b"me@example.com", CANARY.encode())
    assert (wrong["status"], wrong["error"]["code"]) == ("failed", "smtp_error")
    assert "wrong-password" not in str(wrong)


async def test_a_certificate_that_nobody_knows_is_refused(client: Client, tmp_path: Path) -> None:
    async with Server(tls_context=certificate(tmp_path)) as server:
        run = await send(client, plain(server, security="starttls", username="me", password=CANARY))

    assert run["status"] == "failed"
    assert server.post.logins == []


async def test_a_password_is_not_sent_for_all_to_read(client: Client) -> None:
    async with Server(auth_require_tls=False) as server:
        run = await send(client, plain(server, username="me", password=CANARY))

    assert (run["error"]["code"], server.post.logins) == ("bad_config", [])


INJECTIONS = [
    "a@example.com\r\nBcc: evil@example.com",
    "a@example.com\nRCPT TO:<evil@example.com>",
    "a@example.com\r.\r\nMAIL FROM:<evil@example.com>",
    "a@example.com\u2028Bcc: evil@example.com",
    "\x85a@example.com",
]


@pytest.mark.parametrize("field", ["to", "cc", "bcc", "reply_to", "from_address", "subject"])
async def test_no_text_becomes_a_header_or_a_command(client: Client, field: str) -> None:
    async with Server() as server:
        for text in INJECTIONS:
            run = await send(client, plain(server), text, **{field: "{{ input }}"})
            assert (run["status"], run["error"]["code"]) == ("failed", "bad_header"), (text, run)

    assert server.post.taken == []


NO_ADDRESSES = [
    *("", "nobody", "a@b@c", "a b@example.com", "a@example.com, oops"),
    *("x" * 300 + "@example.com", '"a b"@example.com', "a@example.com;b@example.com"),
    ", ".join(f"a{n}@example.com" for n in range(101)),
]


async def test_what_is_no_address_is_refused(client: Client) -> None:
    async with Server() as server:
        for to in NO_ADDRESSES:
            run = await send(client, plain(server), to, to="{{ input }}")
            assert (run["status"], run["error"]["code"]) == ("failed", "bad_address"), (to, run)

    assert server.post.taken == []


async def test_some_addresses_may_be_refused_and_all_are_a_failure(client: Client) -> None:
    async with Server() as server:
        some = await send(client, plain(server), to="ada@example.com, nobody@example.com")
        none = await send(client, plain(server), to="nobody@example.com", retry={"attempts": 3})

    assert some["output"] == ["ada@example.com"]
    assert len(server.post.taken) == 1
    assert (none["status"], none["error"]["code"]) == ("failed", "smtp_error")
    assert "no such user here" in none["error"]["message"]


async def test_a_private_mail_server_must_be_allowed(tmp_path: Path, dsn: str) -> None:
    settings = Settings(data_dir=tmp_path, api_key=KEY)
    async with Server() as server, serving(create_app(settings, dsn)) as client:
        run = await send(client, plain(server))

    assert (run["error"]["code"], server.post.taken) == ("host_not_allowed", [])


async def test_a_server_that_is_not_there_or_no_mail_server_is_said(client: Client) -> None:
    gone = await send(client, {"host": "127.0.0.1", "port": 9, "security": "none", "from_address": "a@b.c"})
    nothing = await send(client, {"port": 9, "from_address": "a@b.c"})

    assert gone["error"]["code"] == "connect_failed"
    assert nothing["error"]["code"] == "bad_config"


async def test_mistakes_are_told_before_a_run(client: Client) -> None:
    flow = drawing(node("m", "EmailSend", to="oops", subject="a\nb"))

    found = (await client.post("/workflows/check", json={"flow_data": flow})).json()["problems"]

    words = " ".join(each["message"] for each in found)
    assert "which mail server" in words and "'oops' is no e-mail address" in words and "line break" in words
