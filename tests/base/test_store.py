"""The store on a real PostgreSQL: values, errors, lost connections, locks."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import base.store
from base.errors import ConflictError, InputError, StoreError
from base.store import HeldLock, Session, Store

NOBODY = "22222222-2222-2222-2222-222222222222"
MINE = "WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest_asyncio.fixture
async def store(postgres_dsn: str) -> AsyncIterator[Store]:
    store = await Store.open(postgres_dsn)
    await store.migrate()
    yield store
    await store.close()


@pytest_asyncio.fixture
async def other(postgres_dsn: str, store: Store) -> AsyncIterator[Store]:
    """A second process's store on the same database."""
    other = await Store.open(postgres_dsn)
    yield other
    await other.close()


async def _user(store: Store, email: str = "a@b.c") -> str:
    return str(await store.fetchval("INSERT INTO users (email) VALUES ($1) RETURNING id", email))


# Values --------------------------------------------------------------------------------------


async def test_values_are_plain_at_the_border(store: Store) -> None:
    mine, now = str(uuid.uuid4()), datetime.now(UTC)
    row = await store.fetchrow(
        "SELECT $1::uuid AS id, $2::uuid[] AS ids, $3::jsonb AS data, $4::timestamptz AS at,"
        " $5::numeric AS cost, $6::inet AS ip, NULL::uuid AS nothing",
        *(mine, [mine, mine], {"a": [1, None, "é"]}, now, 0.00000001, "10.0.0.1"),
    )
    assert row == {
        "id": mine,
        "ids": [mine, mine],
        "data": {"a": [1, None, "é"]},
        "at": now,
        "cost": 0.00000001,
        "ip": "10.0.0.1",
        "nothing": None,
    }
    assert row["at"].tzinfo is not None


async def test_uuid_objects_are_taken_and_listed_ids_found(store: Store) -> None:
    user = await _user(store)
    assert await store.fetchval("SELECT email FROM users WHERE id = $1", uuid.UUID(user))
    rows = await store.fetch("SELECT id FROM users WHERE id = ANY($1::uuid[])", [user, NOBODY])
    assert rows == [{"id": user}]


async def test_execute_counts_rows(store: Store) -> None:
    await _user(store, "a@b.c")
    await _user(store, "b@b.c")
    assert await store.execute("UPDATE users SET role = 'admin'") == 2
    assert await store.execute("DELETE FROM users WHERE email = 'none'") == 0
    assert await store.execute("SET application_name = 'x'") == 0


# Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a\0b", "NUL"),
        ("a\ud800b", "surrogate"),
        ("x" * 256, "too long"),
        (None, "not allowed"),
    ],
)
async def test_text_that_cannot_be_stored_is_bad_input(
    store: Store, value: str | None, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        await store.execute("INSERT INTO users (email) VALUES ($1)", value)


@pytest.mark.parametrize(
    "value", [{"a": "\0"}, {"a": "\udfff"}, {"\0": 1}, {"a": float("nan")}, ["\ud83d"]]
)
async def test_json_that_cannot_be_stored_is_bad_input(store: Store, value: Any) -> None:
    with pytest.raises(InputError):
        await store.execute("UPDATE users SET avatar_url = $1::jsonb->>'a'", value)


async def test_a_broken_uuid_is_bad_input(store: Store) -> None:
    with pytest.raises(InputError, match="uuid"):
        await store.fetchrow("SELECT * FROM users WHERE id = $1", "7; DROP TABLE users")


async def test_taken_and_missing_are_conflicts(store: Store) -> None:
    await _user(store)
    with pytest.raises(ConflictError, match="users_email_key"):
        await _user(store)
    with pytest.raises(ConflictError, match="user_id"):
        await store.execute("INSERT INTO conversations (user_id) VALUES ($1)", NOBODY)


async def test_an_error_never_quotes_the_value(store: Store) -> None:
    with pytest.raises(InputError) as caught:
        await store.execute("UPDATE users SET display_name = $1", "secret\ud800")
    assert "secret" not in str(caught.value)
    with pytest.raises(InputError) as no_number:
        await store.execute("UPDATE users SET avatar_url = $1::jsonb", {"secret": float("nan")})
    assert "secret" not in str(no_number.value)
    with pytest.raises(StoreError) as wrong:
        await store.execute("UPDATE users SET display_name = $1", {"a": "secret"})
    assert "secret" not in str(wrong.value)


async def test_wrong_sql_is_a_store_error_with_its_cause(store: Store) -> None:
    with pytest.raises(StoreError, match='relation "nowhere" does not exist') as caught:
        await store.fetch("SELECT * FROM nowhere")
    assert caught.value.__cause__ is not None


# Transactions --------------------------------------------------------------------------------


async def test_a_transaction_that_raises_leaves_nothing(store: Store) -> None:
    async def work() -> None:
        async with store.transaction() as tx:
            await tx.execute("INSERT INTO users (email) VALUES ('a@b.c')")
            raise KeyError

    with pytest.raises(KeyError):
        await work()
    assert await store.fetchval("SELECT count(*) FROM users") == 0


async def test_a_cancelled_transaction_leaves_nothing_and_returns_its_connection(
    store: Store,
) -> None:
    for _ in range(base.store.POOL_MAX + 2):
        inside = asyncio.Event()

        async def work(inside: asyncio.Event = inside) -> None:
            async with store.transaction() as tx:
                await tx.execute("INSERT INTO users (email) VALUES ('a@b.c')")
                inside.set()
                await tx.execute("SELECT pg_sleep(60)")

        task = asyncio.create_task(work())
        await inside.wait()
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await store.fetchval("SELECT count(*) FROM users") == 0


async def test_a_cancellation_stays_one_when_postgresql_does_not_hear_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base.store, "CONNECT_S", 0.3)
    backend = await store.fetchval("SELECT pg_backend_pid()")
    task = asyncio.create_task(store.fetchval("SELECT pg_sleep(60)"))
    await asyncio.sleep(0.1)
    os.kill(backend, signal.SIGSTOP)
    try:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        os.kill(backend, signal.SIGCONT)
    assert await store.fetchval("SELECT 1") == 1


