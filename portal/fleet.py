"""The fleet at a glance: each agent with what it does, what it costs, and why it is stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from base import roster
from base.messages import Wire
from portal import crew, spending
from portal.auth import Caller
from portal.desk import Desk
from portal.stuck import Signs, Trouble, trouble


class Standing(Wire):
    """One agent. The task's title, tool and progress only for whose it is, and for admins;
    root_id: the request it belongs to, where that is the caller's own.

    window: the watchdog's word for its program, None when it is silent; cpu_percent of one
    processor, with all that the agent started. queue: messages on its stream, those in hand
    included; waiting: pieces of work that only it can begin. Spending is today's, UTC;
    what the rehearsal model would have cost is left out of it.
    """

    agent: crew.Agent
    window: str | None
    restarts: int
    since: datetime | None
    pid: int | None
    cpu_percent: float | None
    rss_bytes: int | None
    heartbeat_age_s: float | None
    root_id: str | None
    title: str | None
    phase: str | None
    progress: float | None
    tool: str | None
    tool_since: datetime | None
    last_event_at: datetime | None
    approvals: int
    queue: int
    waiting: int
    model_calls: int
    tokens: int
    cost_usd: float
    trouble: Trouble | None


class Fleet(Wire):
    """`watchdog`: whether the one that restarts programs answers."""

    watchdog: bool
    at: datetime
    agents: list[Standing]


async def fleet(desk: Desk, caller: Caller) -> Fleet:
    """Every agent of the roster, the supervisor first."""
    agents = await crew.agents(desk, caller)
    names = [one.name for one in agents if one.name != roster.SUPERVISOR]
    ids = [one.current_task_id for one in agents if one.current_task_id is not None]
    activity = desk.feed.activity
    windows, depths, spent = await asyncio.gather(
        activity.windows(),
        activity.depths(names),
        spending.usage(desk, caller, *spending.days(None, None, None)),
    )
    waits, works = await asyncio.gather(_approvals(desk, caller), _waiting(desk))
    beats = await desk.store.fetch("SELECT agent_name, metrics FROM agent_heartbeats")
    tasks = await desk.store.fetch(
        "SELECT id, root_id, title, user_id = $2 AS mine FROM tasks WHERE id = ANY($1)",
        *(ids, caller.user_id),
    )
    of_id = {row["id"]: row for row in tasks}
    now = datetime.now(UTC)
    known = {row["agent_name"]: row["metrics"] or {} for row in beats}
    found = []
    for one in agents:
        used = spending.sums([row for row in spent.usage if row.agent == one.name])
        depth = depths.get(one.name)
        window = (windows or {}).get(one.name) or {}
        standing = _standing(desk, one, window, known.get(one.name, {}), now)
        task = of_id.get(one.current_task_id or "", {})
        standing["root_id"] = task.get("root_id") if task.get("mine") else None
        standing["title"] = task.get("title") or standing["title"]
        standing |= {
            "approvals": waits.get(one.name, 0),
            "queue": depth.now if depth else 0,
            "waiting": works.get(one.name, 0),
            "model_calls": used.requests,
            "tokens": used.tokens,
            "cost_usd": used.cost_usd,
        }
        before = depth.before if depth else None
        found.append(Standing(**standing, trouble=trouble(_signs(desk, standing, before, now))))
    return Fleet(watchdog=windows is not None, at=now, agents=found)


def _standing(
    desk: Desk,
    one: crew.Agent,
    window: Mapping[str, Any],
    metrics: Mapping[str, Any],
    now: datetime,
) -> dict[str, Any]:
    doing = desk.feed.activity.doing(one.name)
    mine = one.current_task_id is not None and one.current_task_id == doing.task_id
    since = window.get("since")
    return {
        "agent": one,
        "window": window.get("state"),
        "restarts": int(window.get("restarts") or 0),
        "since": datetime.fromtimestamp(since, UTC) if since else None,
        "pid": window.get("pid"),
        "cpu_percent": window.get("cpu_percent"),
        "rss_bytes": window.get("rss_bytes") or metrics.get("rss_bytes") or None,
        "heartbeat_age_s": _age_s(one.last_heartbeat, now),
        "title": (doing.title or None) if mine else None,
        "phase": metrics.get("phase") if one.current_task_id else None,
        "progress": doing.progress if mine else None,
        "tool": (doing.tool or None) if mine else None,
        "tool_since": doing.tool_since if mine else None,
        "last_event_at": doing.at,
    }


def _signs(desk: Desk, standing: Mapping[str, Any], before: int | None, now: datetime) -> Signs:
    one: crew.Agent = standing["agent"]
    doing = desk.feed.activity.doing(one.name)
    busy = one.status == "busy"
    quiet_s = _age_s(doing.at, now) if busy else None
    return Signs(
        status=one.status,
        paused=one.paused,
        window=standing["window"],
        restarts=standing["restarts"],
        heartbeat_age_s=standing["heartbeat_age_s"],
        task=busy,
        quiet_s=quiet_s,
        tool_s=_age_s(doing.tool_since, now) if busy else None,
        approvals=standing["approvals"],
        waiting=standing["waiting"],
        queue=standing["queue"],
        queue_before=before,
    )


async def _approvals(desk: Desk, caller: Caller) -> dict[str, int]:
    """Requests that wait for an answer, by agent, as far as the caller may see them."""
    rows = await desk.store.fetch(
        "SELECT agent, count(*) AS n FROM approvals WHERE status = 'pending'"
        " AND expires_at > now() AND ($1 OR user_id = $2) GROUP BY agent",
        *(caller.admin, caller.user_id),
    )
    return {row["agent"]: int(row["n"]) for row in rows}


async def _waiting(desk: Desk) -> dict[str, int]:
    """Parts of plans that could begin but for their agent; a number tells nothing of them."""
    rows = await desk.store.fetch(
        "SELECT COALESCE(requested_agent, input->>'agent') AS agent, count(*) AS n"
        " FROM tasks AS t WHERE status = 'pending' AND parent_task_id IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM tasks AS d WHERE d.id = ANY(t.depends_on)"
        " AND d.status <> 'completed') GROUP BY 1"
    )
    return {row["agent"]: int(row["n"]) for row in rows if row["agent"]}


def _age_s(at: datetime | None, now: datetime) -> float | None:
    return None if at is None else max(0.0, (now - at).total_seconds())
