"""The warm store in a folder: Qdrant Edge, one shard a collection, opened by one process.

The engine holds the interpreter while it works (measured), so what it is given at once stays
small: writes go in slices, and one thread takes searches between them. A write is in the shard's
log when the engine returns and on the disk when `put` does (one fsync for all who wait); `flush`,
which costs a tenth of a second, only shortens the log.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from base.errors import ConflictError, TornError, WarmError
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
    Sparse,
    check_collection,
    check_id,
    check_looks,
)
from pai.warm_shard import Shard

#: Points given to the engine at once: about 10 ms.
SLICE = 64
#: Points after which a shard's log is cut; what a start may have to read again.
FLUSH_POINTS = 5_000
T = TypeVar("T")


class _Kept:
    """A shard and its writers. `written`, `synced` count slices, `unflushed` points."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.writing = asyncio.Lock()
        self.syncing = asyncio.Lock()
        self.written = 0
        self.synced = 0
        self.unflushed = 0


class EdgeWarm:
    """`Warm` over the shards below `folder`; see there for what each call promises."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="warm")
        self._kept: dict[str, _Kept] = {}
        self._places: Places | None = None
        self._names: list[str] = []
        self._lock: int | None = None

    # Opening and closing -------------------------------------------------------------------

    async def prepare(self, dim: int, model: str) -> None:
        if self._lock is None:
            self._lock = _locked(self._folder)
        wanted = Place(model=model, dim=dim)
        if self._places is None:
            self._places, self._names = _read_state(self._folder) or (Places(active=wanted), [])
        places = self._places.after(wanted)
        if not self._kept:
            shards = await self._run(self._open, Places(active=places.active))
            self._kept = {shard.collection: _Kept(shard) for shard in shards}
        await self._settle(places)

    def _open(self, places: Places) -> list[Shard]:
        opened: list[Shard] = []
        try:
            for name in COLLECTIONS:
                opened.append(Shard(self._folder / name, name, places))
        except WarmError:
            for shard in opened:
                shard.close()
            raise
        return opened

    async def _settle(self, places: Places) -> None:
        """Write down how it shall be, make it so; what a death interrupted is done again."""
        names = [place.of(name) for place in places.all for name in DENSE] + list(SPARSE)
        stale = [name for name in self._names if name not in names]
        self._names += [name for name in names if name not in self._names]
        await self._run(_write_state, self._folder, places, self._names)
        self._places = places
        for kept in self._kept.values():
            async with kept.writing:
                await self._run(kept.shard.add_names, places)
                await self._run(kept.shard.drop_names, stale)
                kept.written += 1
            await self._sync(kept)
        if stale:
            self._names = names
            await self._run(_write_state, self._folder, places, names)

    async def places(self) -> Places:
        if self._places is None:
            raise WarmError("the warm store is not open")
        return self._places

    async def reset(self) -> None:
        if self._lock is None:
            self._lock = _locked(self._folder)
        kept, self._kept, self._places, self._names = self._kept, {}, None, []
        for one in kept.values():
            await self._run(one.shard.close)
        await self._run(_remove, self._folder)

    async def close(self) -> None:
        kept, self._kept, self._places = self._kept, {}, None
        for one in kept.values():
            async with one.writing:
                await self._run(one.shard.flush)
                await self._run(one.shard.close)
        self._thread.shutdown(wait=False)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Writing -------------------------------------------------------------------------------

    async def put(self, collection: str, points: Sequence[Point]) -> None:
        kept = self._at(collection)
        await self._write(kept, kept.shard.put, points)

    async def set(self, collection: str, id: str, payload: dict[str, Any]) -> None:
        kept = self._at(collection)
        await self._write(kept, lambda one: kept.shard.set(one[0], payload), [check_id(id)])

    async def remove(self, collection: str, ids: Sequence[str]) -> None:
        kept = self._at(collection)
        await self._write(kept, kept.shard.remove, [check_id(id) for id in ids])

    async def fill(
        self, collection: str, vectors: Mapping[str, Mapping[str, Floats]], *, model: str = ""
    ) -> None:
        kept = self._at(collection)
        places = await self.places()
        place = places.find(model, places.newest)
        await self._write(
            kept,
            lambda some: kept.shard.fill({id: vectors[id] for id in some}, place),
            list(vectors),
        )

    async def switch(self) -> None:
        places = await self.places()
        if places.coming is None:
            return
        for name in COLLECTIONS:
            if left := await self.count_missing(name):
                raise ConflictError(
                    f"{left} of {name} have no vector of {places.coming.model!r} yet"
                )
        await self._settle(Places(active=places.coming))

    async def tidy(self) -> bool:
        for kept in self._kept.values():
            async with kept.writing:
                if kept.unflushed:
                    await self._flush(kept)
                    return True
                if await self._run(kept.shard.tidy):
                    return True
        return False

    # Reading -------------------------------------------------------------------------------

    async def search(self, collection: str, looks: Sequence[Look], keep: Keep) -> list[list[Hit]]:
        return (await self.search_all([collection], looks, keep))[collection]

    async def search_all(
        self, collections: Sequence[str], looks: Sequence[Look], keep: Keep
    ) -> dict[str, list[list[Hit]]]:
        check_looks(looks, keep)
        shards = {name: self._at(name).shard for name in collections}
        able = [
            at
            for at, look in enumerate(looks)
            if look.limit > 0 and not (isinstance(look.vector, Sparse) and not look.vector)
        ]
        empty: dict[str, list[list[Hit]]] = {name: [[] for _ in looks] for name in collections}
        if not able or keep.nothing:
            return empty
        asked = [looks[at] for at in able]
        for name, shard in shards.items():
            found = await self._run(shard.search, asked, keep)
            for at, hits in zip(able, found, strict=True):
                empty[name][at] = hits
        return empty

    async def get(
        self, collection: str, ids: Sequence[str], *, vectors: bool = False
    ) -> list[Point]:
        shard = self._at(collection).shard
        wanted = [check_id(id) for id in ids]
        return await self._run(lambda: shard.get(wanted, vectors=vectors)) if wanted else []

    async def find(
        self, collection: str, keep: Keep, limit: int, *, after: str | None = None
    ) -> list[Point]:
        shard = self._at(collection).shard
        if keep.nothing or limit < 1:
            return []
        return await self._run(shard.find, keep, limit, check_id(after) if after else None)

    async def count(self, collection: str, keep: Keep | None = None) -> int:
        shard = self._at(collection).shard
        return 0 if keep and keep.nothing else await self._run(shard.count, keep)

    async def missing(self, collection: str, limit: int) -> list[Point]:
        return await self._run(self._at(collection).shard.missing, limit)

    async def count_missing(self, collection: str) -> int:
        return await self._run(self._at(collection).shard.count_missing)

    # Inside --------------------------------------------------------------------------------

    def _at(self, collection: str) -> _Kept:
        check_collection(collection)
        if collection not in self._kept:
            raise WarmError("the warm store is not open")
        return self._kept[collection]

    async def _run(self, call: Callable[..., T], *values: Any) -> T:
        """On the one thread that touches the engine; first come, first served."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call, *values)
        except RuntimeError as error:
            raise WarmError(f"the warm store is closed: {error}") from error

    async def _write(
        self, kept: _Kept, call: Callable[[Sequence[Any]], object], things: Sequence[Any]
    ) -> None:
        """One writer a shard at a time, so that a search waits for one slice at most."""
        for start in range(0, len(things), SLICE):
            some = things[start : start + SLICE]
            async with kept.writing:
                await self._run(call, some)
                kept.written += 1
                kept.unflushed += len(some)
                if kept.unflushed >= FLUSH_POINTS:
                    await self._flush(kept)
        await self._sync(kept)

    async def _sync(self, kept: _Kept) -> None:
        """Return when what was written so far is on the disk."""
        upto = kept.written
        async with kept.syncing:
            if kept.synced < upto:
                covered = kept.written
                await asyncio.to_thread(kept.shard.sync)
                kept.synced = covered

    async def _flush(self, kept: _Kept) -> None:
        covered = kept.written
        await self._run(kept.shard.flush)
        kept.synced = max(kept.synced, covered)
        kept.unflushed = 0


def _locked(folder: Path) -> int:
    """The open lock. ConflictError when another process has it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise ConflictError(
            f"another process has the warm store {folder} open; only one keeper can"
        ) from error
    return handle


def _read_state(folder: Path) -> tuple[Places, list[str]] | None:
    """None: nothing was ever stored here. TornError when it cannot be read."""
    path = folder / "state.json"
    try:
        found = json.loads(path.read_text())
        return Places.load(found["places"]), list(found["names"])
    except FileNotFoundError:
        if any((folder / name).exists() for name in COLLECTIONS):
            raise TornError(f"the warm store {folder} was never finished") from None
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TornError(f"{path} cannot be read: {error}") from error


def _write_state(folder: Path, places: Places, names: Sequence[str]) -> None:
    """Whole or not at all, and on the disk."""
    path = folder / "state.json"
    new = folder / "state.new"
    with new.open("w") as file:
        json.dump({"places": places.dump(), "names": list(names)}, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """The state last: until it is gone, shards that are missing read as torn."""
    for name in COLLECTIONS:
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    (folder / "state.json").unlink(missing_ok=True)
