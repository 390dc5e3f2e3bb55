"""RSA with keys as PEM: encrypt (OAEP, SHA-256), sign and verify (PKCS #1 v1.5), new pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from nodes.base64_texts import from_base64, to_base64
from nodes.ciphers import not_decrypted
from nodes.contract import NodeError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

_MOST_PEM = 20_000
_MOST_BITS = 8192


def new_pair(bits: int) -> dict[str, str]:
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415  few need it
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    return {"private_key": private.decode(), "public_key": public.decode()}


def private_key(pem: str) -> RSAPrivateKey:
    """
    Raises:
        NodeError: `bad_key`; nothing of the key is in it.
    """
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    found = _loaded(lambda data: load_pem_private_key(data, None), pem)
    if not isinstance(found, RSAPrivateKey) or found.key_size > _MOST_BITS:
        raise _bad_key("private")
    return found


def public_key(pem: str) -> RSAPublicKey:
    """
    Raises:
        NodeError: `bad_key`.
    """
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    found = _loaded(load_pem_public_key, pem)
    if not isinstance(found, RSAPublicKey) or found.key_size > _MOST_BITS:
        raise _bad_key("public")
    return found


def encrypt(key: RSAPublicKey, data: bytes) -> str:
    most = key.key_size // 8 - 66
    if len(data) > most:
        message = (
            f"the text has {len(data):,} bytes; RSA encrypts up to {most} with this key, and a symmetric "
        )
        raise NodeError(message + "cipher any length", code="too_large", is_final=True)
    return to_base64(key.encrypt(data, _oaep()))


def decrypt(key: RSAPrivateKey, text: str) -> bytes:
    try:
        return key.decrypt(from_base64(text, "the message"), _oaep())
    except ValueError:
        raise not_decrypted() from None


def sign(key: RSAPrivateKey, data: bytes, hash_name: str) -> str:
    return to_base64(key.sign(data, *_by(hash_name)))


def is_signed(key: RSAPublicKey, data: bytes, hash_name: str, signatures: Iterable[bytes]) -> bool:
    """Whether one of `signatures` is right."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    for each in signatures:
        try:
            key.verify(each, data, *_by(hash_name))
        except InvalidSignature:
            continue
        return True
    return False


def _loaded(load: Callable[[bytes], Any], pem: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415

    # In forms of one line, line breaks are often written as \n.
    text = pem.strip().replace("\\n", "\n")
    if len(text) > _MOST_PEM:
        return None
    try:
        return load(text.encode("ascii", "replace"))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _bad_key(kind: str) -> NodeError:
    name = f"{kind}_key"
    message = f"{name!r} is not a {kind} RSA key as PEM, without a password, of at most {_MOST_BITS} bits"
    return NodeError(message, code="bad_key", is_final=True)


def _oaep() -> Any:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import padding  # noqa: PLC0415

    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def _by(hash_name: str) -> tuple[Any, Any]:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import padding  # noqa: PLC0415

    return padding.PKCS1v15(), hashes.SHA512() if hash_name == "sha512" else hashes.SHA256()
