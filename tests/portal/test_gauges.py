"""Memory's figures at /metrics: read at the scrape, absent when nobody answers."""

from __future__ import annotations

import asyncio
from typing import Any

from base import streams
from base.bus import Bus
from base.metrics import render
from portal.gauges import Gauges, of_memory, of_workers

STATS: dict[str, Any] = {
    "tiers": {
        "hot": {"memories": {"count": 2, "size_bytes": 20}},
        "warm": {"memories": {"count": 5, "size_bytes": 50}},
        "cold": {"memories": {"count": 0, "size_bytes": 0}},
    },
    "recall_ms": {"count": 3, "p50": 4.0, "p95": 9.0},
    "archive_bytes": 77,
    "rss_bytes": 1_000,
    "evictions": {"hot_evicted": 0, "warm_evicted": 1, "cold_evicted": 0},
}
INFO: dict[str, Any] = {
    "ready": True,
    "cache": {"hits": 3, "misses": 1},
    "batch": 8.5,
    "tokens_per_s": 4_000.0,
}


def test_what_is_told_of_them() -> None:
    text = render([*of_memory(STATS), *of_workers(INFO)]).decode()
    for line in (
        'memory_items{collection="memories",tier="warm"} 5.0',
        'memory_text_bytes{tier="warm"} 50.0',
        'memory_recall_duration_seconds{quantile="0.95"} 0.009',
        "memory_archive_bytes 77.0",
        'memory_evicted{tier="warm"} 1.0',
        "embedding_cache_hit_ratio 0.75",
        "embedding_batch_texts 8.5",
        "embedding_tokens_per_second 4000.0",
    ):
        assert line in text
    assert text.count("# TYPE memory_items gauge") == 1


def test_before_the_first_search_and_text_there_is_nothing_to_tell() -> None:
    stats = {**STATS, "recall_ms": {"count": 0, "p50": None, "p95": None}}
    info = {**INFO, "cache": {"hits": 0, "misses": 0}}
    text = render([*of_memory(stats), *of_workers(info)]).decode()
    assert "memory_recall_duration_seconds" not in text
    assert "embedding_cache_hit_ratio" not in text
    assert [*of_memory({}), *of_workers({})] == []


async def test_read_once_for_many_scrapes_and_absent_without_an_answer(redis_url: str) -> None:
    bus = await Bus.open(redis_url, "test")
    asked = []

    async def answer(payload: dict[str, Any]) -> dict[str, Any]:
        asked.append(payload)
        return STATS

    assert await Gauges(bus).read() == []
    serving = asyncio.create_task(bus.serve(streams.SERVICE_MEMORY, answer), name="memory")
    while not await bus.served(streams.SERVICE_MEMORY):
        await asyncio.sleep(0.02)
    gauges = Gauges(bus)
    both = await asyncio.gather(gauges.read(), gauges.read())
    assert both[0] == both[1]
    assert {one.name for one in both[0]} >= {"memory_items", "memory_recall_duration_seconds"}
    assert asked == [{"verb": "stats", "user_id": None}]
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await bus.close()
