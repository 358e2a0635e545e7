"""Task state in PostgreSQL: the supervisor's SQL, and nobody else's.

Lock order: a statement that changes more than one row of a request first locks all of that
request's rows, root first. `now` is the database's clock, so leases survive a clock jump here.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from base.messages import Budget, Checked, Effort, Status, Usage
from base.settings import OWNER_EMAIL
from base.store import Row, Session
from supervisor.plan import Plan
from supervisor.tasks import HELD, Change, Task

COLUMNS = (
    "id, root_id, parent_task_id, user_id, conversation_id, message_id, key, title, "
    "assigned_agent, requested_agent, status, priority, effort, workspace, epoch, lease_until, "
    "deliveries, handoffs, depends_on, budget_tokens, budget_usd, usage, cancel_requested, "
    "input, output, verification_criteria, error, created_at"
)
HELD_VALUES = [status.value for status in HELD]
UNASSIGNED = "supervisor"


class Reads(Protocol):
    """A store, or a session of it."""

    async def fetch(self, sql: str, *values: Any) -> list[Row]: ...
    async def fetchrow(self, sql: str, *values: Any) -> Row | None: ...
    async def fetchval(self, sql: str, *values: Any) -> Any: ...
    async def execute(self, sql: str, *values: Any) -> int: ...


def task(row: Row) -> Task:
    """One row as the pure rules see it."""
    return Task(
        id=row["id"],
        root_id=row["root_id"] or row["id"],
        parent_id=row["parent_task_id"],
        user_id=row["user_id"] or "",
        conversation_id=row["conversation_id"] or "",
        message_id=row["message_id"],
        key=row["key"] or "",
        title=row["title"] or "",
        agent=row["assigned_agent"],
        requested_agent=row["requested_agent"],
        status=Status(row["status"]),
        priority=row["priority"],
        effort=Effort(row["effort"]),
        workspace=row["workspace"],
        epoch=row["epoch"],
        lease_until=row["lease_until"],
        deliveries=row["deliveries"],
        handoffs=row["handoffs"],
        depends_on=tuple(row["depends_on"]),
        budget=Budget(tokens=row["budget_tokens"] or 0, usd=row["budget_usd"] or 0.0),
        usage=Usage.model_validate(row["usage"]),
        cancel_requested=row["cancel_requested"],
        input=row["input"],
        output=row["output"] or {},
        criteria=tuple(row["verification_criteria"] or ()),
        error=row["error"],
        created_at=row["created_at"],
    )


# Reading -----------------------------------------------------------------------------------


async def pending_roots(reads: Reads, skip: Collection[str], limit: int) -> list[Task]:
    """Requests that nobody has begun, most urgent first, then oldest; without those in `skip`."""
    rows = await reads.fetch(
        f"SELECT {COLUMNS} FROM tasks WHERE status = 'pending' AND parent_task_id IS NULL"
        " AND NOT (id = ANY($1::uuid[])) ORDER BY priority DESC, created_at, id LIMIT $2",
        *(list(skip), limit),
    )
    return [task(row) for row in rows]


async def ready(
    reads: Reads, *, busy: Collection[str], barred: Collection[str], limit: int
) -> list[Task]:
    """Pending subtasks whose dependencies are completed, most urgent first, then oldest.

    Left out: those that wait for an agent in `busy`, or that a person asked an agent in
    `barred` to do.
    """
    rows = await reads.fetch(
        f"SELECT {COLUMNS} FROM tasks AS t WHERE status = 'pending'"
        " AND parent_task_id IS NOT NULL AND NOT cancel_requested"
        " AND NOT (COALESCE(requested_agent, input->>'agent', '') = ANY($1))"
        " AND NOT (COALESCE(requested_agent, '') = ANY($2))"
        " AND NOT EXISTS (SELECT 1 FROM tasks AS d WHERE d.id = ANY(t.depends_on)"
        " AND d.status <> 'completed')"
        " ORDER BY priority DESC, created_at, key LIMIT $3",
        *(list(busy), list(barred), limit),
    )
    return [task(row) for row in rows]


async def held(reads: Reads) -> list[Task]:
    """Subtasks that an agent holds."""
    rows = await reads.fetch(
        f"SELECT {COLUMNS} FROM tasks WHERE status = ANY($1) AND parent_task_id IS NOT NULL",
        HELD_VALUES,
    )
    return [task(row) for row in rows]


async def to_join(reads: Reads) -> list[Task]:
    """Begun requests whose subtasks have all ended."""
    rows = await reads.fetch(
        f"SELECT {COLUMNS} FROM tasks AS r WHERE status = 'in_progress'"
        " AND parent_task_id IS NULL AND NOT EXISTS (SELECT 1 FROM tasks AS s"
        " WHERE s.parent_task_id = r.id AND s.status NOT IN ('completed','failed','cancelled'))",
    )
    return [task(row) for row in rows]


async def of_inactive(reads: Reads) -> list[Task]:
    """Requests that have not ended, of people who may not get in any more."""
    rows = await reads.fetch(
        f"SELECT {COLUMNS} FROM tasks WHERE parent_task_id IS NULL"
        " AND status NOT IN ('completed','failed','cancelled')"
        " AND user_id IN (SELECT id FROM users WHERE NOT is_active AND email <> $1)",
        OWNER_EMAIL,
    )
    return [task(row) for row in rows]


async def find(reads: Reads, task_id: str) -> Task | None:
    """The task of that id; None also when `task_id` is no id at all."""
    if (known := known_id(task_id)) is None:
        return None
    row = await reads.fetchrow(f"SELECT {COLUMNS} FROM tasks WHERE id = $1", known)
    return None if row is None else task(row)


async def lock(tx: Session, root_id: str) -> tuple[Task, list[Task]]:
    """The request and its subtasks in the plan's order, locked until the transaction ends."""
    rows = await tx.fetch(
        f"SELECT {COLUMNS} FROM tasks WHERE root_id = $1"
        " ORDER BY (parent_task_id IS NOT NULL), created_at, id FOR UPDATE",
        root_id,
    )
    found = [task(row) for row in rows]
    return found[0], found[1:]


