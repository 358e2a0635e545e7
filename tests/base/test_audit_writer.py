"""The one writer: what comes off the wire is in the chain once, whatever dies or is hostile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from audit_steps import event, events, heads_file, running, until_rows, verdict, written

from base import audit_heads, streams
from base.audit import AuditEvent, message
from base.audit_heads import Signer
from base.audit_writer import ROLE, Writer, add, own_row, usable_role
from base.bus import Bus
from base.errors import AIError, StoreError
from base.messages import Message, Type
from base.settings import Settings
from base.store import Store

SOURCE = "code"

#: Writes what is on the stream, then dies between the commit and the ack.
DIES = """
import asyncio, os, signal, sys
from base.audit_writer import Writer
from base.bus import Bus
from base.settings import Settings
from base.store import Store

async def main():
    home, dsn, url = sys.argv[1:]
    store, bus = await Store.open(dsn), await Bus.open(url, "supervisor")

    async def ack(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    bus.ack = ack
    await Writer(Settings(home=home), store, bus).run()

asyncio.run(main())
"""


async def publish(bus: Bus, *found: AuditEvent) -> None:
    await bus.publish(streams.AUDIT, *[message(one, SOURCE) for one in found])


async def _drained(bus: Bus) -> None:
    async with asyncio.timeout(20):
        while await bus.depth(streams.AUDIT):
            await asyncio.sleep(0.02)


async def test_what_is_published_is_written_in_order_and_acked(
    settings: Settings, store: Store, bus: Bus
) -> None:
    found = events(30)
    await publish(bus, *found)
    async with running(Writer(settings, store, bus)):
        await until_rows(store, 31)
        await _drained(bus)
    rows = await store.fetch("SELECT * FROM audit_logs ORDER BY seq")
    assert [row["seq"] for row in rows] == list(range(1, 32))
    assert {row["id"] for row in rows[1:]} == {str(one.id) for one in found}
    first = next(row for row in rows if row["id"] == str(found[0].id))
    assert first["timestamp"] == found[0].timestamp
    assert first["details"] == found[0].details
    assert first["actor_ip"] == "127.0.0.1"
    assert (await verdict(settings, store)).ok


async def test_the_same_event_many_times_is_one_row(
    settings: Settings, store: Store, bus: Bus
) -> None:
    one, other = event(1), event(2)
    async with running(Writer(settings, store, bus)):
        await publish(bus, one, one, other)
        await until_rows(store, 3)
        await publish(bus, one, other, one)
        await _drained(bus)
    assert await bus.dead(streams.AUDIT) == []
    assert await store.fetchval("SELECT count(*) FROM audit_logs") == 3
    assert (await verdict(settings, store)).ok


async def test_killed_between_commit_and_ack_nothing_is_lost_or_doubled(
    settings: Settings, store: Store, bus: Bus, postgres_dsn: str, redis_url: str
) -> None:
    await publish(bus, *events(20))
    died = subprocess.run(
        [sys.executable, "-c", DIES, str(settings.home), postgres_dsn, redis_url],
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert died.returncode == -signal.SIGKILL
    assert await store.fetchval("SELECT count(*) FROM audit_logs") == 21
    assert await bus.depth(streams.AUDIT) == 20
    async with running(Writer(settings, store, bus)):
        await _drained(bus)
    assert await store.fetchval("SELECT count(*) FROM audit_logs") == 22  # the second start
    assert (await verdict(settings, store)).ok


async def test_two_writers_at_once_make_one_chain(
    settings: Settings, store: Store, bus: Bus
) -> None:
    writers = [Writer(settings, store, bus) for _ in range(2)]
    shared = events(40)
    await asyncio.gather(
        *(
            writer.write(shared[start : start + 10])
            for start in range(0, 40, 5)
            for writer in writers
        )
    )
    rows = await store.fetch("SELECT seq FROM audit_logs ORDER BY seq")
    assert [row["seq"] for row in rows] == list(range(1, 41))
    writers[0].sign()
    report = await verdict(settings, store)
    assert report.ok, report.faults


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"event_type": "audit", "actor_type": "system", "actor_id": "a", "action": "write",
         "outcome": "success"},
        {**event().model_dump(mode="json"), "action": "explode"},
        {**event().model_dump(mode="json"), "id": "x"},
        {**event().model_dump(mode="json"), "details": "text"},
    ],
    ids=["empty", "posing as the log's own", "unknown action", "no id", "details no object"],
)  # fmt: skip
async def test_poison_is_a_dead_letter_and_its_neighbours_are_written(
    settings: Settings, store: Store, bus: Bus, payload: dict[str, Any]
) -> None:
    poison = Message(source=SOURCE, target="audit", type=Type.LEARN, payload=payload)
    await publish(bus, event(1))
    await bus.publish(streams.AUDIT, poison)
    await bus.publish_raw(streams.AUDIT, b"\xff no message")
    await publish(bus, event(2))
    async with running(Writer(settings, store, bus)):
        await until_rows(store, 3)
        await _drained(bus)
    assert len(await bus.dead(streams.AUDIT)) == 2
    assert await store.fetchval("SELECT count(*) FROM audit_logs") == 3


#: Made in its test: a million of anything is not for every process that only collects.
HOSTILE: dict[str, Callable[[], dict[str, Any]]] = {
    "nul": lambda: {"details": {"a\0b": "c\0d"}, "actor_id": "\0", "resource_path": "/\0"},
    "surrogates": lambda: {
        "details": {"\ud800": "\udfff", "pair": "\ud83d\ude00"},
        "actor_id": "\ud800",
    },
    "a megabyte": lambda: {"details": {"text": "ü" * 1_000_000}, "resource_path": "p" * 1_000_000},
    "a million items": lambda: {"details": {str(n): n for n in range(1_000_000)}},
    "deep": lambda: {"details": json.loads('{"a":' * 500 + "1" + "}" * 500)},
    "numbers": lambda: {
        "details": {
            "list": [0.1, -0.0, 1e-7, 5e-324, 1e300, -1e16, 2**53, 2**53 + 1, 10**400, 1.5e15],
            "not": [float("nan"), float("inf"), -float("inf")],
            "whole": 3.0,
        }
    },
    "other types": lambda: {"details": {"b": b"\xff", "t": datetime.now(UTC), "s": {1}, 5: None}},
    "keys that meet": lambda: {"details": {chr(code): code for code in (0xD800, 0xD801, 0xFFFD)}},
    "order of keys": lambda: {"details": {"b": 1, "aa": 2, "a": {"z": 1, "ä": 2, "\U0001f98a": 3}}},
    "escapes": lambda: {"details": {"text": "\u2028\u2029\x7f\x1b[31m</script>\\\"'\t\r\n"}},
    "addresses": lambda: {"actor_ip": "::ffff:1.2.3.4"},
    "compatible address": lambda: {"actor_ip": "::1.2.3.4"},
    "a zone": lambda: {"actor_ip": "fe80::1%eth0"},
    "no address": lambda: {"actor_ip": "@unix"},
    "long past": lambda: {"timestamp": datetime(1, 1, 1, tzinfo=UTC)},
    "far future": lambda: {"timestamp": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)},
    "another zone": lambda: {"timestamp": datetime.now(UTC).astimezone().isoformat()},
    "long names": lambda: {"actor_id": "n" * 5000},
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_hostile_details_are_clipped_and_the_chain_holds(
    settings: Settings, store: Store, bus: Bus, case: str
) -> None:
    await publish(bus, event(1, **HOSTILE[case]()), event(2))
    async with running(Writer(settings, store, bus)):
        await until_rows(store, 3)
        await _drained(bus)
    report = await verdict(settings, store)
    assert report.ok, report.faults
    assert await bus.dead(streams.AUDIT) == []
    size = "SELECT max(length(details::text) + length(resource_path)) FROM audit_logs"
    assert await store.fetchval(size) < 20_000


async def test_a_clock_that_is_wrong_cannot_choose_the_month(
    settings: Settings, store: Store, bus: Bus
) -> None:
    wrong = datetime(2001, 1, 1, tzinfo=UTC)
    await Writer(settings, store, bus).write([event(1, timestamp=wrong)])
    row = await store.fetchrow("SELECT timestamp, details FROM audit_logs")
    assert row is not None
    assert abs(row["timestamp"] - datetime.now(UTC)) < timedelta(minutes=1)
    assert row["details"]["claimed_timestamp"] == "2001-01-01T00:00:00.000000Z"


async def test_postgresql_away_waits_and_goes_on(
    settings: Settings, store: Store, bus: Bus
) -> None:
    """The tables are out of reach for a while: the writer holds on to what it has."""
    async with running(Writer(settings, store, bus)):
        await until_rows(store, 1)
        await store.execute("ALTER TABLE audit_chain RENAME TO away")
        await publish(bus, *events(5))
        await asyncio.sleep(1.5)
        await store.execute("ALTER TABLE away RENAME TO audit_chain")
        await until_rows(store, 6)
        await _drained(bus)
    assert (await verdict(settings, store)).ok
    assert await bus.dead(streams.AUDIT) == []


async def test_a_flushed_redis_does_not_stop_the_writer(
    settings: Settings, store: Store, bus: Bus
) -> None:
    async with running(Writer(settings, store, bus)):
        await until_rows(store, 1)
        await bus.call(("FLUSHALL",))
        await publish(bus, event(1))
        await until_rows(store, 2)


# The role ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit_logs SET actor_id = 'x'",
        "DELETE FROM audit_logs",
        "TRUNCATE audit_logs",
        "DROP TABLE audit_logs",
        "SELECT * FROM audit_logs",
        "UPDATE audit_chain SET hash = 'x'",
        "DELETE FROM audit_chain",
        "TRUNCATE audit_chain",
        "SELECT * FROM users",
        "UPDATE {month} SET actor_id = 'x'",
        "ALTER TABLE audit_logs DISABLE TRIGGER ALL",
    ],
)
async def test_the_writers_role_can_only_add(store: Store, sql: str) -> None:
    month = f"audit_logs_y{datetime.now(UTC):%Y}m{datetime.now(UTC):%m}"

    async def as_the_writer() -> None:
        async with store.transaction() as tx:
            await add(tx, [own_row("start", "write", {})], after=(0, "0" * 64))
            await tx.execute(sql.format(month=month))

    with pytest.raises(AIError, match=r"permission denied|must be owner"):
        await as_the_writer()
    assert await store.fetchval("SELECT count(*) FROM audit_logs") == 0


async def test_without_the_role_the_writer_goes_on_and_verify_says_so(
    settings: Settings, empty_dsn: str, bus: Bus
) -> None:
    """A database user that may neither make nor become roles."""
    owner = await Store.open(empty_dsn)
    name = empty_dsn.rpartition("/")[2].partition("?")[0]
    await owner.execute(f"CREATE ROLE poor_{name} LOGIN")
    await owner.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO poor_{name}")
    poor = await Store.open(empty_dsn.replace("ai_infra@", f"poor_{name}@"))
    try:
        await poor.migrate()
        await written(settings, poor, bus, 3)
        assert not await usable_role(poor)
        report = await verdict(settings, poor)
        assert report.ok, report.faults
        assert ROLE in report.notes[0]
    finally:
        await poor.close()
        await owner.execute(f"DROP OWNED BY poor_{name} CASCADE")
        await owner.execute(f"DROP ROLE poor_{name}")
        await owner.close()


async def test_with_only_createrole_the_role_is_made_and_used(
    settings: Settings, empty_dsn: str, bus: Bus
) -> None:
    owner = await Store.open(empty_dsn)
    name = empty_dsn.rpartition("/")[2].partition("?")[0]
    await owner.execute(f"CREATE ROLE maker_{name} LOGIN CREATEROLE")
    await owner.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO maker_{name} WITH GRANT OPTION")
    there = await owner.fetchval("SELECT TRUE FROM pg_roles WHERE rolname = $1", ROLE)
    if there:  # made by another test's superuser: then it must be given
        await owner.execute(f"GRANT {ROLE} TO maker_{name} WITH ADMIN OPTION")
    maker = await Store.open(empty_dsn.replace("ai_infra@", f"maker_{name}@"))
    try:
        await maker.migrate()
        assert await usable_role(maker)
        await written(settings, maker, bus, 3)
        assert (await verdict(settings, maker)).ok
    finally:
        await maker.close()
        await owner.execute(f"DROP OWNED BY maker_{name} CASCADE")
        await owner.execute(f"DROP ROLE maker_{name}")
        await owner.close()


# Heads -------------------------------------------------------------------------------------


async def test_heads_are_signed_at_start_by_rows_by_time_and_at_the_end(
    settings: Settings, store: Store, bus: Bus
) -> None:
    def seqs() -> list[int]:
        return [head.seq for head in audit_heads.read(heads_file(settings))]

    writer = Writer(settings, store, bus, head_rows=10, head_s=0.2)
    async with running(writer):
        await until_rows(store, 1)
        async with asyncio.timeout(10):
            while seqs() != [1]:
                await asyncio.sleep(0.02)
        await writer.write(events(10))
        assert seqs() == [1, 11]
        await writer.write(events(3, 10))
        async with asyncio.timeout(10):
            while seqs() != [1, 11, 14]:
                await asyncio.sleep(0.02)
    writer = Writer(settings, store, bus)
    async with running(writer):
        await until_rows(store, 15)
        await writer.write(events(2, 20))
    assert seqs()[-1] == 17


async def test_key_and_heads_are_for_their_owner_alone(
    settings: Settings, store: Store, bus: Bus
) -> None:
    await written(settings, store, bus, 1)
    for path in (audit_heads.private_path(settings), heads_file(settings)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"PRIVATE" not in audit_heads.public_path(settings).read_bytes()


async def test_the_journal_gets_every_head(settings: Settings, short_tmp: Path) -> None:
    path = short_tmp / f"journal-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(path))
        journal.settimeout(5)
        signer = Signer.open(settings, journal=path)
        head = signer.sign(7, "a" * 64)
        fields = dict(line.split("=", 1) for line in journal.recv(65536).decode().splitlines())
    path.unlink()
    assert fields["SYSLOG_IDENTIFIER"] == audit_heads.JOURNAL_NAME
    assert audit_heads.parse(fields[audit_heads.JOURNAL_FIELD]) == head


async def test_a_journal_that_is_gone_stops_nothing(settings: Settings, short_tmp: Path) -> None:
    path = short_tmp / f"nobody-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(path))
    assert Signer.open(settings, journal=path).sign(1, "a" * 64).number == 1


async def test_heads_that_cannot_be_written_stop_nothing(
    settings: Settings, store: Store, bus: Bus
) -> None:
    heads_file(settings).parent.mkdir()
    heads_file(settings).mkdir()  # a folder in its place refuses even root
    with pytest.raises(OSError):
        Signer.open(settings)
    heads_file(settings).rmdir()
    writer = Writer(settings, store, bus)
    heads_file(settings).mkdir()
    await writer.write(events(3))
    writer.sign()
    heads_file(settings).rmdir()
    writer.sign()
    assert [head.seq for head in audit_heads.read(heads_file(settings))] == [3]


async def test_a_store_that_fails_adds_nothing(settings: Settings, store: Store, bus: Bus) -> None:
    await store.execute("ALTER TABLE audit_logs RENAME TO away")
    with pytest.raises(StoreError):
        await Writer(settings, store, bus).write(events(3))
    assert await store.fetchval("SELECT count(*) FROM audit_chain") == 0
