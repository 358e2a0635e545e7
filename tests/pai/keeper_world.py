"""A keeper for the tests, in this process, over real Redis, PostgreSQL and the embedded store.

The embedding worker alone is scripted, as the model is: it answers on the bus in a form that the
real one has, with vectors made from hashes of words, so texts that share words are near.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from base import streams
from base.bus import Bus
from base.settings import Settings
from base.store import Store
from pai import keeper, maintain
from pai.client import MemoryClient
from pai.shapes import Collection, Memory
from pai.stores import Stores
from pai.tiers import Rules

DIM = 64


def vector(text: str, dim: int = DIM) -> np.ndarray:
    """Each word adds a direction of its own; of length 1."""
    total = np.zeros(dim, dtype=np.float32)
    for word in re.findall(r"\w+", text.lower()) or ["-"]:
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        total += np.random.default_rng(seed).standard_normal(dim).astype(np.float32)
    return total / np.linalg.norm(total)


class HashWorker:
    """Answers `embed` as docs/memory.md says. Change `model` or `dim`: it is another model."""

    def __init__(self, bus: Bus, model: str = "hash-64", dim: int = DIM) -> None:
        self.bus, self.model, self.dim = bus, model, dim
        self.asked: list[dict[str, Any]] = []

    async def answer(self, payload: dict[str, Any]) -> dict[str, Any]:
        if payload["verb"] == "info":
            return {"model": self.model, "dim": self.dim, "cache": {"hits": 0, "misses": 0}}
        self.asked.append(payload)
        rows = np.stack([vector(text, self.dim) for text in payload["texts"]])
        await self.bus.call(
            *[
                ("SET", streams.embedding(self.model, text), row.tobytes())
                for text, row in zip(payload["texts"], rows, strict=True)
            ]
        )
        return {
            "model": self.model,
            "dim": self.dim,
            "vectors": base64.b64encode(rows.astype("<f4").tobytes()).decode(),
        }

    async def serve(self) -> None:
        await self.bus.serve(streams.SERVICE_EMBED, self.answer)


@dataclass(kw_only=True)
class World:
    """A running keeper and who asks it. `maintenance` is off unless asked for: the test calls
    `pass_` when it wants a pass.
    """

    stores: Stores
    bus: Bus
    client: MemoryClient
    worker: HashWorker

    async def pass_(self, **options: Any) -> dict[str, int]:
        return await maintain.once(self.stores, **options)

    def under(self, rules: Rules) -> World:
        """The same world under other rules."""
        return replace(self, stores=replace(self.stores, rules=rules))

    async def empty(self) -> None:
        """As if nothing had ever been remembered."""
        stores = self.stores
        rows = await stores.store.fetch("SELECT id, collection FROM memory")
        for collection in Collection:
            ids = [row["id"] for row in rows if row["collection"] == collection]
            await stores.warm.remove(collection, ids)
        stores.index.remove(stores.index.ids())
        await stores.store.execute("DELETE FROM memory")
        await stores.store.execute("DELETE FROM memory_file")
        for name in list(stores.archive.sizes_bytes):
            (stores.archive.folder / name).unlink(missing_ok=True)
            del stores.archive.sizes_bytes[name]
        stores.uses.clear()
        stores.thaw.clear()
        stores.people.clear()
        stores.meaning._away_until_s = 0.0
        await self.bus.call(("FLUSHALL",))

    async def card(self, id: str) -> dict[str, Any] | None:
        return await self.stores.store.fetchrow("SELECT * FROM memory WHERE id = $1::uuid", id)


def rules(**changes: dict[str, Any]) -> Rules:
    """The shipped rules with some changed: rules(hot={"items_per_agent": 3})."""
    plain = Rules.load().model_dump()
    return Rules.model_validate({name: {**plain[name], **changes.get(name, {})} for name in plain})


def memory(text: str, **fields: Any) -> Memory:
    return Memory(**{"user_id": "ann", "text": text, **fields})


@contextlib.asynccontextmanager
async def world(
    home: Path, dsn: str, redis_url: str, *, worker: bool = True, changed: Rules | None = None,
    maintenance: bool = False,
) -> AsyncIterator[World]:  # fmt: skip
    """Start it all; `worker` False: no embedding worker answers."""
    settings = Settings(home=home)
    settings.prepare()
    async with contextlib.AsyncExitStack() as held:
        store = await Store.open(dsn, "keeper-test")
        held.push_async_callback(store.close)
        await store.migrate()
        buses = [await Bus.open(redis_url, name) for name in ("keeper", "worker", "asker")]
        for bus in buses:
            held.push_async_callback(bus.close)
        hash_worker = HashWorker(buses[1])
        tasks: list[asyncio.Task[Any]] = []
        held.push_async_callback(_stopped, tasks)
        if worker:
            tasks.append(asyncio.create_task(hash_worker.serve(), name="worker"))
        stores = await held.enter_async_context(
            keeper.opened(settings, changed or Rules.load(), store, buses[0])
        )
        parts = [_serve(stores), keeper.read(stores)]
        if maintenance:
            parts.append(maintain.run(stores))
        own = [asyncio.create_task(part, name="keeper part") for part in parts]
        held.push_async_callback(_stopped, own)
        yield World(stores=stores, bus=buses[2], client=MemoryClient(buses[2]), worker=hash_worker)


async def _serve(stores: Stores) -> None:
    async def answer(payload: dict[str, Any]) -> dict[str, Any]:
        return await keeper.ask(stores, payload)

    await stores.bus.serve(streams.SERVICE_MEMORY, answer, concurrency=keeper.CONCURRENCY)


async def _stopped(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
