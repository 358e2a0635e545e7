"""Pairs of texts or rows that say the same: cosine at or above a limit.

The product is made a block at a time, as pieces of bulk work, so that a query never waits for
all of it and no n x n matrix ever exists.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from base.errors import InputError
from workers.jobs import payload as read
from workers.jobs import vectors
from workers.jobs.bench import Bench

AT = 0.95
PAIRS_MAX = 100_000
BLOCK_ROWS = 512

Pair = list[int | float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Rows `first` to `last` (exclusive) of a matrix of unit rows, against all later ones."""

    matrix: Tensor
    first: int
    last: int
    at: float


class Duplicates:
    """Payload: texts, or matrix and dim; at (above 0, at most 1). Answer: pairs [i, j, cosine],
    i < j, by i, then j.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._work = bench.core.work("duplicates", compute, budget_tokens=bench.block)

    def info(self) -> dict[str, Any]:
        return {"ready": True, "at": AT}

    async def answer(self, payload: dict[str, Any]) -> dict[str, Any]:
        at = payload.get("at", AT)
        if not isinstance(at, (int, float)) or isinstance(at, bool) or not 0 < at <= 1:
            raise InputError("at must be a number above 0 and at most 1")
        if ("texts" in payload) == ("matrix" in payload):
            raise InputError("a duplicates job has either texts or a matrix")
        if "texts" in payload:
            rows = await self._bench.embed(read.texts(payload))
        else:
            rows = await asyncio.to_thread(read.matrix, payload)
        device = self._bench.device.torch_device
        matrix = await self._bench.core.call(
            lambda: vectors.unit(torch.from_numpy(rows).to(device))
        )
        return {"pairs": await self._pairs(matrix, float(at))}

    async def _pairs(self, matrix: Tensor, at: float) -> list[Pair]:
        pairs: list[Pair] = []
        for first in range(0, len(matrix), BLOCK_ROWS):
            last = min(first + BLOCK_ROWS, len(matrix))
            block = Block(matrix=matrix, first=first, last=last, at=at)
            (found,) = await self._work.submit(
                [block], [(last - first) * vectors.COLUMNS], bulk=True
            )
            if found is None or len(pairs) + len(found) > PAIRS_MAX:
                raise InputError(f"more than {PAIRS_MAX:,} pairs are at {at} or above: raise it")
            pairs += found
        return pairs


@torch.inference_mode()
def compute(blocks: list[Block]) -> list[list[Pair] | None]:
    """The pairs of each block; None: there are more than PAIRS_MAX."""
    return [_of(one) for one in blocks]


def _of(block: Block) -> list[Pair] | None:
    found = vectors.near(block.matrix, block.first, block.last, block.at, PAIRS_MAX)
    if found is None:
        return None
    lists = (part.tolist() for part in found)
    return sorted([left, right, score] for left, right, score in zip(*lists, strict=True))
