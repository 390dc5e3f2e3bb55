"""Ciphers, signatures, hashes and keys: round trips, known answers, and nothing told about keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nodes.contract import NodeError
from nodes.security.cryptography_node import MOST_BYTES, NODE, Inputs, Outputs, run
from tests.nodes.contexts import context
from tests.nodes.settings import assert_examples_fit, configured, told_of

SYMMETRIC = ["aes-256-gcm", "aes-128-gcm", "aes-256-cbc", "chacha20-poly1305", "fernet"]
FEW = 1_000
SECRET = "CNRY-passphrase-of-ours"
TEXT = "Grüße, 世界! {{ 7*7 }}\n" * 5
PAIR: dict[str, str] = {}


async def do(*arrived: Any, **drawn: Any) -> Outputs:
    if drawn.get("action") not in ("hash", "generate"):
        drawn.setdefault("pbkdf2_iterations", FEW)
    return await run(configured(NODE, **drawn), Inputs(arrived), context())


async def fails(*arrived: Any, **drawn: Any) -> NodeError:
    with pytest.raises(NodeError) as failed:
        await do(*arrived, **drawn)
    assert "CNRY" not in failed.value.message
    return failed.value


@pytest.fixture
async def pair() -> dict[str, str]:
    """RSA keys, made once: it takes a while."""
    if not PAIR:
        PAIR.update((await do(action="generate", crypto_type="asymmetric")).output)
    return PAIR


def test_its_examples_fit() -> None:
    assert_examples_fit(NODE)


@pytest.mark.parametrize("how", ["key", "passphrase", "salted"])
@pytest.mark.parametrize("cipher", SYMMETRIC)
async def test_what_is_encrypted_is_decrypted(cipher: str, how: str) -> None:
    drawn: dict[str, Any] = {"cipher": cipher, "key": SECRET}
    if how == "salted":
        drawn["pbkdf2_salt"] = "a salt"
    if how == "key":
        length = "128-bit" if cipher == "aes-128-gcm" else "256-bit"
        drawn["key"] = (await do(action="generate", cipher=cipher, key_length=length)).output

    for text in (TEXT, "x", "y" * 100_000):
        one, two = await do(text, action="encrypt", **drawn), await do(text, action="encrypt", **drawn)
        assert one.success and one.output != two.output  # another nonce each time
        assert (await do(one.output, action="decrypt", **drawn)).output == text


@pytest.mark.parametrize("cipher", SYMMETRIC)
async def test_a_changed_message_or_another_key_gives_an_error_and_no_text(cipher: str) -> None:
    drawn = {"cipher": cipher, "key": SECRET, "pbkdf2_salt": "s"}
    sealed = (await do("a message", action="encrypt", **drawn)).output
    raw = bytearray(base64.urlsafe_b64decode(sealed) if cipher == "fernet" else base64.b64decode(sealed))
    coded = base64.urlsafe_b64encode if cipher == "fernet" else base64.b64encode

    for at in range(len(raw)):
        changed = bytes(raw[:at]) + bytes([raw[at] ^ 1]) + bytes(raw[at + 1 :])
        assert (await fails(coded(changed).decode(), action="decrypt", **drawn)).code == "cannot_decrypt"
    for wrong in (sealed[:-8], sealed[:4], "AAAA"):
        assert (await fails(wrong, action="decrypt", **drawn)).code == "cannot_decrypt"
    other = await fails(sealed, action="decrypt", **drawn | {"key": "CNRY another"})
    assert other.code == "cannot_decrypt"


@pytest.mark.parametrize("junk", ["", "not base64 !!", "a.b", "....", "\x00", "é" * 50, "AAAA.AAAA", "{}"])
@pytest.mark.parametrize("cipher", [*SYMMETRIC, "base64"])
async def test_junk_is_no_message(cipher: str, junk: str) -> None:
    if cipher == "base64" and junk in ("", "\x00"):
        return
    failed = await fails(junk, action="decrypt", cipher=cipher, key=SECRET)

    assert failed.code in ("cannot_decrypt", "not_base64", "not_text")


async def test_messages_are_as_other_programs_write_them() -> None:
    key = bytes(range(32))
    coded = base64.b64encode(key).decode()
    sealed = base64.b64encode(b"n" * 12 + AESGCM(key).encrypt(b"n" * 12, b"from elsewhere", None)).decode()
    fernet = Fernet(base64.urlsafe_b64encode(key))
    cbc = "AAAAAAAAAAAAAAAAAAAAAA=="  # an IV alone

    assert (await do(sealed, action="decrypt", key=coded)).output == "from elsewhere"
    assert (
        await do(sealed, action="decrypt", key=key.hex(), symmetric_key_format="hex")
    ).output == "from elsewhere"
    token = fernet.encrypt(b"hi").decode()
    assert (
        await do(token, action="decrypt", cipher="fernet", key=base64.urlsafe_b64encode(key).decode())
    ).output == "hi"
    bare: dict[str, Any] = {"cipher": "aes-256-cbc", "cbc_mac": False, "key": coded}
    made = (await do("sixteen bytes ok", action="encrypt", **bare)).output
    assert len(base64.b64decode(made)) == 16 + 32
    assert (await do(made, action="decrypt", **bare)).output == "sixteen bytes ok"
    assert (await fails(cbc, action="decrypt", **bare)).code == "cannot_decrypt"
    assert (await do(TEXT, cipher="base64")).output == base64.b64encode(TEXT.encode()).decode()
    assert (await do("4pyT", action="decrypt", cipher="base64")).output == "✓"
    assert (await fails("/w==", action="decrypt", cipher="base64")).code == "not_text"


@pytest.mark.parametrize(
    ("algorithm", "begins"),
    [
        ("sha256", "ba7816bf"), ("sha384", "cb00753f"), ("sha512", "ddaf35a1"), ("sha3-256", "3a985da7"),
        ("sha3-512", "b751850b"), ("blake2b", "ba80a53f"), ("sha1", "a9993e36"), ("md5", "90015098"),
    ],
)  # fmt: skip
async def test_hashes_are_the_known_ones(algorithm: str, begins: str) -> None:
    assert (await do("abc", action="hash", hash_algorithm=algorithm)).output.startswith(begins)
    coded = (await do("abc", action="hash", algorithm=algorithm, encoding="base64")).output
    assert base64.b64decode(coded).hex().startswith(begins)


async def test_an_hmac_is_made_and_verified() -> None:
    expected = hmac.new(b"key", b"The quick brown fox", hashlib.sha256)
    drawn = {"key": "key", "text_input": "The quick brown fox"}

    for action in ("hmac", "sign"):
        assert (await do(action=action, **drawn)).output == expected.hexdigest()
    for signature in (
        expected.hexdigest(),
        expected.hexdigest().upper(),
        base64.b64encode(expected.digest()).decode(),
        f"sha256={expected.hexdigest()}",
    ):
        assert (await do(action="verify", signature=signature, **drawn)).output is True
    for wrong in ("00" * 32, "x", "sha256=", expected.hexdigest()[:-2], "é"):
        assert (await do(action="verify", signature=wrong, **drawn)).output is False


async def test_rsa_encrypts_and_signs(pair: dict[str, str]) -> None:
    sealed = await do("a message", cipher="rsa-oaep", public_key=pair["public_key"])
    assert (
        await do(sealed.output, action="decrypt", cipher="rsa-oaep", private_key=pair["private_key"])
    ).output == "a message"

    for cipher in ("rsa-sha256", "rsa-sha512"):
        signed = (await do(TEXT, action="sign", cipher=cipher, private_key=pair["private_key"])).output
        verify: dict[str, Any] = {"action": "verify", "cipher": cipher, "public_key": pair["public_key"]}
        assert (await do(TEXT, signature=signed, **verify)).output is True
        assert (await do(TEXT + "x", signature=signed, **verify)).output is False
        assert (await do(TEXT, signature="AAAA", **verify)).output is False


async def test_rsa_keys_are_read_with_line_breaks_written_out(pair: dict[str, str]) -> None:
    flat = {name: key.replace("\n", "\\n") for name, key in pair.items()}

    signed = (await do("x", action="sign", crypto_type="asymmetric", private_key=flat["private_key"])).output
    drawn = {"crypto_type": "asymmetric", "public_key": flat["public_key"], "signature": signed}
    assert (await do("x", action="verify", **drawn)).output is True


async def test_keys_made_for_a_message_are_given_out_with_it() -> None:
    outputs = await do("x", cipher="rsa-oaep", rsa_key_source="auto-generate", key_size="2048")

    assert sorted(outputs.keys) == ["private_key", "public_key"]
    opened = await do(
        outputs.output, action="decrypt", cipher="rsa-oaep", private_key=outputs.keys["private_key"]
    )
    assert opened.output == "x"


@pytest.mark.parametrize(
    ("format", "length", "size"),
    [("hex", "256-bit", 64), ("base64", "128-bit", 24), ("url-safe", "512-bit", 88)],
)
async def test_keys_are_made_as_long_as_they_are_wished(format: str, length: str, size: int) -> None:
    made = {
        (await do(action="generate", symmetric_key_format=format, key_length=length)).output for _ in range(3)
    }

    assert {len(each) for each in made} == {size}
    assert len(made) == 3


@pytest.mark.parametrize(
    "pem",
    [
        "CNRY not a key",
        "-----BEGIN PRIVATE KEY-----\nCNRY\n-----END PRIVATE KEY-----",
        "x" * 100_000,
        "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIA==\n-----END EC PRIVATE KEY-----",
        "é",
    ],
)
async def test_what_is_no_key_is_said_to_be_none_and_not_shown(pem: str) -> None:
    for drawn in ({"action": "sign", "private_key": pem}, {"action": "encrypt", "public_key": pem}):
        failed = await fails("x", crypto_type="asymmetric", **drawn)
        assert failed.code == "bad_key"
        assert pem not in failed.message


async def test_a_text_too_long_for_rsa_is_refused(pair: dict[str, str]) -> None:
    assert (await fails("x" * 500, cipher="rsa-oaep", public_key=pair["public_key"])).code == "too_large"
    assert (await fails("x" * (MOST_BYTES + 1), action="hash")).code == "too_large"


async def test_a_failure_may_be_given_on_as_one() -> None:
    outputs = await do("junk", action="decrypt", key=SECRET, fail_on_error=False)

    assert outputs == Outputs(None, False, {})


@pytest.mark.parametrize(
    ("drawn", "place"),
    [
        ({"action": "encrypt"}, "key"),
        ({"action": "hmac"}, "key"),
        ({"action": "verify", "key": "k"}, "signature"),
        ({"action": "decrypt", "cipher": "rsa-oaep"}, "private_key"),
        ({"action": "sign", "crypto_type": "asymmetric"}, "private_key"),
        ({"action": "encrypt", "crypto_type": "asymmetric"}, "public_key"),
        ({"action": "sign", "cipher": "base64"}, "key"),
    ],
)
def test_a_missing_key_is_told_before_a_run(drawn: dict[str, str], place: str) -> None:
    found = told_of(NODE, **drawn)

    assert [severity for severity, _, _ in found] == ["error"]
    assert place in found[0][2]


def test_all_that_an_editor_offers_is_taken() -> None:
    for cipher in (*SYMMETRIC, "base64", "rsa-oaep", "rsa-sha256", "rsa-sha512"):
        for action in ("encrypt", "decrypt", "sign", "verify", "generate"):
            assert (
                told_of(
                    NODE,
                    action=action,
                    cipher=cipher,
                    crypto_type="symmetric",
                    key="k",
                    rsa_key_source="provide",
                    private_key="p",
                    public_key="p",
                    signature="s",
                    key_size=2048,
                    key_length="512-bit",
                    symmetric_key_format="url-safe",
                    text_input="{{ input }}",
                    pbkdf2_salt="",
                    pbkdf2_iterations="100000",
                )
                == []
            )
