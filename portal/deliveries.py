"""Webhooks on their way: one watched task of the portal tells each hook which tasks ended.

The tables are the truth. An event of the live view only wakes the loop, which looks for requests
that ended and were not told yet, and sends what is due: a killed portal loses nothing, and what
it was sending when it died is sent again under the same id. Of several portals one delivers.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from dataclasses import dataclass
from importlib.metadata import version

import httpx

from base import log, program, streams
from base.errors import StoreError
from base.messages import Event, Kind, Status
from base.settings import Settings
from base.store import HeldLock, Session, Store
from portal import callout, finished, signature
from portal.trail import event, recorded

EVENT_TEST = "test"
LOCK = "webhooks"
#: How long after each failed attempt the next one comes; then the delivery is given up.
WAITS_S = (1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0)
#: So many attempts in a row, of whichever deliveries, and the hook is disabled.
DEAD_FAILURES = 20
HOOKS_AT_ONCE = 8
SWEEP_S = 30.0
#: A portal that was killed may hold the lock until PostgreSQL misses it: the next one asks again.
LOCK_S = 5.0
TIDY_S = 3_600.0
AGAIN_S = 1.0
KEEP_DAYS = 30
BATCH = 100
SPREAD = 0.2
ENDED = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})
AGENT = f"ai-infra/{version('ai-infrastructure')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A delivery whose time comes in `wait_s`; below 0 it is there."""

    id: str
    webhook_id: str
    user_id: str
    event: str
    body: str
    attempts: int
    url: str
    private: bool
    wait_s: float


