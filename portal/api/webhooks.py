"""Webhooks: have an address of yours told when a task ended."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from portal import webhooks as hooks
from portal.api.responses import may
from portal.door import Asking, At, Key, need
from portal.scopes import SESSION
from portal.shapes import NewWebhook

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


@router.get("", summary="List webhooks", dependencies=[need(SESSION)])
async def webhooks(desk: At, caller: Asking) -> hooks.Webhooks:
    """The caller's webhooks, newest first, each with its state."""
    return await hooks.webhooks(desk, caller)


@router.post(
    "",
    status_code=201,
    summary="Create a webhook",
    responses=may(403, 409),
    dependencies=[need(SESSION)],
)
async def create(desk: At, caller: Asking, body: NewWebhook, key: Key = None) -> hooks.Made:
    """Have `url` called for each of the caller's requests that ends from now on.

    The answer holds the secret that signs every call; it is shown this once. An address that is
    not public (this machine, a network at home) is for admins alone, and 20 webhooks are the most.
    """
    return await hooks.create(desk, caller, body, key=key)


@router.get(
    "/{webhook_id}", summary="Get a webhook", responses=may(404), dependencies=[need(SESSION)]
)
async def webhook(desk: At, caller: Asking, webhook_id: UUID) -> hooks.Webhook:
    """One webhook; a disabled one says why."""
    return await hooks.webhook(desk, caller, str(webhook_id))


@router.delete(
    "/{webhook_id}",
    status_code=204,
    summary="Delete a webhook",
    responses=may(404),
    dependencies=[need(SESSION)],
)
async def delete(desk: At, caller: Asking, webhook_id: UUID) -> None:
    """It is called no more, and its deliveries are forgotten."""
    await hooks.remove(desk, caller, str(webhook_id))


@router.post(
    "/{webhook_id}/test",
    status_code=202,
    summary="Send a test",
    responses=may(404),
    dependencies=[need(SESSION)],
)
async def test(desk: At, caller: Asking, webhook_id: UUID) -> hooks.Delivery:
    """Call it once, soon, with an event of type `test`. A test that arrives enables a webhook that
    was disabled.
    """
    return await hooks.test(desk, caller, str(webhook_id))


@router.get(
    "/{webhook_id}/deliveries",
    summary="List deliveries",
    responses=may(404),
    dependencies=[need(SESSION)],
)
async def deliveries(
    desk: At,
    caller: Asking,
    webhook_id: UUID,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> hooks.Deliveries:
    """What it was told, newest first, and how each telling went. Kept for 30 days."""
    return await hooks.deliveries(desk, caller, str(webhook_id), limit=limit)