async def test_a_savepoint_undoes_only_itself(store: Store) -> None:
    insert = "INSERT INTO users (email) VALUES ($1)"

    async def collide(tx: Session) -> None:
        async with tx.transaction():
            await tx.execute(insert, "undone")
            await tx.execute(insert, "kept")

    async with store.transaction() as tx:
        await tx.execute(insert, "kept")
        with pytest.raises(ConflictError):
            await collide(tx)
        await tx.executemany(insert, [("more",), ("most",)])
    rows = await store.fetch("SELECT email FROM users ORDER BY email")
    assert [row["email"] for row in rows] == ["kept", "more", "most"]


# Lost connections ----------------------------------------------------------------------------


async def _kill_when_asleep(store: Store) -> None:
    """End the backend that runs pg_sleep, as soon as there is one."""
    sql = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity {MINE}"
    while not await store.fetchval(f"{sql} AND wait_event = 'PgSleep'"):
        await asyncio.sleep(0.02)


async def test_a_select_survives_the_loss_of_its_connection(store: Store, other: Store) -> None:
    sleeping = asyncio.create_task(store.fetchval("SELECT 7 FROM pg_sleep(2)"))
    await _kill_when_asleep(other)
    assert await sleeping == 7


async def test_a_write_whose_connection_is_lost_is_not_repeated(store: Store, other: Store) -> None:
    sql = "INSERT INTO users (email) SELECT 'a@b.c' FROM pg_sleep(2)"
    writing = asyncio.create_task(store.execute(sql))
    await _kill_when_asleep(other)
    with pytest.raises(StoreError) as caught:
        await writing
    assert caught.value.__cause__ is not None
    assert await store.fetchval("SELECT count(*) FROM users") == 0


async def test_a_transaction_whose_connection_is_lost_raises(store: Store, other: Store) -> None:
    async def write() -> None:
        async with store.transaction() as tx:
            await tx.execute("INSERT INTO users (email) VALUES ('a@b.c')")
            await tx.execute("SELECT pg_sleep(5)")

    writing = asyncio.create_task(write())
    await _kill_when_asleep(other)
    with pytest.raises(StoreError):
        await writing
    assert await store.fetchval("SELECT count(*) FROM users") == 0


async def test_dead_connections_in_the_pool_are_replaced(store: Store, other: Store) -> None:
    await asyncio.gather(*(store.fetchval("SELECT pg_sleep(0.05)") for _ in range(8)))
    await other.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity {MINE}")
    await asyncio.sleep(0.1)
    for number in range(8):
        await _user(store, str(number))
    assert await store.fetchval("SELECT count(*) FROM users") == 8


