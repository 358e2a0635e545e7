"""Webhooks: who is told that a task ended, and what became of each telling. REST calls these."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime

from base.errors import ConflictError, ForbiddenError, NotFoundError
from base.messages import Wire
from portal import callout
from portal.auth import Caller
from portal.deliveries import EVENT_TEST
from portal.desk import Desk
from portal.shapes import NewWebhook
from portal.talk import identity
from portal.trail import event

MOST = 20
_COLUMNS = (
    "id, url, description, private, failures, disabled_at, disabled_why, created_at,"
    " CASE WHEN disabled_at IS NULL THEN 'active' ELSE 'disabled' END AS status"
)


class Webhook(Wire):
    """`failures`: attempts in a row that failed. A disabled one says why; a test delivery that
    arrives enables it again.
    """

    id: str
    url: str
    description: str
    private: bool
    status: Literal["active", "disabled"]
    failures: int
    disabled_at: AwareDatetime | None
    disabled_why: str | None
    created_at: AwareDatetime


class Webhooks(Wire):
    webhooks: list[Webhook]


class Made(Wire):
    """`secret` signs every call of this hook. It is shown this once and cannot be had again."""

    webhook: Webhook
    secret: str


class Delivery(Wire):
    """One telling. `next_at`: when it is tried again, while it is pending."""

    id: str
    event: str
    task_id: str | None
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    response_status: int | None
    error: str | None
    took_ms: int | None
    created_at: AwareDatetime
    next_at: AwareDatetime | None
    ended_at: AwareDatetime | None


class Deliveries(Wire):
    """Newest first."""

    deliveries: list[Delivery]


async def webhooks(desk: Desk, caller: Caller) -> Webhooks:
    """The caller's, newest first."""
    rows = await desk.store.fetch(
        f"SELECT {_COLUMNS} FROM webhooks WHERE user_id = $1 ORDER BY created_at DESC, id",
        caller.user_id,
    )
    return Webhooks(webhooks=[Webhook(**row) for row in rows])


async def webhook(desk: Desk, caller: Caller, webhook_id: str) -> Webhook:
    """Raises NotFoundError for one that is unknown or somebody else's."""
    row = await desk.store.fetchrow(
        f"SELECT {_COLUMNS} FROM webhooks WHERE id = $1 AND user_id = $2",
        *(identity(webhook_id, "webhook"), caller.user_id),
    )
    if row is None:
        await desk.missing(caller, "webhooks", identity(webhook_id, "webhook"))
        raise NotFoundError(f"no webhook {webhook_id}")
    return Webhook(**row)


async def create(desk: Desk, caller: Caller, new: NewWebhook, *, key: str | None = None) -> Made:
    """A new one; the same `key` gives the first again. Raises ForbiddenError when it would call
    an address that is not public and no admin asks.
    """
    private = callout.needs_leave(new.url) or new.private
    if private and not caller.admin:
        raise ForbiddenError("only an admin's webhook may call an address that is not public")
    webhook_id = str(uuid.uuid4())
    async with desk.store.transaction() as tx:
        if key is not None:
            before = await tx.remember(
                user_id=caller.user_id,
                key=key,
                request=["webhook", new.model_dump()],
                status=201,
                response={"id": webhook_id},
            )
            webhook_id = before["id"] if before is not None else webhook_id
        # One at a time a user, or two at once would pass the limit.
        await tx.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", caller.user_id)
        sql = "SELECT count(*) FROM webhooks WHERE user_id = $1 AND id <> $2"
        if await tx.fetchval(sql, caller.user_id, webhook_id) >= MOST:
            raise ConflictError(f"you have {MOST} webhooks, which is the limit; delete one")
        await tx.execute(
            "INSERT INTO webhooks (id, user_id, url, description, private)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            *(webhook_id, caller.user_id, new.url, new.description, private),
        )
    made = await webhook(desk, caller, webhook_id)
    what = event("action", "write", f"webhooks/{made.id}", caller=caller, risk="medium")
    desk.tell(what.model_copy(update={"details": {"private": private}}))
    return Made(webhook=made, secret=desk.deliveries.secret_of(made.id))


async def remove(desk: Desk, caller: Caller, webhook_id: str) -> None:
    """Gone with its deliveries; what is under way may still arrive."""
    found = await webhook(desk, caller, webhook_id)
    async with desk.written(event("action", "delete", f"webhooks/{found.id}", caller=caller)):
        await desk.store.execute("DELETE FROM webhooks WHERE id = $1", found.id)


async def test(desk: Desk, caller: Caller, webhook_id: str) -> Delivery:
    """Send a test, once and soon; the list of deliveries tells how it went."""
    found = await webhook(desk, caller, webhook_id)
    delivery_id = str(uuid.uuid4())
    body = {
        "id": delivery_id,
        "type": EVENT_TEST,
        "webhook_id": found.id,
        "message": "This is a test. Nothing happened.",
    }
    row = await desk.store.fetchrow(
        "INSERT INTO webhook_deliveries (id, webhook_id, event, body) VALUES ($1, $2, $3, $4)"
        " RETURNING *",
        *(delivery_id, found.id, EVENT_TEST, json.dumps(body)),
    )
    assert row is not None
    desk.deliveries.wake()
    return _delivery(row)


async def deliveries(desk: Desk, caller: Caller, webhook_id: str, *, limit: int = 50) -> Deliveries:
    """The newest ones."""
    found = await webhook(desk, caller, webhook_id)
    rows = await desk.store.fetch(
        "SELECT * FROM webhook_deliveries WHERE webhook_id = $1"
        " ORDER BY created_at DESC, id LIMIT $2",
        *(found.id, limit),
    )
    return Deliveries(deliveries=[_delivery(row) for row in rows])


def _delivery(row: dict[str, object]) -> Delivery:
    next_at: object | datetime = row["next_at"] if row["status"] == "pending" else None
    return Delivery.model_validate({**row, "next_at": next_at})
