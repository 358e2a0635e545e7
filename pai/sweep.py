"""What the cards say is waste is taken away; then the note of it, or the card itself.

Hot and warm copies go under `stores.lock`, cold lines under the archive's own: rewriting a month
takes long, and writers need not wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from base import log
from base.errors import BusError, DamagedError
from pai import cards
from pai.cold import Line, memories_file
from pai.shapes import Tier
from pai.stores import Stores

SLICE = 500

logger = log.get(__name__)


async def near(stores: Stores, limit: int = SLICE) -> int:
    """Copies in Redis, the index and the warm store; how many cards, 0 when Redis is away: what
    is in it stays noted. Needs `stores.lock`.
    """
    rows = await stores.store.fetch(
        "SELECT id, tier, collection, sweep, leaving FROM memory"
        " WHERE (sweep <> '{}' OR leaving) AND (sweep && ARRAY['hot', 'warm'] OR sweep = '{}')"
        " LIMIT $1",
        limit,
    )
    if not rows:
        return 0
    done = [Tier.WARM.value]
    hot = [row["id"] for row in rows if _waste(row, Tier.HOT)]
    stores.index.remove(hot)
    try:
        await stores.shared.remove(hot)
        done.append(Tier.HOT.value)
    except BusError as error:
        logger.warning("redis is swept later", error=str(error))
    warm: dict[str, list[str]] = {}
    for row in rows:
        if _waste(row, Tier.WARM):
            warm.setdefault(row["collection"], []).append(row["id"])
    for collection, ids in warm.items():
        await stores.warm.remove(collection, ids)
    await _clear(stores, [row["id"] for row in rows], done)
    return len(rows) if Tier.HOT.value in done else 0


async def far(stores: Stores, *, only_leaving: bool) -> int:
    """Cold lines, a month's file at a time; how many lines went. Needs `archive.lock`."""
    rows = await stores.store.fetch(
        "SELECT id, tier, cold_month, leaving FROM memory"
        " WHERE (sweep <> '{}' OR leaving) AND 'cold' = ANY(sweep) AND (leaving OR NOT $1)",
        only_leaving,
    )
    months: dict[str, set[str]] = {}
    for row in rows:
        if row["cold_month"] and (row["leaving"] or row["tier"] != Tier.COLD):
            months.setdefault(row["cold_month"], set()).add(row["id"])
    gone = 0
    damage: DamagedError | None = None
    for month, ids in months.items():

        def keep(line: Line, ids: set[str] = ids) -> bool:
            return line["id"] not in ids

        try:
            async with stores.archive.rewrite(memories_file(month), keep) as (tx, out):
                await _clear(tx, list(ids), [Tier.COLD.value], month=True)
                gone += len(out)
        except DamagedError as error:  # the other months can be swept
            damage = damage or error
    rest = [row["id"] for row in rows if not row["cold_month"]]
    await _clear(stores.store, rest, [Tier.COLD.value])
    if damage is not None:
        raise damage
    return gone


def _waste(row: cards.Row, tier: Tier) -> bool:
    return tier.value in row["sweep"] and (row["leaving"] or row["tier"] != tier)


async def _clear(
    db: Stores | cards.Statements, ids: Sequence[str], done: Sequence[str], *, month: bool = False
) -> None:
    """Take those places off the notes; a card that is leaving and has none left goes."""
    session = db.store if isinstance(db, Stores) else db
    await session.execute(
        "UPDATE memory SET sweep = ARRAY(SELECT place FROM unnest(sweep) AS place"
        " WHERE place <> ALL($2::text[])),"
        " cold_month = CASE WHEN $3 THEN NULL ELSE cold_month END"
        " WHERE id = ANY($1::uuid[])",
        *(list(ids), list(done), month),
    )
    await session.execute(
        "DELETE FROM memory WHERE id = ANY($1::uuid[]) AND leaving AND sweep = '{}'", list(ids)
    )
