"""How every other process asks the keeper. Nothing here opens a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from base import streams
from base.bus import Bus
from base.deadline import Deadline
from base.errors import BusError
from base.messages import Message, Type
from pai.shapes import Browse, Card, Edit, Found, Item, Memory, Page, Query, Signal, Told

SEARCH_S = 5.0
WRITE_S = 10.0
FORGET_S = 60.0


class MemoryClient:
    """Asks over the bus. Every call raises NoAnswerError when the keeper does not run."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def search(self, query: Query, deadline: Deadline | None = None) -> Found:
        """What is remembered about it. Raises InputError for a query that cannot be."""
        given = {"query": query.model_dump(mode="json")}
        return _found(await self._ask("search", given, deadline, SEARCH_S))

    async def learnings(self, query: Query, deadline: Deadline | None = None) -> tuple[Item, ...]:
        """The learnings whose trigger matches the situation in `query.text` of `query.agent`, best
        first, no task or agent having supplied more than a fifth of them (`pai/learn.py`).
        """
        given = {"query": query.model_dump(mode="json")}
        return _found(await self._ask("learnings", given, deadline, SEARCH_S)).items

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

    async def write(
        self,
        text: str,
        *,
        kind: str,
        tags: Sequence[str],
        user_id: str,
        agent: str,
        task_id: str,
        tainted: bool,
    ) -> str:
        """Remember what an agent wrote down in a task; its id. A hot memory."""
        given = {"text": text, "kind": kind, "tags": list(tags), "tainted": tainted}
        given |= {"user_id": user_id, "agent": agent, "task_id": task_id}
        return str((await self._ask("write", given, None, WRITE_S))["id"])

    async def running(self) -> bool:
        """Whether there is a keeper here, so that an ask is worth waiting for."""
        return await self._bus.served(streams.SERVICE_MEMORY)

    async def forget(self, user_id: str, ids: Sequence[str]) -> dict[str, Any]:
        """Remove them everywhere; the proof: for each id what was removed from where and that
        nothing is found of it any more. Raises NotFoundError, having removed nothing, when one
        is not that user's.
        """
        return await self._ask("forget", {"user_id": user_id, "ids": list(ids)}, None, FORGET_S)

    async def browse(self, wanted: Browse) -> Page:
        """A page of what there is. Raises InputError."""
        given = {"wanted": wanted.model_dump(mode="json")}
        return Page.model_validate(await self._ask("browse", given, None, SEARCH_S))

    async def about(self, user_id: str, ids: Sequence[str]) -> list[Card]:
        """The cards of those ids that the user may see; others are left out."""
        found = await self._ask("about", {"user_id": user_id, "ids": list(ids)}, None, SEARCH_S)
        return [Card.model_validate(one) for one in found["cards"]]

    async def edit(self, wanted: Edit) -> dict[str, Any]:
        """Change what one says: its `card` now, and what has the old text still (`kept`).

        Raises NotFoundError when it is not that user's, ConflictError when it changed meanwhile.
        """
        return await self._ask("edit", {"edit": wanted.model_dump(mode="json")}, None, WRITE_S)

    async def stats(self, user_id: str | None = None) -> dict[str, Any]:
        """Counts by tier and collection, sizes, limits, re-embedding, cache hit rate, workers.
        None: of everybody, for the owner.
        """
        return await self._ask("stats", {"user_id": user_id}, None, SEARCH_S)

    async def export(
        self, user_id: str, after: str | None = None
    ) -> tuple[list[Memory], list[Signal], str | None]:
        """A page of everything that user has, of every tier, and of the ratings that were given;
        None at last: that was all, else where the next page begins.
        """
        found = await self._ask("export", {"user_id": user_id, "after": after}, None, FORGET_S)
        return (
            [Memory.model_validate(one) for one in found["memories"]],
            [Signal.model_validate(one) for one in found["signals"]],
            found["next"],
        )

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


def _found(answer: dict[str, Any]) -> Found:
    try:
        return Found.model_validate(answer)
    except ValidationError as error:
        raise BusError(f"memory gave no such answer: {error.errors()[0]['msg']}") from error


def told(source: str, what: Told) -> Message:
    """`what` as a message for the stream `memory`; publish it by the bus or the outbox."""
    return Message(
        source=source,
        target=streams.SERVICE_MEMORY,
        type=Type.LEARN,
        payload=what.model_dump(mode="json"),
    )
