"""Approvals: what agents ask leave for, and the answer. REST and the command call these."""

from __future__ import annotations

from typing import Any

from base import policy, streams
from base.approvals import Approval, binding
from base.errors import AIError, BusError, ConflictError, NotFoundError
from base.messages import UNPAID_PROVIDER, Wire
from base.terminal import clipped, visible
from base.verbs import TOOL
from portal.auth import Caller
from portal.desk import Desk
from portal.talk import identity, pack, unpack

#: Pending in the record, though its time is over: the sweep is on its way.
_NOW = "CASE WHEN status = 'pending' AND expires_at <= now() THEN 'expired' ELSE status END"
_COLUMNS = (
    f"id, request, binding, {_NOW} AS status, risk, sentence, created_at, expires_at, decided_at,"
    " decided_by, decided_via, decided_why"
)
LINE_CHARS = 400
#: An admin may see every approval, anybody else those of their own tasks.
_SEEN = "($1::uuid IS NULL OR user_id = $1)"


class Approvals(Wire):
    """Newest first. `more`: there are older ones."""

    approvals: list[Approval]
    more: bool


async def approvals(
    desk: Desk, caller: Caller, *, every: bool = False, prefix: str = "", limit: int = 50
) -> Approvals:
    """Those that wait for an answer; `every`: the others too. `prefix`: of the id."""
    rows = await desk.store.fetch(
        f"SELECT {_COLUMNS} FROM approvals WHERE {_SEEN}"
        " AND ($2::boolean OR (status = 'pending' AND expires_at > now()))"
        " AND starts_with(id::text, $3) ORDER BY created_at DESC, id LIMIT $4",
        *(_seer(caller), every, prefix.lower(), limit + 1),
    )
    found = [_read(row) for row in rows]
    return Approvals(approvals=found[:limit], more=len(found) > limit)


class Waiting(Wire):
    """One that waits. spent_usd: what model calls of its whole request cost so far; rehearsed:
    they were the rehearsal model's, which nobody pays. title: of the request.
    """

    approval: Approval
    title: str
    spent_usd: float
    rehearsed: bool
    whose: str


class Answered(Wire):
    """Those that wait no longer, the youngest first. `whose`: by user id, how they log in."""

    approvals: list[Approval]
    whose: dict[str, str]
    next_cursor: str | None


async def queue(desk: Desk, caller: Caller, *, limit: int = 100) -> list[Waiting]:
    """What waits for an answer that the caller may see: first what has spent the most, to the
    cent, since that is lost when nobody answers in time; of equals what waits longest.
    """
    rows = await desk.store.fetch(
        "SELECT a.*, COALESCE(r.title, r.input->>'content', '') AS title, w.email AS whose,"
        " COALESCE(c.spent, 0)::float8 AS spent_usd, COALESCE(c.unpaid, FALSE) AS rehearsed"
        f" FROM (SELECT {_COLUMNS}, task_id, user_id FROM approvals WHERE {_SEEN}"
        " AND status = 'pending' AND expires_at > now()) a"
        " LEFT JOIN tasks t ON t.id = a.task_id LEFT JOIN tasks r ON r.id = t.root_id"
        " LEFT JOIN users w ON w.id = a.user_id"
        " LEFT JOIN LATERAL (SELECT sum(u.cost_usd) AS spent, bool_and(u.provider = $3) AS unpaid"
        " FROM tasks p JOIN api_usage u ON u.task_id = p.id WHERE p.root_id = t.root_id) c ON TRUE"
        " ORDER BY round(COALESCE(c.spent, 0), 2) DESC, a.created_at, a.id LIMIT $2",
        *(_seer(caller), limit, UNPAID_PROVIDER),
    )
    return [
        Waiting(
            approval=Approval.model_validate({name: row[name] for name in Approval.model_fields}),
            title=row["title"],
            spent_usd=row["spent_usd"],
            rehearsed=row["rehearsed"],
            whose=row["whose"] or "",
        )
        for row in rows
    ]


async def answered(
    desk: Desk, caller: Caller, *, limit: int = 20, cursor: str | None = None
) -> Answered:
    """What was answered, used or expired. Raises InputError for a cursor that is none."""
    before, last = unpack(cursor) if cursor else (None, None)
    rows = await desk.store.fetch(
        f"SELECT {_COLUMNS} FROM approvals WHERE {_SEEN}"
        " AND NOT (status = 'pending' AND expires_at > now())"
        " AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::uuid))"
        " ORDER BY created_at DESC, id DESC LIMIT $4",
        *(_seer(caller), before, last, limit + 1),
    )
    found = [_read(row) for row in rows[:limit]]
    ids = {one.request.user_id for one in found} | {one.decided_by or "" for one in found}
    people = await desk.store.fetch(
        "SELECT id, email FROM users WHERE id::text = ANY($1)", list(ids)
    )
    return Answered(
        approvals=found,
        whose={row["id"]: row["email"] for row in people},
        next_cursor=pack(found[-1].created_at, found[-1].id) if len(rows) > limit else None,
    )


