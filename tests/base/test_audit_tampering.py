"""Every way to tamper with the log is found and the row named; an untouched log passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_steps import events, heads_file, rewrite, running, until_rows, verdict, written
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from base import audit_heads
from base.audit_heads import Signer
from base.audit_writer import Writer
from base.bus import Bus
from base.settings import Settings
from base.store import Store

ROWS = 9  # with the start row: ten


@pytest.fixture
async def log(settings: Settings, store: Store, bus: Bus) -> Store:
    """Ten rows, all signed, that pass: each test's own negative control."""
    await written(settings, store, bus, ROWS)
    report = await verdict(settings, store)
    assert report.ok, report.faults
    assert (report.rows, report.signed_seq) == (10, 10)
    return store


async def _faults(settings: Settings, store: Store) -> list[tuple[str, int | None]]:
    report = await verdict(settings, store)
    assert not report.ok
    return [(fault.kind, fault.seq) for fault in report.faults]


EDITS = {
    "actor_id": "'somebody'",
    "outcome": "'denied'",
    "timestamp": "timestamp + interval '1 microsecond'",
    "actor_ip": "'10.0.0.1'",
    "resource_path": "NULL",
    "details": "jsonb_set(details, '{number}', '7000')",
    "risk_level": "'critical'",
    "id": "gen_random_uuid()",
    "hash": "repeat('a', 64)",
    "event_type": "'access'",
}


@pytest.mark.parametrize("column", EDITS)
async def test_an_edit_is_found(settings: Settings, log: Store, column: str) -> None:
    await log.execute(f"UPDATE audit_logs SET {column} = {EDITS[column]} WHERE seq = 5")
    found = await _faults(settings, log)
    assert found[0] == ("edited", 5)


async def test_an_edit_names_the_row(settings: Settings, log: Store) -> None:
    row_id = await log.fetchval("SELECT id FROM audit_logs WHERE seq = 5")
    await log.execute("UPDATE audit_logs SET actor_id = 'x' WHERE seq = 5")
    (fault,) = (await verdict(settings, log)).faults
    assert (fault.seq, fault.id, fault.kind) == (5, row_id, "edited")
    assert "content" in fault.said


async def test_an_edit_with_its_own_hash_recomputed_is_found(
    settings: Settings, log: Store
) -> None:
    from base import audit_chain

    row = await log.fetchrow("SELECT * FROM audit_logs WHERE seq = 5")
    assert row is not None
    changed = {**row, "actor_id": "somebody"}
    await log.execute(
        "UPDATE audit_logs SET actor_id = 'somebody', hash = $1 WHERE seq = 5",
        audit_chain.digest(changed),
    )
    assert await _faults(settings, log) == [("rewritten", 6)]


@pytest.mark.parametrize(("where", "said"), [("seq = 5", "row 5 is"), ("seq < 4", "rows 1 to 3")])
async def test_a_deletion_is_found(settings: Settings, log: Store, where: str, said: str) -> None:
    await log.execute(f"DELETE FROM audit_logs WHERE {where}")
    (fault,) = (await verdict(settings, log)).faults
    assert fault.kind == "deleted"
    assert said in fault.said


async def test_two_rows_that_changed_places_are_found(settings: Settings, log: Store) -> None:
    await log.execute("UPDATE audit_logs SET seq = 15 - seq WHERE seq IN (7, 8)")
    report = await verdict(settings, log)
    moved = [fault for fault in report.faults if fault.kind == "reordered"]
    assert [(one.seq, one.said) for one in moved] == [
        (7, "it was written as row 8"),
        (8, "it was written as row 7"),
    ]


async def test_a_row_put_in_twice_is_found(settings: Settings, log: Store) -> None:
    await log.execute(
        "INSERT INTO audit_logs SELECT gen_random_uuid(), timestamp, event_type, actor_type,"
        " actor_id, actor_ip, resource_type, resource_path, action, outcome, details, risk_level,"
        " seq, prev_hash, hash FROM audit_logs WHERE seq = 4"
    )
    assert ("reordered", 4) in await _faults(settings, log)


async def test_a_row_that_the_writer_never_wrote_is_found(settings: Settings, log: Store) -> None:
    await log.execute(
        "INSERT INTO audit_logs (event_type, actor_type, actor_id, action, outcome)"
        " VALUES ('auth', 'user', 'u', 'login', 'success')"
    )
    assert await _faults(settings, log) == [("unchained", None)]


@pytest.mark.parametrize("tables", [("audit_logs",), ("audit_logs", "audit_chain")])
async def test_a_cut_tail_is_found(settings: Settings, log: Store, tables: tuple[str, ...]) -> None:
    for table in tables:
        await log.execute(f"DELETE FROM {table} WHERE seq > 6")
    (fault,) = (await verdict(settings, log)).faults
    assert (fault.kind, fault.seq) == ("cut", 7)
    assert "rows 7 to 10" in fault.said


async def test_a_whole_log_that_is_gone_is_found(settings: Settings, log: Store) -> None:
    await log.execute("TRUNCATE audit_logs, audit_chain")
    (fault,) = (await verdict(settings, log)).faults
    assert (fault.kind, fault.seq) == ("cut", 1)


async def test_a_rewrite_with_every_hash_recomputed_is_found_by_the_heads(
    settings: Settings, log: Store
) -> None:
    await rewrite(log, actor_id="somebody")
    assert await _faults(settings, log) == [("rewritten", 10)]


