"""Agents: who there is, what they do, and an admin's hand on them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query

from base.messages import Wire
from portal import crew, fleet, logs
from portal.api.responses import may
from portal.door import Admin, Asking, At, Key, need

router = APIRouter(prefix="/agents", tags=["agents"])


Name = Annotated[str, Path(max_length=50, examples=["code"])]


class Agents(Wire):
    agents: list[crew.Agent]


@router.get("", summary="List agents", dependencies=[need("agents:read")])
async def agents(desk: At, caller: Asking) -> Agents:
    """Every agent of the roster with its state."""
    return Agents(agents=await crew.agents(desk, caller))


#: Beside `/agents/{name}`, which an agent may be called by any word of.
fleet_router = APIRouter(tags=["agents"])


@fleet_router.get("/fleet", summary="The whole fleet", dependencies=[need("agents:read")])
async def whole_fleet(desk: At, caller: Asking) -> fleet.Fleet:
    """Each agent with what it does, what it costs today, and why it is stuck, if it is."""
    return await fleet.fleet(desk, caller)


@router.get(
    "/{name}", summary="Get an agent", responses=may(404), dependencies=[need("agents:read")]
)
async def agent(desk: At, caller: Asking, name: Name) -> crew.AgentWhole:
    """One agent and the task it is at, if that is yours."""
    return await crew.agent_whole(desk, caller, name)


@router.get("/{name}/logs", summary="Read a log", responses=may(404), dependencies=[need("admin")])
async def log(
    desk: At,
    caller: Admin,
    name: Name,
    lines: Annotated[int, Query(ge=1, le=2000)] = 200,
    words: Annotated[str, Query(max_length=200)] = "",
    level: Literal["debug", "info", "warning", "error"] = "debug",
) -> logs.Log:
    """The end of a program's log file, an agent's or a service's (admin)."""
    return await logs.tail(desk, caller, name, lines=lines, words=words, level=level)


HAND: dict[str, Any] = {"responses": may(403, 404, 409), "dependencies": [need("admin")]}


@router.post("/{name}/start", summary="Start an agent", **HAND)
async def start(desk: At, caller: Admin, name: Name, key: Key = None) -> crew.Told:
    """Its window anew, after it has ended or was given up (admin). 409 while it runs."""
    return crew.Told(**await crew.control(desk, caller, name, "start", key=key))


@router.post("/{name}/restart", summary="Restart an agent", **HAND)
async def restart(desk: At, caller: Admin, name: Name, key: Key = None) -> crew.Told:
    """Its window anew (admin). Its task goes on where the journal ends."""
    return crew.Told(**await crew.control(desk, caller, name, "restart", key=key))


@router.post("/{name}/pause", summary="Pause an agent", **HAND)
async def pause(desk: At, caller: Admin, name: Name, key: Key = None) -> crew.Told:
    """No further step until it may go on (admin)."""
    return crew.Told(**await crew.control(desk, caller, name, "pause", key=key))


@router.post("/{name}/resume", summary="Let an agent go on", **HAND)
async def resume(desk: At, caller: Admin, name: Name, key: Key = None) -> crew.Told:
    """It may go on (admin)."""
    return crew.Told(**await crew.control(desk, caller, name, "resume", key=key))
