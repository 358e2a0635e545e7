"""What is remembered, for the one who asks. The keeper of memory does it; REST calls these."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from base.errors import ForbiddenError, InputError, NotFoundError
from base.messages import Wire
from pai.client import MemoryClient
from pai.shapes import (
    SHARED,
    Browse,
    Card,
    Collection,
    Edit,
    Found,
    Memory,
    Page,
    Query,
    Tier,
    memory_id,
)
from portal.auth import Caller, admin_only
from portal.desk import Desk
from portal.limits import PAGE_FILE_BYTES
from portal.pieces import pieces
from portal.shapes import PIECES_MAX, EditMemory, Remember, Search
from portal.trail import event

UPLOADED = {"kind": "document", "source": "upload", "knowledge": True}
DEFAULT_TIERS = (Tier.HOT, Tier.WARM)


class Remembered(Wire):
    """Under which ids it now is: what was there already keeps its own."""

    ids: list[str]


class Learnings(Wire):
    """Youngest first."""

    learnings: list[Memory]


async def search(desk: Desk, caller: Caller, asked: Search) -> Found:
    """The caller's memories and those for everybody, best first. Raises InputError."""
    filters = asked.filters
    if not asked.query.strip():
        raise InputError("there is nothing in `query` to look for")
    if filters.since and filters.until and filters.since > filters.until:
        raise InputError("`since` is later than `until`: nothing can be between them")
    tiers = filters.tier if isinstance(filters.tier, list) else [filters.tier]
    query = Query(
        text=asked.query,
        user_id=caller.user_id,
        limit=asked.limit,
        budget_tokens=asked.budget_tokens,
        tiers=tuple(tier for tier in tiers if tier is not None) or DEFAULT_TIERS,
        collections=tuple(filters.collection) or tuple(Collection),
        agent=filters.agent,
        kind=filters.kind,
        conversation_id=str(filters.conversation_id) if filters.conversation_id else None,
        since=filters.since,
        until=filters.until,
        neighbours=asked.neighbours,
    )
    return await MemoryClient(desk.bus).search(query)


async def browse(desk: Desk, caller: Caller, asked: Browse) -> Page:
    """A page of the caller's memories and those for everybody. Raises InputError."""
    wanted = asked.model_copy(update={"user_id": caller.user_id})
    return await MemoryClient(desk.bus).browse(wanted)


async def about(desk: Desk, caller: Caller, ids: list[str]) -> dict[str, Card]:
    """By id the cards of those that the caller may see."""
    found = await MemoryClient(desk.bus).about(caller.user_id, ids)
    return {card.memory.id: card for card in found}


async def card(desk: Desk, caller: Caller, id: str) -> Card:
    """Raises NotFoundError for one that is unknown or somebody else's."""
    found = await about(desk, caller, [id])
    if id not in found:
        raise NotFoundError(f"no memory {id}")
    return found[id]


async def edit(desk: Desk, caller: Caller, id: str, asked: EditMemory) -> dict[str, Any]:
    """Change what one of the caller's says: its `card` now, and what still has the old text.

    Raises NotFoundError when it is not theirs, ConflictError when it changed meanwhile.
    """
    tags = None if asked.tags is None else tuple(asked.tags)
    wanted = Edit(
        user_id=caller.user_id, id=id, text=asked.text, kind=asked.kind, tags=tags, seen=asked.seen
    )
    what = event("action", "write", f"memory/{id}", caller=caller, risk="medium")
    async with desk.written(what):
        return await MemoryClient(desk.bus).edit(wanted)


async def upload(
    desk: Desk, caller: Caller, name: str, raw: bytes, heard: Callable[[int, int], None]
) -> Remembered:
    """Keep a text file as knowledge, in pieces under its own name: sent again, its pieces take
    their own places. `heard` is told how many are kept, of how many. Raises InputError for what
    is no text, is empty, or too large.
    """
    if len(raw) > PAGE_FILE_BYTES:
        raise InputError(f"{name}: larger than {PAGE_FILE_BYTES:,} bytes; split it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: no text in UTF-8; convert it first") from error
    if "\0" in text:
        raise InputError(f"{name}: no text: it holds NUL characters")
    if not (found := await asyncio.to_thread(pieces, text)):
        raise InputError(f"{name}: there is nothing in it to remember")
    ids: list[str] = []
    for first in range(0, len(found), PIECES_MAX):
        body = {"text": found[first : first + PIECES_MAX], "first": first, "file": name[-500:]}
        part = Remember.model_validate(body | UPLOADED)
        ids += (await remember(desk, caller, part)).ids
        heard(len(ids), len(found))
    return Remembered(ids=ids)


async def learnings(desk: Desk, caller: Caller, phase: str | None, limit: int) -> Learnings:
    """What the caller's tasks taught, of one phase or of all."""
    found = await MemoryClient(desk.bus).recent(caller.user_id, phase=phase, limit=limit)
    return Learnings(learnings=list(found))


async def remember(
    desk: Desk, caller: Caller, asked: Remember, *, key: str | None = None
) -> Remembered:
    """Keep it for the caller. A file's piece has the same id each time, so that a file which is
    remembered again takes its own place. Raises ForbiddenError for `shared` from afar.
    """
    owner = _owner(caller, asked.shared)
    pieces = [asked.text] if isinstance(asked.text, str) else asked.text
    document = bool(asked.file) or not isinstance(asked.text, str)
    memories = []
    for place, text in enumerate(pieces, asked.first):
        memory = Memory(
            collection=Collection.KNOWLEDGE if asked.knowledge else Collection.MEMORIES,
            user_id=owner,
            text=text,
            kind=asked.kind,
            source=asked.source,
            domain=asked.domain,
            file=asked.file,
            tags=tuple(asked.tags),
            seq=place if document else None,
        )
        if asked.file:
            own_id = memory_id("file", caller.user_id, owner, asked.file, str(place))
            memory = memory.model_copy(update={"id": own_id})
        memories.append(memory)

    async def do() -> dict[str, Any]:
        where = "memory/shared" if asked.shared else "memory"
        risk = "medium" if asked.shared else "low"
        what = event("action", "write", where, caller=caller, risk=cast("Any", risk))
        async with desk.written(what) as details:
            details |= {"pieces": len(memories), "collection": memories[0].collection.value}
            return {"ids": await MemoryClient(desk.bus).remember(*memories)}

    request = ["remember", asked.model_dump(mode="json")]
    return Remembered(**await desk.once(caller, key, request, do))


async def forget(
    desk: Desk, caller: Caller, ids: list[str], *, shared: bool = False
) -> dict[str, Any]:
    """Remove them everywhere; the keeper's proof. Raises NotFoundError, having removed nothing,
    when one is not the caller's, and ForbiddenError for `shared` from afar.
    """
    owner = _owner(caller, shared)
    what = event("action", "delete", "memory", caller=caller, risk="medium")
    async with desk.written(what) as details:
        details |= {"count": len(ids), "ids": ids[:20]}
        return await MemoryClient(desk.bus).forget(owner, ids)


async def stats(desk: Desk, caller: Caller, *, everybody: bool) -> dict[str, Any]:
    """Counts and sizes of the caller's memories; of everybody's for an admin."""
    if everybody:
        admin_only(caller)
    return await MemoryClient(desk.bus).stats(None if everybody else caller.user_id)


def _owner(caller: Caller, shared: bool) -> str:
    """Whose memories are meant. Everybody's are the owner's business at the machine itself."""
    if shared and not caller.local:
        raise ForbiddenError("shared memories change only by the owner's own command: ai-infra")
    return SHARED if shared else caller.user_id
