"""The embedding worker as the keeper sees it: it may be away, and it may have another model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

from base import log
from base.deadline import Deadline
from base.errors import BusError, InputError
from base.store import Store
from pai.embed import Embedder, Vectors
from pai.warm import Warm

#: A query waits for its vector this long, then words alone decide.
QUERY_S = 1.5
BULK_S = 60.0
START_S = 1.0
#: After it did not answer, nobody waits for it again before that.
AWAY_S = 5.0
#: Texts in one request.
BATCH = 256
#: Until the first answer of a worker: a place without vectors.
NO_MODEL, NO_DIM = "none", 1

logger = log.get(__name__)


class Meaning:
    """Texts to vectors, and which model they are of. Make it, then `start`."""

    def __init__(self, embedder: Embedder, store: Store, warm: Warm) -> None:
        self._embedder = embedder
        self._store = store
        self._warm = warm
        self._away_until_s = 0.0
        self.model, self.dim = NO_MODEL, NO_DIM

    @property
    def away(self) -> bool:
        return time.monotonic() < self._away_until_s

    async def start(self) -> None:
        """Open the warm store for the worker's model, or the one that was last in use.

        Raises WarmError.
        """
        row = await self._store.fetchrow("SELECT model, dim FROM memory_model")
        if row is not None:
            self.model, self.dim = row["model"], row["dim"]
        try:
            vectors = await self._embedder.embed(["ready"], "query", Deadline.after(START_S))
        except (BusError, InputError) as error:
            logger.warning("starting without the embedding worker", error=str(error))
            self._away_until_s = time.monotonic() + AWAY_S
            await self._warm.prepare(self.dim, self.model)
        else:
            await self._change(vectors.model, vectors.matrix.shape[1])

    async def of(
        self, texts: Sequence[str], priority: Literal["query", "bulk"], wait_s: float
    ) -> Vectors | None:
        """Their vectors; None when the worker does not answer in time. Up to `BATCH` texts."""
        if self.away or not texts:
            return None
        try:
            vectors = await self._embedder.embed(texts, priority, Deadline.after(wait_s))
        except (BusError, InputError) as error:
            logger.warning("going on without vectors", error=str(error))
            self._away_until_s = time.monotonic() + AWAY_S
            return None
        if vectors.model != self.model:
            await self._change(vectors.model, vectors.matrix.shape[1])
        return vectors

    async def info(self, deadline: Deadline) -> dict[str, Any]:
        """What the worker says of itself. Raises BusError when it is away."""
        return await self._embedder.info(deadline)

    async def _change(self, model: str, dim: int) -> None:
        """This model from now on; what is stored of another is made anew by maintenance."""
        if model != self.model:
            logger.info("embedding model", model=model, dim=dim, before=self.model)
        await self._warm.prepare(dim, model)
        await self._store.execute(
            "INSERT INTO memory_model (model, dim) VALUES ($1, $2)"
            " ON CONFLICT (one) DO UPDATE SET model = EXCLUDED.model, dim = EXCLUDED.dim",
            *(model, dim),
        )
        self.model, self.dim = model, dim
