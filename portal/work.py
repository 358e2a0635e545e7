"""Tasks, agents, usage and dead letters. REST and pages call these functions."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from base import roster, streams
from base.bus import DeadLetter
from base.errors import ForbiddenError, NotFoundError, UnknownAgentError
from base.messages import Status, Wire
from base.store import Row
from portal.auth import Caller
from portal.desk import Desk
from portal.talk import identity, pack, unpack

SHIPPED_BUDGETS = Path(__file__).resolve().parent.parent / "config" / "budgets.toml"
STALE_S = 60.0
LOGS_MAX = 1_000


class Task(Wire):
    """A task of the record. Roots have type `request`, parts of a plan `subtask`."""

    id: str
    root_id: str | None
    parent_task_id: str | None
    conversation_id: str | None
    message_id: str | None
    key: str | None
    title: str | None
    type: str
    assigned_agent: str
    requested_agent: str | None
    status: Status
    priority: int
    effort: str
    pai_phase: str | None
    workspace: str
    depends_on: list[str]
    input: Any
    output: Any
    error: str | None
    verification_criteria: Any
    usage: dict[str, Any]
    budget_tokens: int | None
    budget_usd: float | None
    cancel_requested: bool
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class Note(Wire):
    """A line of a task's log."""

    task_id: str
    level: str
    message: str
    data: Any
    created_at: datetime


class Tasks(Wire):
    tasks: list[Task]
    next_cursor: str | None


class TaskWhole(Wire):
    """A task, the parts of its plan, and the newest 1,000 log lines, oldest first."""

    task: Task
    subtasks: list[Task]
    logs: list[Note]


class Agent(Wire):
    """status `offline`: no heartbeat for a minute, or none ever."""

    name: str
    title: str
    capabilities: list[str]
    level: int
    status: str
    paused: bool
    last_heartbeat: datetime | None
    current_task_id: str | None


class AgentWhole(Wire):
    agent: Agent
    current_task: Task | None


class Dead(Wire):
    """A message that could not be handled. `original_message` is text, or says its bytes."""

    id: str
    source_queue: str
    error_type: str
    error_message: str
    attempts: int
    failed_at: datetime
    original_message: str


class DeadLetters(Wire):
    letters: list[Dead]


class Usage(Wire):
    agent: str
    provider: str
    model: str
    requests: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: float
    latency_ms: float | None


class DailyUsage(Wire):
    """A UTC day. An admin sees everybody's, others their own tasks'."""

    date: date
    cost_usd: float
    requests: int
    usage: list[Usage]


class BudgetState(Wire):
    """What today's model calls cost against the daily limits; `state` ok, warning or exceeded."""

    date: date
    spent_usd: float
    warning_usd: float
    hard_limit_usd: float
    state: str


async def tasks(
    desk: Desk,
    caller: Caller,
    *,
    status: Status | None = None,
    agent: str | None = None,
    conversation_id: str | None = None,
    limit: int = 20,
    cursor: str | None = None,
) -> Tasks:
    """The caller's tasks, newest first: whole requests, or with `agent` what that agent has."""
    before, last = unpack(cursor) if cursor else (None, None)
    rows = await desk.store.fetch(
        "SELECT * FROM tasks WHERE user_id = $1 AND ($2::text IS NULL OR status = $2)"
        " AND CASE WHEN $3::text IS NULL THEN type = 'request' ELSE assigned_agent = $3 END"
        " AND ($4::uuid IS NULL OR conversation_id = $4)"
        " AND ($5::timestamptz IS NULL OR (created_at, id) < ($5, $6::uuid))"
        " ORDER BY created_at DESC, id DESC LIMIT $7",
        *(caller.user_id, status, agent, conversation_id, before, last, limit + 1),
    )
    found = [Task(**row) for row in rows[:limit]]
    more = len(rows) > limit
    return Tasks(
        tasks=found, next_cursor=pack(found[-1].created_at, found[-1].id) if more else None
    )


async def task(desk: Desk, caller: Caller, task_id: str) -> Task:
    """Raises NotFoundError for one that is unknown or somebody else's."""
    row = await desk.store.fetchrow(
        "SELECT * FROM tasks WHERE id = $1 AND user_id = $2",
        *(identity(task_id, "task"), caller.user_id),
    )
    if row is None:
        raise NotFoundError(f"no task {task_id}")
    return Task(**row)


async def task_whole(desk: Desk, caller: Caller, task_id: str) -> TaskWhole:
    """The task with its subtasks in the order of the plan, and the logs of all of them."""
    found = await task(desk, caller, task_id)
    parts = await desk.store.fetch(
        "SELECT * FROM tasks WHERE root_id = $1 AND id <> $1 AND user_id = $2"
        " ORDER BY created_at, id",
        *(found.id, caller.user_id),
    )
    ids = [found.id, *(part["id"] for part in parts)]
    logs = await desk.store.fetch(
        "SELECT task_id, level, message, data, created_at FROM task_logs"
        " WHERE task_id = ANY($1) ORDER BY created_at DESC LIMIT $2",
        *(ids, LOGS_MAX),
    )
    return TaskWhole(
        task=found,
        subtasks=[Task(**part) for part in parts],
        logs=[Note(**line) for line in reversed(logs)],
    )


async def wholes(desk: Desk, caller: Caller, root_ids: list[str]) -> list[TaskWhole]:
    """Several requests with their subtasks, without logs; unknown ones are left out."""
    rows = await desk.store.fetch(
        "SELECT * FROM tasks WHERE root_id = ANY($1) AND user_id = $2 ORDER BY created_at, id",
        *(root_ids, caller.user_id),
    )
    found = [Task(**row) for row in rows]
    roots = [task for task in found if task.id == task.root_id]
    return [
        TaskWhole(
            task=root,
            subtasks=[one for one in found if one.root_id == root.id and one.id != root.id],
            logs=[],
        )
        for root in roots
    ]


