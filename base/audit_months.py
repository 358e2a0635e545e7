"""The log's months: which are past keeping, what a seal says of one, and its end.

A month holds the rows whose events happened in it. Events come late, so its seq need not be one
run: a seal names every run of them.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from base import audit_chain
from base.audit_chain import Span
from base.errors import ConflictError
from base.store import Session, Store

PAGE = 1_000
_NAME = re.compile(r"audit_logs_y(\d{4,})m(\d\d)")
#: The rows as they are hashed: the moment and the details as text, spares reading them twice.
SELECT = (
    "SELECT seq, id, to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    " AS timestamp, event_type, actor_type, actor_id, actor_ip, resource_type,"
    " resource_path, action, outcome, details::text AS details, risk_level, prev_hash, hash FROM "
)


async def past(store: Store, keep_months: int, now: datetime | None = None) -> list[str]:
    """The partitions of months that ended more than `keep_months` ago, oldest first."""
    rows = await store.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits"
        " WHERE inhparent = 'audit_logs'::regclass"
    )
    at = now or datetime.now(UTC)
    oldest = at.year * 12 + at.month - 1 - keep_months
    found = []
    for row in rows:
        match = _NAME.fullmatch(row["name"])
        if match is not None and int(match[1]) * 12 + int(match[2]) - 1 < oldest:
            found.append(row["name"])
    return sorted(found)


async def seal(tx: Session, month: str) -> dict[str, Any]:
    """What the seal row says of a month. Raises ConflictError when a row of it was tampered with:
    such a month is evidence and stays.
    """
    found: list[Span] = []
    rows, last = 0, 0
    first, end = _span(month)
    # Of the log and not of the month's own table, which its reader may have no right to.
    rows_of = (
        f"{SELECT}audit_logs WHERE timestamp >= $2 AND timestamp < $3 AND seq > $1"
        f" ORDER BY seq LIMIT {PAGE}"
    )
    while True:
        page = await tx.fetch(rows_of, last, first, end)
        for row in page:
            if not audit_chain.fits(row, row["seq"]):
                raise ConflictError(f"{month} is not dropped: row {row['seq']} was tampered with")
            _extend(found, row)
        if not page:
            break
        rows, last = rows + len(page), page[-1]["seq"]
    return {
        "month": month.removeprefix("audit_logs_y").replace("m", "-"),
        "rows": rows,
        "first_seq": found[0].first if found else None,
        "last_seq": found[-1].last if found else None,
        "last_hash": found[-1].last_hash if found else None,
        "spans": [asdict(span) for span in found],
    }


def _span(month: str) -> tuple[datetime, datetime]:
    """Its first moment, and that of the next."""
    match = _NAME.fullmatch(month)
    if match is None:
        raise ConflictError(f"{month} is no month of the audit log")
    year, number = int(match[1]), int(match[2])
    after = (year, number + 1) if number < 12 else (year + 1, 1)
    return datetime(year, number, 1, tzinfo=UTC), datetime(*after, 1, tzinfo=UTC)


def _extend(found: list[Span], row: dict[str, Any]) -> None:
    """Add a row to the last run, or begin the next."""
    seq, first, prev_hash = row["seq"], row["seq"], row["prev_hash"]
    if found and found[-1].last == seq - 1:
        before = found.pop()
        if before.last_hash != prev_hash:
            raise ConflictError(f"the month is not dropped: row {seq} does not follow {seq - 1}")
        first, prev_hash = before.first, before.prev_hash
    found.append(Span(first=first, last=seq, prev_hash=prev_hash, last_hash=row["hash"]))


async def drop(tx: Session, month: str) -> None:
    """Drop a month that is sealed, and forget its events' ids. StoreError: it is being read."""
    await tx.execute("SELECT audit_logs_end_month($1)", month)
