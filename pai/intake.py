"""How a memory comes in: its card first, then its copies in the stores.

The card is committed before anything else happens; whoever dies afterwards finds cards whose
`memory_unplaced` or a missing `vector_of` names, which maintenance places.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from base import log
from base.errors import BusError, ConflictError, InputError
from base.outbox import storable
from base.store import Session
from pai import cards, duplicates, people, points, tiers
from pai.embed import Vectors
from pai.meaning import BATCH
from pai.shapes import Memory, Tier
from pai.stores import Stores
from pai.warm import Point

MEMORIES_MAX = 1_000
#: So few are compared with what is there before the answer; more in the background.
COMPARE_AT_ONCE = 8
#: A writer waits for vectors this long, then they come later.
EMBED_S = 5.0

logger = log.get(__name__)


async def remember(stores: Stores, memories: Sequence[Memory]) -> list[str]:
    """Store them; the id under which each now is. The same again changes nothing; another text
    under a known id replaces it.

    Raises InputError for what cannot be stored, ConflictError for an id of another user's.
    """
    ids, fresh = await record(stores, memories)
    await place(stores, fresh, wait_s=EMBED_S)
    return await compared(stores, ids, fresh)


async def record(stores: Stores, memories: Sequence[Memory]) -> tuple[list[str], list[Memory]]:
    """Only the cards: (the id under which each now is, those that are new or changed)."""
    if len(memories) > MEMORIES_MAX:
        raise InputError(f"at most {MEMORIES_MAX} memories at once, not {len(memories)}")
    given = [checked(memory) for memory in memories]
    async with stores.lock, stores.store.transaction() as tx:
        ids, fresh = await _record(tx, given, stores.rules, datetime.now(UTC), stores.meaning.model)
    people.met(stores, fresh)
    return ids, fresh


async def place(
    stores: Stores, memories: Sequence[Memory], *, wait_s: float, vectors: Vectors | None = None
) -> None:
    """Put what the cards tell into the stores where it belongs, with `vectors` (a row a memory)
    or those that the worker makes within `wait_s`, if any. Safe twice; what was removed or changed
    meanwhile is left alone.
    """
    if vectors is not None:
        async with stores.lock:
            await _place(stores, memories, vectors)
        return
    priority: Literal["query", "bulk"] = "query" if len(memories) == 1 else "bulk"
    for start in range(0, len(memories), BATCH):
        part = memories[start : start + BATCH]
        texts = [points.said(memory) for memory in part]
        own = await stores.meaning.of(texts, priority, wait_s)
        async with stores.lock:
            await _place(stores, part, own)


async def compared(stores: Stores, ids: list[str], fresh: Sequence[Memory]) -> list[str]:
    """`ids` after near duplicates of so few new memories were merged; of many: later."""
    todo = [memory.id for memory in fresh if tiers.mergeable(memory)]
    if not todo or len(todo) > COMPARE_AT_ONCE:
        if todo:
            stores.wake.set()
        return ids
    async with stores.lock:
        merged = await duplicates.merge(stores, todo)
    return [merged.get(one, one) for one in ids]


async def _record(
    tx: Session, memories: Sequence[Memory], rules: tiers.Rules, now: datetime, model: str
) -> tuple[list[str], list[Memory]]:
    known = await cards.known(tx, [memory.id for memory in memories])
    hashes = [cards.fingerprint(memory) for memory in memories]
    may_have = [
        one for memory, one in zip(memories, hashes, strict=True) if tiers.mergeable(memory)
    ]
    twins: dict[tuple[Any, ...], str] = {
        (row["user_id"], row["collection"], row["tainted"], row["hash"]): row["id"]
        for row in (await cards.twins(tx, may_have) if may_have else ())
    }
    ids: list[str] = []
    new: dict[str, Memory] = {}
    changed: list[Memory] = []
    repeats: list[tuple[str, Memory]] = []
    for memory, digest in zip(memories, hashes, strict=True):
        row = known.get(memory.id)
        if row is not None and row["user_id"] != memory.user_id:
            raise ConflictError(f"the id {memory.id} is that of another memory")
        same = row is not None and digest in {row["hash"], *_hashes(row["was"])}
        if memory.id in new or (row is not None and (row["leaving"] or same)):
            ids.append(row["into_id"] if row is not None else memory.id)
            continue
        if row is not None and row["into_id"] == memory.id:
            await cards.replace(tx, memory, rules, now)
            changed.append(memory)
            ids.append(memory.id)
            continue
        if row is not None:  # it was merged and now says something else
            await tx.execute("DELETE FROM memory_merged WHERE id = $1", memory.id)
        alike = (memory.user_id, memory.collection.value, memory.tainted, digest)
        if tiers.mergeable(memory) and alike in twins:
            repeats.append((twins[alike], memory))
            ids.append(twins[alike])
            continue
        new[memory.id] = memory
        if tiers.mergeable(memory):
            twins[alike] = memory.id
        ids.append(memory.id)
    if new:
        await cards.add(tx, list(new.values()), rules, now, model)
    for into_id, memory in repeats:
        await cards.absorb(tx, into_id, memory)
    return ids, [*new.values(), *changed]


async def _place(stores: Stores, memories: Sequence[Memory], vectors: Vectors | None) -> None:
    rows = await cards.states(stores.store, [one.id for one in memories])
    model = vectors.model if vectors is not None else ""
    warm: dict[str, list[Point]] = {}
    hot: list[tuple[Memory, Point]] = []
    for number, memory in enumerate(memories):
        row = rows.get(memory.id)
        if row is None or row["leaving"] or row["hash"] != cards.fingerprint(memory):
            continue
        vector = vectors.matrix[number] if vectors is not None else None
        made = points.point(memory, vector, model=model, card=row)
        if row["tier"] == Tier.WARM:
            warm.setdefault(memory.collection, []).append(made)
        elif row["tier"] == Tier.HOT:
            hot.append((memory, made))
    stores.index.put([made for _, made in hot])
    await _placed(stores, [made for _, made in hot], model)
    noted: asyncio.Task[None] | None = None
    try:
        for collection, made_points in warm.items():
            for start in range(0, len(made_points), BATCH):
                part = made_points[start : start + BATCH]
                await stores.warm.put(collection, part)
                if noted is not None:
                    await noted
                # the cards of one part while the next is put
                noted = asyncio.create_task(_placed(stores, part, model), name="placed")
    finally:
        if noted is not None:
            await noted
    try:
        await stores.shared.put([memory for memory, _ in hot])
    except BusError as error:  # the card is there; maintenance fills Redis again
        logger.warning("not in redis yet", error=str(error))


def _hashes(was: object) -> list[str]:
    """Those of the texts that a person changed: said again, they do not undo the change."""
    return [one for one in was if isinstance(one, str)] if isinstance(was, list) else []


async def _placed(stores: Stores, made: Sequence[Point], model: str) -> None:
    if made:
        await cards.placed(stores.store, [one.id for one in made], model)


def checked(memory: Memory) -> Memory:
    """As it can be stored. Raises InputError."""
    id = identity(memory.id)
    for name in cards.FIELDS:
        if not (value := getattr(memory, name)):
            continue
        for text in (value,) if isinstance(value, str) else value if name == "tags" else ():
            storable(text, name)
    return memory if id == memory.id else memory.model_copy(update={"id": id})


def identity(id: str) -> str:
    """The id as the record writes it. Raises InputError."""
    try:
        return str(uuid.UUID(id))
    except ValueError as error:
        raise InputError(f"the id of a memory is a UUID, not {id!r}") from error
