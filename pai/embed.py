"""The asking side of the service `embed`: texts to vectors, over the bus."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from base import streams
from base.bus import Bus
from base.deadline import Deadline
from base.errors import BusError, InputError

#: Texts in one request; a longer list is asked for in several.
CHUNK_TEXTS = 512
#: Requests of one list at a time: the worker has the next while it answers one.
AT_ONCE = 2
QUERY_S = 5.0
BULK_S = 120.0
INFO_S = 5.0

Priority = Literal["query", "bulk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """`matrix`: (texts, dim) of float32, each row of length 1, in the order of the texts.

    Vectors of two names of `model` are never compared.
    """

    model: str
    matrix: NDArray[np.float32]


class Embedder:
    """Every call raises NoAnswerError when no embedding worker answers before the deadline."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def embed(
        self,
        texts: Sequence[str],
        priority: Priority = "query",
        deadline: Deadline | None = None,
    ) -> Vectors:
        """The vector of each text. Raises InputError for none.

        A query goes ahead of bulk. BusError when workers of two models answered.
        """
        if not texts:
            raise InputError("no texts to embed")
        limit = deadline or Deadline.after(QUERY_S if priority == "query" else BULK_S)
        free = asyncio.Semaphore(AT_ONCE)

        async def part(start: int) -> tuple[str, NDArray[np.float32]]:
            chunk = list(texts[start : start + CHUNK_TEXTS])
            asked = {"verb": "embed", "texts": chunk, "priority": priority}
            async with free:
                found = await self._bus.ask(streams.SERVICE_EMBED, asked, deadline=limit)
            raw = base64.b64decode(found["vectors"])
            return found["model"], np.frombuffer(raw, dtype="<f4").reshape(len(chunk), found["dim"])

        if len(texts) <= CHUNK_TEXTS:
            parts = [await part(0)]
        else:
            parts = await asyncio.gather(*[part(at) for at in range(0, len(texts), CHUNK_TEXTS)])
        models = {model for model, _ in parts}
        if len(models) > 1:
            raise BusError(f"workers of several models answer: {', '.join(sorted(models))}")
        return Vectors(model=models.pop(), matrix=np.concatenate([rows for _, rows in parts]))

    async def info(self, deadline: Deadline | None = None) -> dict[str, Any]:
        """What the worker says of itself; docs/memory.md lists the fields."""
        limit = deadline or Deadline.after(INFO_S)
        return await self._bus.ask(streams.SERVICE_EMBED, {"verb": "info"}, deadline=limit)
