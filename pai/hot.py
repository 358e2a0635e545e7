"""The hot tier: what the agents of running tasks wrote, found by the keeper's own small index.

The index is in memory, at most a few thousand rows, made again from the cards at a start. Beside
it each memory is a hash in Redis, `memory:hot:<id>`, for whoever looks from outside; the cards
are the record, so a flushed Redis loses nothing and is filled again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from base import streams
from base.bus import Bus
from pai.shapes import Memory
from pai.warm import Hit, Keep, Look, Point, Sparse

Floats = NDArray[np.float32]
GROW_ROWS = 256


class Index:
    """Points in memory with the same search as the warm store. One collection: memories."""

    def __init__(self) -> None:
        self._points: list[Point | None] = []
        self._row: dict[str, int] = {}
        self._free: list[int] = []
        self._dense: dict[str, Floats] = {}
        #: vector name → word → row → value
        self._words: dict[str, dict[int, dict[int, float]]] = {}

    def __len__(self) -> int:
        return len(self._row)

    def __contains__(self, id: str) -> bool:
        return id in self._row

    def ids(self) -> list[str]:
        return list(self._row)

    def get(self, id: str) -> Point | None:
        row = self._row.get(id)
        return None if row is None else self._points[row]

    def put(self, points: Iterable[Point]) -> None:
        """Add, or replace those of the same id."""
        for point in points:
            self.remove([point.id])
            row = self._free.pop() if self._free else len(self._points)
            if row == len(self._points):
                self._points.append(None)
            self._points[row] = point
            self._row[point.id] = row
            for name, vector in point.dense.items():
                self._matrix(name, row, vector.shape[0])[row] = vector
            for name, sparse in point.sparse.items():
                words = self._words.setdefault(name, {})
                for word, value in zip(sparse.indices, sparse.values, strict=True):
                    words.setdefault(int(word), {})[row] = float(value)

    def remove(self, ids: Iterable[str]) -> None:
        """Safe twice."""
        for id in ids:
            row = self._row.pop(id, None)
            if row is None:
                continue
            point = self._points[row]
            self._points[row] = None
            self._free.append(row)
            for matrix in self._dense.values():
                if row < len(matrix):
                    matrix[row] = 0
            for name, sparse in point.sparse.items() if point is not None else ():
                for word in sparse.indices:
                    rows = self._words[name].get(int(word), {})
                    rows.pop(row, None)
                    if not rows:
                        self._words[name].pop(int(word), None)

    def search(self, looks: Sequence[Look], keep: Keep) -> list[list[Hit]]:
        """As `Warm.search`: one list a look, best first."""
        return [self._look(look, keep) for look in looks]

    def _look(self, look: Look, keep: Keep) -> list[Hit]:
        scores = (
            self._by_words(look.name, look.vector)
            if isinstance(look.vector, Sparse)
            else self._by_vector(look.name, look.vector)
        )
        found: list[Hit] = []
        for row, score in sorted(scores.items(), key=lambda pair: -pair[1]):
            point = self._points[row]
            if point is not None and matches(point, keep):
                found.append(Hit.of(point.id, score, point.payload))
                if len(found) == look.limit:
                    break
        return found

    def _by_vector(self, name: str, vector: Floats) -> dict[int, float]:
        matrix = self._dense.get(name)
        if matrix is None or matrix.shape[1] != vector.shape[0]:
            return {}
        scores = matrix @ vector
        return {
            row: float(scores[row])
            for row in self._row.values()
            if (point := self._points[row]) is not None and name in point.dense
        }

    def _by_words(self, name: str, sparse: Sparse) -> dict[int, float]:
        """The sum over the words that both have, each weighted by how rare it is here."""
        words, total = self._words.get(name, {}), len(self._row)
        scores: dict[int, float] = {}
        for word, value in zip(sparse.indices, sparse.values, strict=True):
            rows = words.get(int(word), {})
            weight = math.log(1 + (total - len(rows) + 0.5) / (len(rows) + 0.5))
            for row, its in rows.items():
                scores[row] = scores.get(row, 0.0) + weight * float(value) * its
        return scores

    def _matrix(self, name: str, row: int, dim: int) -> Floats:
        matrix = self._dense.get(name)
        if matrix is None or matrix.shape[1] != dim:
            matrix = np.zeros((GROW_ROWS, dim), dtype=np.float32)
        while row >= len(matrix):
            matrix = np.vstack([matrix, np.zeros_like(matrix)])
        self._dense[name] = matrix
        return matrix


def matches(point: Point, keep: Keep) -> bool:
    """Whether a point is among those that `keep` keeps; as the warm store decides it."""
    if point.id in keep.not_ids:
        return False
    for name, allowed in keep.any_of.items():
        value = point.payload.get(name)
        values = value if isinstance(value, list | tuple) else [value]
        if not any(one in allowed for one in values):
            return False
    for name, (low, high) in keep.ranges.items():
        value = point.payload.get(name)
        if value is None or (low is not None and value < low):
            return False
        if high is not None and value > high:
            return False
    return True


class Shared:
    """The hashes in Redis."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def put(self, memories: Sequence[Memory]) -> None:
        """Raises BusError."""
        if memories:
            await self._bus.call(*[("HSET", key(one.id), *_fields(one)) for one in memories])

    async def remove(self, ids: Sequence[str]) -> int:
        """How many were there. Safe twice. Raises BusError."""
        if not ids:
            return 0
        (gone,) = await self._bus.call(("DEL", *[key(one) for one in ids]))
        return int(gone)

    async def there(self, ids: Sequence[str]) -> int:
        """How many of them Redis has."""
        if not ids:
            return 0
        (found,) = await self._bus.call(("EXISTS", *[key(one) for one in ids]))
        return int(found)


def key(id: str) -> str:
    return streams.HOT_PREFIX + id


def _fields(memory: Memory) -> list[Any]:
    return [
        "content", memory.text,
        "metadata", memory.model_dump_json(exclude={"text"}),
        "created_at", memory.created_at.isoformat(),
        "user_id", memory.user_id,
    ]  # fmt: skip
