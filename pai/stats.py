"""What the keeper knows of itself, in numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import psutil

from base.deadline import Deadline
from base.errors import AIError
from pai.shapes import Collection, Tier
from pai.stores import Stores

INFO_S = 0.5


async def stats(stores: Stores, user_id: str | None) -> dict[str, Any]:
    """Counts by tier and collection, sizes, limits, what waits; of one user, or of everybody."""
    rules = stores.rules
    found: dict[str, Any] = {
        "tiers": await _counts(stores, user_id),
        "limits": {
            "hot_per_agent": rules.hot.items_per_agent,
            "warm": rules.warm.items,
            "cold_bytes": rules.cold.size_bytes,
        },
        "recall_ms": _recall(list(stores.search_ms)),
    }
    if user_id is not None:
        return found
    pending = await stores.store.fetchrow(
        "SELECT COUNT(*) FILTER (WHERE vector_of IS NULL)"
        " + (SELECT COUNT(*) FROM memory_unplaced) AS place,"
        " COUNT(*) FILTER (WHERE vector_of <> $1) AS embed"
        " FROM memory WHERE tier <> 'cold'"
        " AND (vector_of IS NULL OR vector_of < $1 OR vector_of > $1)"
        " AND id NOT IN (SELECT memory_id FROM memory_unplaced)",
        stores.meaning.model,
    )
    assert pending is not None
    places = await stores.warm.places()
    stored = sum(one["count"] for tier in ("hot", "warm") for one in found["tiers"][tier].values())
    return {
        **found,
        "archive_bytes": stores.archive.size_bytes,
        "pending": {**pending, "uses": len(stores.uses)},
        "model": stores.meaning.model,
        "reembedding": (
            places.coming is not None
            and {
                "from": places.active.model,
                "to": places.coming.model,
                "done": stored - pending["embed"] - pending["place"],
                "of": stored,
            }
        )
        or None,
        "evictions": {
            name: stores.counted.get(name, 0)
            for name in ("hot_evicted", "warm_evicted", "cold_evicted")
        },
        "since_start": dict(stores.counted),
        "rss_bytes": psutil.Process().memory_info().rss,
        "worker": await _worker(stores),
    }


async def _counts(stores: Stores, user_id: str | None) -> dict[str, dict[str, dict[str, int]]]:
    rows = await (
        stores.store.fetch("SELECT tier, collection, count, size_bytes FROM memory_count")
        if user_id is None
        else stores.store.fetch(
            "SELECT tier, collection, COUNT(*) AS count,"
            " COALESCE(SUM(octet_length(text)), 0)::BIGINT AS size_bytes"
            " FROM memory WHERE user_id = $1 AND NOT leaving GROUP BY tier, collection",
            user_id,
        )
    )
    found: dict[str, dict[str, dict[str, int]]] = {
        tier.value: {one.value: {"count": 0, "size_bytes": 0} for one in Collection}
        for tier in Tier
    }
    for row in rows:
        numbers = {"count": row["count"], "size_bytes": row["size_bytes"]}
        found[row["tier"]][row["collection"]] = numbers
    return found


def _recall(took_ms: Sequence[float]) -> dict[str, float | int | None]:
    """Of the last searches; None before the first."""
    if not took_ms:
        return {"count": 0, "p50": None, "p95": None}
    ordered = sorted(took_ms)
    return {
        "count": len(ordered),
        "p50": round(statistics.median(ordered), 3),
        "p95": round(ordered[math.ceil(0.95 * len(ordered)) - 1], 3),
    }


async def _worker(stores: Stores) -> dict[str, Any] | None:
    """What the embedding worker says of itself; None: it does not answer."""
    if stores.meaning.away:
        return None
    try:
        return await stores.meaning.info(Deadline.after(INFO_S))
    except AIError:
        return None
