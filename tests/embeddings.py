"""Vectors whose nearest neighbours are known: the words of a text, each hashed into one dimension."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter

from langchain_core.embeddings import Embeddings


def vector(text: str, dimension: int = 64) -> list[float]:
    """Texts with the same words are near, those that share none are at a right angle (but for collisions)."""
    counted = [0.0] * dimension
    for word, times in Counter(re.findall(r"\w+", text.lower())).items():
        counted[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % dimension] += times
    length = math.hypot(*counted) or 1.0
    return [each / length for each in counted]


class WordVectors(Embeddings):
    """Counts what it is asked."""

    def __init__(self, dimension: int = 64) -> None:
        self.dimension = dimension
        self.asked: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked += texts
        return [vector(text, self.dimension) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return vector(text, self.dimension)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        return self.embed_query(text)
