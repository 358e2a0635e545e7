"""How every other process asks the keeper. Nothing here opens a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from base import streams
from base.bus import Bus
from base.deadline import Deadline
from base.messages import Message, Type
from pai.shapes import Found, Item, Memory, Query, Told

SEARCH_S = 5.0
WRITE_S = 10.0
FORGET_S = 60.0


class MemoryClient:
    """Asks over the bus. Every call raises NoAnswerError when the keeper does not run."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def search(self, query: Query, deadline: Deadline | None = None) -> Found:
        """What is remembered about it. Raises InputError for a query that cannot be."""
        return Found.model_validate(
            await self._ask("search", {"query": query.model_dump(mode="json")}, deadline, SEARCH_S)
        )

    async def learnings(self, query: Query, deadline: Deadline | None = None) -> tuple[Item, ...]:
        """The learnings whose trigger matches the situation in `query.text`, best first, no
        task or agent having supplied more than a fifth of them.
        """
        given = {"query": query.model_dump(mode="json")}
        found = await self._ask("learnings", given, deadline, SEARCH_S)
        return Found.model_validate(found).items

    async def recent(
        self, user_id: str, *, phase: str | None = None, limit: int = 50
    ) -> tuple[Memory, ...]:
        """That user's youngest learnings, youngest first."""
        given = {"user_id": user_id, "phase": phase, "limit": limit}
        found = await self._ask("recent", given, None, SEARCH_S)
        return tuple(Memory.model_validate(one) for one in found["memories"])

    async def remember(self, *memories: Memory) -> list[str]:
        """Store them; the id under which each now is (that of the one it was merged into)."""
        given = {"memories": [one.model_dump(mode="json") for one in memories]}
        ids: list[str] = (await self._ask("remember", given, None, WRITE_S))["ids"]
        return ids

    async def forget(self, user_id: str, ids: Sequence[str]) -> dict[str, Any]:
        """Remove them everywhere; the proof: for each id what was removed from where and that
        nothing is found of it any more. Raises NotFoundError, having removed nothing, when one
        is not that user's.
        """
        return await self._ask("forget", {"user_id": user_id, "ids": list(ids)}, None, FORGET_S)

    async def stats(self, user_id: str | None = None) -> dict[str, Any]:
        """Counts by tier and collection, sizes, limits, re-embedding, cache hit rate, workers.
        None: of everybody, for the owner.
        """
        return await self._ask("stats", {"user_id": user_id}, None, SEARCH_S)

    async def maintain(self) -> dict[str, Any]:
        """One pass of maintenance now; how many moved, merged and left."""
        return await self._ask("maintain", {}, None, 600.0)

    async def _ask(
        self, verb: str, payload: dict[str, Any], deadline: Deadline | None, limit_s: float
    ) -> dict[str, Any]:
        return await self._bus.ask(
            streams.SERVICE_MEMORY,
            {"verb": verb, **payload},
            deadline=deadline or Deadline.after(limit_s),
        )


def told(source: str, what: Told) -> Message:
    """`what` as a message for the stream `memory`; publish it by the bus or the outbox."""
    return Message(
        source=source,
        target=streams.SERVICE_MEMORY,
        type=Type.LEARN,
        payload=what.model_dump(mode="json"),
    )
