"""Months: made ahead, changed at their end, sealed before they are dropped; and exports."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from audit_steps import event, events, running, verdict, written

from base import audit_export, audit_heads, audit_months, audit_verify
from base.audit_chain import GENESIS
from base.audit_writer import Writer, _row, add
from base.bus import Bus
from base.errors import InputError, NotFoundError
from base.settings import Settings
from base.store import Store

OLD = datetime(2020, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)


async def _aged(settings: Settings, store: Store, bus: Bus) -> Writer:
    """A log whose first rows are years old, one of them late: seq 1, 2, 4 in January, 3 and 5 in
    February, the rest now. As the writer wrote them then.
    """
    rows = [_row(one) for one in events(5)]
    second = timedelta(seconds=1)
    for row, at in zip(rows, (OLD, OLD, OLD + second, OLD, OLD + second), strict=True):
        row["timestamp"] = at
    async with store.transaction() as tx:
        await add(tx, rows, after=(0, GENESIS))
    await store.fetchval("SELECT audit_logs_make_partitions()")
    await written(settings, store, bus, 4, keep_months=100_000)
    return Writer(settings, store, bus)


async def test_rows_go_to_the_month_they_happened_in(
    settings: Settings, store: Store, bus: Bus
) -> None:
    await _aged(settings, store, bus)
    months = await store.fetch("SELECT seq, tableoid::regclass::text AS name FROM audit_logs")
    names = {row["seq"]: row["name"] for row in months}
    january, february = "audit_logs_y2020m01", "audit_logs_y2020m02"
    assert [names[n] for n in range(1, 6)] == [january, january, february, january, february]
    assert (await verdict(settings, store)).ok


async def test_a_month_past_keeping_is_sealed_then_dropped_and_verify_passes(
    settings: Settings, store: Store, bus: Bus
) -> None:
    writer = await _aged(settings, store, bus)
    assert await writer.retire() == ["audit_logs_y2020m01", "audit_logs_y2020m02"]
    rows = await store.fetch("SELECT * FROM audit_logs ORDER BY seq")
    assert rows[0]["seq"] == 6
    seals = [row["details"] for row in rows if row["resource_type"] == "seal"]
    assert [(one["month"], one["rows"], one["first_seq"], one["last_seq"]) for one in seals] == [
        ("2020-01", 3, 1, 4),
        ("2020-02", 2, 3, 5),
    ]
    assert seals[1]["last_hash"] == rows[0]["prev_hash"]
    report = await verdict(settings, store)
    assert report.ok, report.faults
    assert await writer.retire() == []
    assert await store.fetchval("SELECT min(seq) FROM audit_chain") == 6


async def test_one_month_of_two_dropped_leaves_gaps_that_the_seal_explains(
    settings: Settings, store: Store, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = await _aged(settings, store, bus)

    async def january(*_: Any) -> list[str]:
        return ["audit_logs_y2020m01"]

    monkeypatch.setattr(audit_months, "past", january)
    await writer.retire()
    report = await verdict(settings, store)
    assert report.ok, report.faults
    assert report.first_seq == 3


async def test_a_month_dropped_without_a_seal_is_found(
    settings: Settings, store: Store, bus: Bus
) -> None:
    await _aged(settings, store, bus)
    await store.execute("DROP TABLE audit_logs_y2020m01")
    faults = (await verdict(settings, store)).faults
    assert [(fault.kind, fault.seq) for fault in faults] == [("deleted", 3), ("deleted", 5)]


async def test_a_seal_explains_no_more_than_its_own_rows(
    settings: Settings, store: Store, bus: Bus
) -> None:
    writer = await _aged(settings, store, bus)
    await writer.retire()
    await store.execute("DELETE FROM audit_logs WHERE seq IN (6, 8)")
    faults = (await verdict(settings, store)).faults
    assert [(fault.kind, fault.seq) for fault in faults] == [("deleted", 7), ("deleted", 9)]


async def test_a_forged_seal_explains_nothing(settings: Settings, store: Store, bus: Bus) -> None:
    writer = await _aged(settings, store, bus)
    await writer.retire()
    await store.execute(
        "UPDATE audit_logs SET details = jsonb_set(details, '{spans,0,last}', '7')"
        " WHERE resource_type = 'seal' AND details ->> 'month' = '2020-02'"
    )
    kinds = {fault.kind for fault in (await verdict(settings, store)).faults}
    assert kinds == {"deleted", "edited"}


@pytest.mark.parametrize("column", ["actor_id = 'x'", "prev_hash = repeat('a', 64)"])
async def test_a_month_that_was_tampered_with_stays(
    settings: Settings, store: Store, bus: Bus, column: str
) -> None:
    writer = await _aged(settings, store, bus)
    await store.execute(f"UPDATE audit_logs SET {column} WHERE seq = 2")
    assert await writer.retire() == []
    assert await store.fetchval("SELECT count(*) FROM audit_logs_y2020m01") == 3
    assert ("edited", 2) in [(one.kind, one.seq) for one in (await verdict(settings, store)).faults]


async def test_which_months_are_past_keeping(store: Store) -> None:
    for at in ("2025-10-31T23:59:59Z", "2025-11-01T00:00:00Z"):
        await store.execute(
            "INSERT INTO audit_logs (timestamp, event_type, actor_type, actor_id, action, outcome)"
            " VALUES ($1, 'auth', 'user', 'u', 'login', 'success')",
            datetime.fromisoformat(at),
        )
    await store.fetchval("SELECT audit_logs_make_partitions()")
    last = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
    assert await audit_months.past(store, 12, last) == ["audit_logs_y2025m10"]
    first = datetime(2026, 12, 1, tzinfo=UTC)
    assert await audit_months.past(store, 12, first) == [
        "audit_logs_y2025m10",
        "audit_logs_y2025m11",
    ]


async def test_retirement_at_work_and_the_drop_leaves_the_role(
    settings: Settings, store: Store, bus: Bus
) -> None:
    await _aged(settings, store, bus)
    async with running(Writer(settings, store, bus)), asyncio.timeout(20):
        while await audit_months.past(store, 12):
            await asyncio.sleep(0.05)
    names = await store.fetch("SELECT DISTINCT tableoid::regclass::text AS name FROM audit_logs")
    assert not any("2020" in row["name"] for row in names)
    assert (await verdict(settings, store)).ok


# Exports -----------------------------------------------------------------------------------


async def _exported(settings: Settings, store: Store, *moments: Any) -> list[bytes]:
    return [line async for line in audit_export.export(settings, store, *moments)]


async def test_an_export_is_checked_without_a_database(
    settings: Settings, store: Store, bus: Bus
) -> None:
    writer = await _aged(settings, store, bus)
    await writer.retire()
    lines = await _exported(settings, store)
    key = audit_heads.public_key(audit_heads.public_path(settings).read_bytes())
    report = audit_verify.check_file(lines, key)
    assert report.ok, report.faults
    assert report.rows == await store.fetchval("SELECT count(*) FROM audit_logs")
    assert report.notes == ()
    assert "believed" in audit_verify.check_file(lines).notes[0]


def _change(line: bytes, **fields: Any) -> bytes:
    return orjson.dumps({**orjson.loads(line), **fields}) + b"\n"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda ls: [*ls[:-2], _change(ls[-2], actor_id="x"), ls[-1]], "edited"),
        (lambda ls: [*ls[:-2], ls[-1]], "deleted"),
        (lambda ls: ls[:-1], "cut"),
        (lambda ls: [*ls[:-2], ls[-1], ls[-2]], "reordered"),
        (lambda ls: [_change(ls[0], last_seq=9, rows=9), *ls[1:-1]], "cut"),
    ],
)
async def test_a_changed_export_is_found(
    settings: Settings, store: Store, bus: Bus, change: Any, kind: str
) -> None:
    await written(settings, store, bus, 9)
    lines = await _exported(settings, store)
    assert audit_verify.check_file(lines).ok
    report = audit_verify.check_file(change(lines))
    assert kind in {fault.kind for fault in report.faults}


async def test_an_export_checked_with_another_key_fails(
    settings: Settings, store: Store, bus: Bus
) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    await written(settings, store, bus, 2)
    other = Ed25519PrivateKey.generate().public_key()
    report = audit_verify.check_file(await _exported(settings, store), other)
    assert {fault.kind for fault in report.faults} == {"signature"}


async def test_a_part_is_one_run_of_the_chain_and_says_where_it_begins(
    settings: Settings, store: Store, bus: Bus
) -> None:
    at = datetime.now(UTC) - timedelta(hours=5)
    writer = Writer(settings, store, bus)
    found = [event(n, timestamp=at + timedelta(hours=n)) for n in (0, 1, 4, 2, 3)]
    await writer.write(found)
    writer.sign()
    hour = timedelta(minutes=30)
    lines = await _exported(settings, store, at + hour, at + timedelta(hours=2) + hour)
    report = audit_verify.check_file(lines)
    assert report.ok, report.faults
    assert (report.first_seq, report.last_seq, report.rows) == (2, 4, 3)
    assert "begins at row 2" in report.notes[-1]


async def test_an_empty_export_passes_and_a_home_without_a_key_says_so(
    settings: Settings, store: Store, bus: Bus
) -> None:
    with pytest.raises(NotFoundError):
        await _exported(settings, store)
    Writer(settings, store, bus)
    assert audit_verify.check_file(await _exported(settings, store)).ok


@pytest.mark.parametrize("lines", [[], [b"x\n"], [b"[]\n"], [b'{"kind":"row"}\n']])
def test_a_file_that_is_no_export_says_so(lines: list[bytes]) -> None:
    with pytest.raises(InputError):
        audit_verify.check_file(lines)
