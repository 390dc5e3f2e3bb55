"""How well something fits the words that somebody searches for, typos forgiven."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

NEAR = 0.75
"""How alike two words must be for one to be taken for the other, misspelt."""


class Said(NamedTuple):
    """What can be found of a thing."""

    names: Sequence[str]
    """What it is called: a search for one of them means it and nothing else."""
    texts: Sequence[tuple[float, str]]
    """What is said of it, and how much a word that is found there counts, at most 1."""


def words_of(text: str) -> list[str]:
    """The words of a text, in small letters; `HttpRequest` is two."""
    return re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).lower())


def likeness(words: Sequence[str], said: Said) -> float:
    """How well `said` fits `words`: 1 if they are a name of it, 0 if one of them is nowhere in it."""
    squeezed = "".join(words)
    if not squeezed:
        return 0.0
    if any(squeezed == "".join(words_of(name)) for name in said.names):
        return 1.0
    known = [(weight, {*words_of(text), *words_of(text.lower())}) for weight, text in said.texts]
    scores: list[float] = []
    for word in words:
        found = (weight * _like(word, text) for weight, texts in known for text in texts)
        scores.append(max(found, default=0.0))
        if not scores[-1]:
            return 0.0
    return sum(scores) / len(scores)


def _like(word: str, text: str) -> float:
    """How much `word` is like `text`: the same, its beginning, a part of it, or misspelt."""
    if word == text:
        return 1.0
    if text.startswith(word):
        return 0.9
    if len(word) > 2 and word in text:
        return 0.7
    if len(word) > 3 and abs(len(word) - len(text)) <= 3:
        ratio = difflib.SequenceMatcher(None, word, text).ratio()
        return 0.8 * ratio if ratio >= NEAR else 0.0
    return 0.0
