"""Ranking: candidates in, items out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pai.points import memory_of
from pai.shapes import Item, Query, Tier
from pai.warm import Hit

K = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    id: str
    tier: Tier
    score: float
    why: tuple[str, ...]
    payload: dict[str, Any]


def fuse(lists: Sequence[tuple[Tier, str, list[Hit]]]) -> list[Candidate]:
    """Reciprocal ranks, summed."""
    scores: dict[str, float] = {}
    why: dict[str, list[str]] = {}
    first: dict[str, tuple[Tier, Hit]] = {}
    for tier, name, hits in lists:
        for rank, hit in enumerate(hits, 1):
            scores[hit.id] = scores.get(hit.id, 0.0) + 1 / (K + rank)
            why.setdefault(hit.id, []).append(f"{name} {rank}")
            first.setdefault(hit.id, (tier, hit))
    return [
        Candidate(
            id=id, tier=first[id][0], score=score, why=tuple(why[id]), payload=first[id][1].payload
        )
        for id, score in sorted(scores.items(), key=lambda pair: -pair[1])
    ]


def rank(query: Query, candidates: Sequence[Candidate], now: datetime) -> list[Item]:
    return [
        Item(
            memory=memory_of(one.payload),
            tier=one.tier,
            score=one.score,
            why=one.why,
            support=one.payload.get("support", 1),
        )
        for one in candidates[: query.limit]
    ]


def join(items: Sequence[Item], more: Sequence[Item]) -> list[Item]:
    known = {item.memory.id for item in items}
    return [*items, *(item for item in more if item.memory.id not in known)]
