"""The order of what a search has found: two rankings made one, and a choice in which no two say the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from flowserver.chunk_table import Likeness
from nodes.vectors import Found

_STEADY = 60
"""Reciprocal rank fusion's constant, from its authors: how little the first places count more."""


def fused(*rankings: Sequence[Found]) -> list[Found]:
    """All that `rankings` hold, by reciprocal rank fusion; 1 is the score of what is first in every one."""
    best = len(rankings) / (_STEADY + 1)
    scores: dict[str, float] = {}
    found: dict[str, Found] = {}
    for ranking in rankings:
        for rank, each in enumerate(ranking, 1):
            found.setdefault(each.id, each)
            scores[each.id] = scores.get(each.id, 0.0) + 1 / (_STEADY + rank) / best
    ranked = sorted(found.values(), key=lambda each: (-scores[each.id], each.id))
    return [msgspec.structs.replace(each, score=scores[each.id]) for each in ranked]


def different(candidates: Sequence[Found], alike: Iterable[Likeness], k: int, balance: float) -> list[Found]:
    """`k` of `candidates` by maximal marginal relevance: near to the question, and unlike each other."""
    pairs = {(each.one, each.other): each.likeness for each in alike}
    best = max((each.score or 0.0 for each in candidates), default=0.0) or 1.0
    gain = {each.id: balance * (each.score or 0.0) / max(best, 1.0) for each in candidates}
    closest = dict.fromkeys(gain, 0.0)
    rest = {each.id: each for each in candidates}
    chosen: list[Found] = []
    while rest and len(chosen) < k:
        id = max(rest, key=lambda id: gain[id] - (1 - balance) * closest[id])
        chosen.append(rest.pop(id))
        for other in rest:
            pair = (id, other) if id < other else (other, id)
            closest[other] = max(closest[other], pairs.get(pair, 0.0))
    return chosen