class Deliveries:
    """`run` for as long as the portal lives; `hear` and `wake` at any time."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._key = signature.key(settings)
        self._store = store
        self._wake = asyncio.Event()
        self._tidied_s = float("-inf")

    def secret_of(self, webhook_id: str) -> str:
        """What signs the calls of one hook."""
        return signature.secret_of(self._key, webhook_id)

    def hear(self, found: Event) -> None:
        """Look into the record once a request has ended."""
        whole = found.kind is Kind.TASK and found.task_id in {None, found.root_id}
        if whole and found.data.get("status") in ENDED:
            self._wake.set()

    def wake(self) -> None:
        """There is something to send."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver whenever no other portal does. While PostgreSQL is away nothing is lost."""
        while True:
            held: HeldLock | None = None
            try:
                held = await self._store.advisory_lock(LOCK)
                if held is not None:
                    await program.watch(asyncio.Event(), lock=held.watch(), work=self._work())
            except StoreError as error:
                log.get("portal").warning("webhooks put off", error=str(error))
            finally:
                if held is not None:
                    await held.release()
            await asyncio.sleep(AGAIN_S if held is not None else LOCK_S)

    async def _work(self) -> None:
        under_way: dict[asyncio.Task[None], str] = {}
        async with callout.client() as by:
            try:
                while True:
                    self._wake.clear()
                    await self._tidy()
                    await self._enrol()
                    rest_s = SWEEP_S
                    for due in await self._next(list(under_way.values())):
                        if due.wait_s > 0 or len(under_way) >= HOOKS_AT_ONCE:
                            rest_s = min(rest_s, max(due.wait_s, 0.0) or SWEEP_S)
                            continue
                        task = asyncio.create_task(self._attempt(by, due), name="webhook")
                        under_way[task] = due.webhook_id
                    for task in await self._rest({*under_way}, rest_s):
                        del under_way[task]
                        task.result()
            finally:
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)

    async def _rest(
        self, under_way: set[asyncio.Task[None]], rest_s: float
    ) -> set[asyncio.Task[None]]:
        """Wait until there may be something to do; which attempts have ended."""
        waking = asyncio.create_task(self._wake.wait(), name="webhooks wake")
        try:
            done, _ = await asyncio.wait(
                {waking, *under_way}, timeout=rest_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waking.cancel()
        return {task for task in under_way if task in done}

    async def _enrol(self) -> None:
        """A delivery for each request that ended while its hook was there, once."""
        while rows := await finished.untold(self._store, BATCH):
            for row in rows:
                delivery_id = str(uuid.uuid4())
                await self._store.execute(
                    "INSERT INTO webhook_deliveries (id, webhook_id, task_id, event, body)"
                    " SELECT $1, id, $3, $4, $5 FROM webhooks WHERE id = $2 ON CONFLICT DO NOTHING",
                    *(delivery_id, row["webhook_id"], row["task_id"], finished.EVENT),
                    finished.body(delivery_id, row),
                )

    async def _next(self, busy: list[str]) -> list[Due]:
        """The next delivery of each hook that has none under way, soonest first."""
        rows = await self._store.fetch(_NEXT, busy, HOOKS_AT_ONCE * 2)
        return [Due(**row) for row in rows]

    async def _attempt(self, by: httpx.AsyncClient, due: Due) -> None:
        body, now_s = due.body.encode(), int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": AGENT,
            "X-AI-Infra-Event": due.event,
            "X-AI-Infra-Delivery": due.id,
            signature.HEADER: signature.sign(self.secret_of(due.webhook_id), body, now_s),
        }
        said = await callout.post(by, due.url, body, headers, private=due.private)
        attempts, status, wait_s = due.attempts + 1, "delivered", 0.0
        if not said.ok:
            again = due.event != EVENT_TEST and attempts <= len(WAITS_S)
            status = "pending" if again else "failed"
            wait_s = WAITS_S[attempts - 1] * random.uniform(1, 1 + SPREAD) if again else 0.0
        async with self._store.transaction() as tx:
            await tx.execute(
                "UPDATE webhook_deliveries SET status = $2::text, attempts = $3,"
                " response_status = $4, error = $5, took_ms = $6,"
                " next_at = now() + make_interval(secs => $7),"
                " ended_at = CASE WHEN $2::text <> 'pending' THEN now() END WHERE id = $1",
                *(due.id, status, attempts, said.status, said.error, said.took_ms, wait_s),
            )
            if said.ok:
                await tx.execute(
                    "UPDATE webhooks SET failures = 0, disabled_at = NULL, disabled_why = NULL"
                    " WHERE id = $1",
                    due.webhook_id,
                )
            elif due.event != EVENT_TEST:
                failures = await tx.fetchval(
                    "UPDATE webhooks SET failures = failures + 1 WHERE id = $1 RETURNING failures",
                    due.webhook_id,
                )
                if failures is not None and failures >= DEAD_FAILURES:
                    await self._disable(tx, due, f"{failures} attempts in a row failed", said)
        log.get("portal").debug(
            "webhook called", webhook_id=due.webhook_id, status=status, duration_ms=said.took_ms
        )

    async def _disable(self, tx: Session, due: Due, why: str, said: callout.Said) -> None:
        why = f"{why}; the last one: {said.error}"
        await tx.execute(
            "UPDATE webhooks SET disabled_at = now(), disabled_why = $2 WHERE id = $1",
            *(due.webhook_id, why),
        )
        log.get("portal").warning("webhook disabled", webhook_id=due.webhook_id, reason=why)
        what = event(
            "action",
            "write",
            f"webhooks/{due.webhook_id}",
            actor_id=due.user_id,
            outcome="failure",
            reason=f"disabled: {why}",
        )
        told = what.model_copy(update={"actor_type": "system"})
        await tx.publish(streams.AUDIT, recorded(told))

    async def _tidy(self) -> None:
        if time.monotonic() - self._tidied_s >= TIDY_S:
            await self._store.execute(
                "DELETE FROM webhook_deliveries"
                " WHERE created_at < now() - make_interval(days => $1)",
                KEEP_DAYS,
            )
            self._tidied_s = time.monotonic()


_NEXT = """
SELECT * FROM (
    SELECT DISTINCT ON (d.webhook_id) d.id, d.webhook_id, w.user_id, d.event, d.body, d.attempts,
        w.url, w.private, EXTRACT(EPOCH FROM d.next_at - now())::float AS wait_s
    FROM webhook_deliveries d
    JOIN webhooks w ON w.id = d.webhook_id
    JOIN users u ON u.id = w.user_id AND u.is_active AND (u.role = 'admin' OR NOT w.private)
    WHERE d.status = 'pending' AND w.id <> ALL($1::uuid[])
        AND (w.disabled_at IS NULL OR d.event = 'test')
    ORDER BY d.webhook_id, d.next_at
) AS found ORDER BY wait_s LIMIT $2
"""
