"""Agents: who there is, what they do, and an admin's hand on them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path

from base.messages import Wire
from portal import crew
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


@router.get(
    "/{name}", summary="Get an agent", responses=may(404), dependencies=[need("agents:read")]
)
async def agent(desk: At, caller: Asking, name: Name) -> crew.AgentWhole:
    """One agent and the task it is at, if that is yours."""
    return await crew.agent_whole(desk, caller, name)


@router.post(
    "/{name}/{verb}",
    summary="Restart, pause or resume an agent",
    responses=may(403, 404, 409),
    dependencies=[need("admin")],
)
async def control(
    desk: At,
    caller: Admin,
    name: Name,
    verb: Literal["restart", "pause", "resume"],
    key: Key = None,
) -> crew.Told:
    """An admin's hand on an agent: its window anew, or no further step until it may go on."""
    return crew.Told(**await crew.control(desk, caller, name, verb, key=key))