async def siblings(reads: Reads, root_id: str) -> list[Task]:
    """The subtasks of a request, in the plan's order."""
    rows = await reads.fetch(
        f"SELECT {COLUMNS} FROM tasks WHERE parent_task_id = $1 ORDER BY created_at, id", root_id
    )
    return [task(row) for row in rows]


async def find_all(reads: Reads, ids: Sequence[str]) -> list[Task]:
    """The tasks of those ids, oldest first."""
    if not ids:
        return []
    rows = await reads.fetch(
        f"SELECT {COLUMNS} FROM tasks WHERE id = ANY($1::uuid[]) ORDER BY created_at, id", list(ids)
    )
    return [task(row) for row in rows]


async def is_only(reads: Reads, subtask: Task) -> bool:
    """Whether the request has no other subtask."""
    return bool(
        await reads.fetchval(
            "SELECT COUNT(*) = 1 FROM tasks WHERE parent_task_id = $1", subtask.root_id
        )
    )


# Writing -----------------------------------------------------------------------------------


async def begin(tx: Session, root: Task, plan: Plan, budget: Budget, usage: Usage) -> list[Task]:
    """Write a plan's subtasks and the root's start. The caller holds the root's lock."""
    ids = {step.key: _step_id(root.id, step.key) for step in plan.steps}
    await tx.executemany(
        "INSERT INTO tasks (id, root_id, parent_task_id, conversation_id, user_id, message_id,"
        " type, assigned_agent, requested_agent, priority, input, verification_criteria, key,"
        " title, effort, workspace, depends_on, budget_tokens, budget_usd, created_at)"
        " VALUES ($1, $2, $2, $3, $4, $5, 'subtask', $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,"
        " $16, $17, clock_timestamp())",
        [
            (
                ids[step.key],
                root.id,
                *(root.conversation_id, root.user_id, root.message_id),
                step.agent or root.requested_agent or UNASSIGNED,
                root.requested_agent,
                root.priority,
                {"instruction": step.instruction, "agent": step.agent, "share": step.share},
                [criterion.model_dump(mode="json") for criterion in step.criteria],
                *(step.key, step.title, step.effort.value, root.workspace),
                [ids[key] for key in step.depends_on],
                int(budget.tokens * step.share),
                round(budget.usd * step.share, 6),
            )
            for step in plan.steps
        ],
    )
    await tx.execute(
        "UPDATE tasks SET status = 'in_progress', started_at = NOW(), updated_at = NOW(),"
        " effort = $2, budget_tokens = $3, budget_usd = $4, usage = $5,"
        " title = COALESCE(title, $6), output = $7 WHERE id = $1",
        *(root.id, plan.effort.value, budget.tokens, budget.usd, usage.model_dump()),
        *(plan.steps[0].title if len(plan.steps) == 1 else plan.summary, {"plan": plan.summary}),
    )
    return await siblings(tx, root.id)


