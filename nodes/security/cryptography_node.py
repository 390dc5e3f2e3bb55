"""Encrypt, decrypt, sign, verify, hash, or make keys."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from nodes import ciphers, rsa
from nodes.base64_texts import from_base64, to_base64
from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.isolated import isolated
from nodes.mistakes import Keys
from nodes.texts import written_or_arrived

MOST_BYTES = 10_000_000
_RSA = ("rsa-oaep", "rsa-sha256", "rsa-sha512")
_NEEDS_KEY = {"action": ("encrypt", "decrypt", "sign", "verify", "hmac")}

HashName = Literal["sha256", "sha384", "sha512", "sha3-256", "sha3-512", "blake2b", "sha1", "md5"]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    action: Annotated[
        Literal["encrypt", "decrypt", "sign", "verify", "generate", "hash", "hmac"],
        setting(description="What to do. 'sign' and 'verify' with one key: an HMAC; 'generate' makes keys."),
    ] = "encrypt"
    crypto_type: Annotated[
        Literal["symmetric", "asymmetric"],
        setting(description="One key for both sides, or a private and a public one (RSA)."),
    ] = "symmetric"
    cipher: Annotated[
        Literal[
            "aes-256-gcm",
            "aes-128-gcm",
            "aes-256-cbc",
            "chacha20-poly1305",
            "fernet",
            "base64",
            "rsa-oaep",
            "rsa-sha256",
            "rsa-sha512",
        ],
        setting(
            description="How it is done. 'base64' hides nothing: it writes bytes as letters. With an RSA "
            "cipher there are two keys."
        ),
    ] = "aes-256-gcm"
    key: Annotated[
        str,
        setting(
            secret=True,
            description="A key of the cipher's length in the format below, or a passphrase, of which one is "
            "derived (PBKDF2, SHA-256).",
            when=_NEEDS_KEY,
        ),
    ] = ""
    symmetric_key_format: Annotated[
        Literal["base64", "hex", "url-safe"], setting(description="How symmetric keys are written.")
    ] = "base64"
    pbkdf2_salt: Annotated[
        str,
        setting(
            description="A fixed salt for passphrases; left empty, each message has one of its own with it."
        ),
    ] = ""
    pbkdf2_iterations: Annotated[
        int,
        setting(description="How often a passphrase is hashed; the same for both sides."),
        msgspec.Meta(ge=1_000, le=5_000_000),
    ] = 600_000
    rsa_key_source: Annotated[
        Literal["provide", "auto-generate"],
        setting(description="Whether RSA keys are given, or made for this message and given out with it."),
    ] = "provide"
    private_key: Annotated[
        str, setting(secret=True, description="An RSA private key as PEM: to decrypt and to sign.")
    ] = ""
    public_key: Annotated[str, setting(description="An RSA public key as PEM: to encrypt and to verify.")] = (
        ""
    )
    signature: Annotated[
        str, setting(description="What is verified, as base64 or hex.", when={"action": ("verify",)})
    ] = ""
    key_size: Annotated[
        Literal["2048", "3072", "4096", 2048, 3072, 4096],
        setting(description="Bits of RSA keys that are made."),
    ] = "2048"
    key_length: Annotated[
        Literal["128-bit", "256-bit", "512-bit"],
        setting(description="Length of symmetric keys that are made.", when={"action": ("generate",)}),
    ] = "256-bit"
    hash_algorithm: Annotated[
        HashName,
        setting(
            "algorithm",
            description="For hashes and HMACs. SHA-1 and MD5 are broken: only for what still asks for them.",
            when={"action": ("hash", "hmac", "sign", "verify")},
        ),
    ] = "sha256"
    encoding: Annotated[
        Literal["hex", "base64"],
        setting(description="How hashes and HMACs are written.", when={"action": ("hash", "hmac", "sign")}),
    ] = "hex"
    cbc_mac: Annotated[
        bool,
        setting(
            description="Whether AES-CBC messages carry a seal (HMAC) that shows a change. Switch it off for "
            "other programs' messages: 16 bytes of IV, then the text.",
            when={"cipher": ("aes-256-cbc",)},
        ),
    ] = True
    text_input: Annotated[
        str | UnsetType,
        setting("text", description="A text with {{ paths }}; left empty, what arrives.", left_empty=True),
    ] = UNSET
    fail_on_error: Annotated[
        bool, setting(description="Whether what cannot be done fails the step, or only says success: false.")
    ] = True


class Inputs(msgspec.Struct, frozen=True):
    input_data: Annotated[
        tuple[Any, ...],
        port(
            "input", many=True, description="What is worked on where no text is written; several are joined."
        ),
    ] = ()


class Outputs(msgspec.Struct, frozen=True):
    output: Annotated[
        Any,
        port(
            "result",
            description="The text that came out; for 'verify' whether the signature is right; for 'generate' "
            "the key, or an object with private_key and public_key.",
        ),
    ]
    success: Annotated[bool, port(description="Whether it could be done.")]
    keys: Annotated[
        dict[str, str], port(description="Keys that were made for this message, as PEM; else empty.")
    ]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    text = written_or_arrived(config.text_input, inputs.input_data)
    data = text.encode("utf-8", "replace")
    try:
        if len(data) > MOST_BYTES:
            message = f"the text has {len(data):,} bytes; allowed are {MOST_BYTES:,}"
            raise NodeError(message, code="too_large", is_final=True)
        for wrong, keys in mistakes(config):
            raise NodeError(f"{keys[0]}: {wrong}", code="missing_value", is_final=True)
        output, made = await isolated(ctx, _do, config, data)
    except NodeError:
        if config.fail_on_error:
            raise
        return Outputs(None, False, {})
    return Outputs(output, True, made)


def _do(config: Config, data: bytes) -> tuple[Any, dict[str, str]]:
    """What comes out, and the keys that were made for it."""
    if config.action == "hash":
        return _written(_hash(config.hash_algorithm)(data).digest(), config.encoding), {}
    if config.action == "generate":
        return (rsa.new_pair(int(config.key_size)) if _is_rsa(config) else _new_key(config)), {}
    if _is_rsa(config) and config.action != "hmac":
        return _with_rsa(config, data)
    return _with_one_key(config, data), {}


def _is_rsa(config: Config) -> bool:
    return config.crypto_type == "asymmetric" or config.cipher in _RSA


def _with_one_key(config: Config, data: bytes) -> Any:
    match config.action, config.cipher:
        case "encrypt", "base64":
            return to_base64(data)
        case "decrypt", "base64":
            return _as_text(from_base64(data.decode("ascii", "replace"), "the text"))
        case "encrypt", _:
            return ciphers.encrypt(_cipher(config), _secret(config), data)
        case "decrypt", _:
            return _as_text(ciphers.decrypt(_cipher(config), _secret(config), _joined(data)))
        case "verify", _:
            made = _hmac(config, data)
            return any(hmac.compare_digest(made, each) for each in _readings(config.signature))
    return _written(_hmac(config, data), config.encoding)


def _with_rsa(config: Config, data: bytes) -> tuple[Any, dict[str, str]]:
    made: dict[str, str] = {}
    if config.rsa_key_source == "auto-generate" and config.action in ("encrypt", "sign"):
        made = rsa.new_pair(int(config.key_size))
        config = msgspec.structs.replace(config, **made)
    hash_name = "sha512" if config.cipher == "rsa-sha512" else "sha256"
    match config.action:
        case "encrypt":
            return rsa.encrypt(_public(config), data), made
        case "decrypt":
            return _as_text(rsa.decrypt(rsa.private_key(config.private_key), _joined(data))), made
        case "sign":
            return rsa.sign(rsa.private_key(config.private_key), data, hash_name), made
    return rsa.is_signed(_public(config), data, hash_name, _readings(config.signature)), made


def _public(config: Config) -> Any:
    if config.public_key.strip():
        return rsa.public_key(config.public_key)
    return rsa.private_key(config.private_key).public_key()


def _cipher(config: Config) -> str:
    return "aes-256-cbc-unsealed" if config.cipher == "aes-256-cbc" and not config.cbc_mac else config.cipher


def _secret(config: Config) -> ciphers.Secret:
    # A Fernet key has one way to be written.
    format = "url-safe" if config.cipher == "fernet" else config.symmetric_key_format
    return ciphers.Secret(config.key, format, config.pbkdf2_salt, config.pbkdf2_iterations)


def _joined(data: bytes) -> str:
    return "".join(data.decode("ascii", "replace").split())


def _hash(name: str) -> Callable[[bytes], Any]:
    made: Callable[[bytes], Any] = getattr(hashlib, name.replace("-", "_"))
    return made


def _hmac(config: Config, data: bytes) -> bytes:
    return hmac.digest(config.key.encode("utf-8", "replace"), data, config.hash_algorithm.replace("-", "_"))


def _written(data: bytes, encoding: str) -> str:
    return data.hex() if encoding == "hex" else to_base64(data)


def _new_key(config: Config) -> str:
    length = 32 if config.cipher == "fernet" else int(config.key_length.partition("-")[0]) // 8
    key = os.urandom(length)
    if config.symmetric_key_format == "hex" and config.cipher != "fernet":
        return key.hex()
    urlsafe = config.symmetric_key_format == "url-safe" or config.cipher == "fernet"
    return base64.urlsafe_b64encode(key).decode() if urlsafe else to_base64(key)


def _as_text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        message = "what was decrypted or decoded is no text in UTF-8"
        raise NodeError(message, code="not_text", is_final=True) from None


def _readings(signature: str) -> list[bytes]:
    """What a signature may be: hex or base64, after the name of its hash as some senders write it."""
    text = "".join(signature.split())
    named = re.fullmatch(r"(?:sha|md)[a-z0-9-]{1,8}=([^=].*)", text)
    found: list[bytes] = []
    for each in (text, named[1]) if named else (text,):
        if re.fullmatch(r"(?:[0-9a-fA-F]{2})+", each):
            found.append(bytes.fromhex(each))
        with contextlib.suppress(NodeError):
            found.append(from_base64(each, "the signature"))
    return found


def mistakes(config: Config) -> Iterator[tuple[str, Keys]]:
    """Keys and signatures that are missing."""
    action = config.action
    if action == "verify" and not config.signature:
        yield "there is nothing to verify: set 'signature'", ("signature",)
    if action in ("generate", "hash"):
        return
    if _is_rsa(config) and action != "hmac":
        yield from _missing_rsa(config)
    elif not config.key and config.cipher != "base64":
        yield f"{action!r} with {config.cipher} needs 'key': a key or a passphrase", ("key",)
    elif config.cipher == "base64" and action not in ("encrypt", "decrypt", "hmac") and not config.key:
        yield f"{action!r} needs 'key': a key or a passphrase", ("key",)


def _missing_rsa(config: Config) -> Iterator[tuple[str, Keys]]:
    made = config.rsa_key_source == "auto-generate"
    if made and config.action in ("encrypt", "sign"):
        return
    if config.action in ("decrypt", "sign") and not config.private_key:
        yield f"{config.action!r} needs 'private_key', a PEM", ("private_key",)
    if config.action in ("encrypt", "verify") and not (config.public_key or config.private_key):
        yield f"{config.action!r} needs 'public_key', a PEM", ("public_key",)


NODE = NodeType.step(
    run,
    "CryptographyNode",
    "Encrypt and sign",
    aliases=("Cryptography", "CryptoNode"),
    imports=("cryptography.hazmat.primitives.ciphers.aead",),
    mistakes=mistakes,
    icon="lock",
    examples=(
        {"action": "hash", "hash_algorithm": "sha256"},
        {"action": "generate", "crypto_type": "asymmetric", "key_size": "4096"},
        {"action": "encrypt", "cipher": "aes-256-gcm", "key": "a long passphrase of your own"},
    ),
)
