"""One pass of maintenance: what is due moves, what is too much leaves, what is waste is swept.

Every step asks an index for at most a slice of work and is safe to repeat: a pass that dies is
gone on with by the next. Between slices searches and writers have their turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from base import log
from base.errors import AIError, BusError, DamagedError
from pai import archive, cards, duplicates, intake, learn, moves, points, sweep, tiers
from pai.meaning import BATCH, BULK_S
from pai.shapes import Collection, Tier
from pai.stores import Stores

SLICE = 200
COMPARE_SLICE = 32
PAUSE_S = 0.2
ANALYZE_MIN = 500
#: What may wait: cold lines of memories that are warm again, folders of ended tasks, old uses.
RARE_S = 3600.0
KEEP_USES_S = 90 * 86_400

Step = Callable[[Stores, datetime], Awaitable[int]]
logger = log.get(__name__)


async def run(stores: Stores) -> None:
    """Maintain for ever: when there is something to do, and every so often."""
    rare_at_s = time.monotonic() + RARE_S
    while True:
        stores.wake.clear()
        try:
            rare = time.monotonic() >= rare_at_s
            if rare:
                rare_at_s = time.monotonic() + RARE_S
            await once(stores, rare=rare)
        except (AIError, OSError) as error:  # a full disk ends no recall
            logger.warning("maintenance was cut short", error=str(error))
        except Exception:  # nor does one odd memory: the next pass tries again
            logger.exception("maintenance failed")
        try:
            async with asyncio.timeout(stores.rules.maintenance.every_s):
                await stores.wake.wait()
            await asyncio.sleep(PAUSE_S)  # what comes together is done together
        except TimeoutError:
            pass


async def once(stores: Stores, *, rare: bool = True, now: datetime | None = None) -> dict[str, int]:
    """Until nothing is left to do: how many moved, merged and left in this pass.

    A damaged file or a full disk ends the step that met it, not the others; raised at the end.
    """
    before = dict(stores.counted)
    now = now or datetime.now(UTC)
    steps: list[Step] = [*STEPS, *(RARE_STEPS if rare else ())]
    fault: Exception | None = None
    for step in steps:
        try:
            while await step(stores, now):
                await asyncio.sleep(0)
        except (DamagedError, OSError) as error:
            logger.warning("a step was cut short", step=step.__name__, error=str(error))
            fault = fault or error
    if fault is not None:
        raise fault
    done = {name: stores.counted[name] - before.get(name, 0) for name in stores.counted}
    return {name: number for name, number in done.items() if number}


# Steps: each does a slice and says how much is likely left to do; 0: nothing -----------------


async def write_uses(stores: Stores, _now: datetime) -> int:
    """What tasks were given, counted; and what of it was cold is warm again."""
    uses = [stores.uses.popleft() for _ in range(min(len(stores.uses), SLICE))]
    if uses:
        try:
            async with stores.lock, stores.store.transaction() as tx:
                await cards.used(tx, uses, stores.rules)
        except AIError:
            stores.uses.extendleft(reversed(uses))
            raise
    return len(stores.uses)


async def write_all_uses(stores: Stores) -> None:
    """Every use that waits; raises StoreError, then they still wait."""
    while await write_uses(stores, datetime.now(UTC)):
        pass


async def thaw(stores: Stores, now: datetime) -> int:
    """A cold memory that a task was given is in use: it is warm from now on."""
    texts = dict(stores.thaw)
    if texts:
        async with stores.lock, stores.store.transaction() as tx:
            ids = await cards.thaw(tx, texts, stores.rules, now)
        stores.count("thawed", len(ids))
        for id in texts:
            stores.thaw.pop(id, None)
    return 0


async def place(stores: Stores, _now: datetime) -> int:
    """Cards that no store has yet: a writer died, or the stores were made anew."""
    rows = await cards.unplaced(stores.store, SLICE)
    await intake.place(stores, [cards.to_memory(row) for row in rows], wait_s=BULK_S)
    stores.count("placed", len(rows))
    return len(rows)


async def share(stores: Stores, _now: datetime) -> int:
    """A Redis that was emptied gets the hot memories again: one of them missing shows it."""
    ids = stores.index.ids()
    try:
        if not ids or await stores.shared.there(ids[:1]):
            return 0
        for start in range(0, len(ids), SLICE):
            rows = await cards.get(stores.store, ids[start : start + SLICE])
            hot = [row for row in rows if row["tier"] == Tier.HOT and not row["leaving"]]
            await stores.shared.put([cards.to_memory(row) for row in hot])
    except BusError as error:
        logger.warning("redis gets the hot memories later", error=str(error))
    return 0


async def sweep_near(stores: Stores, _now: datetime) -> int:
    async with stores.lock:
        return await sweep.near(stores)


async def sweep_leaving(stores: Stores, _now: datetime) -> int:
    async with stores.archive.lock:
        await sweep.far(stores, only_leaving=True)
    return 0


async def sweep_far(stores: Stores, _now: datetime) -> int:
    async with stores.archive.lock:
        await sweep.far(stores, only_leaving=False)
    return 0


async def by_time(stores: Stores, now: datetime) -> int:
    """What is due: hot ones move on, warm ones move on or are looked at again later."""
    unused = now - timedelta(seconds=stores.rules.warm.unused_s)
    async with stores.archive.lock, stores.lock:
        rows = await stores.store.fetch(
            f"SELECT {cards.CARD} FROM memory WHERE due_at <= $1 ORDER BY due_at LIMIT $2",
            *(now, SLICE),
        )
        await moves.promote(stores, [row for row in rows if row["tier"] == Tier.HOT], now)
        warm = [row for row in rows if row["tier"] == Tier.WARM]
        await moves.demote(stores, [row for row in warm if row["used_at"] <= unused], now)
        async with stores.store.transaction() as tx:
            fresh = [row for row in warm if row["used_at"] > unused]
            await cards.rescore(tx, fresh, stores.rules, now)
        return len(rows)


async def hot_limit(stores: Stores, now: datetime) -> int:
    """Above its limit an agent's least recently used move on to warm: nothing is lost."""
    limit = stores.rules.hot.items_per_agent
    if len(stores.index) <= limit:
        return 0
    over = await stores.store.fetch(
        "SELECT agent, COUNT(*) - $1 AS over FROM memory WHERE tier = 'hot' AND NOT leaving"
        " GROUP BY agent HAVING COUNT(*) > $1",
        limit,
    )
    moved = 0
    for row in over:
        async with stores.lock:
            found = await stores.store.fetch(
                f"SELECT {cards.CARD} FROM memory WHERE tier = 'hot' AND agent = $1"
                " AND NOT leaving ORDER BY used_at LIMIT $2",
                *(row["agent"], min(row["over"], SLICE)),
            )
            moved += await moves.promote(stores, found, now)
    stores.count("hot_evicted", moved)
    return moved


