"""Health, dead letters, metrics."""

from __future__ import annotations

import asyncio
import ipaddress
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import AwareDatetime

from base import metrics
from base.errors import AIError
from base.messages import Wire
from portal import crew, doctor, door, letters
from portal.api.responses import may
from portal.auth import admin_only
from portal.door import Admin, Asking, At, Key, need
from portal.scopes import ANY
from portal.shapes import Purge

router = APIRouter()
CHECK_S = 3.0
Stream = Annotated[str | None, Query(max_length=200)]


class Live(Wire):
    status: Literal["ok"]
    timestamp: AwareDatetime


class Ready(Wire):
    """Each part: `ok`, or why not."""

    status: Literal["ok", "degraded"]
    checks: dict[str, str]


class AgentsHealth(Wire):
    agents: dict[str, Literal["ok", "stale", "unknown"]]


class Purged(Wire):
    """How many letters went."""

    purged: int


@router.get("/health/live", tags=["health"], summary="Liveness", dependencies=[need(ANY)])
async def live() -> Live:
    """The process answers."""
    return Live(status="ok", timestamp=datetime.now(UTC))


@router.get(
    "/health/ready",
    tags=["health"],
    summary="Readiness",
    response_model=Ready,
    responses={503: {"model": Ready, "description": "Something does not answer."}},
    dependencies=[need(ANY)],
)
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


@router.get(
    "/health/agents", tags=["health"], summary="Agents' health", dependencies=[need("agents:read")]
)
async def agents_health(desk: At, caller: Asking) -> AgentsHealth:
    """Each agent: ok, stale (no heartbeat for a minute) or unknown (none ever)."""
    return AgentsHealth.model_validate({"agents": await crew.agents_health(desk, caller)})


@router.get(
    "/doctor",
    tags=["health"],
    summary="Read the doctor's last round",
    responses=may(403),
    dependencies=[need("admin")],
)
async def last_round(desk: At, caller: Admin) -> doctor.Health:
    """What the last recorded round found, faults first, and the last backup (admin)."""
    return await doctor.last(desk, caller)


@router.post(
    "/doctor",
    tags=["health"],
    summary="Have the doctor look now",
    responses=may(403, 409, 503),
    dependencies=[need("admin")],
)
async def look_now(desk: At, caller: Admin) -> doctor.Health:
    """A round now, some seconds (admin). On the appliance a timer does it: 409."""
    return await doctor.look(desk, caller)


@router.get(
    "/dlq",
    tags=["dlq"],
    summary="List dead letters",
    responses=may(403),
    dependencies=[need("admin")],
)
async def dlq(desk: At, caller: Admin, stream: Stream = None) -> letters.DeadLetters:
    """Messages that could not be handled, oldest first (admin)."""
    return await letters.dead(desk, caller, stream)


@router.post(
    "/dlq/{letter_id:path}/replay",
    tags=["dlq"],
    summary="Replay a dead letter",
    responses=may(403, 404, 409),
    dependencies=[need("admin")],
)
async def replay(desk: At, caller: Admin, letter_id: str, key: Key = None) -> letters.Dead:
    """Put a dead letter back on its stream (admin)."""
    return await letters.replay(desk, caller, letter_id, key=key)


@router.post(
    "/dlq/purge",
    tags=["dlq"],
    summary="Delete dead letters",
    responses=may(403),
    dependencies=[need("admin")],
)
async def purge(desk: At, caller: Admin, body: Purge) -> Purged:
    """Delete those of one stream, or all (admin)."""
    return Purged(purged=await letters.purge(desk, caller, body.stream))


async def metrics_page(request: Request) -> Response:
    """Prometheus text; for this machine, or an admin's token."""
    peer = request.client.host if request.client else ""
    forwarded = "x-forwarded-for" in request.headers
    if forwarded or not (peer and ipaddress.ip_address(peer).is_loopback):
        admin_only(await door.caller_of(request))
    readings = await door.desk_of(request).gauges.read()
    return Response(metrics.render(readings), media_type=metrics.CONTENT_TYPE)
