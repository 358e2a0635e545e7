"""Agents: who there is, what they do, and an admin's hand on them."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter

from base.messages import Wire
from portal import crew
from portal.door import Admin, Asking, At, Key, need

router = APIRouter(prefix="/agents", tags=["agents"])


class Agents(Wire):
    agents: list[crew.Agent]


@router.get("", dependencies=[need("agents:read")])
async def agents(desk: At, caller: Asking) -> Agents:
    """Every agent of the roster with its state."""
    return Agents(agents=await crew.agents(desk, caller))


@router.get("/{name}", dependencies=[need("agents:read")])
async def agent(desk: At, caller: Asking, name: str) -> crew.AgentWhole:
    """One agent and the task it is at, if that is yours."""
    return await crew.agent_whole(desk, caller, name)


@router.post("/{name}/{verb}", dependencies=[need("admin")])
async def control(
    desk: At,
    caller: Admin,
    name: str,
    verb: Literal["restart", "pause", "resume"],
    key: Key = None,
) -> dict[str, Any]:
    """Restart, pause or resume an agent (admin)."""
    return await crew.control(desk, caller, name, verb, key=key)
