"""The one writer of the audit log: takes events off the wire, chains them, signs where it stands.

A batch is inserted and chained in one transaction, under an advisory lock and as a role that can
only add; its entries are acked after the commit. The same event id twice is one row.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from base import audit_chain, audit_months, log, streams
from base.audit import AuditEvent
from base.audit_chain import CHAIN, GENESIS, SEAL, START
from base.audit_heads import Signer
from base.bus import Bus, Delivery
from base.errors import BusError, ConflictError, InputError, StoreError
from base.outage import Outage
from base.settings import Settings
from base.store import Session, Store

LOCK = "audit_logs"
ROLE = "ai_infra_audit"
BATCH = 500
HEAD_S, HEAD_ROWS = 300.0, 1_000
TICK_S, PAUSE_S, MONTHS_S = 5.0, 1.0, 3_600.0
#: A timestamp outside of this is the clock of whoever sent it: the row gets the time of writing.
PAST, FUTURE = timedelta(days=31), timedelta(minutes=5)
#: Deliveries that ended with our death; the event itself is harmless, so be patient with it.
DELIVERIES = 10
GROUP = streams.GROUP_AUDIT

COLUMNS = (*audit_chain.FIELDS, "hash")
_INSERT = (
    f"INSERT INTO audit_logs ({', '.join(COLUMNS)})"
    f" VALUES ({', '.join(f'${n}' for n in range(1, len(COLUMNS) + 1))})"
)

Row = dict[str, Any]

logger = log.get(__name__)


class Writer:
    """Make one a home and `run` it. `head_s` and `head_rows`: sign after either."""

    def __init__(
        self, settings: Settings, store: Store, bus: Bus, *, head_s: float = HEAD_S,
        head_rows: int = HEAD_ROWS, keep_months: int = 12,
    ) -> None:  # fmt: skip
        self._store = store
        self._bus = bus
        self._signer = Signer.open(settings)
        self._head_s = head_s
        self._head_rows = head_rows
        self._keep_months = keep_months
        self._outage = Outage("postgresql, for the audit log")
        head = self._signer.last
        self._seq, self._hash = (head.seq, head.hash) if head else (0, GENESIS)
        self._signed_seq, self._signed_at_s = self._seq, time.monotonic()

    async def run(self) -> None:
        """Until cancelled, then sign once more. Waits while PostgreSQL or Redis is away."""
        try:
            await self._start()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._consume(), name="audit entries")
                group.create_task(self._tend(), name="audit heads and months")
        finally:
            self.sign()

    async def write(self, events: Sequence[AuditEvent]) -> int:
        """Add the events that are not there yet; how many. Raises StoreError, InputError or
        ConflictError: then none was added, or (StoreError) it is not known.
        """
        rows = {str(event.id): _row(event) for event in events}
        return await self._commit(list(rows.values()))

    def sign(self) -> None:
        """Sign where the chain stands, when that is further than the last head. Never raises."""
        if self._seq <= self._signed_seq:
            return
        try:
            self._signer.sign(self._seq, self._hash)
        except OSError as error:
            logger.error("did not sign the audit log", error=str(error))
            return
        self._signed_seq, self._signed_at_s = self._seq, time.monotonic()

    async def _commit(self, rows: Sequence[dict[str, Any]]) -> int:
        async with self._store.transaction() as tx:
            added = await add(tx, rows, after=(self._seq, self._hash))
        self._stand(added)
        return added.count

    def _stand(self, added: Added) -> None:
        self._seq, self._hash = added.seq, added.hash
        if self._seq - self._signed_seq >= self._head_rows:
            self.sign()

    async def _start(self) -> None:
        """Say in the chain which head was the last, so that heads cannot be cut unseen."""
        last = self._signer.last
        details = {
            "heads": last.number if last else 0,
            "head": last.digest if last else GENESIS,
            "key": self._signer.key,
        }
        row = own_row(START, "write", details)
        while True:
            try:
                await self._commit([row])
                break
            except StoreError as error:
                self._outage.began(error)
                await asyncio.sleep(PAUSE_S)
        self._outage.ended()
        self.sign()

    async def _consume(self) -> None:
        while True:
            work = self._bus.consume(streams.AUDIT, GROUP, batch=BATCH, deliveries=DELIVERIES)
            try:
                async with contextlib.aclosing(work):
                    async for deliveries in work:
                        await self._take(deliveries)
            except BusError as error:
                logger.warning("audit entries cannot be read", error=str(error))
                await asyncio.sleep(PAUSE_S)

    async def _take(self, deliveries: Sequence[Delivery]) -> None:
        events: dict[str, AuditEvent] = {}
        for delivery in deliveries:
            try:
                events[delivery.id] = AuditEvent.model_validate(delivery.message.payload)
            except ValidationError as error:
                await self._bury(delivery, _first(error))
        try:
            await self._patiently(list(events.values()))
        except (InputError, ConflictError):  # one of them: find out which
            events = {
                one.id: events[one.id] for one in deliveries if await self._alone(one, events)
            }
        try:
            await self._bus.ack(streams.AUDIT, GROUP, *events)
        except BusError as error:  # they come again, and are known then
            logger.warning("did not ack", stream=streams.AUDIT, error=str(error))

    async def _alone(self, delivery: Delivery, events: Mapping[str, AuditEvent]) -> bool:
        """Whether it is written; one that cannot be is a dead letter."""
        if delivery.id not in events:
            return False
        try:
            await self._patiently([events[delivery.id]])
        except (InputError, ConflictError) as error:
            await self._bury(delivery, str(error))
            return False
        return True

    async def _patiently(self, events: Sequence[AuditEvent]) -> None:
        """Write, again and again while PostgreSQL is away."""
        while events:
            try:
                await self.write(events)
                break
            except StoreError as error:
                self._outage.began(error)
                await asyncio.sleep(PAUSE_S)
        self._outage.ended()

    async def _bury(self, delivery: Delivery, reason: str) -> None:
        try:
            await self._bus.bury(streams.AUDIT, GROUP, delivery, f"no audit event: {reason}")
        except BusError as error:
            logger.warning("did not bury", stream=streams.AUDIT, error=str(error))

    async def _tend(self) -> None:
        months_at_s = time.monotonic()
        while True:
            if time.monotonic() - self._signed_at_s >= self._head_s:
                self.sign()
            if time.monotonic() >= months_at_s:
                months_at_s = time.monotonic() + MONTHS_S
                await self.retire()
            await asyncio.sleep(min(TICK_S, self._head_s))

    async def retire(self) -> list[str]:
        """Drop the months that are past keeping, each with a seal row; their names."""
        gone = []
        try:
            for month in await audit_months.past(self._store, self._keep_months):
                async with self._store.transaction() as tx:
                    details = await audit_months.seal(tx, month)
                    seal = own_row(SEAL, "delete", details, month)
                    added = await add(tx, [seal], after=(self._seq, self._hash))
                    await tx.execute("RESET ROLE")
                    await audit_months.drop(tx, month)
                self._stand(added)
                self.sign()
                gone.append(month)
        except (StoreError, ConflictError, InputError) as error:
            logger.warning("months stay in the audit log", error=str(error))
        return gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What a transaction added, and where the chain stands after its commit."""

    count: int
    seq: int
    hash: str


