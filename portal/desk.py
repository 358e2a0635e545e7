"""What every request needs, opened once: settings, record, wire, live view, logins, limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from base.audit import AuditEvent
from base.bus import Bus
from base.deadline import Deadline
from base.errors import AIError, ConflictError
from base.limit import Limiter
from base.settings import Settings
from base.store import Store
from portal.auth import Auth, Caller
from portal.deliveries import Deliveries
from portal.feed import Feed
from portal.gauges import Gauges
from portal.limits import Seats
from portal.oauth import Providers
from portal.terminals import Terminals
from portal.trail import Trail, event
from portal.underway import Underway
from portal.voice import Voice

ASK_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The open parts of one portal. Functions take it first and the caller second."""

    settings: Settings
    store: Store
    bus: Bus
    feed: Feed
    auth: Auth
    limiter: Limiter
    seats: Seats
    trail: Trail
    gauges: Gauges
    deliveries: Deliveries
    providers: Providers
    terminals: Terminals
    screens: Seats
    voice: Voice
    underway: Underway

    def tell(self, found: AuditEvent) -> None:
        """Have it written down; never waits."""
        self.trail.tell(found)

    @asynccontextmanager
    async def written(self, what: AuditEvent) -> AsyncIterator[dict[str, Any]]:
        """Have `what` written down once the block ends, as a failure when it raised. The block
        may add details.
        """
        details: dict[str, Any] = {}
        outcome = "failure"
        try:
            yield details
            outcome = "success"
        except AIError as error:
            details["reason"] = type(error).__name__
            raise
        finally:
            found = {"outcome": outcome, "details": what.details | details}
            self.tell(what.model_copy(update=found))

    async def missing(
        self,
        caller: Caller,
        table: Literal["approvals", "conversations", "tasks", "webhooks"],
        row_id: str,
    ) -> None:
        """Write down that `caller` asked for what is somebody else's, if it is. The answer is the
        same whether it is or there is no such thing.
        """
        if await self.store.fetchval(f"SELECT TRUE FROM {table} WHERE id = $1", row_id):
            self.tell(
                event(
                    "access",
                    "read",
                    f"{table}/{row_id}",
                    caller=caller,
                    outcome="denied",
                    risk="medium",
                    reason="it belongs to somebody else",
                    status=404,
                )
            )

    async def ask(self, service: str, **payload: Any) -> dict[str, Any]:
        """The answer of a service. Raises NoAnswerError after 10 s, or the service's error."""
        return await self.bus.ask(service, payload, deadline=Deadline.after(ASK_S))

    async def once(
        self, caller: Caller, key: str | None, request: Any, do: Callable[[], Awaitable[Any]]
    ) -> Any:
        """What `do` gives, done once for an Idempotency-Key. Raises ConflictError while the
        first attempt runs, or when it was cut off and its outcome is unknown.
        """
        if key is None:
            return await do()
        pending = {"pending": True}
        async with self.store.transaction() as tx:
            before = await tx.remember(
                user_id=caller.user_id, key=key, request=request, status=202, response=pending
            )
        if before == pending:
            raise ConflictError("a request with this Idempotency-Key has not ended; look first")
        if before is not None:
            return before["answer"]
        where = (caller.user_id, key)
        try:
            answer = await do()
        except Exception:
            await self.store.execute(
                "DELETE FROM idempotency WHERE user_id = $1 AND key = $2", *where
            )
            raise
        await self.store.execute(
            "UPDATE idempotency SET response = $3 WHERE user_id = $1 AND key = $2",
            *(*where, {"answer": answer}),
        )
        return answer