async def test_a_connection_goes_back_without_a_trip_and_as_it_came(
    store: Store, other: Store
) -> None:
    async with store.transaction() as tx:
        await tx.execute("SET LOCAL lock_timeout = '7s'")
        await tx.execute("SELECT pg_advisory_xact_lock(7)")
    sql = f"SELECT query FROM pg_stat_activity {MINE}"
    assert {row["query"] for row in await other.fetch(sql)} == {"COMMIT;"}
    assert await store.fetchval("SHOW lock_timeout") == "0"
    assert await other.fetchval("SELECT pg_try_advisory_xact_lock(7)")


def _dsn_through(folder: Path, dsn: str) -> tuple[str, Path, Path]:
    """The DSN by way of `folder`, where no socket is yet; the link to make and its target."""
    folder.mkdir()
    start, _, host = dsn.partition("?host=")
    name = ".s.PGSQL.5432"
    return f"{start}?host={folder}", folder / name, Path(host) / name


async def test_a_server_that_starts_late_is_waited_for(postgres_dsn: str, short_tmp: Path) -> None:
    dsn, link, target = _dsn_through(short_tmp / uuid.uuid4().hex[:6], postgres_dsn)
    opening = asyncio.create_task(Store.open(dsn))
    await asyncio.sleep(0.2)
    link.symlink_to(target)
    store = await opening
    assert await store.fetchval("SELECT 1") == 1
    await store.close()


async def test_no_server_is_a_store_error_after_three_attempts(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base.store, "RETRY_WAITS_S", (0.01, 0.02))
    waits: list[float] = []
    sleep = asyncio.sleep

    async def noted(wait_s: float) -> None:
        waits.append(wait_s)
        await sleep(wait_s)

    monkeypatch.setattr(asyncio, "sleep", noted)
    with pytest.raises(StoreError) as caught:
        await Store.open(f"postgresql://ai_infra@/x?host={short_tmp / 'nowhere'}")
    assert isinstance(caught.value.__cause__, OSError)
    assert waits == [0.01, 0.02]


async def test_a_database_that_is_not_there_is_a_store_error_at_once(postgres_dsn: str) -> None:
    with pytest.raises(StoreError, match='database "nope" does not exist'):
        await Store.open("postgresql://ai_infra@/nope?" + postgres_dsn.partition("?")[2])


async def test_a_full_pool_is_a_store_error_not_a_hang(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base.store, "CONNECT_S", 0.2)
    sleeping = [asyncio.create_task(store.fetchval("SELECT pg_sleep(1)")) for _ in range(8)]
    await asyncio.sleep(0.3)
    with pytest.raises(StoreError, match="in time"):
        await store.fetchval("SELECT 1")
    await asyncio.gather(*sleeping)


async def test_close_twice(postgres_dsn: str) -> None:
    store = await Store.open(postgres_dsn)
    await store.close()
    await store.close()
    with pytest.raises(StoreError):
        await store.fetchval("SELECT 1")


# Locks ---------------------------------------------------------------------------------------


async def _held(store: Store, name: str = "supervisor") -> HeldLock:
    lock = await store.advisory_lock(name)
    assert lock is not None
    return lock


async def test_one_holder_a_lock(store: Store, other: Store) -> None:
    lock = await _held(store)
    assert await other.advisory_lock("supervisor") is None
    assert await store.advisory_lock("supervisor") is None
    elsewhere = await _held(other, "another")
    await lock.release()
    await lock.release()
    again = await _held(other)
    await again.release()
    await elsewhere.release()


async def test_a_lock_lost_with_its_connection_is_told_at_once(store: Store, other: Store) -> None:
    lock = await _held(store)
    watching = asyncio.create_task(lock.watch())
    await asyncio.sleep(0.05)
    assert not lock.lost.is_set()
    await other.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with pytest.raises(StoreError, match="'supervisor' was lost"):
        await asyncio.wait_for(watching, 5)
    next_one = await _held(other)
    await next_one.release()
    await lock.release()


async def test_a_silent_server_counts_as_loss(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base.store, "LOCK_CHECK_S", 0.2)
    lock = await _held(store)
    pid = await other.fetchval(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreError, match="lost"):
            await asyncio.wait_for(lock.watch(), 10)
    finally:
        os.kill(pid, signal.SIGCONT)
    await lock.release()
