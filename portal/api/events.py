"""The live view over HTTP: a page of events, or all that come."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request

from base.errors import InputError
from base.messages import Event, Wire
from portal.auth import Caller
from portal.desk import Desk
from portal.door import Asking, At, need
from portal.feed import visible
from portal.follow import MEDIA_TYPE, Follow

router = APIRouter(tags=["events"])
NEWEST_LOOK = 1_000
STREAM = {
    "description": "The events; with `Accept: text/event-stream` they follow live.",
    "content": {
        MEDIA_TYPE: {
            "schema": {"type": "string"},
            "example": 'id: 1764340000000-0\ndata: {"kind": "task", "agent": "code", …}\n\n',
        }
    },
}


class EventAt(Wire):
    """An event and its cursor."""

    event_id: str
    event: Event


class Events(Wire):
    """`cursor`: ask with it for what comes next. `gap`: events before these are gone."""

    events: list[EventAt]
    cursor: str
    gap: bool


@router.get(
    "/events",
    summary="Read or follow events",
    response_model=Events,
    responses={200: STREAM},
    dependencies=[need("tasks:read")],
)
async def events(
    desk: At,
    caller: Asking,
    request: Request,
    after: Annotated[str | None, Query(max_length=50)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    root_id: UUID | None = None,
) -> Any:
    """The caller's events after a cursor, without one the newest; oldest first. `root_id`: of one
    request alone.

    With `Accept: text/event-stream` they follow live as server-sent events, after `Last-Event-ID`
    when that is sent: a comment after each quiet 15 s, an event `resync` when that id is too old.
    The stream ends when the session does, and counts as an open socket.
    """
    cursor = request.headers.get("last-event-id") or after
    root = str(root_id) if root_id is not None else None
    try:
        kept = cursor is None or await desk.feed.has(cursor)
    except ValueError as error:
        raise InputError(f"after: {error}") from error
    if MEDIA_TYPE in request.headers.get("accept", ""):
        return Follow(desk, caller, cursor, root)
    if cursor is None:
        return await _newest(desk, caller, limit, root)
    found: list[EventAt] = []
    at = cursor
    while len(found) < limit and (page := await desk.bus.events_after(at)):
        for at, event in page:
            if visible(event, caller.user_id) and root in {None, event.root_id}:
                found.append(EventAt(event_id=at, event=event))
            if len(found) == limit:
                break
    return Events(events=found, cursor=at, gap=not kept)


async def _newest(desk: Desk, caller: Caller, limit: int, root: str | None) -> Events:
    newest = await desk.bus.newest_events(NEWEST_LOOK)
    found = [
        EventAt(event_id=at, event=event)
        for at, event in newest
        if visible(event, caller.user_id) and root in {None, event.root_id}
    ]
    cursor = newest[-1][0] if newest else desk.feed.position
    return Events(events=found[-limit:], cursor=cursor, gap=False)
