"""What every request needs, opened once: settings, record, wire, live view, logins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from base.bus import Bus
from base.deadline import Deadline
from base.errors import ConflictError
from base.settings import Settings
from base.store import Store
from portal.auth import Auth, Caller
from portal.feed import Feed

ASK_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The open parts of one portal. Functions take it first and the caller second."""

    settings: Settings
    store: Store
    bus: Bus
    feed: Feed
    auth: Auth

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
