"""How fast is memory with 50,000 in it? The real keeper and the real embedding worker.

The store is filled by the keeper's own code with vectors that are ready (their making is the
embedding worker's, see embed.py). Then both run as their own processes, and what is asked goes
over the bus as any process asks: each search embeds its query, looks by meaning and by words
within one user and agent, ranks, and answers. The model's share is told by each answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from audit import private_postgres

from base import log, streams
from base.bus import Bus
from base.deadline import Deadline
from base.errors import AIError
from base.settings import Settings
from base.store import Store
from pai import intake, keeper
from pai.client import MemoryClient
from pai.embed import Embedder, Vectors
from pai.shapes import Memory, Query
from pai.tiers import Rules

DIM = 384
USERS, AGENTS = 3, ("code", "data", "infra", "qa", "research", "supervisor")
VOCABULARY = 20_000
WORDS = 20
START_S = 120.0


@contextlib.contextmanager
def private_redis() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="ai-bench-", dir="/tmp") as folder:
        socket = Path(folder) / "redis.sock"
        server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", ""],
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )
        try:
            while not socket.exists():
                time.sleep(0.02)
            yield f"unix://{socket}"
        finally:
            server.terminate()
            server.wait(10)


def texts(count: int, dice: random.Random) -> list[str]:
    """Sentences whose words are as unequally common as those of a language."""
    letters = "bcdfghklmnprstvw"
    words = [
        "".join(dice.choice(letters) + dice.choice("aeiou") for _ in range(dice.randint(2, 4)))
        for _ in range(VOCABULARY)
    ]
    weights = [1 / rank for rank in range(1, VOCABULARY + 1)]
    drawn = dice.choices(words, weights, k=count * WORDS)
    return [" ".join(drawn[start : start + WORDS]) for start in range(0, len(drawn), WORDS)]


def memories(said: Sequence[str]) -> list[Memory]:
    return [
        Memory(
            text=text,
            user_id=f"user-{number % USERS}",
            agent=AGENTS[number % len(AGENTS)],
            kind="fact",
            seq=number,
            file="bench",
        )
        for number, text in enumerate(said)
    ]


async def fill(
    settings: Settings, redis_url: str, model: str, many: Sequence[Memory], batch: int
) -> tuple[float, list[float]]:
    """(seconds in all, seconds a batch) to store them with vectors that are there."""
    rows = np.random.default_rng(1).standard_normal((len(many), DIM), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    store = await Store.open(settings.postgres, "bench")
    await store.migrate()
    bus = await Bus.open(redis_url, "bench-fill")
    took_s: list[float] = []
    try:
        async with keeper.opened(settings, Rules.load(settings), store, bus) as stores:
            for start in range(0, len(many), batch):
                part = many[start : start + batch]
                vectors = Vectors(model=model, matrix=rows[start : start + batch])
                began_s = time.perf_counter()
                _, fresh = await intake.record(stores, part)
                await intake.place(stores, fresh, wait_s=0, vectors=vectors)
                took_s.append(time.perf_counter() - began_s)
            assert await stores.warm.count("memories") == len(many)
    finally:
        await bus.close()
        await store.close()
    return sum(took_s), took_s


@contextlib.asynccontextmanager
async def process(home: Path, *line: str, **extra: str) -> AsyncIterator[psutil.Process]:
    """`python -m LINE` on that home until the block ends."""
    environment = {**os.environ, "AI_INFRA_HOME": str(home), **extra}
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *line, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        yield psutil.Process(running.pid)
    finally:
        running.terminate()
        await running.wait()


async def ready(asked: Any) -> Any:
    """The first answer to `asked()`."""
    until_s = time.monotonic() + START_S
    while True:
        try:
            return await asked()
        except AIError:
            if time.monotonic() > until_s:
                raise
            await asyncio.sleep(0.1)


async def searches(
    client: MemoryClient, said: Sequence[str], count: int, dice: random.Random
) -> dict[str, list[float]]:
    """Milliseconds by part; `asked` is the whole, from the request to the answer in hand."""
    took: dict[str, list[float]] = {"asked": []}
    for number in range(count):
        text = " ".join(dice.sample(dice.choice(said).split(), 6))
        query = Query(
            text=text, user_id=f"user-{number % USERS}", agent=AGENTS[number % len(AGENTS)]
        )
        began_s = time.perf_counter()
        found = await client.search(query)
        took["asked"].append((time.perf_counter() - began_s) * 1000)
        assert found.dense
        assert len(found.items) == query.limit
        for part, ms in found.took_ms.items():
            took.setdefault(part, []).append(ms)
    return took


async def idle(bus: Bus, count: int) -> list[float]:
    """Milliseconds a pass of maintenance that finds nothing to do, over the bus."""
    took_ms = []
    for _ in range(count):
        began_s = time.perf_counter()
        done = await bus.ask(
            streams.SERVICE_MEMORY, {"verb": "maintain"}, deadline=Deadline.after(60)
        )
        took_ms.append((time.perf_counter() - began_s) * 1000)
        assert not done, done
    return took_ms


async def run(options: argparse.Namespace, dsn: str, redis_url: str, home: Path) -> None:
    dice = random.Random(7)
    os.environ |= {"AI_INFRA_HOME": str(home), "AI_INFRA_POSTGRES_DSN": dsn}
    os.environ["AI_INFRA_REDIS_URL"] = redis_url
    settings = Settings(home=home)
    settings.prepare()
    said = texts(options.count, dice)
    many = memories(said)
    bus = await Bus.open(redis_url, "bench")
    client = MemoryClient(bus)
    async with process(home, "workers", "embed"):
        info = await ready(lambda: Embedder(bus).info(Deadline.after(1)))
        assert info["dim"] == DIM
        whole_s, batches_s = await fill(settings, redis_url, info["model"], many, options.batch)
        async with process(home, "pai") as kept:
            await ready(client.stats)
            for _ in range(3):
                await client.maintain()
            await searches(client, said, 30, dice)
            took = await searches(client, said, options.searches, dice)
            passes_ms = await idle(bus, 20)
            rss_mb = kept.memory_info().rss / 1e6
    await bus.close()
    tell(options, whole_s, batches_s, took, passes_ms, rss_mb)


def tell(
    options: argparse.Namespace, whole_s: float, batches_s: list[float],
    took: dict[str, list[float]], passes_ms: list[float], rss_mb: float,
) -> None:  # fmt: skip
    def at(values: Sequence[float], part: float) -> float:
        return sorted(values)[int(part * (len(values) - 1))]

    print(f"{options.count} memories of {DIM} dimensions, {options.searches} searches\n")
    print(f"{'':<24}{'p50 ms':>10}{'p95 ms':>10}{'max ms':>10}")
    mine = [whole - model for whole, model in zip(took["asked"], took["embed"], strict=True)]
    rows = {"search, asked": took["asked"], "  without the model": mine}
    rows |= {f"  {part}": values for part, values in took.items() if part != "asked"}
    rows |= {"idle maintenance": passes_ms}
    rows |= {f"insert of {options.batch}": [one * 1000 for one in batches_s]}
    for name, values in rows.items():
        print(f"{name:<24}{at(values, 0.5):>10.1f}{at(values, 0.95):>10.1f}{max(values):>10.1f}")
    print(f"\nkeeper {rss_mb:.0f} MB resident\n")
    print(f"figure memory.recall_p50_ms {at(took['asked'], 0.5):.1f} ms")
    print(f"figure memory.recall_p95_ms {at(took['asked'], 0.95):.1f} ms")
    print(f"figure memory.insert_per_s {options.count / whole_s:.0f} memories/s")
    print(f"figure memory.keeper_rss_mb {rss_mb:.0f} MB")
    print(f"figure memory.idle_maintenance_ms {statistics.median(passes_ms):.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=500, help="memories inserted at once")
    parser.add_argument("--searches", type=int, default=400)
    options = parser.parse_args()
    log.start("bench", None, "warning")
    with (
        private_postgres() as dsn,
        private_redis() as redis_url,
        tempfile.TemporaryDirectory(prefix="ai-bench-", dir="/tmp") as folder,
    ):
        asyncio.run(run(options, dsn, redis_url, Path(folder) / "home"))


if __name__ == "__main__":
    main()
