"""Memory's and the workers' figures for `/metrics`: they have no HTTP port to be scraped at.

Read when somebody scrapes, at most every few seconds. Who does not answer has no figures then,
rather than zeros.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from base import streams
from base.bus import Bus
from base.deadline import Deadline
from base.errors import AIError
from base.metrics import Reading

ASK_S = 2.0
KEEP_S = 5.0
Values = dict[tuple[str, ...], float]


class Gauges:
    """The latest figures; one question at a time, however many scrape."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._lock = asyncio.Lock()
        self._read_s = float("-inf")
        self._found: list[Reading] = []

    async def read(self) -> list[Reading]:
        """What there is to tell; empty when neither answers."""
        async with self._lock:
            if time.monotonic() - self._read_s >= KEEP_S:
                stats, info = await asyncio.gather(
                    self._ask(streams.SERVICE_MEMORY, {"verb": "stats", "user_id": None}),
                    self._ask(streams.SERVICE_EMBED, {"verb": "info"}),
                )
                self._found = [*of_memory(stats), *of_workers(info)]
                self._read_s = time.monotonic()
            return self._found

    async def _ask(self, name: str, payload: dict[str, Any]) -> dict[str, Any]:
        try:
            if await self._bus.served(name):
                return await self._bus.ask(name, payload, deadline=Deadline.after(ASK_S))
        except AIError:
            pass  # it has no figures now
        return {}


def of_memory(stats: Mapping[str, Any]) -> list[Reading]:
    """From the keeper's `stats` of everybody; empty from an empty one."""
    if not stats:
        return []
    tiers = stats["tiers"]
    counted: Values = {
        (tier, collection): float(one["count"])
        for tier, found in tiers.items()
        for collection, one in found.items()
    }
    sizes: Values = {
        (tier,): float(sum(one["size_bytes"] for one in found.values()))
        for tier, found in tiers.items()
    }
    recall = stats["recall_ms"]
    took: Values = {
        (quantile,): recall[name] / 1000
        for quantile, name in (("0.5", "p50"), ("0.95", "p95"))
        if recall.get(name) is not None
    }
    found = [
        _of("memory_items", "Memories by tier and collection.", counted, "tier", "collection"),
        _of("memory_text_bytes", "Bytes of text by tier; the archive is apart.", sizes, "tier"),
        _of("memory_recall_duration_seconds", "Of the last 500 searches.", took, "quantile"),
        _of("memory_archive_bytes", "The cold tier's files.", {(): float(stats["archive_bytes"])}),
        _of("memory_keeper_resident_bytes", "The keeper's.", {(): float(stats["rss_bytes"])}),
        _of(
            "memory_evicted",
            "Memories that left a full tier since the keeper's start.",
            {(name.partition("_")[0],): float(n) for name, n in stats["evictions"].items()},
            "tier",
        ),
    ]
    return [one for one in found if one.values]


def of_workers(info: Mapping[str, Any]) -> list[Reading]:
    """From the embedding worker's `info`; empty from an empty one. A provider has no batches."""
    if not info:
        return []
    hits, misses = info["cache"]["hits"], info["cache"]["misses"]
    values = {
        ("embedding_cache_hit_ratio", "Texts whose embedding was known, since the start."): (
            hits / (hits + misses) if hits + misses else None
        ),
        ("embedding_batch_texts", "Texts in a batch, on average."): info.get("batch") or None,
        ("embedding_tokens_per_second", "While at work."): info.get("tokens_per_s") or None,
    }
    return [
        _of(name, said, {(): float(value)})
        for (name, said), value in values.items()
        if value is not None
    ]


def _of(name: str, said: str, values: Values, *labels: str) -> Reading:
    return Reading(name=name, help=said, labels=labels, values=values)
