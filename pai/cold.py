"""The cold tier: compressed JSON Lines, one file a month, one gzip member a batch.

PostgreSQL says how many bytes of a file count (table memory_file), in the same transaction that
says which memories are in it. So whatever a crash left behind the last commit, a torn member or
whole lines, does not count and is cut off before the next write. A file is rewritten beside
itself; the commit that moves the cards also sets `swap`, and only then it takes the old one's
place: a start finds `swap` and ends the exchange.

Files block; the functions that touch them run in a thread.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from base import log
from base.errors import DamagedError
from base.store import Session, Store

LEVEL = 6
CHUNK_BYTES = 1 << 20
NEW = ".new"
_ID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Line = dict[str, Any]
logger = log.get(__name__)


def memories_file(month: str) -> str:
    return f"memories-{month}.jsonl.gz"


def tasks_file(month: str) -> str:
    return f"tasks-{month}.jsonl.gz"


class Archive:
    """The files of one folder and what counts of them. `lock`: held by whoever writes."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.lock = asyncio.Lock()
        self._store = store
        #: name → bytes that count
        self.sizes_bytes: dict[str, int] = {}
        #: of the file that was last asked for, as it was then
        self._first_at: dict[tuple[str, int], datetime] = {}

    async def open(self) -> None:
        """Make the folder, end what a crash interrupted, cut what was never committed."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for row in await self._store.fetch("SELECT name, size_bytes, swap FROM memory_file"):
            name, size_bytes = row["name"], row["size_bytes"]
            if row["swap"]:
                await self._swap(name, size_bytes)
            if size_bytes:
                self.sizes_bytes[name] = size_bytes
                await asyncio.to_thread(self._cut, name, size_bytes)
        for path in self.folder.glob("*.jsonl.gz*"):
            if path.name not in self.sizes_bytes:
                logger.warning("removed a file that was never committed", file=path.name)
                path.unlink()

    @property
    def size_bytes(self) -> int:
        return sum(self.sizes_bytes.values())

    @property
    def memory_bytes(self) -> int:
        return sum(size for name, size in self.sizes_bytes.items() if name.startswith("memories-"))

    def months(self) -> list[str]:
        """The months that have a file of memories, oldest first."""
        names = sorted(name for name in self.sizes_bytes if name.startswith("memories-"))
        return [name.removeprefix("memories-").removesuffix(".jsonl.gz") for name in names]

    @asynccontextmanager
    async def append(self, name: str, lines: Sequence[Line]) -> AsyncIterator[Session]:
        """Write `lines` as one member; they count when the block's transaction commits."""
        before = self.sizes_bytes.get(name, 0)
        after = await asyncio.to_thread(self._append, name, before, lines)
        async with self._store.transaction() as tx:
            await tx.execute(
                "INSERT INTO memory_file (name, size_bytes) VALUES ($1, $2)"
                " ON CONFLICT (name) DO UPDATE SET size_bytes = EXCLUDED.size_bytes",
                *(name, after),
            )
            yield tx
        self.sizes_bytes[name] = after

    @asynccontextmanager
    async def rewrite(
        self, name: str, keep: Callable[[Line], bool], *, from_byte: int = 0
    ) -> AsyncIterator[tuple[Session, list[Line]]]:
        """Write the file anew with the lines that `keep` wants; yields those left out, without
        their texts' order changed. They are gone when the block's transaction commits. What lies
        before `from_byte`, the start of a member, is left out unread.
        """
        size_bytes, out = await asyncio.to_thread(self._rewrite, name, keep, from_byte)
        async with self._store.transaction() as tx:
            await tx.execute(
                "UPDATE memory_file SET size_bytes = $2, swap = TRUE WHERE name = $1",
                *(name, size_bytes),
            )
            yield tx, out
        await self._swap(name, size_bytes)

    async def texts(self, months: Mapping[str, str]) -> dict[str, str]:
        """id → text of those memories (id → its month); one whose line is missing is left out."""

        def look() -> dict[str, str]:
            return {
                line["id"]: line["memory"]["text"]
                for month in sorted(set(months.values()))
                for _, line in self.lines(memories_file(month))
                if months.get(line["id"]) == month
            }

        return await asyncio.to_thread(look)

    async def mentions(self, ids: Iterable[str]) -> dict[str, int]:
        """In how many lines of all months each id stands: a raw look through every byte."""

        def look() -> dict[str, int]:
            found = {id.encode(): 0 for id in ids}
            for month in self.months():
                name = memories_file(month)
                for _, _, raw in self._raw_lines(name, self.sizes_bytes.get(name, 0)):
                    for id in found.keys() & set(_ID.findall(raw)):
                        found[id] += 1
            return {id.decode(): count for id, count in found.items()}

        return await asyncio.to_thread(look)

    def lines(self, name: str, wanted: Callable[[bytes], bool] | None = None) -> Iterator[
        tuple[int, Line]
    ]:  # fmt: skip
        """(bytes of the file read so far, line) in order, as the file is at this moment, only
        the lines whose bytes are `wanted`. Blocks.
        """
        for at_byte, _, raw in self._raw_lines(name, self.sizes_bytes.get(name, 0)):
            if wanted is None or wanted(raw):
                yield at_byte, json.loads(raw)

    def members(self, name: str) -> Iterator[tuple[int, list[Line]]]:
        """(the byte at which the next member starts, the lines of this one). Blocks."""
        lines: list[Line] = []
        start = 0
        for _, member_at, raw in self._raw_lines(name, self.sizes_bytes.get(name, 0)):
            if member_at != start and lines:
                yield member_at, lines
                lines = []
            start = member_at
            lines.append(json.loads(raw))
        if lines:
            yield self.sizes_bytes.get(name, 0), lines

    async def first_at(self, name: str) -> datetime | None:
        """When the oldest line of a file was written; None: it is not there any more."""
        key = name, self.sizes_bytes[name]
        if key not in self._first_at:
            line = await asyncio.to_thread(lambda: next(self.lines(name), None))
            if line is None:
                return None
            self._first_at = {key: datetime.fromisoformat(line[1]["archived_at"])}
        return self._first_at[key]

    async def boundary(self, name: str, oldest: datetime, over_bytes: int) -> int:
        """Where the file would begin without the members older than `oldest`, and without so
        many that at least `over_bytes` are gone.
        """
        return await asyncio.to_thread(self._boundary, name, oldest.isoformat(), over_bytes)

    def _boundary(self, name: str, oldest: str, over_bytes: int) -> int:
        start = 0
        for after, lines in self.members(name):
            if start >= over_bytes and lines[0]["archived_at"] > oldest:
                return start
            start = after
        return start

    # Files ---------------------------------------------------------------------------------

    def _raw_lines(self, name: str, size_bytes: int) -> Iterator[tuple[int, int, bytes]]:
        """(bytes read, start of the member, line) for each line of the bytes that count."""
        path = self.folder / name
        if not size_bytes or not path.exists():
            return
        with path.open("rb") as file:
            left, member_at, read = size_bytes, 0, 0
            unpack, rest = zlib.decompressobj(31), b""
            packed = b""
            while left or packed:
                if not packed:
                    packed = file.read(min(CHUNK_BYTES, left))
                    if not packed:
                        return
                    left -= len(packed)
                    read += len(packed)
                try:
                    *whole, rest = (rest + unpack.decompress(packed)).split(b"\n")
                except zlib.error as error:
                    at_byte = read - len(packed)
                    raise DamagedError(f"{path} is damaged near byte {at_byte}: {error}") from error
                packed = unpack.unused_data
                for line in whole:
                    yield read - len(packed), member_at, line
                if unpack.eof:
                    member_at = read - len(packed)
                    unpack = zlib.decompressobj(31)

    def _cut(self, name: str, size_bytes: int) -> None:
        path = self.folder / name
        if not path.exists():
            if size_bytes:
                logger.error("a file of the archive is missing", file=name, size_bytes=size_bytes)
            return
        found = path.stat().st_size
        if found > size_bytes:
            logger.info("cut what was never committed", file=name, cut_bytes=found - size_bytes)
            os.truncate(path, size_bytes)
        elif found < size_bytes:
            logger.error("a file of the archive is short", file=name, missing=size_bytes - found)

    def _append(self, name: str, before: int, lines: Sequence[Line]) -> int:
        path = self.folder / name
        with path.open("ab") as file:
            os.chmod(file.fileno(), 0o600)
            file.truncate(before)
            file.write(_pack(lines))
            file.flush()
            os.fsync(file.fileno())
            after = file.tell()
        _sync_folder(self.folder)
        return after

    def _rewrite(
        self, name: str, keep: Callable[[Line], bool], from_byte: int
    ) -> tuple[int, list[Line]]:
        out: list[Line] = []
        with (self.folder / (name + NEW)).open("wb") as file:
            os.chmod(file.fileno(), 0o600)
            start = 0
            for after, lines in self.members(name):
                kept = [line for line in lines if start >= from_byte and keep(line)]
                out += [line for line in lines if start < from_byte or not keep(line)]
                if kept:
                    file.write(_pack(kept))
                start = after
            file.flush()
            os.fsync(file.fileno())
            size_bytes = file.tell()
        _sync_folder(self.folder)
        return size_bytes, out

    async def _swap(self, name: str, size_bytes: int) -> None:
        """Only then the new size counts: a reader may find less than it expects, never more."""
        await asyncio.to_thread(self._exchange, name, size_bytes)
        if size_bytes:
            self.sizes_bytes[name] = size_bytes
            await self._store.execute("UPDATE memory_file SET swap = FALSE WHERE name = $1", name)
        else:
            self.sizes_bytes.pop(name, None)
            await self._store.execute("DELETE FROM memory_file WHERE name = $1", name)

    def _exchange(self, name: str, size_bytes: int) -> None:
        new = self.folder / (name + NEW)
        if new.exists():  # else the exchange was done and only the note of it left
            new.replace(self.folder / name)
        if not size_bytes:
            (self.folder / name).unlink(missing_ok=True)
        _sync_folder(self.folder)


def _pack(lines: Sequence[Line]) -> bytes:
    raw = b"".join(
        json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        for line in lines
    )
    return gzip.compress(raw, LEVEL, mtime=0)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