async def assign(
    tx: Session, task_id: str, agent: str, budget: Budget, lease_s: float
) -> Row | None:
    """Give a pending subtask to `agent`: a new epoch, a first lease. None: no longer pending."""
    return await tx.fetchrow(
        "UPDATE tasks SET status = 'assigned', assigned_agent = $2, epoch = epoch + 1,"
        " lease_until = NOW() + make_interval(secs => $3), deliveries = GREATEST(deliveries, 1),"
        " budget_tokens = $4, budget_usd = $5, updated_at = NOW()"
        " WHERE id = $1 AND status = 'pending' AND NOT cancel_requested"
        " RETURNING epoch, deliveries",
        *(task_id, agent, lease_s, budget.tokens, budget.usd),
    )


async def take(tx: Session, task_id: str, epoch: int, agent: str, lease_s: float) -> Task | None:
    """The assigned subtask becomes in_progress; None: it is not assigned so."""
    row = await tx.fetchrow(
        "UPDATE tasks SET status = 'in_progress', started_at = COALESCE(started_at, NOW()),"
        " lease_until = NOW() + make_interval(secs => $4), updated_at = NOW()"
        " WHERE id = $1 AND epoch = $2 AND assigned_agent = $3 AND status = 'assigned'"
        f" AND NOT cancel_requested RETURNING {COLUMNS}",
        *(task_id, epoch, agent, lease_s),
    )
    return None if row is None else task(row)


async def apply(
    tx: Session,
    subtask: Task,
    change: Change,
    *,
    lease_s: float,
    output: Mapping[str, Any] | None = None,
    usage: Usage | None = None,
) -> Task:
    """Write what a rule decided about a locked subtask, at the epoch it was decided for."""
    given = {**subtask.input}
    if change.agent is not None:
        given["agent"] = change.agent
    if change.notes is not None:
        given["notes"] = change.notes
    if change.level_max is not None:
        given["level_max"] = change.level_max
    if change.tainted:
        given["tainted"] = True
    row = await tx.fetchrow(
        "UPDATE tasks SET status = $3::text, deliveries = $4, handoffs = $5, input = $6,"
        " error = $7, output = COALESCE($8, output), usage = COALESCE($9, usage),"
        " epoch = epoch + CASE WHEN $10::boolean THEN 1 ELSE 0 END,"
        " requested_agent = CASE WHEN $11::boolean THEN NULL ELSE requested_agent END,"
        " lease_until = CASE WHEN $3::text IN ('in_progress', 'waiting')"
        " THEN NOW() + make_interval(secs => $12) END,"
        " completed_at = CASE WHEN $3::text IN ('completed', 'failed', 'cancelled') THEN NOW() END,"
        f" updated_at = NOW() WHERE id = $1 AND epoch = $2 RETURNING {COLUMNS}",
        *(subtask.id, subtask.epoch, change.status.value, change.deliveries, change.handoffs),
        *(given, change.error, None if output is None else dict(output)),
        *(None if usage is None else usage.model_dump(), change.release),
        *(change.agent is not None, lease_s),
    )
    if row is None:
        raise AssertionError("a locked row changed its epoch")
    return task(row)


