"""The table of approvals: the supervisor's SQL. Every change is made under the request's lock
(`record.lock`), and each names the state it starts from, so that of two only one happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from base.approvals import Approval, ApprovalRequest, ApprovalStatus, binding
from base.store import Row, Session
from supervisor.gate import History, Risk
from supervisor.record import Reads, known_id

COLUMNS = (
    "id, request, binding, status, risk, sentence, created_at, expires_at, decided_at,"
    " decided_by, decided_via, decided_why"
)
WHY_CHARS = 500


def approval(row: Row) -> Approval:
    """One row as it travels."""
    return Approval.model_validate(row)


def subject(request: ApprovalRequest) -> str:
    """What a request is about, whichever call it came from."""
    return binding(request.model_copy(update={"call_id": "-"}))


async def find(reads: Reads, approval_id: str) -> Approval | None:
    """The approval of that id; None also when it is no id."""
    if (known := known_id(approval_id)) is None:
        return None
    row = await reads.fetchrow(f"SELECT {COLUMNS} FROM approvals WHERE id = $1", known)
    return None if row is None else approval(row)


async def of_call(reads: Reads, task_id: str, call_id: str) -> Approval | None:
    """What was asked for that call of that task before."""
    row = await reads.fetchrow(
        f"SELECT {COLUMNS} FROM approvals WHERE task_id = $1 AND call_id = $2",
        *(task_id, call_id),
    )
    return None if row is None else approval(row)


async def history(reads: Reads, request: ApprovalRequest, user_rank: int) -> History:
    """What the gate wants to know of the agent's and the task's past."""
    asked = await reads.fetch(
        "SELECT created_at FROM approvals WHERE agent = $1"
        " AND created_at > NOW() - INTERVAL '1 minute'",
        request.agent,
    )
    waiting = await reads.fetchval(
        "SELECT COUNT(*) FROM approvals WHERE agent = $1 AND status = 'pending'"
        " AND expires_at > NOW()",
        request.agent,
    )
    denials = await reads.fetchval(
        "SELECT COUNT(*) FROM approvals WHERE task_id = $1 AND subject = $2 AND status = 'denied'",
        *(request.task_id, subject(request)),
    )
    foreign = await reads.fetchval(
        "SELECT TRUE FROM tasks AS own, tasks AS other WHERE own.id = $1"
        " AND other.user_id = own.user_id AND other.workspace = own.workspace"
        " AND (other.input->>'tainted' = 'true' OR other.output->>'tainted' = 'true') LIMIT 1",
        request.task_id,
    )
    return History(
        user_rank=user_rank,
        open=int(waiting),
        asked=tuple(row["created_at"] for row in asked),
        denials=int(denials),
        foreign=foreign is not None,
    )


async def add(
    tx: Session, request: ApprovalRequest, risk: Risk, sentence: str, expires_s: float
) -> Approval:
    """A new pending request."""
    row = await tx.fetchrow(
        "INSERT INTO approvals (task_id, user_id, agent, call_id, request, binding, subject, risk,"
        " sentence, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9,"
        " clock_timestamp(), clock_timestamp() + make_interval(secs => $10))"
        f" RETURNING {COLUMNS}",
        *(request.task_id, request.user_id, request.agent, request.call_id),
        *(request.model_dump(mode="json"), binding(request), subject(request), risk, sentence),
        expires_s,
    )
    if row is None:
        raise AssertionError("an insert without its row")
    return approval(row)


async def renew(tx: Session, found: Approval, epoch: int) -> Approval:
    """The same call asks again under a newer epoch."""
    await tx.execute("SELECT approvals_renew($1, $2)", found.id, epoch)
    return await find(tx, found.id) or found


async def decide(
    tx: Session, approval_id: str, status: ApprovalStatus, by: str, via: str, why: str, use_s: float
) -> Approval | None:
    """Approve or deny what is pending and has not expired; None when it is not so any more.

    use_s: how long an approved one may be used from now on.
    """
    row = await tx.fetchrow(
        "UPDATE approvals SET status = $2::text, decided_at = NOW(), decided_by = $3,"
        " decided_via = $4, decided_why = $5, expires_at = CASE WHEN $2::text = 'approved'"
        " THEN NOW() + make_interval(secs => $6) ELSE expires_at END"
        " WHERE id = $1 AND status = 'pending' AND expires_at > clock_timestamp()"
        f" RETURNING {COLUMNS}",
        *(approval_id, status.value, by[:100], via, why[:WHY_CHARS], use_s),
    )
    return None if row is None else approval(row)


async def use(tx: Session, approval_id: str, bound: str, task_id: str, agent: str) -> bool:
    """Use up an approval, once; False when it is not approved, or not for exactly this."""
    used = await tx.execute(
        "UPDATE approvals SET status = 'used' WHERE id = $1 AND status = 'approved'"
        " AND expires_at > clock_timestamp() AND binding = $2 AND task_id = $3 AND agent = $4",
        *(approval_id, bound, task_id, agent),
    )
    return used == 1


async def expire(
    tx: Session, approval_id: str, why: str, *, early: bool = False
) -> Approval | None:
    """End what nobody decided, or nobody used, in time; `early`: before its time too."""
    row = await tx.fetchrow(
        "UPDATE approvals SET status = 'expired', decided_at = COALESCE(decided_at, NOW()),"
        " decided_by = COALESCE(decided_by, 'supervisor'),"
        " decided_via = COALESCE(decided_via, 'supervisor'),"
        " decided_why = CASE WHEN decided_why = '' THEN $2 ELSE decided_why END"
        " WHERE id = $1 AND status IN ('pending', 'approved')"
        f" AND ($3::boolean OR expires_at <= clock_timestamp()) RETURNING {COLUMNS}",
        *(approval_id, why[:WHY_CHARS], early),
    )
    return None if row is None else approval(row)


async def overdue(reads: Reads, limit: int = 100) -> list[Approval]:
    """Open ones whose time is over, oldest first."""
    rows = await reads.fetch(
        f"SELECT {COLUMNS} FROM approvals WHERE status IN ('pending', 'approved')"
        " AND expires_at <= NOW() ORDER BY expires_at LIMIT $1",
        limit,
    )
    return [approval(row) for row in rows]


async def open_of(reads: Reads, task_ids: Sequence[str]) -> list[Approval]:
    """Pending and approved ones of those tasks, oldest first."""
    rows = await reads.fetch(
        f"SELECT {COLUMNS} FROM approvals WHERE status IN ('pending', 'approved')"
        " AND task_id = ANY($1::uuid[]) ORDER BY created_at, id",
        list(task_ids),
    )
    return [approval(row) for row in rows]


async def waiting(reads: Reads, task_id: str) -> bool:
    """Whether that task still waits for a decision."""
    found = await reads.fetchval(
        "SELECT TRUE FROM approvals WHERE task_id = $1 AND status = 'pending' LIMIT 1", task_id
    )
    return found is not None


async def now(reads: Reads) -> datetime:
    """The record's clock."""
    at: datetime = await reads.fetchval("SELECT clock_timestamp()")
    return at


async def role(reads: Reads, user_id: str | None) -> str | None:
    """The role of an active user; None when there is none such."""
    if (known := known_id(user_id or "")) is None:
        return None
    found: str | None = await reads.fetchval(
        "SELECT role FROM users WHERE id = $1 AND is_active", known
    )
    return found
