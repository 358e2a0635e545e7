"""The rows of a resident matrix that are nearest to a query.

A matrix sent along stays under its name; callers of one moment that ask the same one share a
product. At most MATRICES_MAX of them and RESIDENT_BYTES; the least recently used leaves.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from base.errors import InputError, NotFoundError
from workers.jobs import payload as read
from workers.jobs import vectors
from workers.jobs.bench import Bench

MATRICES_MAX = 64
RESIDENT_BYTES = 512 * 1024 * 1024
K_MAX = 10_000

Best = tuple[list[int], list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One query of unit length against one matrix."""

    matrix: Tensor
    query: Tensor
    k: int


class Residents:
    """Matrices of unit rows by name. Pure memory: no device, no waiting."""

    def __init__(self, *, count_max: int = MATRICES_MAX, bytes_max: int = RESIDENT_BYTES) -> None:
        self._held: OrderedDict[str, Tensor] = OrderedDict()
        self._count_max, self._bytes_max = count_max, bytes_max

    @property
    def size_bytes(self) -> int:
        return sum(one.nbytes for one in self._held.values())

    def __len__(self) -> int:
        return len(self._held)

    def put(self, name: str, matrix: Tensor) -> None:
        """Hold it as the most recently used; what was under that name goes. Others leave for it.

        Raises InputError when it alone is too large.
        """
        if matrix.nbytes > self._bytes_max:
            raise InputError(f"matrix is larger than {self._bytes_max:,} bytes")
        self._held.pop(name, None)
        self._held[name] = matrix
        while len(self._held) > self._count_max or self.size_bytes > self._bytes_max:
            self._held.popitem(last=False)

    def get(self, name: str) -> Tensor:
        """Raises NotFoundError when it never came or has left."""
        if (matrix := self._held.get(name)) is None:
            raise NotFoundError(f"no matrix {name!r} is resident: send it along once more")
        self._held.move_to_end(name)
        return matrix


class Topk:
    """Payload: name, k, and `query` (base64 of one row) or `text`; `matrix` and `dim` make the
    matrix resident first. Answer: ids (row numbers) and scores (cosine), best first.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._residents = Residents()
        self._work = bench.core.work("topk", compute, budget_tokens=bench.block)

    def info(self) -> dict[str, Any]:
        return {
            "ready": True,
            "matrices": len(self._residents),
            "resident_bytes": self._residents.size_bytes,
        }

    async def answer(self, payload: dict[str, Any]) -> dict[str, Any]:
        name = read.text(payload, "name", longest=read.NAME_CHARS)
        k = read.whole(payload, "k", 1, K_MAX)
        if ("query" in payload) == ("text" in payload):
            raise InputError("a top-k job has either a query or a text")
        if "matrix" in payload:
            given = await asyncio.to_thread(read.matrix, payload)
            self._residents.put(name, await self._on_device(given))
        matrix = self._residents.get(name)
        query = await self._on_device(await self._query(payload, matrix.shape[1]))
        look = Look(matrix=matrix, query=query[0], k=k)
        ((ids, scores),) = await self._work.submit([look], [len(matrix)])
        return {"ids": ids, "scores": scores}

    async def _query(self, payload: dict[str, Any], dim: int) -> NDArray[np.float32]:
        if "text" in payload:
            query = await self._bench.embed([read.text(payload, "text")])
            if query.shape[1] != dim:
                raise InputError(f"texts have {query.shape[1]} dimensions, the matrix has {dim}")
            return query
        query = read.rows(payload, "query", 1).reshape(1, -1)
        if query.shape[1] != dim:
            raise InputError(f"the query has {query.shape[1]} dimensions, the matrix has {dim}")
        return query

    async def _on_device(self, rows: NDArray[np.float32]) -> Tensor:
        device = self._bench.device.torch_device
        return await self._bench.core.call(lambda: vectors.unit(torch.from_numpy(rows).to(device)))


@torch.inference_mode()
def compute(looks: list[Look]) -> list[Best]:
    """One product for each matrix that is asked."""
    found: list[Best] = [([], [])] * len(looks)
    by_matrix: dict[int, list[int]] = {}
    for at, look in enumerate(looks):
        by_matrix.setdefault(id(look.matrix), []).append(at)
    for places in by_matrix.values():
        queries = torch.stack([looks[at].query for at in places])
        best = vectors.nearest(looks[places[0]].matrix, queries, [looks[at].k for at in places])
        for at, one in zip(places, best, strict=True):
            found[at] = one
    return found
