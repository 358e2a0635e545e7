"""The service `embed`: texts in, vectors out, through the cache. docs/memory.md has the seam."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from base.bus import Bus
from base.errors import InputError
from workers.vectors_cache import Cache

TEXTS_MAX = 512
#: Requests in work at a time; what they hold is bounded by the bus's own limits.
CONCURRENCY = 128


class Model(Protocol):
    """What makes vectors: a model of ours, or a provider's."""

    name: str
    dim: int
    max_tokens: int

    async def vectors(self, texts: Sequence[str], *, bulk: bool) -> NDArray[np.float32]:
        """(texts, dim), each row of length 1."""
        ...

    def about(self) -> dict[str, Any]:
        """The rest of `info`: device, dtype, tokens_per_s, batch."""
        ...


class Embed:
    """Answers requests. A text that a request has twice is computed once."""

    def __init__(self, bus: Bus, model: Model) -> None:
        self._model = model
        self._worker = bus.name
        self._cache = Cache(bus, model.name, model.dim)

    async def answer(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Raises InputError for a request that cannot be."""
        match payload.get("verb"):
            case "embed":
                return await self._embed(payload)
            case "info":
                return self.info()
            case verb:
                raise InputError(f"embed has no verb {verb!r}; there are: embed, info")

    def info(self) -> dict[str, Any]:
        model, cache = self._model, self._cache
        return {
            "worker": self._worker,
            "model": model.name,
            "dim": model.dim,
            "max_tokens": model.max_tokens,
            "ready": True,
            "cache": {"hits": cache.hits, "misses": cache.misses},
            **model.about(),
        }

    async def _embed(self, payload: dict[str, Any]) -> dict[str, Any]:
        texts, priority = payload.get("texts"), payload.get("priority", "query")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise InputError("texts must be a list of strings")
        if not 1 <= len(texts) <= TEXTS_MAX:
            raise InputError(f"{len(texts)} texts in one request; 1 to {TEXTS_MAX} can be")
        if priority not in ("query", "bulk"):
            raise InputError(f"priority {priority!r} is neither query nor bulk")
        unique = list(dict.fromkeys(texts))
        found = await self._cache.find(unique)
        if missing := [text for text in unique if text not in found]:
            made = await self._model.vectors(missing, bulk=priority == "bulk")
            fresh = dict(zip(missing, made, strict=True))
            self._cache.keep(fresh)
            found |= fresh
        matrix = np.stack([found[text] for text in texts]).astype("<f4", copy=False)
        return {
            "model": self._model.name,
            "dim": self._model.dim,
            "vectors": base64.b64encode(matrix.tobytes()).decode(),
        }