async def cancel(desk: Desk, caller: Caller, task_id: str) -> dict[str, Any]:
    """Ask the supervisor to stop it; safe to repeat."""
    found = await task(desk, caller, task_id)
    return await desk.ask(streams.SERVICE_SUPERVISOR, verb="cancel", task_id=found.id)


async def retry(
    desk: Desk, caller: Caller, task_id: str, *, key: str | None = None
) -> dict[str, Any]:
    """Run an ended request again as a new task; its id is in the answer."""
    found = await task(desk, caller, task_id)

    async def ask() -> dict[str, Any]:
        return await desk.ask(streams.SERVICE_SUPERVISOR, verb="retry", task_id=found.id)

    answer: dict[str, Any] = await desk.once(caller, key, ["retry", found.id], ask)
    return answer


async def steer(
    desk: Desk, caller: Caller, task_id: str, text: str, *, key: str | None = None
) -> dict[str, Any]:
    """Tell the agents at work on it something more."""
    found = await task(desk, caller, task_id)

    async def ask() -> dict[str, Any]:
        return await desk.ask(streams.SERVICE_SUPERVISOR, verb="steer", task_id=found.id, text=text)

    answer: dict[str, Any] = await desk.once(caller, key, ["steer", found.id, text], ask)
    return answer


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
    """restart, pause or resume an agent. Raises ForbiddenError unless an admin asks."""
    admin_only(caller)
    found = await agent(desk, caller, name)

    async def ask() -> dict[str, Any]:
        if verb == "restart":
            return await desk.ask(streams.SERVICE_WATCH, verb="restart", agent=found.name)
        return await desk.ask(
            streams.SERVICE_SUPERVISOR, verb="control", agent=found.name, control=verb
        )

    answer: dict[str, Any] = await desk.once(caller, key, [verb, found.name], ask)
    return answer


async def dead(desk: Desk, caller: Caller, stream: str | None) -> DeadLetters:
    """The dead letters of one stream or of all, oldest first (admin)."""
    admin_only(caller)
    return DeadLetters(letters=[_dead(one) for one in await desk.bus.dead(stream)])


async def replay(desk: Desk, caller: Caller, letter_id: str, *, key: str | None = None) -> Dead:
    """Put a dead letter back on its stream (admin). Raises NotFoundError for none such."""
    admin_only(caller)

    async def do() -> dict[str, Any]:
        return _dead(await desk.bus.replay(letter_id)).model_dump(mode="json")

    return Dead.model_validate(await desk.once(caller, key, ["replay", letter_id], do))


async def purge(desk: Desk, caller: Caller, stream: str | None) -> int:
    """Delete the dead letters of one stream or all; how many went (admin)."""
    admin_only(caller)
    return await desk.bus.purge(stream, older_than_days=0)


async def usage(desk: Desk, caller: Caller, day: date | None) -> DailyUsage:
    """What model calls spent on `day` (None: today, UTC), by agent and model."""
    on = day or datetime.now(UTC).date()
    rows = await desk.store.fetch(
        "SELECT u.agent, u.provider, u.model, count(*) AS requests,"
        " sum(u.input_tokens) AS input_tokens, sum(u.output_tokens) AS output_tokens,"
        " sum(u.cache_read_tokens) AS cache_read_tokens,"
        " sum(u.cache_write_tokens) AS cache_write_tokens,"
        " sum(u.cost_usd) AS cost_usd, avg(u.latency_ms)::float AS latency_ms"
        " FROM api_usage u WHERE (u.timestamp AT TIME ZONE 'UTC')::date = $1"
        " AND ($2 OR EXISTS (SELECT FROM tasks t WHERE t.id = u.task_id AND t.user_id = $3))"
        " GROUP BY 1, 2, 3 ORDER BY cost_usd DESC, 1",
        *(on, caller.admin, caller.user_id),
    )
    used = [Usage(**row) for row in rows]
    cost_usd = sum(one.cost_usd for one in used)
    return DailyUsage(
        date=on, cost_usd=cost_usd, requests=sum(one.requests for one in used), usage=used
    )


async def budget(desk: Desk, caller: Caller) -> BudgetState:
    """Today's spending of the whole installation against `config/budgets.toml`."""
    on = datetime.now(UTC).date()
    spent_usd = await desk.store.fetchval(
        "SELECT COALESCE(sum(cost_usd), 0) FROM api_usage"
        " WHERE (timestamp AT TIME ZONE 'UTC')::date = $1",
        on,
    )
    limits: dict[str, float] = {}
    for path in (SHIPPED_BUDGETS, desk.settings.config / "budgets.toml"):
        if path.is_file():
            limits |= tomllib.loads(path.read_text(encoding="utf-8")).get("daily", {})
    warning_usd, hard_usd = limits["warning_usd"], limits["hard_limit_usd"]
    state = "exceeded" if spent_usd >= hard_usd else "warning" if spent_usd >= warning_usd else "ok"
    return BudgetState(
        date=on,
        spent_usd=spent_usd,
        warning_usd=warning_usd,
        hard_limit_usd=hard_usd,
        state=state,
    )


def admin_only(caller: Caller) -> None:
    """Raises ForbiddenError unless an admin asks."""
    if not caller.admin:
        raise ForbiddenError("only an admin may do this")


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


def _dead(letter: DeadLetter) -> Dead:
    return Dead(
        id=letter.id,
        source_queue=letter.source_queue,
        error_type=letter.error_type,
        error_message=letter.error_message,
        attempts=letter.attempts,
        failed_at=letter.failed_at,
        original_message=letter.original_message.decode(errors="backslashreplace"),
    )
