"""Near duplicates: two memories that say the same become one, which remembers how often."""

from __future__ import annotations

from collections.abc import Sequence

from pai import cards, tiers
from pai.points import DENSE
from pai.shapes import Tier
from pai.stores import Stores
from pai.warm import Floats, Keep, Look

NEAREST = 5


async def merge(stores: Stores, ids: Sequence[str]) -> dict[str, str]:
    """Compare these with what is there and merge what is alike enough: id → what took it in.

    Needs `stores.lock`. Those without a vector yet are left for later. Safe twice.
    """
    rows = {row["id"]: row for row in await cards.get(stores.store, ids)}
    merged: dict[str, str] = {}
    done: list[str] = []
    for id, vector in (await _vectors(stores, list(rows.values()))).items():
        row = rows[id]
        if row["leaving"] or id in merged:
            continue
        done.append(id)
        near = await _nearest(stores, row, vector)
        for other in await cards.get(stores.store, near):
            if other["leaving"] or not tiers.same_kind(row, other):
                continue
            kept, gone = (row, other) if tiers.keeps(row, other) else (other, row)
            async with stores.store.transaction() as tx:
                await cards.merge(tx, kept, gone)
            merged[gone["id"]] = kept["id"]
            for old, into in merged.items():
                merged[old] = kept["id"] if into == gone["id"] else into
            stores.count("merged")
            stores.index.remove([gone["id"]])
            if gone is row:
                break
    await stores.store.execute("UPDATE memory SET compared = TRUE WHERE id = ANY($1::uuid[])", done)
    if merged:
        stores.wake.set()
    return merged


async def _nearest(stores: Stores, row: cards.Row, vector: Floats) -> list[str]:
    keep = Keep(
        any_of={"user_id": [row["user_id"]], "tainted": [row["tainted"]]}, not_ids=[row["id"]]
    )
    look = Look(name=DENSE, vector=vector, limit=NEAREST, model=row["vector_of"])
    (hits,) = await stores.warm.search(row["collection"], [look], keep, whole=False)
    if row["collection"] == "memories":
        hits = [*hits, *stores.index.search([look], keep)[0]]
    floor = stores.rules.duplicates.similarity
    return [hit.id for hit in hits if hit.score >= floor]


async def _vectors(stores: Stores, rows: Sequence[cards.Row]) -> dict[str, Floats]:
    """By id the vector of the present model, of those that have one."""
    found: dict[str, Floats] = {}
    warm: dict[str, list[str]] = {}
    for row in rows:
        if row["vector_of"] != stores.meaning.model:
            continue
        if row["tier"] == Tier.WARM:
            warm.setdefault(row["collection"], []).append(row["id"])
        elif (point := stores.index.get(row["id"])) is not None and DENSE in point.dense:
            found[row["id"]] = point.dense[DENSE]
    active = (await stores.warm.places()).active.model
    for collection, ids in warm.items() if active == stores.meaning.model else ():
        for point in await stores.warm.get(collection, ids, vectors=True):
            if DENSE in point.dense:
                found[point.id] = point.dense[DENSE]
    return found
