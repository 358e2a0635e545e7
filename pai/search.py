"""One search through the tiers: look, rank, bring the neighbours, cut, note who was given what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from base import log, streams
from base.deadline import Deadline
from base.errors import BusError, InputError
from pai import cards, people, recall, scan
from pai.cards import Use
from pai.embed import Vectors
from pai.meaning import QUERY_S
from pai.points import DENSE, WORDS
from pai.question import Question
from pai.recall import Candidate, Listed, Ranked
from pai.shapes import SHARED, Collection, Found, Item, Memory, Query, Tier
from pai.stores import Stores
from pai.warm import Keep, Look
from pai.words import query as words_of

#: Candidates of each kind, for one that is wanted; and at least.
DEPTH, DEPTH_MIN = 4, 150
CHARS_PER_TOKEN = 4
#: Turns of the loop until the vector is asked for and that is written to the socket: a look holds
#: the loop, and begun before them it would only delay the embedding worker.
ASKED_TURNS = 2
#: How many a cross-encoder reads, how much of each, and how long it may take.
RERANK, RERANK_CHARS, RERANK_S = 30, 2_000, 1.5

logger = log.get(__name__)


async def search(stores: Stores, query: Query) -> Found:
    """What is remembered about it, best first. Without the embedding worker words alone decide."""
    took_ms: dict[str, float] = {}
    at_s = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal at_s
        now_s = time.perf_counter()
        took_ms[name] = round((now_s - at_s) * 1000, 3)
        at_s = now_s

    started_s = at_s
    now = datetime.now(UTC)
    known = await people.known(stores, [query.user_id, SHARED])
    question = Question.of(query.text, known, now)
    vectors, listed = await asyncio.gather(
        stores.meaning.of([question.text], "query", QUERY_S), by_words(stores, query, question)
    )
    lap("embed")
    candidates = await gather(stores, query, question, vectors, listed)
    lap("store")
    ranked = recall.rank(question, candidates, now)
    lap("rank")
    if stores.settings.rerank_model is not None:
        ranked = await _rerank(stores, query, ranked)
        lap("rerank")
    items = await _items(stores, query, question, ranked)
    lap("read")
    if query.neighbours:
        items = await _around(stores, query, items)
        lap("neighbours")
    items = cut(items, query.budget_tokens)
    note(stores, query, items)
    stores.search_ms.append((time.perf_counter() - started_s) * 1000)
    return Found(items=tuple(items), dense=vectors is not None, took_ms=took_ms)


async def by_words(stores: Stores, query: Query, question: Question) -> list[Listed]:
    """What has the question's words: needs no vector, so it is looked for while that is made."""
    for _ in range(ASKED_TURNS):
        await asyncio.sleep(0)
    limit = depth(query)
    lists = await _look(
        stores, query, Look(name=WORDS, vector=words_of(question.text), limit=limit)
    )
    if Tier.COLD in query.tiers:
        cold = query.model_copy(update={"text": question.text})
        hits = await scan.search(stores, cold, limit)
        lists.append(Listed(tier=Tier.COLD, name=WORDS, hits=hits))
    return lists


async def gather(
    stores: Stores, query: Query, question: Question, vectors: Vectors | None,
    listed: Sequence[Listed],
) -> list[Candidate]:  # fmt: skip
    """What is to be ranked, from all tiers that the query wants: `listed` by words, and what is
    near to the question's vector, if there is one.
    """
    lists = list(listed)
    if vectors is not None:
        look = Look(name=DENSE, vector=vectors.matrix[0], limit=depth(query), model=vectors.model)
        lists += await _look(stores, query, look)
    found = recall.gather(lists)
    if question.people:  # what nobody said may name them itself
        said = [one for one in found if one.brief.speaker]
        found = [*said, *await _whole(stores, [one for one in found if not one.brief.speaker])]
    return found


def depth(query: Query) -> int:
    """How many candidates each look brings."""
    return max(DEPTH_MIN, DEPTH * query.limit)


def keep_of(query: Query) -> Keep:
    """The asker's own and what is everybody's, and what else the query says."""
    any_of: dict[str, Sequence[str | int | bool]] = {"user_id": [query.user_id, SHARED]}
    for name in ("agent", "kind", "conversation_id"):
        if (value := getattr(query, name)) is not None:
            any_of[name] = [value]
    if query.trusted:
        any_of["tainted"] = [False]
    ranges: dict[str, tuple[str | None, str | None]] = {}
    if query.since or query.until:
        ranges["created_at"] = (_utc(query.since), _utc(query.until))
    return Keep(any_of=any_of, ranges=ranges)


def _utc(at: datetime | None) -> str | None:
    return at.astimezone(UTC).isoformat() if at is not None else None


