"""Health, usage, dead letters, events, metrics."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from base import metrics
from base.errors import AIError, InputError
from base.messages import Event, Wire
from portal import crew, door, letters, spending
from portal.auth import admin_only
from portal.door import Admin, Asking, At, Key, need
from portal.feed import place, visible
from portal.scopes import ANY
from portal.shapes import Purge

router = APIRouter()
CHECK_S = 3.0
SSE_BEAT_S = 15.0
ENDED_CHECK_S = 3.0
NEWEST_LOOK = 1_000


class EventAt(Wire):
    """An event and its cursor."""

    event_id: str
    event: Event


class Events(Wire):
    """`cursor`: ask with it for what comes next. `gap`: events before these are gone."""

    events: list[EventAt]
    cursor: str
    gap: bool


@router.get("/health/live", tags=["health"], dependencies=[need(ANY)])
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok", "timestamp": datetime.now(UTC).isoformat()}


@router.get("/health/ready", tags=["health"], dependencies=[need(ANY)])
async def ready(desk: At) -> JSONResponse:
    """Whether Redis and PostgreSQL answer: 200, else 503 with the reason for each."""

    async def said(question: Any) -> str:
        try:
            async with asyncio.timeout(CHECK_S):
                await question
        except (AIError, TimeoutError) as error:
            return str(error) or "no answer in time"
        return "ok"

    redis, postgres = await asyncio.gather(
        said(desk.bus.oldest_event()), said(desk.store.fetchval("SELECT 1"))
    )
    checks = {"redis": redis, "postgres": postgres}
    fine = all(state == "ok" for state in checks.values())
    body = {"status": "ok" if fine else "degraded", "checks": checks}
    return JSONResponse(body, 200 if fine else 503)


@router.get("/health/agents", tags=["health"], dependencies=[need("agents:read")])
async def agents_health(desk: At, caller: Asking) -> dict[str, dict[str, str]]:
    """Each agent: ok, stale (no heartbeat for a minute) or unknown (none ever)."""
    return {"agents": await crew.agents_health(desk, caller)}


@router.get("/usage/daily", tags=["usage"], dependencies=[need("tasks:read")])
async def daily(
    desk: At, caller: Asking, day: Annotated[date | None, Query(alias="date")] = None
) -> spending.DailyUsage:
    """Model usage of a UTC day by agent and model."""
    return await spending.usage(desk, caller, day)


@router.get("/usage/budget", tags=["usage"], dependencies=[need("tasks:read")])
async def budget(desk: At, caller: Asking) -> spending.BudgetState:
    """Today's spending against the daily limits."""
    return await spending.budget(desk, caller)


@router.get("/dlq", tags=["dlq"], dependencies=[need("admin")])
async def dlq(desk: At, caller: Admin, stream: str | None = None) -> letters.DeadLetters:
    """Messages that could not be handled, oldest first (admin)."""
    return await letters.dead(desk, caller, stream)


@router.post("/dlq/{letter_id:path}/replay", tags=["dlq"], dependencies=[need("admin")])
async def replay(desk: At, caller: Admin, letter_id: str, key: Key = None) -> letters.Dead:
    """Put a dead letter back on its stream (admin)."""
    return await letters.replay(desk, caller, letter_id, key=key)


@router.post("/dlq/purge", tags=["dlq"], dependencies=[need("admin")])
async def purge(desk: At, caller: Admin, body: Purge) -> dict[str, int]:
    """Delete dead letters (admin)."""
    return {"purged": await letters.purge(desk, caller, body.stream)}


@router.get("/events", tags=["events"], response_model=Events, dependencies=[need("tasks:read")])
async def events(
    desk: At,
    caller: Asking,
    request: Request,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    root_id: str | None = None,
) -> Any:
    """The caller's events after a cursor, without one the newest; oldest first.

    `Accept: text/event-stream` follows them live.
    """
    cursor = request.headers.get("last-event-id") or after
    try:
        kept = cursor is None or await desk.feed.has(cursor)
    except ValueError as error:
        raise InputError(f"after: {error}") from error
    if "text/event-stream" in request.headers.get("accept", ""):
        stream = _follow(desk, caller, cursor, root_id)
        return StreamingResponse(stream, media_type="text/event-stream")
    found: list[EventAt] = []
    here = desk.feed.position
    if cursor is None:
        newest = await desk.bus.newest_events(NEWEST_LOOK)
        found = [
            EventAt(event_id=at, event=event)
            for at, event in newest
            if visible(event, caller.user_id) and root_id in {None, event.root_id}
        ][-limit:]
        return Events(events=found, cursor=newest[-1][0] if newest else here, gap=False)
    at = cursor
    while len(found) < limit and (page := await desk.bus.events_after(at)):
        for at, event in page:
            if visible(event, caller.user_id) and root_id in {None, event.root_id}:
                found.append(EventAt(event_id=at, event=event))
            if len(found) == limit:
                break
    return Events(events=found, cursor=at, gap=not kept)


async def _follow(
    desk: At, caller: Asking, cursor: str | None, root_id: str | None
) -> AsyncIterator[str]:
    """Server-sent events until the client leaves, falls behind, or its session ends."""
    with desk.feed.listen(caller.user_id) as listener:
        here = desk.feed.position
        if cursor is not None:
            async for at, event in desk.feed.between(cursor, here, caller.user_id):
                if root_id in {None, event.root_id}:
                    yield f"id: {at}\ndata: {event.model_dump_json()}\n\n"
        beat_s = time.monotonic()
        while not await desk.auth.over(caller):
            try:
                async with asyncio.timeout(ENDED_CHECK_S):
                    item = await listener.get()
            except TimeoutError:
                if time.monotonic() - beat_s >= SSE_BEAT_S - ENDED_CHECK_S:
                    beat_s = time.monotonic()
                    yield ": still here\n\n"
                continue
            if item is None:
                return
            at, event = item
            if place(at) > place(here) and root_id in {None, event.root_id}:
                yield f"id: {at}\ndata: {event.model_dump_json()}\n\n"


async def metrics_page(request: Request) -> Response:
    """Prometheus text; for this machine, or an admin's token."""
    peer = request.client.host if request.client else ""
    forwarded = "x-forwarded-for" in request.headers
    if forwarded or not (peer and ipaddress.ip_address(peer).is_loopback):
        admin_only(await door.caller_of(request))
    readings = await door.desk_of(request).gauges.read()
    return Response(metrics.render(readings), media_type=metrics.CONTENT_TYPE)
