"""Tokens as OpenAI's embedding models count them, without asking the network for their vocabulary."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiktoken import Encoding

VOCABULARY = "cl100k_base"
_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
"""Of OpenAI's own file, as `tiktoken` states it."""
_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
    r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
)
_PIECE = 20_000
"""Characters that are counted at a time: a single word of a million would take minutes."""


def count_tokens(text: str) -> int:
    return sum(len(_encoding().encode_ordinary(piece)) for piece in _pieces(text))


def token_ends(text: str) -> list[int]:
    """Where in `text` each token ends, as a place between two characters; tokens may share one."""
    ends: list[int] = []
    at = 0
    for piece in _pieces(text):
        for token in _encoding().encode_ordinary(piece):
            # A character of several bytes may be cut: it belongs to the token that begins it.
            data = _encoding().decode_single_token_bytes(token)
            at += sum(byte & 0xC0 != 0x80 for byte in data)
            ends.append(at)
    return ends


def _pieces(text: str) -> list[str]:
    clean = text.encode("utf-8", "replace").decode() if not text.isascii() else text
    return [clean[at : at + _PIECE] for at in range(0, len(clean), _PIECE)]


@cache
def _encoding() -> Encoding:
    """Made once: it takes a tenth of a second and 30 MB."""
    from tiktoken import Encoding  # noqa: PLC0415  only who counts tokens needs it

    data = (resources.files("tiktoken_ext") / "data" / f"{VOCABULARY}.tiktoken").read_bytes()
    if hashlib.sha256(data).hexdigest() != _SHA256:
        raise RuntimeError(f"the vocabulary {VOCABULARY} is not OpenAI's")
    pairs = (line.split() for line in data.splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
    return Encoding(VOCABULARY, pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})
