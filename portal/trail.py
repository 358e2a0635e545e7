"""What the portal has written down: who did what, from where, and how it ended.

An event that belongs to a transaction goes into its outbox (`recorded`); any other is told to the
trail, which publishes it until Redis takes it. Details never hold what people wrote.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from base import log, streams
from base.audit import Action, AuditEvent, EventType, OutcomeWord, ResourceType, Risk, message
from base.bus import Bus
from base.errors import BusError
from base.messages import Message
from base.store import Store

if TYPE_CHECKING:
    from portal.auth import Caller

SOURCE = "portal"
NOBODY = "anonymous"
WAITING_MAX = 10_000
BATCH = 100
AGAIN_S = 1.0
READING = frozenset({"GET", "HEAD", "OPTIONS"})


def event(
    event_type: EventType,
    action: Action,
    resource: str,
    *,
    caller: Caller | None = None,
    actor_id: str = "",
    peer: str = "",
    outcome: OutcomeWord = "success",
    resource_type: ResourceType = "service",
    risk: Risk = "low",
    **details: Any,
) -> AuditEvent:
    """An event of the portal. Without `caller` the actor is `actor_id`, or nobody known."""
    return AuditEvent(
        event_type=event_type,
        actor_type="user",
        actor_id=caller.user_id if caller else actor_id or NOBODY,
        actor_ip=cast("Any", (caller.peer if caller else peer) or None),
        resource_type=resource_type,
        resource_path=resource,
        action=action,
        outcome=outcome,
        details={key: value for key, value in details.items() if value is not None},
        risk_level=risk,
    )


def recorded(found: AuditEvent) -> Message:
    """The event as a message for `session.publish(streams.AUDIT, ...)`."""
    return message(found, SOURCE)


def login_failed(user_id: str, peer: str, reason: str, *, denied: bool) -> AuditEvent:
    outcome: OutcomeWord = "denied" if denied else "failure"
    return event(
        "auth",
        "login",
        "portal",
        actor_id=user_id,
        peer=peer,
        outcome=outcome,
        risk="medium",
        reason=reason,
    )


def logged_in(user_id: str, session_id: str, how: str, peer: str) -> Message:
    session = f"sessions/{session_id}"
    return recorded(event("auth", "login", session, actor_id=user_id, peer=peer, by=how))


def logged_out(caller: Caller, *, everywhere: bool = False) -> Message:
    session = f"sessions/{caller.session_id or 'local'}"
    where = f"users/{caller.user_id}/sessions" if everywhere else session
    return recorded(event("auth", "logout", where, caller=caller))


def reused(user_id: str, session_id: str, peer: str) -> Message:
    """A refresh token came again: somebody else has it, so the session was ended."""
    why = "a used refresh token came again"
    found = event(
        "auth",
        "logout",
        f"sessions/{session_id}",
        actor_id=user_id,
        peer=peer,
        outcome="denied",
        risk="high",
        reason=why,
    )
    return recorded(found)


def password_changed(caller: Caller, ended: int) -> list[Message]:
    """The change, and the `ended` other sessions that it revoked, if any."""
    whose = f"users/{caller.user_id}"
    told = [event("auth", "write", f"{whose}/password", caller=caller, risk="medium")]
    if ended:
        reason = "the password was changed"
        revoked = event(
            "auth", "logout", f"{whose}/sessions", caller=caller, sessions=ended, reason=reason
        )
        told.append(revoked)
    return [recorded(one) for one in told]


def account(
    caller: Caller, action: Action, resource: str, *, risk: Risk = "medium", **details: Any
) -> AuditEvent:
    """Something about who may get in: a user, a session, a token, an identity."""
    return event("auth", action, resource, caller=caller, risk=risk, **details)


def user_made(user_id: str, role: str) -> Message:
    made = event("auth", "write", f"users/{user_id}", actor_id=SOURCE, role=role)
    return recorded(made.model_copy(update={"actor_type": "system"}))


class Trail:
    """Events on their way. `run` for as long as the portal lives, then `close`."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._waiting: deque[AuditEvent] = deque()
        self._some = asyncio.Event()
        self._lost = 0

    def tell(self, found: AuditEvent) -> None:
        """Never waits. Beyond 10,000 that wait for Redis, new ones are counted and dropped."""
        if len(self._waiting) >= WAITING_MAX:
            self._lost += 1
            return
        self._waiting.append(found)
        self._some.set()

    async def run(self) -> None:
        """Publish what was told, in order, again and again until Redis has it."""
        while True:
            await self._some.wait()
            batch = list(self._waiting)[:BATCH]
            try:
                await self._bus.publish(streams.AUDIT, *map(recorded, batch))
            except BusError:  # the bus logs its outages itself
                await asyncio.sleep(AGAIN_S)
                continue
            for _ in batch:
                self._waiting.popleft()
            if not self._waiting:
                self._some.clear()
                if self._lost:
                    log.get("portal").error("audit events dropped", count=self._lost)
                    self._lost = 0

    async def close(self) -> None:
        """Leave what could not be published to the outbox; one event twice is one row."""
        if self._waiting:
            async with self._store.transaction() as tx:
                await tx.publish(streams.AUDIT, *map(recorded, self._waiting))
            self._waiting.clear()
