"""The warm store in a folder: Qdrant Edge, one shard a collection, opened by one process.

The engine holds the interpreter while it works (measured), so what it is given at once stays
small: writes go in slices, which one thread takes. Reads wait for nobody but the slice that is
being written; without one they are done on the spot, since a thread would only add its hops.
A write is in the shard's log when the engine returns and on the disk when `put` does (one fsync
for all who wait); `flush`, which costs a tenth of a second, only shortens the log. Its own
optimiser would hold everything up for seconds: vectors are searched exactly, and room is won back
by copying a shard in slices.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from base.errors import ConflictError, WarmError
from pai import warm_state
from pai.warm import (
    COLLECTIONS,
    DENSE,
    SPARSE,
    Floats,
    Hit,
    Keep,
    Look,
    Place,
    Places,
    Point,
    check_collection,
    check_id,
    check_looks,
)
from pai.warm_kept import Kept
from pai.warm_shard import Shard, search
from pai.warm_state import State

#: Points given to the engine at once: about 10 ms.
SLICE = 64
#: Points after which a shard's log is cut; what a start may have to read again.
FLUSH_POINTS = 20_000
#: Places of removed points that a shard may have, beside half of its points.
HOLES = 1_000
T = TypeVar("T")


class EdgeWarm:
    """`Warm` over the shards below `folder`; see there for what each call promises."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="warm")
        self._engine = threading.Lock()
        self._kept: dict[str, Kept] = {}
        self._state: State | None = None
        self._lock: int | None = None
        self._indexing: asyncio.Task[None] | None = None
        self._tidying = asyncio.Lock()

    # Opening and closing -------------------------------------------------------------------

    async def prepare(self, dim: int, model: str) -> None:
        if self._lock is None:
            self._lock = warm_state.lock(self._folder)
        wanted = Place(model=model, dim=dim)
        state = self._state or State.read(self._folder) or State(places=Places(active=wanted))
        if not self._kept:
            shards = await self._run(self._open, state)
            holes = state.holes
            self._kept = {name: Kept(shard, holes.get(name, 0)) for name, shard in shards.items()}
        self._state = state
        await self._settle(state.places.after(wanted))
        if self._indexing is None:
            self._indexing = asyncio.create_task(self._index(), name="warm indexes")

    async def _index(self) -> None:
        """Each index of a new store costs a flush, and everything works without them; so do
        searches without the briefs, but the first ones have to read them.
        """
        for kept in self._kept.values():
            more = True
            while more:
                async with kept.writing:
                    more = await self._run(kept.shard.add_index)
            while await self._run(kept.shard.brief_ahead, SLICE):
                pass

    async def _stop_indexing(self) -> None:
        task, self._indexing = self._indexing, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _open(self, state: State) -> dict[str, Shard]:
        opened: dict[str, Shard] = {}
        try:
            for name, folder in state.folders.items():
                path = self._folder / warm_state.SHARDS / folder
                opened[name] = Shard(path, name, state.places, new=not state.names)
        except WarmError:
            for shard in opened.values():
                shard.close()
            raise
        state.sweep(self._folder)
        return opened

    async def _settle(self, places: Places) -> None:
        """Write down how it shall be, make it so; what a death interrupted is done again."""
        names = [place.of(name) for place in places.all for name in DENSE] + list(SPARSE)
        stale = [name for name in self._known.names if name not in names]
        await self._note(places=places, names=(*names, *stale))
        for kept in self._kept.values():
            async with kept.writing:
                for shard in kept.shards:
                    await self._run(shard.add_names, places)
                    await self._run(shard.drop_names, stale)
                kept.written += 1
            await self._sync(kept)
        if stale:
            await self._note(names=tuple(names))

    async def places(self) -> Places:
        return self._known.places

    async def reset(self) -> None:
        if self._lock is None:
            self._lock = warm_state.lock(self._folder)
        await self._stop_indexing()
        kept, self._kept, self._state = self._kept, {}, None
        for one in kept.values():
            for shard in one.shards:
                await self._run(shard.close)
        await asyncio.to_thread(warm_state.remove, self._folder)

    async def close(self) -> None:
        await self._stop_indexing()
        if self._kept:
            await self._note()
        kept, self._kept, self._state = self._kept, {}, None
        for one in kept.values():
            async with one.writing:
                await self._run(one.shard.flush)
                for shard in one.shards:
                    await self._run(shard.close)
        self._thread.shutdown(wait=False)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Writing -------------------------------------------------------------------------------

    async def put(self, collection: str, points: Sequence[Point]) -> None:
        await self._write(self._at(collection), Shard.put, points)

    async def set(self, collection: str, id: str, payload: dict[str, Any]) -> None:
        await self._write(
            self._at(collection), lambda shard, ids: shard.set(ids[0], payload), [check_id(id)]
        )

    async def remove(self, collection: str, ids: Sequence[str]) -> None:
        kept = self._at(collection)
        await self._write(kept, Shard.remove, [check_id(id) for id in ids])
        kept.holes += len(ids)

    async def fill(
        self, collection: str, vectors: Mapping[str, Mapping[str, Floats]], *, model: str = ""
    ) -> None:
        places = self._known.places
        place = places.find(model, places.newest)
        await self._write(
            self._at(collection),
            lambda shard, ids: shard.fill({id: vectors[id] for id in ids}, place),
            list(vectors),
        )

    async def switch(self) -> None:
        places = self._known.places
        if places.coming is None:
            return
        for name in COLLECTIONS:
            if left := await self.count_missing(name):
                raise ConflictError(
                    f"{left} of {name} have no vector of {places.coming.model!r} yet"
                )
        for kept in self._kept.values():
            kept.holes += await self._run(kept.shard.count, None)
        await self._settle(Places(active=places.coming))

    async def tidy(self) -> bool:
        async with self._tidying:
            return await self._tidy()

    async def wipe(self, collections: Sequence[str]) -> bool:
        """By writing anew whatever had something removed."""
        async with self._tidying:
            for name in collections:
                if self._at(name).holes:
                    await self._copy(name, self._at(name))
        return True

    async def _tidy(self) -> bool:
        if self._indexing is not None:
            await asyncio.shield(self._indexing)
        for name, kept in list(self._kept.items()):
            if kept.unflushed:
                async with kept.writing:
                    await self._flush(kept)
                await self._note()
                return True
            allowed = max(HOLES, await self._run(kept.shard.count, None) // 2)
            if kept.holes > allowed:
                await self._copy(name, kept)
                return True
        return False

    async def _copy(self, name: str, kept: Kept) -> None:
        """Into a new shard, slice by slice, while reads and writes go on (writes to both)."""
        old = kept.shard
        number = int(old.folder.name.rpartition("-")[2]) + 1
        folder = old.folder.with_name(f"{name}-{number}")
        holes = kept.holes
        try:
            kept.copy = new = await self._run(
                lambda: Shard(folder, name, self._known.places, new=True)
            )
            while await self._run(new.add_index):
                pass
            last: str | None = None
            while True:
                async with kept.writing:
                    if (last := await self._run(old.pour, new, SLICE, last)) is None:
                        await self._run(new.flush)
                        await self._note(folders={**self._known.folders, name: folder.name})
                        kept.shard, kept.copy = new, None
                        kept.holes -= holes
                        break
        finally:
            gone = kept.copy or old
            kept.copy = None
            await self._run(gone.close)
            await asyncio.to_thread(shutil.rmtree, gone.folder, ignore_errors=True)
        await self._note()

    async def copy(self, folder: Path) -> bool:
        """Shard by shard, each flushed and not written meanwhile."""
        shards = folder / warm_state.SHARDS
        shards.mkdir(mode=0o700, parents=True)
        async with self._tidying:
            for kept in self._kept.values():
                async with kept.writing:
                    await self._flush(kept)
                    source = kept.shard.folder
                    await asyncio.to_thread(shutil.copytree, source, shards / source.name)
            await asyncio.to_thread(self._known.write, folder)
        return True

    # Reading -------------------------------------------------------------------------------

    async def search(
        self, collection: str, looks: Sequence[Look], keep: Keep, *, whole: bool = True
    ) -> list[list[Hit]]:
        return (await self.search_all([collection], looks, keep, whole=whole))[collection]

    async def search_all(
        self,
        collections: Sequence[str],
        looks: Sequence[Look],
        keep: Keep,
        *,
        whole: bool = True,
    ) -> dict[str, list[list[Hit]]]:
        check_looks(looks, keep)
        kept = {name: self._at(name) for name in collections}
        able = [at for at, look in enumerate(looks) if look.can_find]
        found: dict[str, list[list[Hit]]] = {name: [[] for _ in looks] for name in collections}
        if able and kept and not keep.nothing:
            mine = [looks[at] for at in able]
            shards = {name: one.shard for name, one in kept.items()}
            hits = await self._read(lambda: search(shards, mine, keep, whole=whole))
            for name, lists in hits.items():
                for at, some in zip(able, lists, strict=True):
                    found[name][at] = some
        return found

    async def get(
        self, collection: str, ids: Sequence[str], *, vectors: bool = False
    ) -> list[Point]:
        shard = self._at(collection).shard
        wanted = [check_id(id) for id in ids]
        return await self._read(lambda: shard.get(wanted, vectors=vectors)) if wanted else []

    async def find(
        self, collection: str, keep: Keep, limit: int, *, after: str | None = None
    ) -> list[Point]:
        shard = self._at(collection).shard
        if keep.nothing or limit < 1:
            return []
        return await self._read(shard.find, keep, limit, check_id(after) if after else None)

    async def count(self, collection: str, keep: Keep | None = None) -> int:
        shard = self._at(collection).shard
        return 0 if keep and keep.nothing else await self._read(shard.count, keep)

    async def missing(self, collection: str, limit: int) -> list[Point]:
        return await self._read(self._at(collection).shard.missing, limit)

    async def count_missing(self, collection: str) -> int:
        return await self._read(self._at(collection).shard.count_missing)

    # Inside --------------------------------------------------------------------------------

    @property
    def _known(self) -> State:
        if self._state is None:
            raise WarmError("the warm store is not open")
        return self._state

    def _at(self, collection: str) -> Kept:
        check_collection(collection)
        if collection not in self._kept:
            raise WarmError("the warm store is not open")
        return self._kept[collection]

    async def _run(self, call: Callable[..., T], *values: Any) -> T:
        """On the thread, first come, first served."""

        def alone() -> T:
            with self._engine:
                return call(*values)

        try:
            running = asyncio.get_running_loop().run_in_executor(self._thread, alone)
        except RuntimeError as error:
            raise WarmError("the warm store is closed") from error
        return await running

    async def _read(self, call: Callable[..., T], *values: Any) -> T:
        """At once where the engine is free, else on the thread after what it does now. A turn of
        the loop comes first: who reads on and on holds nobody up.
        """
        await asyncio.sleep(0)
        if not self._engine.acquire(blocking=False):
            return await self._run(call, *values)
        try:
            return call(*values)
        finally:
            self._engine.release()

    async def _note(self, **changed: Any) -> None:
        holes = {name: kept.holes for name, kept in self._kept.items()}
        self._state = replace(self._known, holes=holes, **changed)
        await asyncio.to_thread(self._state.write, self._folder)

    async def _write(
        self,
        kept: Kept,
        call: Callable[[Shard, Sequence[Any]], object],
        things: Sequence[Any],
    ) -> None:
        """One writer a shard at a time, so that a search waits for one slice at most."""
        for start in range(0, len(things), SLICE):
            some = things[start : start + SLICE]
            async with kept.writing:
                for shard in kept.shards:
                    await self._run(call, shard, some)
                kept.written += 1
                kept.unflushed += len(some)
                if kept.unflushed >= FLUSH_POINTS:
                    await self._flush(kept)
        await self._sync(kept)

    async def _sync(self, kept: Kept) -> None:
        """Return when what was written so far is on the disk."""
        upto = kept.written
        async with kept.syncing:
            if kept.synced < upto:
                covered = kept.written
                await asyncio.to_thread(kept.shard.sync)
                kept.synced = max(kept.synced, covered)

    async def _flush(self, kept: Kept) -> None:
        covered = kept.written
        await self._run(kept.shard.flush)
        kept.synced = max(kept.synced, covered)
        kept.unflushed = 0
