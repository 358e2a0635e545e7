"""Dead letters: messages that could not be handled, for admins."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from base.bus import DeadLetter
from base.messages import Wire
from portal.auth import Caller, admin_only
from portal.desk import Desk
from portal.trail import event


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


async def dead(desk: Desk, caller: Caller, stream: str | None) -> DeadLetters:
    """The dead letters of one stream or of all, oldest first (admin)."""
    admin_only(caller)
    return DeadLetters(letters=[_dead(one) for one in await desk.bus.dead(stream)])


async def replay(desk: Desk, caller: Caller, letter_id: str, *, key: str | None = None) -> Dead:
    """Put a dead letter back on its stream (admin). Raises NotFoundError for none such."""
    admin_only(caller)

    async def do() -> dict[str, Any]:
        what = event("action", "execute", f"dlq/{letter_id}/replay", caller=caller, risk="medium")
        async with desk.written(what):
            return _dead(await desk.bus.replay(letter_id)).model_dump(mode="json")

    return Dead.model_validate(await desk.once(caller, key, ["replay", letter_id], do))


async def purge(desk: Desk, caller: Caller, stream: str | None) -> int:
    """Delete the dead letters of one stream or all; how many went (admin)."""
    admin_only(caller)
    what = event("action", "delete", f"dlq/{stream or 'all'}", caller=caller, risk="medium")
    async with desk.written(what) as found:
        found["letters"] = await desk.bus.purge(stream, older_than_days=0)
    return int(found["letters"])


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
