"""A collection of the embedded warm store, as it is held open."""

from __future__ import annotations

import asyncio

from pai.warm_shard import Shard


class Kept:
    """A collection: its shard, the copy that `tidy` is making of it, and who writes.

    written, synced: slices; unflushed, holes: points.
    """

    def __init__(self, shard: Shard, holes: int) -> None:
        self.shard = shard
        self.copy: Shard | None = None
        self.writing = asyncio.Lock()
        self.syncing = asyncio.Lock()
        self.written = 0
        self.synced = 0
        self.unflushed = 0
        self.holes = holes

    @property
    def shards(self) -> list[Shard]:
        return [self.shard, self.copy] if self.copy else [self.shard]
