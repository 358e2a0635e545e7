"""Vectors from the embedding worker, over the bus."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from base import streams
from base.bus import Bus
from base.deadline import Deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """`matrix`: float32 (n, dim), a row a text, each of length 1; `model` names whose they are."""

    model: str
    matrix: NDArray[np.float32]


class Embedder:
    """Asks the worker. Every call raises NoAnswerError when it does not run."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def embed(
        self, texts: Sequence[str], priority: Literal["query", "bulk"], deadline: Deadline
    ) -> Vectors:
        """1 to 512 texts. Raises InputError."""
        payload = {"verb": "embed", "texts": list(texts), "priority": priority}
        found = await self._bus.ask(streams.SERVICE_EMBED, payload, deadline=deadline)
        raw = np.frombuffer(base64.b64decode(found["vectors"]), dtype="<f4")
        return Vectors(model=found["model"], matrix=raw.reshape(len(texts), found["dim"]))

    async def info(self, deadline: Deadline) -> dict[str, Any]:
        """What the worker says of itself."""
        return await self._bus.ask(streams.SERVICE_EMBED, {"verb": "info"}, deadline=deadline)
