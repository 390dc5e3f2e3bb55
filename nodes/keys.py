"""Keys and tokens as people paste them: with line breaks around them, or with characters that no key has."""

from __future__ import annotations

import re

from nodes.contract import NodeError

_AROUND = re.compile(r"^[\s\u200b\u2060\ufeff]+|[\s\u200b\u2060\ufeff]+$")
_NOT_IN_KEYS = re.compile(r"[^\x20-\x7e]")


def trimmed(text: str) -> str:
    """Return `text` without blanks, line breaks and invisible characters at its ends."""
    return _AROUND.sub("", text)


def as_key(text: str | None, name: str) -> str:
    """Return a key or token as a header can carry it: trimmed, and empty if there is none.

    Raises:
        NodeError: It has a character that no key has. The message says where, and what `name` calls it.
    """
    key = trimmed(text or "")
    if wrong := _NOT_IN_KEYS.search(key):
        place = f"character {wrong.start() + 1} of {len(key)}"
        message = (
            f"{name} cannot be sent: its {place} is {_described(wrong[0])}; a key is made of ASCII characters"
        )
        raise NodeError(message, code="bad_key", is_final=True)
    return key


def _described(character: str) -> str:
    if character in "\r\n\x85\u2028\u2029":
        return "a line break"
    return repr(character) if character.isprintable() else f"U+{ord(character):04X}"