def cut(items: Sequence[Item], budget_tokens: int | None) -> list[Item]:
    """The best that fit into the budget together; one that does not fit is left out."""
    if budget_tokens is None:
        return list(items)
    left, kept = budget_tokens, []
    for item in items:
        alone = item.model_copy(update={"around": ()})
        for one in (item, alone):
            needs = sum(tokens(memory) for memory in (one.memory, *one.around))
            if needs <= left:
                kept.append(one)
                left -= needs
                break
    return kept


def tokens(memory: Memory) -> int:
    return len(memory.text) // CHARS_PER_TOKEN + 1


def note(stores: Stores, query: Query, items: Sequence[Item]) -> None:
    """Remember which memories the task was given; written after the answer."""
    if query.task_id is None:
        return
    at = datetime.now(UTC)
    stores.uses.extend(
        Use(memory_id=item.memory.id, task_id=query.task_id, rank=rank, at=at)
        for rank, item in enumerate(items, 1)
    )
    if any(item.tier is Tier.COLD for item in items):
        stores.thaw.update(
            (item.memory.id, item.memory.text) for item in items if item.tier is Tier.COLD
        )
    stores.wake.set()


async def _look(stores: Stores, query: Query, look: Look) -> list[Listed]:
    """What it found in each place."""
    keep = keep_of(query)
    found: list[Listed] = []
    if Tier.WARM in query.tiers:
        names = [one.value for one in query.collections]
        warm = await stores.warm.search_all(names, [look], keep, whole=False)
        found += [
            Listed(tier=Tier.WARM, name=look.name, hits=hits, collection=collection)
            for collection, (hits,) in warm.items()
        ]
    if Tier.HOT in query.tiers and Collection.MEMORIES in query.collections:
        (hits,) = stores.index.search([look], keep)
        found.append(Listed(tier=Tier.HOT, name=look.name, hits=hits))
    return found


async def _items(
    stores: Stores, query: Query, question: Question, ranked: Sequence[Ranked]
) -> list[Item]:
    """The first `query.limit` of which something speaks. What is told is read now: what was
    removed meanwhile is not there, and what `keep_of` does not keep is not told.
    """
    keep = keep_of(query)
    speaking = filter(recall.speaks, ranked)
    items: list[Item] = []
    while some := list(islice(speaking, query.limit - len(items))):
        whole = {one.id: one for one in await _whole(stores, [one.candidate for one in some])}
        for one in some:
            candidate = whole.get(one.candidate.id)
            if candidate is not None and keep.fits(candidate.whole):
                items.append(recall.item(one._replace(candidate=candidate), question))
    return items


async def _whole(stores: Stores, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that are still there, with their payloads, in their order."""
    missing: dict[str, list[str]] = {}
    for one in candidates:
        if one.payload is None:
            missing.setdefault(one.collection, []).append(one.id)
    payloads: dict[str, dict[str, Any]] = {}
    for collection, ids in missing.items():
        payloads |= {one.id: one.payload for one in await stores.warm.get(collection, ids)}
    return [
        one if one.payload is not None else one._replace(payload=payloads[one.id])
        for one in candidates
        if one.payload is not None or one.id in payloads
    ]


async def _rerank(stores: Stores, query: Query, ranked: list[Ranked]) -> list[Ranked]:
    """As the cross-encoder has it; as it was when that does not answer."""
    whole = await _whole(stores, [one.candidate for one in ranked[:RERANK]])
    by_id = {one.id: one for one in whole}
    read = [one._replace(candidate=by_id.get(one.candidate.id, one.candidate)) for one in ranked]
    ranked = [one for at, one in enumerate(read) if at >= RERANK or one.candidate.id in by_id]
    texts = [one.text[:RERANK_CHARS] for one in whole]
    if not texts:
        return ranked
    asked = {"verb": "rerank", "query": query.text, "texts": texts}
    try:
        found = await stores.bus.ask(
            streams.SERVICE_SCORE, asked, deadline=Deadline.after(RERANK_S)
        )
    except (BusError, InputError) as error:
        logger.warning("going on without the reranker", error=str(error))
        return ranked
    return recall.reranked(ranked, found["scores"])


async def _around(stores: Stores, query: Query, items: Sequence[Item]) -> list[Item]:
    places = [
        (item.memory.conversation_id or item.memory.file, item.memory.seq)
        for item in items
        if item.memory.seq is not None and (item.memory.conversation_id or item.memory.file)
    ]
    rows = await cards.neighbours(
        stores.store, places, query.neighbours, [query.user_id, SHARED], trusted=query.trusted
    )
    found: list[Item] = []
    for item in items:
        place = item.memory.conversation_id or item.memory.file
        near = [
            cards.to_memory(row)
            for row in rows
            if row["series"] == place
            and row["id"] != item.memory.id
            and item.memory.seq is not None
            and abs(row["seq"] - item.memory.seq) <= query.neighbours
        ]
        found.append(item.model_copy(update={"around": tuple(near)}) if near else item)
    return found