async def warm_limit(stores: Stores, now: datetime) -> int:
    """Above its limit those of the lowest utility, as of now, move on to cold."""
    total = await stores.store.fetchval(
        "SELECT COALESCE(SUM(count), 0)::BIGINT FROM memory_count WHERE tier = 'warm'"
    )
    over = min(total - stores.rules.warm.items, SLICE)
    if over <= 0:
        return 0
    async with stores.archive.lock, stores.lock:
        rows = await stores.store.fetch(
            f"SELECT {cards.CARD} FROM memory WHERE tier = 'warm' AND NOT leaving"
            " ORDER BY utility LIMIT $1",
            2 * over + SLICE // 2,
        )
        rows.sort(key=lambda row: (tiers.utility_of(row, now), row["used_at"]))
        moved = await moves.demote(stores, rows[:over], now)
        stores.count("warm_evicted", moved)
    return moved


async def cold_limit(stores: Stores, now: datetime) -> int:
    async with stores.archive.lock:
        stores.count("cold_evicted", await moves.expire(stores, now))
    return 0


async def tidy(stores: Stores, _now: datetime) -> int:
    """Room of removed points back, by slices that let searches through."""
    return int(await stores.warm.tidy())


async def embed(stores: Stores, _now: datetime) -> int:
    """Vectors for what has none of the present model: a slice; 0 when the worker is away."""
    meaning = stores.meaning
    rows = await stores.store.fetch(
        f"SELECT {cards.CARD} FROM memory WHERE (vector_of < $1 OR vector_of > $1)"
        " AND tier <> 'cold' AND NOT leaving"
        " AND id NOT IN (SELECT memory_id FROM memory_unplaced) LIMIT $2",
        *(meaning.model, BATCH),
    )
    if not rows:
        await _switch(stores)
        return 0
    memories = [cards.to_memory(row) for row in rows]
    vectors = await meaning.of([points.said(one) for one in memories], "bulk", BULK_S)
    if vectors is None:
        return 0
    async with stores.lock:
        filled = await moves.fill(stores, memories, vectors)
    stores.count("embedded", filled)
    return len(rows)


async def compare(stores: Stores, _now: datetime) -> int:
    """Near duplicates among what came in large batches or without vectors."""
    rows = await stores.store.fetch(
        "SELECT id FROM memory WHERE NOT compared AND vector_of > '' AND NOT leaving"
        " AND id NOT IN (SELECT memory_id FROM memory_unplaced) LIMIT $1",
        COMPARE_SLICE,
    )
    if not rows or (await stores.warm.places()).coming is not None:
        return 0
    ids = [row["id"] for row in rows]
    async with stores.lock:
        await duplicates.merge(stores, ids)
        left = await stores.store.execute(  # the store lost them: they are placed again
            "UPDATE memory SET vector_of = NULL WHERE id = ANY($1::uuid[]) AND NOT compared"
            " AND vector_of = $2",
            *(ids, stores.meaning.model),
        )
    return len(rows) - left


async def analyze(stores: Stores, _now: datetime) -> int:
    """After many came the database looks at their spread anew: else it would not know that next
    to nothing waits for a sweep, and look through all.
    """
    total = await stores.store.fetchval("SELECT COALESCE(SUM(count), 0)::BIGINT FROM memory_count")
    if abs(total - stores.analyzed[0]) > max(ANALYZE_MIN, total // 5):
        await stores.store.execute("ANALYZE memory")
        stores.analyzed[0] = total
    return 0


async def forget_uses(stores: Stores, now: datetime) -> int:
    """Who was given what, long after anybody could judge it."""
    before = now - timedelta(seconds=KEEP_USES_S)
    await stores.store.execute("DELETE FROM memory_use WHERE at < $1", before)
    return 0


async def _switch(stores: Stores) -> None:
    """All have a vector of the new model: it is the only one from now on."""
    if (await stores.warm.places()).coming is None:
        return
    for collection in Collection:
        missing = [point.id for point in await stores.warm.missing(collection, BATCH)]
        if missing:
            await cards.placed(stores.store, missing, "")
            stores.wake.set()
            return
    await stores.warm.switch()
    logger.info("the embedding model took over", model=stores.meaning.model)


STEPS: tuple[Step, ...] = (
    write_uses, thaw, sweep_near, share, place, by_time, hot_limit, warm_limit, sweep_near,
    sweep_leaving, cold_limit, embed, compare, sweep_near, sweep_leaving, tidy,
    analyze,
)  # fmt: skip
RARE_STEPS: tuple[Step, ...] = (learn.fade, sweep_far, archive.folders, forget_uses)
