"""Agents: who there is, in which state, and an admin's hand on them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from base import roster, streams
from base.errors import NotFoundError, UnknownAgentError
from base.messages import Wire
from base.store import Row
from portal.auth import Caller, admin_only
from portal.desk import Desk
from portal.stuck import STALE_S
from portal.trail import event
from portal.work import Task


class Agent(Wire):
    """status `offline`: no heartbeat for a minute, or none ever."""

    name: str
    title: str
    capabilities: list[str]
    level: int | str
    status: str
    paused: bool
    last_heartbeat: datetime | None
    current_task_id: str | None


class AgentWhole(Wire):
    agent: Agent
    current_task: Task | None


class Told(Wire):
    ok: bool


async def agents(desk: Desk, caller: Caller) -> list[Agent]:
    """Every agent of the roster, the supervisor first, with its last known state."""
    known = roster.load(desk.settings)
    beats = await desk.store.fetch(
        "SELECT h.*, now() - h.last_heartbeat > $1::float * interval '1 second' AS stale,"
        " EXISTS (SELECT FROM tasks t WHERE t.id = h.current_task_id AND t.user_id = $2) AS mine"
        " FROM agent_heartbeats h",
        *(STALE_S, caller.user_id),
    )
    seen = {row["agent_name"]: row for row in beats}
    specs = [known.supervisor, *known.agents.values()]
    return [_agent(spec, seen.get(spec.name), caller) for spec in specs]


async def agent(desk: Desk, caller: Caller, name: str) -> Agent:
    """Raises NotFoundError for a name that is not on the roster."""
    for one in await agents(desk, caller):
        if one.name == name:
            return one
    known = tuple(one.name for one in await agents(desk, caller))
    raise NotFoundError(str(UnknownAgentError(name, known)))


async def agent_whole(desk: Desk, caller: Caller, name: str) -> AgentWhole:
    """The agent with the task it is at, when that is the caller's."""
    found = await agent(desk, caller, name)
    row: Row | None = None
    if found.current_task_id is not None:
        row = await desk.store.fetchrow(
            "SELECT * FROM tasks WHERE id = $1 AND user_id = $2",
            *(found.current_task_id, caller.user_id),
        )
    return AgentWhole(agent=found, current_task=Task(**row) if row is not None else None)


async def agents_health(desk: Desk, caller: Caller) -> dict[str, str]:
    """Each agent: ok, stale or unknown."""
    return {
        one.name: "unknown"
        if one.last_heartbeat is None
        else "stale"
        if one.status == "offline"
        else "ok"
        for one in await agents(desk, caller)
    }


async def control(
    desk: Desk, caller: Caller, name: str, verb: str, *, key: str | None = None
) -> dict[str, Any]:
    """start, restart, pause or resume an agent. Raises ForbiddenError unless an admin asks, and
    ConflictError at a start of what runs.
    """
    admin_only(caller)
    found = await agent(desk, caller, name)

    async def ask() -> dict[str, Any]:
        what = event(
            "action", "execute", f"agents/{found.name}/{verb}", caller=caller, risk="medium"
        )
        async with desk.written(what):
            if verb in {"restart", "start"}:
                return await desk.ask(streams.SERVICE_WATCH, verb=verb, agent=found.name)
            return await desk.ask(
                streams.SERVICE_SUPERVISOR, verb="control", agent=found.name, control=verb
            )

    answer: dict[str, Any] = await desk.once(caller, key, [verb, found.name], ask)
    return answer


def _agent(spec: roster.AgentSpec, beat: Row | None, caller: Caller) -> Agent:
    alive = beat is not None and not beat["stale"] and beat["status"] not in {"stopped", "unknown"}
    metrics = (beat or {}).get("metrics") or {}
    mine = beat is not None and (beat["mine"] or caller.admin)
    return Agent(
        name=spec.name,
        title=spec.title,
        capabilities=list(spec.capabilities),
        level=spec.level,
        status=beat["status"] if beat is not None and alive else "offline",
        paused=bool(metrics.get("paused", False)),
        last_heartbeat=beat["last_heartbeat"] if beat is not None else None,
        current_task_id=beat["current_task_id"] if beat is not None and mine else None,
    )
