"""Secrets sealed for Postgres: AES-256-GCM under one of several keys, bound to their place."""

from __future__ import annotations

import binascii
import hashlib
import ipaddress
import os
import re
import secrets
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from flowserver.errors import DamagedSecret, NoEncryptionKey, Unavailable, UnknownKey
from flowserver.settings import Settings

KEY_FILE = "encryption-key"
SETTING = "FLOWSERVER_ENCRYPTION_KEYS"

_VERSION = "v1"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class Vault:
    """Seals with its first key, and opens what any of them has sealed.

    What is sealed reads `v1.<key id>.<nonce>.<ciphertext>`, and opens only with the `context` that it was
    sealed with: one row's secret is nothing in another row.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """`keys` by id, the one that seals first; without any, nothing can be sealed or opened."""
        self._keys = {id: AESGCM(key) for id, key in keys.items()}

    @property
    def key_ids(self) -> tuple[str, ...]:
        return tuple(self._keys)

    def seal(self, data: bytes, context: str) -> str:
        """Encrypt `data` for the place that `context` names.

        Raises:
            NoEncryptionKey: This server has no key.
        """
        for id, key in self._keys.items():
            nonce = os.urandom(_NONCE_BYTES)
            sealed = key.encrypt(nonce, data, _bound(id, context))
            return ".".join((_VERSION, id, _text(nonce), _text(sealed)))
        raise NoEncryptionKey

    def open(self, sealed: str, context: str) -> bytes:
        """Decrypt what was sealed for the same `context`.

        Raises:
            UnknownKey: It was sealed with a key that is not loaded.
            DamagedSecret: It was changed, was sealed for another place, or is nothing that a vault has made.
        """
        version, id, nonce, text = _parts(sealed)
        if version != _VERSION:
            raise DamagedSecret
        if (key := self._keys.get(id)) is None:
            raise UnknownKey(id)
        try:
            return key.decrypt(_bytes(nonce), _bytes(text), _bound(id, context))
        except (InvalidTag, ValueError):  # a nonce of a wrong length is a ValueError
            raise DamagedSecret from None


def key_id(sealed: str) -> str:
    """Under which key something was sealed.

    Raises:
        DamagedSecret: It is nothing that a vault has made.
    """
    return _parts(sealed)[1]


def open_vault(settings: Settings) -> Vault:
    """The vault of this server: the operator's keys, else one in its data directory, else none.

    A key is made only where nobody else reaches the server: who opens it to others chooses his own. With a
    database of one's own, a data directory that cannot hold it is no reason not to start.

    Raises:
        Unavailable: A key cannot be used, read or kept.
    """
    if settings.encryption_keys:
        return Vault(read_keys(settings.encryption_keys))
    if _is_loopback(settings.host):
        file = settings.data_dir / KEY_FILE
        try:
            return Vault(read_keys([_kept(file)], str(file)))
        except Unavailable:
            if settings.database_url is None or file.exists():
                raise  # one that is there and cannot be read may be needed
    return Vault({})


def read_keys(given: Iterable[str], origin: str = SETTING) -> dict[str, bytes]:
    """Keys by id, from `id:base64` or base64 alone, whose id then comes from a hash of the key.

    Raises:
        Unavailable: One of them is no key; which one is told, not what it is.
    """
    found: dict[str, bytes] = {}
    for place, each in enumerate(given, 1):
        id, separator, text = each.rpartition(":")
        key = _key(text.strip())
        id = id.strip() if separator else hashlib.sha256(key or b"").hexdigest()[:8]
        wrong = None
        if key is None:
            wrong = f"is not {_KEY_BYTES} bytes in base64"
        elif not _KEY_ID.fullmatch(id):
            wrong = "has an id of other than 1 to 32 letters, digits, '-' and '_'"
        elif id in found:
            wrong = "has the id of another one"
        if wrong or key is None:
            raise Unavailable(f"{origin}: key {place} {wrong}; 'openssl rand -base64 32' makes a key")
        found[id] = key
    return found


def _kept(path: Path) -> str:
    """The key in a file, made if it is missing; processes that start together agree on one."""
    try:
        if not path.exists():
            _make(path)
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not a text"
        raise Unavailable(
            f"the key that secrets are sealed with cannot be kept in {path} ({reason}): "
            f"set FLOWSERVER_DATA_DIR to a directory that can be written to, or {SETTING} to a key"
        ) from None


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(b64encode(secrets.token_bytes(_KEY_BYTES)).decode() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)  # the whole key at once, and never over another one
    finally:
        draft.unlink(missing_ok=True)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _key(text: str) -> bytes | None:
    try:
        key = b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == _KEY_BYTES else None


def _parts(sealed: str) -> tuple[str, str, str, str]:
    match sealed.split("."):
        case [version, id, nonce, text]:
            return version, id, nonce, text
    raise DamagedSecret


def _bound(id: str, context: str) -> bytes:
    return f"{_VERSION}.{id}\n{context}".encode()


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    data = urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
    if _text(data) != text:  # what base64 would read past, or the spare bits of its last letter
        raise DamagedSecret
    return data
