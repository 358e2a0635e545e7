"""The service `score`: one question, one job; what jobs there are is in `workers/jobs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from base.bus import Bus
from base.deadline import Deadline
from base.errors import InputError
from base.settings import Settings
from pai.embed import Embedder
from workers.batch import Core
from workers.device import Device
from workers.jobs import JOBS
from workers.jobs.bench import Bench, Embed

#: Questions that wait together; what they cost is limited by the core.
CONCURRENCY = 128
EMBED_S = 60.0
EMBED_TEXTS = 512


class Score:
    """Every job, made once. `answer` is what the bus serves."""

    def __init__(self, core: Core, device: Device, settings: Settings, embed: Embed) -> None:
        bench = Bench(core=core, device=device, settings=settings, embed=embed)
        self._jobs = {name: make(bench) for name, make in JOBS.items()}

    async def answer(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Raises InputError for a verb that is no job, or a payload that the job cannot take."""
        verb = payload.get("verb")
        if verb == "info":
            return {"jobs": {name: job.info() for name, job in self._jobs.items()}}
        if not isinstance(verb, str) or (job := self._jobs.get(verb)) is None:
            raise InputError(f"no job {verb!r}; there are: info, {', '.join(self._jobs)}")
        return await job.answer(payload)


def embed_over(bus: Bus) -> Embed:
    """Vectors of texts by the service `embed`, wherever it runs."""
    embedder = Embedder(bus)

    async def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        priority: Literal["query", "bulk"] = "query" if len(texts) == 1 else "bulk"
        parts = []
        for start in range(0, len(texts), EMBED_TEXTS):
            some = texts[start : start + EMBED_TEXTS]
            found = await embedder.embed(some, priority, Deadline.after(EMBED_S))
            parts.append(found.matrix)
        return np.concatenate(parts)

    return embed
