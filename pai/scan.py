"""Words in the cold files: a scan from the youngest month back, off the event loop and bounded."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from base import log
from pai import points
from pai.cold import memories_file
from pai.shapes import SHARED, Memory, Query
from pai.stores import Stores
from pai.warm import Hit
from pai.words import document, stems
from pai.words import query as words_of

#: A scan ends here even when older months are unread; it says so in the log.
SCAN_S = 3.0
MATCHES_MAX = 2_000

logger = log.get(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A cold memory that shares words with the query: word number → weight in its text."""

    memory: Memory
    shared: dict[int, float]


async def search(stores: Stores, query: Query, limit: int) -> list[Hit]:
    """Cold memories by words, best first; what is cold no more by its card is left out."""
    months = [memories_file(month) for month in reversed(stores.archive.months())]
    matches = await asyncio.to_thread(_scan, stores, months, query)
    rows = await stores.store.fetch(
        "SELECT id FROM memory WHERE id = ANY($1::uuid[]) AND tier = 'cold' AND NOT leaving",
        [match.memory.id for match in matches],
    )
    there = {row["id"] for row in rows}
    often = Counter(word for match in matches for word in match.shared)
    total = len(matches)

    def score(match: Match) -> float:
        """BM25 among what matched at all: a word that all share tells nothing apart."""
        return sum(
            weight * math.log(1 + (total - often[word] + 0.5) / (often[word] + 0.5))
            for word, weight in match.shared.items()
        )

    best = sorted(
        ((score(match), match) for match in matches if match.memory.id in there),
        key=lambda pair: -pair[0],
    )
    return [
        Hit.of(match.memory.id, worth, points.payload(match.memory, None))
        for worth, match in best[:limit]
    ]


def _scan(stores: Stores, names: list[str], query: Query) -> list[Match]:
    words = set(words_of(query.text).indices)
    wanted = _prefilter(query)
    until_s, found = time.monotonic() + SCAN_S, dict[str, Match]()
    for name in names:
        for _, line in stores.archive.lines(name, wanted):
            memory = Memory.model_validate(line["memory"])
            if not fits(memory, query):
                continue
            text = document(points.told(memory))
            shared = {
                word: weight
                for word, weight in zip(text.indices, text.values, strict=True)
                if word in words
            }
            if shared:
                found[memory.id] = Match(memory=memory, shared=shared)
            if len(found) >= MATCHES_MAX or time.monotonic() > until_s:
                logger.warning("a cold search stopped early", file=name, found=len(found))
                return list(found.values())
    return list(found.values())


def fits(memory: Memory, query: Query) -> bool:
    """Whether the query's filters let it through."""
    return (
        memory.user_id in {query.user_id, SHARED}
        and memory.collection in query.collections
        and (query.agent is None or memory.agent == query.agent)
        and (query.kind is None or memory.kind == query.kind)
        and (query.conversation_id is None or memory.conversation_id == query.conversation_id)
        and (query.since is None or memory.created_at >= query.since)
        and (query.until is None or memory.created_at <= query.until)
        and not (query.trusted and memory.tainted)
    )


def _prefilter(query: Query) -> Callable[[bytes], bool]:
    """Cheap and hardly ever too strict: stemming changes the last two letters at most."""
    needles = [stem[: max(3, len(stem) - 2)].encode() for stem in stems(query.text)]

    def wanted(raw: bytes) -> bool:
        line = raw.lower() if raw.isascii() else raw.decode().casefold().encode()
        return any(needle in line for needle in needles)

    return wanted
