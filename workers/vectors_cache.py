"""Vectors in Redis by model and content, so that a text is computed once in 30 days.

Trouble with Redis never fails a request: what cannot be looked up counts as not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from base import log, streams
from base.bus import Bus
from base.errors import BusError

KEEP_S = 30 * 24 * 3600
#: A look-up that takes longer is given up: computing is faster.
PATIENCE_S = 0.5

logger = log.get("embed")

Vector = NDArray[np.float32]


class Cache:
    """Of one model. Values are the raw bytes of little-endian float32."""

    def __init__(self, bus: Bus, model: str, dim: int) -> None:
        self._bus = bus
        self._prefix = f"{streams.EMBEDDING_PREFIX}{model}:"
        self._bytes = dim * 4
        self.hits = 0
        self.misses = 0

    def key(self, text: str) -> str:
        raw = text.encode("utf-8", "surrogatepass")
        return self._prefix + hashlib.sha256(raw).hexdigest()[:32]

    async def find(self, texts: Sequence[str]) -> dict[str, Vector]:
        """Those of the texts that are there."""
        found: dict[str, Vector] = {}
        try:
            async with asyncio.timeout(PATIENCE_S):
                (values,) = await self._bus.call(("MGET", *[self.key(text) for text in texts]))
        except (BusError, TimeoutError) as error:
            logger.debug("could not look up vectors", error=str(error) or "no answer in time")
        else:
            for text, value in zip(texts, values, strict=True):
                if value is not None and len(value) == self._bytes:
                    found[text] = np.frombuffer(value, dtype="<f4")
        self.hits += len(found)
        self.misses += len(texts) - len(found)
        return found

    def keep(self, vectors: Mapping[str, Vector]) -> None:
        """Store them without waiting."""
        commands = [
            ("SET", self.key(text), vector.astype("<f4", copy=False).tobytes(), "EX", KEEP_S)
            for text, vector in vectors.items()
        ]
        with contextlib.suppress(BusError):  # the bus is closed: the process ends
            self._bus.post(*commands)