async def waiting(desk: Desk, caller: Caller) -> int:
    """How many wait for an answer that the caller may see."""
    return int(
        await desk.store.fetchval(
            f"SELECT COUNT(*) FROM approvals WHERE {_SEEN} AND status = 'pending'"
            " AND expires_at > now()",
            _seer(caller),
        )
    )


async def approval(desk: Desk, caller: Caller, approval_id: str) -> Approval:
    """Raises NotFoundError for one that is unknown or somebody else's."""
    row = await desk.store.fetchrow(
        f"SELECT {_COLUMNS} FROM approvals WHERE {_SEEN} AND id = $2",
        *(_seer(caller), identity(approval_id, "approval")),
    )
    if row is None:
        await desk.missing(caller, "approvals", identity(approval_id, "approval"))
        raise NotFoundError(f"no approval {approval_id}")
    return _read(row)


async def of_requests(desk: Desk, caller: Caller, root_ids: list[str]) -> list[Approval]:
    """What the parts of requests of the caller's wait for now, oldest first."""
    rows = await desk.store.fetch(
        f"SELECT {_COLUMNS} FROM approvals WHERE user_id = $1 AND status = 'pending'"
        " AND expires_at > now() AND task_id IN (SELECT id FROM tasks WHERE root_id = ANY($2))"
        " ORDER BY created_at, id",
        *(caller.user_id, root_ids),
    )
    return [_read(row) for row in rows]


async def decide(
    desk: Desk,
    caller: Caller,
    approval_id: str,
    approve: bool,
    reason: str = "",
    *,
    key: str | None = None,
) -> Approval:
    """Answer it. Raises ForbiddenError for one who may not, ConflictError for what was answered
    before or has expired. The supervisor judges and records it.
    """
    found = await approval(desk, caller, approval_id)

    async def ask() -> dict[str, Any]:
        if not approve or found.request.tool != TOOL:
            return await told()
        await _consent(desk, caller, found)
        try:
            return await told()
        except BusError:  # it may be decided yet, and the person said yes
            raise
        except AIError:
            await _withdraw(desk, caller, found)
            raise

    async def told() -> dict[str, Any]:
        answer = await desk.ask(
            streams.SERVICE_SUPERVISOR,
            verb="decide",
            approval_id=found.id,
            approve=approve,
            by=caller.user_id,
            via="cli" if caller.local else "api",
            reason=reason,
            ip=caller.peer,
        )
        decided: dict[str, Any] = answer["approval"]
        return decided

    answer = await desk.once(caller, key, ["decide", found.id, approve, reason], ask)
    return Approval.model_validate(answer)


def _read(row: Any) -> Approval:
    """One row. The sentence about a verb of the broker names what is asked, whoever wrote it."""
    found = Approval.model_validate(row)
    line = clipped(visible(" ".join(found.request.argv)), LINE_CHARS)
    if found.request.tool != TOOL or line in found.sentence:
        return found
    said = f"{visible(found.request.agent)} wants to have the server do `{line}`."
    return found.model_copy(update={"sentence": said})


def _seer(caller: Caller) -> str | None:
    return None if caller.admin else caller.user_id


async def _consent(desk: Desk, caller: Caller, found: Approval) -> None:
    """The person's own yes to a verb of the broker, which looks for it. See the schema.

    It is a yes to the words that they were shown: raises ConflictError where the record binds
    others.
    """
    if binding(found.request) != found.binding:
        raise ConflictError("the record of this request was changed: it cannot be approved")
    await desk.store.execute(
        "INSERT INTO consents (approval_id, user_id, binding, expires_at)"
        " VALUES ($1, $2, $3, NOW() + make_interval(secs => $4))"
        " ON CONFLICT (approval_id) DO NOTHING",
        *(found.id, caller.user_id, found.binding),
        policy.load(desk.settings).expires_s,
    )


async def _withdraw(desk: Desk, caller: Caller, found: Approval) -> None:
    """The decision was refused: the yes is none, unless they gave it before."""
    await desk.store.execute(
        "DELETE FROM consents WHERE approval_id = $1 AND user_id = $2 AND NOT EXISTS (SELECT 1"
        " FROM approvals WHERE id = $1 AND status = 'approved' AND decided_by = $2::text)",
        *(found.id, caller.user_id),
    )
