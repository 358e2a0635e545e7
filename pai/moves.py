"""The moves between tiers: write to the new place, flip the cards, leave the waste to the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from base import log
from pai import cards, points, sweep
from pai.cold import Line, memories_file
from pai.embed import Vectors
from pai.shapes import Memory, Tier
from pai.stores import Stores
from pai.warm import Floats, Point

logger = log.get(__name__)


async def promote(stores: Stores, rows: Sequence[cards.Row], now: datetime) -> int:
    """Hot to warm. Needs `stores.lock`."""
    made: dict[str, list[Point]] = {}
    without: list[str] = []
    for row in rows:
        held = stores.index.get(row["id"])
        vector = held.dense.get(points.DENSE) if held is not None else None
        if row["vector_of"] != stores.meaning.model:
            vector = None
        if vector is None:
            without.append(row["id"])
        point = points.point(
            cards.to_memory(row), vector, model=stores.meaning.model,
            card={**row, "tier": Tier.WARM.value},
        )  # fmt: skip
        made.setdefault(row["collection"], []).append(point)
    if not rows:
        return 0
    await cards.intend(stores.store, [row["id"] for row in rows], Tier.WARM)
    for collection, some in made.items():
        await stores.warm.put(collection, some)
    async with stores.store.transaction() as tx:
        ids = await cards.flip(tx, [row["id"] for row in rows], Tier.WARM, stores.rules, now)
        await cards.placed(tx, without, "")
    stores.index.remove(ids)
    stores.count("promoted", len(ids))
    return len(ids)


async def demote(stores: Stores, rows: Sequence[cards.Row], now: datetime) -> int:
    """Warm to cold. Needs `archive.lock` and `stores.lock`. How many."""
    if any(Tier.COLD.value in row["sweep"] for row in rows):
        await sweep.far(stores, only_leaving=False)  # a second line of it must not stand there
    if not rows:
        return 0
    month = f"{now.astimezone(UTC):%Y-%m}"
    lines = [_line(row, now) for row in rows]
    async with stores.archive.append(memories_file(month), lines) as tx:
        ids = await cards.flip(
            tx, [row["id"] for row in rows], Tier.COLD, stores.rules, now, month=month
        )
    stores.count("demoted", len(ids))
    return len(ids)


async def expire(stores: Stores, now: datetime) -> int:
    """What is too old or too much in the cold files leaves for good, oldest first; how many.
    Needs `archive.lock`.
    """
    rules, gone = stores.rules.cold, 0
    oldest = now.astimezone(UTC) - timedelta(seconds=rules.age_s)
    while months := stores.archive.months():
        over_bytes = stores.archive.memory_bytes - rules.size_bytes
        if over_bytes <= 0 and months[0] > f"{oldest:%Y-%m}":
            return gone
        name = memories_file(months[0])
        first = await stores.archive.first_at(name)
        if over_bytes <= 0 and first is not None and first > oldest:
            return gone
        until = await stores.archive.boundary(name, oldest, over_bytes)
        async with stores.archive.rewrite(name, lambda _: True, from_byte=until) as (tx, out):
            ids = [line["id"] for line in out]
            await tx.execute("DELETE FROM memory WHERE id = ANY($1::uuid[]) AND tier = 'cold'", ids)
        logger.info("cold memories left", month=months[0], count=len(out))
        gone += len(out)
    return gone


async def fill(stores: Stores, memories: Sequence[Memory], vectors: Vectors) -> int:
    """Give stored memories their vectors of this model. Needs `stores.lock`."""
    rows = await cards.states(stores.store, [one.id for one in memories])
    warm: dict[str, dict[str, dict[str, Floats]]] = {}
    done: list[str] = []
    for number, memory in enumerate(memories):
        row = rows.get(memory.id)
        if row is None or row["leaving"] or row["hash"] != cards.fingerprint(memory):
            continue
        if row["tier"] == Tier.WARM:
            some = warm.setdefault(memory.collection, {})
            some[memory.id] = {points.DENSE: vectors.matrix[number]}
        elif row["tier"] == Tier.HOT:
            point = points.point(memory, vectors.matrix[number], model=vectors.model, card=row)
            stores.index.put([point])
        done.append(memory.id)
    for collection, some in warm.items():
        await stores.warm.fill(collection, some, model=vectors.model)
    await cards.placed(stores.store, done, vectors.model)
    return len(done)


def _line(row: cards.Row, now: datetime) -> Line:
    """A cold line stands for itself: the memory, and what became of it."""
    kept = ("support", "access_count", "rank_sum", "feedback", "utility")
    return {
        "id": row["id"],
        "archived_at": now.astimezone(UTC).isoformat(),
        "first_seen": row["first_seen"].astimezone(UTC).isoformat(),
        **{name: row[name] for name in kept},
        "memory": cards.to_memory(row).model_dump(mode="json"),
    }
