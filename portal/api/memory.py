"""Memory: search it, add to it, forget; and what people say of an answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query

from pai.shapes import Browse, Card, Collection, Found, Page, Tier
from portal import feedback, memory
from portal.api.responses import may
from portal.door import Asking, At, Key, need
from portal.shapes import EditMemory, Feedback, Forget, Instant, Remember, Search, Text

router = APIRouter()
#: ALGORITHM: what is about the whole way of working, most of what a PAI folder brings.
LearnedIn = Literal["OBSERVE", "THINK", "PLAN", "BUILD", "EXECUTE", "VERIFY", "LEARN", "ALGORITHM"]


@router.post(
    "/memory/search", tags=["memory"], summary="Search memory", dependencies=[need("memory:read")]
)
async def search(desk: At, caller: Asking, body: Search) -> Found:
    """What is remembered about it, best first, each with where it is from."""
    return await memory.search(desk, caller, body)


@router.get(
    "/memory/learnings",
    tags=["memory"],
    summary="List learnings",
    dependencies=[need("memory:read")],
)
async def learnings(
    desk: At,
    caller: Asking,
    phase: LearnedIn | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> memory.Learnings:
    """What the caller's tasks taught, youngest first."""
    return await memory.learnings(desk, caller, phase, limit)


@router.get(
    "/memory/stats",
    tags=["memory"],
    summary="Count memories",
    responses=may(403),
    dependencies=[need("memory:read")],
)
async def stats(desk: At, caller: Asking, everybody: bool = False) -> dict[str, Any]:
    """How much is remembered, and where; of everybody (admin)."""
    return await memory.stats(desk, caller, everybody=everybody)


@router.post(
    "/memory",
    status_code=201,
    tags=["memory"],
    summary="Remember",
    responses=may(403, 409),
    dependencies=[need("memory:write")],
)
async def remember(desk: At, caller: Asking, body: Remember, key: Key = None) -> memory.Remembered:
    """Keep something, or a document in pieces."""
    return await memory.remember(desk, caller, body, key=key)


@router.get("/memory", tags=["memory"], summary="Browse memory", dependencies=[need("memory:read")])
async def browse(
    desk: At,
    caller: Asking,
    tier: Annotated[list[Tier], Query()] = [],  # noqa: B006 (FastAPI copies it)
    collection: Annotated[list[Collection], Query()] = [],  # noqa: B006
    agent: Annotated[Text | None, Query(max_length=100)] = None,
    kind: Annotated[Text | None, Query(max_length=40)] = None,
    phase: LearnedIn | None = None,
    since: Instant | None = None,
    order: Literal["newest", "used", "utility"] = "newest",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Page:
    """What there is, without a question: newest, most used or least useful first."""
    wanted = Browse(
        user_id=caller.user_id, tiers=tuple(tier), collections=tuple(collection), agent=agent,
        kind=kind, phase=phase, since=since, order=order, limit=limit, after=cursor,
    )  # fmt: skip
    return await memory.browse(desk, caller, wanted)


@router.get(
    "/memory/{memory_id:uuid}",
    tags=["memory"],
    summary="Get a memory",
    responses=may(404),
    dependencies=[need("memory:read")],
)
async def card(desk: At, caller: Asking, memory_id: UUID) -> Card:
    """One memory with what became of it."""
    return await memory.card(desk, caller, str(memory_id))


@router.patch(
    "/memory/{memory_id:uuid}",
    tags=["memory"],
    summary="Edit a memory",
    responses=may(404, 409),
    dependencies=[need("memory:write")],
)
async def edit(desk: At, caller: Asking, memory_id: UUID, body: EditMemory) -> dict[str, Any]:
    """Change what it says: its card now, and what still has the old text."""
    return await memory.edit(desk, caller, str(memory_id), body)


@router.post(
    "/memory/forget",
    tags=["memory"],
    summary="Forget several",
    responses=may(403, 404),
    dependencies=[need("memory:write")],
)
async def forget_all(desk: At, caller: Asking, body: Forget) -> dict[str, Any]:
    """Remove these everywhere, or none of them; the answer proves it."""
    return await memory.forget(desk, caller, [str(one) for one in body.ids], shared=body.shared)


@router.delete(
    "/memory/{memory_id:uuid}",
    tags=["memory"],
    summary="Forget",
    responses=may(404),
    dependencies=[need("memory:write")],
)
async def forget(desk: At, caller: Asking, memory_id: UUID) -> dict[str, Any]:
    """Remove it everywhere; the answer proves it."""
    return await memory.forget(desk, caller, [str(memory_id)])


@router.post(
    "/messages/{message_id}/feedback",
    status_code=202,
    tags=["conversations"],
    summary="Rate an answer",
    responses=may(404, 409),
    dependencies=[need("tasks:write")],
)
async def give(desk: At, caller: Asking, message_id: UUID, body: Feedback) -> feedback.Heard:
    """Say how good an answer was. Safe to send twice."""
    return await feedback.give(desk, caller, str(message_id), body)
