"""At a start: the hot index from the cards, and whether the warm store has what they say."""

from __future__ import annotations

from base import log
from base.errors import BusError
from pai import cards, points
from pai.shapes import Collection, Tier
from pai.stores import Stores
from pai.warm import Keep

PAGE = 500

logger = log.get(__name__)


async def rebuild(stores: Stores, *, thorough: bool = False) -> None:
    """Words at once; vectors come with maintenance, from the worker's cache as a rule.

    thorough: after a restore, when the two may be of different moments: each point is compared.
    """
    rows = await stores.store.fetch(
        f"SELECT {cards.CARD} FROM memory WHERE tier = 'hot' AND NOT leaving"
    )
    stores.index.put(points.point(cards.to_memory(row), None, card=row) for row in rows)
    await stores.store.execute("UPDATE memory SET vector_of = '' WHERE tier = 'hot'")
    try:
        await stores.shared.put([cards.to_memory(row) for row in rows])
    except BusError as error:
        logger.warning("not in redis yet", error=str(error))
    for collection in Collection:
        if thorough:
            await _sweep(stores, collection)
        await _warm(stores, collection, thorough=thorough)
    stores.wake.set()


async def _sweep(stores: Stores, collection: Collection) -> None:
    """Remove the points that no card speaks of."""
    after: str | None = None
    while found := await stores.warm.find(collection, Keep(), PAGE, after=after):
        ids = [point.id for point in found]
        rows = await stores.store.fetch(
            "SELECT id FROM memory WHERE id = ANY($1::uuid[]) AND tier = 'warm'"
            " AND collection = $2 AND NOT leaving",
            *(ids, collection.value),
        )
        known = {row["id"] for row in rows}
        await stores.warm.remove(collection, [id for id in ids if id not in known])
        after = ids[-1]


async def _warm(stores: Stores, collection: Collection, *, thorough: bool) -> None:
    """Fewer points than cards: those that are missing are placed again."""
    expected = await stores.store.fetchval(
        "SELECT COUNT(*) FROM memory WHERE tier = 'warm' AND collection = $1"
        " AND vector_of IS NOT NULL AND NOT leaving"
        " AND id NOT IN (SELECT memory_id FROM memory_unplaced)",
        collection.value,
    )
    found = await stores.warm.count(collection)
    if found >= expected and not thorough:
        return
    if found < expected:
        logger.warning(
            "the warm store lacks memories", collection=collection.value, count=expected - found
        )
    if found == 0:
        await stores.store.execute(
            "UPDATE memory SET vector_of = NULL WHERE tier = 'warm' AND collection = $1",
            collection.value,
        )
        return
    after = "00000000-0000-0000-0000-000000000000"
    while True:
        rows = await stores.store.fetch(
            "SELECT id FROM memory WHERE tier = 'warm' AND collection = $1 AND id > $2"
            " AND vector_of IS NOT NULL AND id NOT IN (SELECT memory_id FROM memory_unplaced)"
            " ORDER BY id LIMIT $3",
            *(collection.value, after, PAGE),
        )
        if not rows:
            return
        ids = [row["id"] for row in rows]
        there = {point.id for point in await stores.warm.get(collection, ids)}
        lost = [id for id in ids if id not in there]
        await stores.store.execute(
            "UPDATE memory SET vector_of = NULL WHERE id = ANY($1::uuid[]) AND tier = $2",
            *(lost, Tier.WARM.value),
        )
        after = ids[-1]