async def cancel(tx: Session, task_id: str, reason: str) -> None:
    """End a task that has not ended."""
    await tx.execute(
        "UPDATE tasks SET status = 'cancelled', cancel_requested = TRUE, error = $2,"
        " completed_at = NOW(), updated_at = NOW(), lease_until = NULL WHERE id = $1"
        " AND status NOT IN ('completed', 'failed', 'cancelled')",
        *(task_id, reason),
    )


async def end_root(
    tx: Session,
    root: Task,
    status: Status,
    *,
    message_id: str,
    answer: str,
    agent: str,
    error: str | None,
    output: Mapping[str, Any],
    usage: Usage,
) -> bool:
    """The answer's row and the root's end; False when the root had ended already. Safe twice."""
    ended = await tx.execute(
        "UPDATE tasks SET status = $2, error = $3, output = COALESCE(output, '{}') || $4::jsonb,"
        " usage = $5, completed_at = NOW(), updated_at = NOW() WHERE id = $1"
        " AND status NOT IN ('completed', 'failed', 'cancelled')",
        *(root.id, status.value, error, dict(output), usage.model_dump()),
    )
    if not ended:
        return False
    await tx.execute(
        "INSERT INTO messages (id, conversation_id, role, content, agent, parent_message_id,"
        " metadata, created_at) VALUES ($1, $2, 'assistant', $3, $4, $5, $6, clock_timestamp())"
        " ON CONFLICT (id) DO NOTHING",
        *(message_id, root.conversation_id, answer, agent, root.message_id),
        {"task_id": root.id, "status": status.value, "tainted": bool(output.get("tainted"))},
    )
    return True


async def log(
    tx: Reads,
    task_id: str,
    message: str,
    data: Mapping[str, Any] | None = None,
    level: str = "info",
) -> None:
    """One line in the task's own log."""
    await tx.execute(
        "INSERT INTO task_logs (task_id, level, message, data, created_at)"
        " VALUES ($1, $2, $3, $4, clock_timestamp())",
        *(task_id, level, message, dict(data or {})),
    )


async def attempt(writes: Reads, root_id: str) -> int:
    """Count one more beginning of the root's join; its number, from 1."""
    return int(
        await writes.fetchval(
            "UPDATE tasks SET deliveries = deliveries + 1 WHERE id = $1 RETURNING deliveries",
            root_id,
        )
    )


async def retried(tx: Session, root: Task) -> tuple[str, bool]:
    """The id of the root that tries `root`'s message again, and whether it is new.

    An earlier retry that has not ended is returned as it is, so asking twice is safe.
    """
    rows = await tx.fetch(
        "SELECT id, status FROM tasks WHERE parent_task_id IS NULL AND input->>'retry_of' = $1"
        " AND message_id = $2 ORDER BY created_at",
        *(root.id, root.message_id),
    )
    if rows and not Status(rows[-1]["status"]).ended:
        return rows[-1]["id"], False
    new_id = str(uuid.uuid5(uuid.UUID(root.id), f"retry {len(rows) + 1}"))
    given = {**root.input, "retry_of": root.id}
    effort = given.get("effort") or Effort.STANDARD.value
    await tx.execute(
        "INSERT INTO tasks (id, root_id, conversation_id, user_id, message_id, type,"
        " assigned_agent, priority, input, effort, requested_agent, workspace, created_at)"
        " VALUES ($1, $1, $2, $3, $4, 'request', 'supervisor', $5, $6, $7, $8, $9,"
        " clock_timestamp())",
        *(new_id, root.conversation_id, root.user_id, root.message_id, root.priority),
        *(given, effort, root.requested_agent, root.workspace),
    )
    return new_id, True


def criteria_of(subtasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Every checked criterion of the subtasks, each with its subtask's key and agent."""
    return [
        {"key": one.key, "agent": one.agent, **Checked.model_validate(item).model_dump(mode="json")}
        for one in subtasks
        for item in one.output.get("criteria", ())
    ]


def _step_id(root_id: str, key: str) -> str:
    return str(uuid.uuid5(uuid.UUID(root_id), f"step {key}"))


def known_id(text: str) -> str | None:
    """`text` as an id of the record; None when it is none."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None
