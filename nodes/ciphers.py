"""Messages under a symmetric key: base64 of nonce and ciphertext, after a passphrase's salt and a dot."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nodes.base64_texts import from_base64, to_base64
from nodes.contract import NodeError

KEY_BYTES = {
    "aes-256-gcm": 32,
    "aes-128-gcm": 16,
    "aes-256-cbc": 32,
    "aes-256-cbc-unsealed": 32,
    "chacha20-poly1305": 32,
    "fernet": 32,
}
"""Cipher -> the length of its keys."""
_SALT = 16
_NONCE = 12
_IV = 16
_SEAL = 32


@dataclass(frozen=True)
class Secret:
    """A key, or a passphrase of which one is derived."""

    text: str
    format: str
    """How a key is written: base64, hex or url-safe."""
    salt: str
    """Of a passphrase; without one, each message has its own. With one, `text` is never taken for a key."""
    iterations: int

    def exact(self, length: int) -> bytes | None:
        """The key that `text` writes, if it has that length."""
        try:
            is_hex = self.format == "hex"
            found = bytes.fromhex(self.text.strip()) if is_hex else from_base64(self.text, "the key")
        except (ValueError, NodeError):
            return None
        return found if len(found) == length and not self.salt else None

    def derived(self, length: int, salt: bytes) -> bytes:
        return hashlib.pbkdf2_hmac("sha256", _bytes(self.text), salt, self.iterations, length)


def encrypt(cipher: str, secret: Secret, data: bytes) -> str:
    length, seal = KEY_BYTES[cipher], _CIPHERS[cipher].seal
    if (key := secret.exact(length)) is not None:
        return seal(key, data)
    if secret.salt:
        return seal(secret.derived(length, _bytes(secret.salt)), data)
    salt = os.urandom(_SALT)
    return f"{to_base64(salt)}.{seal(secret.derived(length, salt), data)}"


def decrypt(cipher: str, secret: Secret, text: str) -> bytes:
    """What was encrypted.

    Raises:
        NodeError: `cannot_decrypt`, and not why: that would help who tries keys or changes messages.
    """
    length, opened = KEY_BYTES[cipher], _CIPHERS[cipher].open
    if (key := secret.exact(length)) is not None:
        return opened(key, text)
    if secret.salt:
        return opened(secret.derived(length, _bytes(secret.salt)), text)
    head, _, text = text.rpartition(".")
    salt = from_base64(head, "the salt")
    if len(salt) != _SALT:
        raise not_decrypted()
    return opened(secret.derived(length, salt), text)


def not_decrypted() -> NodeError:
    message = "the message cannot be decrypted: the key is another one, or the message was changed or is none"
    return NodeError(message, code="cannot_decrypt", is_final=True)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


@dataclass(frozen=True)
class _Cipher:
    seal: Callable[[bytes, bytes], str]
    open: Callable[[bytes, str], bytes]


def _aead(name: str) -> _Cipher:
    def made(key: bytes) -> Any:
        from cryptography.hazmat.primitives.ciphers import aead  # noqa: PLC0415  few need it

        return getattr(aead, name)(key)

    def seal(key: bytes, data: bytes) -> str:
        nonce = os.urandom(_NONCE)
        return to_base64(nonce + made(key).encrypt(nonce, data, None))

    def open(key: bytes, text: str) -> bytes:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415

        data = from_base64(text, "the message")
        try:
            found: bytes = made(key).decrypt(data[:_NONCE], data[_NONCE:], None)
        except (InvalidTag, ValueError):
            raise not_decrypted() from None
        return found

    return _Cipher(seal, open)


def _fernet_seal(key: bytes, data: bytes) -> str:
    from cryptography.fernet import Fernet  # noqa: PLC0415

    return Fernet(base64.urlsafe_b64encode(key)).encrypt(data).decode()


def _fernet_open(key: bytes, text: str) -> bytes:
    from cryptography.fernet import Fernet, InvalidToken  # noqa: PLC0415

    try:
        return Fernet(base64.urlsafe_b64encode(key)).decrypt(text.encode("ascii", "replace"))
    except (InvalidToken, ValueError):
        raise not_decrypted() from None


def _sealed_cbc_seal(key: bytes, data: bytes) -> str:
    """AES-CBC shows no change by itself, and its padding tells too much: so an HMAC goes around it."""
    made = _cbc(hmac.digest(key, b"encrypt", "sha256"), data)
    return to_base64(made + hmac.digest(hmac.digest(key, b"seal", "sha256"), made, "sha256"))


def _sealed_cbc_open(key: bytes, text: str) -> bytes:
    data = from_base64(text, "the message")
    data, found = data[:-_SEAL], data[-_SEAL:]
    if not hmac.compare_digest(hmac.digest(hmac.digest(key, b"seal", "sha256"), data, "sha256"), found):
        raise not_decrypted()
    return _uncbc(hmac.digest(key, b"encrypt", "sha256"), data)


def _cbc(key: bytes, data: bytes) -> bytes:
    iv = os.urandom(_IV)
    cipher, padding = _cbc_parts(key, iv)
    padder, encryptor = padding.padder(), cipher.encryptor()
    made: bytes = encryptor.update(padder.update(data) + padder.finalize()) + encryptor.finalize()
    return iv + made


def _uncbc(key: bytes, data: bytes) -> bytes:
    try:
        cipher, padding = _cbc_parts(key, data[:_IV])
        decryptor, unpadder = cipher.decryptor(), padding.unpadder()
        found = decryptor.update(data[_IV:]) + decryptor.finalize()
        plain: bytes = unpadder.update(found) + unpadder.finalize()
    except ValueError:
        raise not_decrypted() from None
    return plain


def _cbc_parts(key: bytes, iv: bytes) -> tuple[Any, Any]:
    from cryptography.hazmat.primitives import padding  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415

    return Cipher(algorithms.AES(key), modes.CBC(iv)), padding.PKCS7(128)


_CIPHERS = {
    "aes-256-gcm": _aead("AESGCM"),
    "aes-128-gcm": _aead("AESGCM"),
    "chacha20-poly1305": _aead("ChaCha20Poly1305"),
    "fernet": _Cipher(_fernet_seal, _fernet_open),
    "aes-256-cbc": _Cipher(_sealed_cbc_seal, _sealed_cbc_open),
    "aes-256-cbc-unsealed": _Cipher(
        lambda key, data: to_base64(_cbc(key, data)),
        lambda key, text: _uncbc(key, from_base64(text, "the message")),
    ),
}
