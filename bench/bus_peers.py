"""taskiq and dramatiq doing what `bus.py` measures: a task of 1 KB that does nothing.

Imported by their worker commands; run as a script it publishes (`fast` all at once, or `slow`
at the rate of the latency figure). Where to and how many comes from BENCH_* in the environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

URL, COUNT = os.environ["BENCH_URL"], int(os.environ["BENCH_COUNT"])
OUT, PEER = Path(os.environ["BENCH_OUT"]), os.environ["BENCH_PEER"]
BODY = "x" * 900
RATE = 50
latencies_ms: list[float] = []


def handled(at_s: float) -> None:
    """Count one; when all have come, write down when and how long they took."""
    now_s = time.time()
    latencies_ms.append((now_s - at_s) * 1000)
    if len(latencies_ms) == COUNT:
        answer = {"end_s": now_s, "p50_ms": statistics.median(latencies_ms)}
        part = OUT.with_suffix(".part")
        part.write_text(json.dumps(answer))
        part.rename(OUT)


if PEER == "taskiq":
    from taskiq_redis import RedisStreamBroker

    broker: Any = RedisStreamBroker(URL)

    @broker.task(task_name="work")
    async def work(at_s: float, body: str) -> None:
        handled(at_s)

    async def publish(pause_s: float) -> None:
        await broker.startup()
        print(time.time(), flush=True)
        if pause_s:
            for _ in range(COUNT):
                await work.kiq(time.time(), BODY)
                await asyncio.sleep(pause_s)
        else:  # its best: many publishes at once
            for start in range(0, COUNT, 10):
                size = min(10, COUNT - start)
                await asyncio.gather(*[work.kiq(time.time(), BODY) for _ in range(size)])
        await broker.shutdown()

elif PEER == "dramatiq":
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=URL)
    dramatiq.set_broker(broker)

    @dramatiq.actor
    def work(at_s: float, body: str) -> None:
        handled(at_s)

    async def publish(pause_s: float) -> None:
        print(time.time(), flush=True)
        for _ in range(COUNT):
            work.send(time.time(), BODY)
            await asyncio.sleep(pause_s) if pause_s else None


if __name__ == "__main__":
    asyncio.run(publish(1 / RATE if sys.argv[1] == "slow" else 0.0))