async def add(tx: Session, rows: Sequence[Row], *, after: tuple[int, str]) -> Added:
    """Chain and insert the rows that are not there yet, in the writer's role where it exists.

    `after`: the furthest (seq, hash) the caller knows of. A tail that was cut from the database
    so leaves a gap instead of being written over.
    """
    if await usable_role(tx):
        await tx.execute(f"SET LOCAL ROLE {ROLE}")
    await tx.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", LOCK)
    known = await tx.fetch(
        "SELECT id FROM audit_chain WHERE id = ANY($1::uuid[])", [row["id"] for row in rows]
    )
    gone = {row["id"] for row in known}
    last = await tx.fetchrow("SELECT seq, hash FROM audit_chain ORDER BY seq DESC LIMIT 1")
    place = (last["seq"], last["hash"]) if last else (0, GENESIS)
    if after[0] > place[0]:
        logger.error("the audit log was cut", seq=place[0], expected=after[0])
        place = after
    linked = audit_chain.link([row for row in rows if row["id"] not in gone], *place)
    if not linked:
        return Added(count=0, seq=place[0], hash=place[1])
    await tx.executemany(
        "INSERT INTO audit_chain (seq, id, hash) VALUES ($1, $2, $3)",
        [(row["seq"], row["id"], row["hash"]) for row in linked],
    )
    await tx.executemany(_INSERT, [[row[name] for name in COLUMNS] for row in linked])
    return Added(count=len(linked), seq=linked[-1]["seq"], hash=linked[-1]["hash"])


async def usable_role(tx: Session | Store) -> bool:
    """Whether our user may become the role that can only add. A superuser always may."""
    return bool(
        await tx.fetchval(
            "SELECT COALESCE(bool_or(pg_has_role(SESSION_USER, oid, 'MEMBER') AND"
            " has_table_privilege(oid, 'audit_logs', 'INSERT') AND"
            " has_table_privilege(oid, 'audit_chain', 'INSERT')), FALSE)"
            " FROM pg_roles WHERE rolname = $1",
            ROLE,
        )
    )


def own_row(event: str, action: str, details: dict[str, Any], month: str | None = None) -> Row:
    """A row that the writer adds about the log itself: `event` start or seal."""
    return {
        "id": str(uuid.uuid4()),
        "timestamp": datetime.now(UTC),
        "event_type": CHAIN,
        "actor_type": "system",
        "actor_id": "audit",
        "actor_ip": None,
        "resource_type": event,
        "resource_path": month or "audit_logs",
        "action": action,
        "outcome": "success",
        "details": details,
        "risk_level": "low",
    }


def _row(event: AuditEvent) -> Row:
    now = datetime.now(UTC)
    at, ip, details = event.timestamp.astimezone(UTC), event.actor_ip, event.details
    if not now - PAST <= at <= now + FUTURE:
        at, details = now, {**details, "claimed_timestamp": audit_chain.stamp(at)}
    return {
        **event.model_dump(exclude={"id", "timestamp", "actor_ip", "details"}),
        "id": str(event.id),
        "timestamp": at,
        "actor_ip": ip if ip is None else audit_chain.address(str(ip)),
        "details": details,
    }


def _first(error: ValidationError) -> str:
    fault = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
