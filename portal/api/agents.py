"""Agents: who there is, what they do, and an admin's hand on them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from base.messages import Wire
from portal import crew, fleet, logs
from portal.door import Admin, Asking, At, Key, need

router = APIRouter(prefix="/agents", tags=["agents"])


class Agents(Wire):
    agents: list[crew.Agent]


@router.get("", dependencies=[need("agents:read")])
async def agents(desk: At, caller: Asking) -> Agents:
    """Every agent of the roster with its state."""
    return Agents(agents=await crew.agents(desk, caller))


#: Beside `/agents/{name}`, which an agent may be called by any word of.
fleet_router = APIRouter(tags=["agents"])


@fleet_router.get("/fleet", dependencies=[need("agents:read")])
async def whole_fleet(desk: At, caller: Asking) -> fleet.Fleet:
    """Each agent with what it does, what it costs today, and why it is stuck, if it is."""
    return await fleet.fleet(desk, caller)


@router.get("/{name}", dependencies=[need("agents:read")])
async def agent(desk: At, caller: Asking, name: str) -> crew.AgentWhole:
    """One agent and the task it is at, if that is yours."""
    return await crew.agent_whole(desk, caller, name)


@router.get("/{name}/logs", dependencies=[need("admin")])
async def log(
    desk: At,
    caller: Admin,
    name: str,
    lines: Annotated[int, Query(ge=1, le=2000)] = 200,
    words: Annotated[str, Query(max_length=200)] = "",
    level: Literal["debug", "info", "warning", "error"] = "debug",
) -> logs.Log:
    """The end of a program's log file, an agent's or a service's (admin)."""
    return await logs.tail(desk, caller, name, lines=lines, words=words, level=level)


@router.post("/{name}/{verb}", dependencies=[need("admin")])
async def control(
    desk: At,
    caller: Admin,
    name: str,
    verb: Literal["start", "restart", "pause", "resume"],
    key: Key = None,
) -> dict[str, Any]:
    """Start, restart, pause or resume an agent (admin)."""
    return await crew.control(desk, caller, name, verb, key=key)