async def test_without_heads_a_rewrite_would_pass_but_their_absence_does_not(
    settings: Settings, log: Store
) -> None:
    await rewrite(log, actor_id="somebody")
    heads_file(settings).unlink()
    assert await _faults(settings, log) == [("heads", None)]


async def test_a_tail_written_anew_after_a_cut_is_found(
    settings: Settings, log: Store, bus: Bus
) -> None:
    for table in ("audit_logs", "audit_chain"):
        await log.execute(f"DELETE FROM {table} WHERE seq > 6")
    await written(settings, log, bus, 3)
    (fault,) = (await verdict(settings, log)).faults
    assert (fault.kind, fault.seq) == ("deleted", 11)
    assert "rows 7 to 10" in fault.said


# The heads ---------------------------------------------------------------------------------


@pytest.fixture
async def longer(settings: Settings, log: Store, bus: Bus) -> Store:
    """The log after two more starts: three or more heads."""
    for _ in range(2):
        await written(settings, log, bus, 2)
    assert len(audit_heads.read(heads_file(settings))) >= 3
    assert (await verdict(settings, log)).ok
    return log


def _cut_last(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


def _cut_middle(lines: list[bytes]) -> list[bytes]:
    return [lines[0], *lines[2:]]


def _swap(lines: list[bytes]) -> list[bytes]:
    return [lines[1], lines[0], *lines[2:]]


def _edit(lines: list[bytes]) -> list[bytes]:
    return [lines[0].replace(b'"seq":1', b'"seq":2'), *lines[1:]]


@pytest.mark.parametrize(
    ("change", "kind"),
    [(_cut_middle, "heads"), (_swap, "heads"), (_edit, "signature")],
)
async def test_a_changed_head_file_is_found(
    settings: Settings, longer: Store, change: Callable[[list[bytes]], list[bytes]], kind: str
) -> None:
    path = heads_file(settings)
    path.write_bytes(b"\n".join(change(path.read_bytes().splitlines())) + b"\n")
    assert kind in {found for found, _ in await _faults(settings, longer)}


async def test_heads_and_table_cut_together_are_found_by_a_copy(
    settings: Settings, longer: Store
) -> None:
    path = heads_file(settings)
    copy = audit_heads.read(path)
    path.write_bytes(b"\n".join(path.read_bytes().splitlines()[:-1]) + b"\n")
    upto = audit_heads.read(path)[-1].seq
    for table in ("audit_logs", "audit_chain"):
        await longer.execute(f"DELETE FROM {table} WHERE seq > $1", upto)
    assert (await verdict(settings, longer)).ok  # said in the module: nothing here knows of it
    report = await verdict(settings, longer, copies=copy)
    assert {fault.kind for fault in report.faults} == {"heads", "cut"}


async def test_cut_heads_are_found_by_the_next_start_row(settings: Settings, longer: Store) -> None:
    path = heads_file(settings)
    lines = path.read_bytes().splitlines()
    path.write_bytes(lines[0] + b"\n")
    found = await verdict(settings, longer)
    assert any(fault.kind == "heads" and fault.id for fault in found.faults)


async def test_heads_signed_with_another_key_are_found(settings: Settings, log: Store) -> None:
    await rewrite(log, actor_id="somebody")
    last = await log.fetchval("SELECT hash FROM audit_logs WHERE seq = 10")
    path = heads_file(settings)
    path.unlink()
    forger = Signer(Ed25519PrivateKey.generate(), path, None, Path("/nowhere"))
    forger.sign(10, last)
    kinds = {kind for kind, _ in await _faults(settings, log)}
    assert kinds == {"signature"}


async def test_a_replaced_public_key_is_found(settings: Settings, log: Store) -> None:
    key = Ed25519PrivateKey.generate()
    audit_heads.public_path(settings).write_text(audit_heads.pem(key.public_key()))
    assert ("signature", None) in await _faults(settings, log)


async def test_a_torn_last_line_of_heads_is_no_fault(
    settings: Settings, log: Store, bus: Bus
) -> None:
    with heads_file(settings).open("ab") as file:
        file.write(b'{"number":')
    assert (await verdict(settings, log)).ok
    await written(settings, log, bus, 1)
    report = await verdict(settings, log)
    assert report.ok, report.faults
    assert report.signed_seq == 12


# Nothing wrong -----------------------------------------------------------------------------


async def test_an_empty_log_passes(settings: Settings, store: Store) -> None:
    report = await verdict(settings, store)
    assert report.ok
    assert (report.rows, report.heads, report.first_seq) == (0, 0, None)


async def test_rows_after_the_last_head_pass_and_are_told(
    settings: Settings, log: Store, bus: Bus
) -> None:
    writer = Writer(settings, log, bus)
    async with running(writer):
        await until_rows(log, 11)
        await writer.write(events(5))
        report = await verdict(settings, log)
        assert report.ok
        assert (report.last_seq, report.signed_seq) == (16, 11)
    assert (await verdict(settings, log)).signed_seq == 16


async def test_the_log_is_read_in_pages(
    settings: Settings, store: Store, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("base.audit_verify.PAGE", 7)
    await written(settings, store, bus, 50, head_rows=10)
    seen: list[Any] = []
    report = await verdict(settings, store, progress=seen.append)
    assert report.ok
    assert seen == [7, 14, 21, 28, 35, 42, 49, 51]
