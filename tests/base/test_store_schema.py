"""The schema on a real PostgreSQL: migrations, and what the tables promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from base import migrations
from base.errors import InputError, StoreError
from base.store import Store

SEED_TABLES = {
    "users",
    "sessions",
    "conversations",
    "messages",
    "attachments",
    "tasks",
    "task_logs",
    "api_usage",
    "audit_logs",
    "domains",
    "agent_heartbeats",
}
USER = "INSERT INTO users (email) VALUES ('a@b.c') RETURNING id"


@pytest_asyncio.fixture
async def empty(empty_dsn: str) -> AsyncIterator[Store]:
    """A store on a database without any schema."""
    store = await Store.open(empty_dsn)
    yield store
    await store.close()


@pytest_asyncio.fixture
async def store(empty: Store) -> Store:
    await empty.migrate()
    return empty


async def _tables(store: Store) -> set[str]:
    rows = await store.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p', 'm')"
    )
    return {row["relname"] for row in rows}


async def test_migrate_makes_every_table_and_the_second_time_nothing(empty: Store) -> None:
    names = await empty.migrate()
    assert names == [file.name for file in migrations.read()]
    have = await _tables(empty)
    assert have >= SEED_TABLES | {"outbox", "idempotency", "api_usage_daily"}
    assert await empty.migrate() == []


async def test_eight_processes_migrate_at_once(empty: Store) -> None:
    done = await asyncio.gather(*(empty.migrate() for _ in range(8)))
    assert sorted(map(len, done)) == [0] * 7 + [len(migrations.read())]


def _copy(folder: Path) -> list[Path]:
    for path in migrations.SCHEMA.glob("*.sql"):
        (folder / path.name).write_bytes(path.read_bytes())
    return sorted(folder.glob("*.sql"))


async def test_a_failing_migration_leaves_nothing(empty: Store, tmp_path: Path) -> None:
    count = len(_copy(tmp_path))
    bad = tmp_path / f"{count + 1:04}_bad.sql"
    bad.write_text("CREATE TABLE half (id INT); INSERT INTO half VALUES (1); SELECT 1 / 0;")
    with pytest.raises(StoreError, match=f"{bad.name} failed and was undone: .*division by zero"):
        await empty.migrate(tmp_path)
    assert "half" not in await _tables(empty)
    assert await empty.fetchval("SELECT count(*) FROM schema_migrations") == count
    bad.write_text("CREATE TABLE half (id INT);")
    assert await empty.migrate(tmp_path) == [bad.name]


async def test_a_migration_that_cannot_be_noted_leaves_nothing(
    empty: Store, tmp_path: Path
) -> None:
    count = len(_copy(tmp_path))
    bad = tmp_path / f"{count + 1:04}_bad.sql"
    bad.write_text("CREATE TABLE half (id INT); DROP TABLE schema_migrations;")
    with pytest.raises(StoreError, match="was undone"):
        await empty.migrate(tmp_path)
    assert "half" not in await _tables(empty)
    assert await empty.fetchval("SELECT count(*) FROM schema_migrations") == count


async def test_an_edited_file_is_refused(empty: Store, tmp_path: Path) -> None:
    files = _copy(tmp_path)
    await empty.migrate(tmp_path)
    files[0].write_text(files[0].read_text() + "-- edited\n")
    with pytest.raises(StoreError, match=f"{files[0].name} was edited"):
        await empty.migrate(tmp_path)


async def test_a_newer_database_is_refused_once_it_took_something_away(
    empty: Store, tmp_path: Path
) -> None:
    """A version that is rolled back to goes on with what a newer one has only added to."""
    count = len(_copy(tmp_path))
    more = (
        "CREATE TABLE more (id INT);",
        "-- contract: 0.0.1\nDROP TABLE more;",
        "-- contract: 99.0\nALTER TABLE users DROP COLUMN time_zone;",
    )
    for place, sql in enumerate(more, count + 1):
        (tmp_path / f"{place:04}_more.sql").write_text(sql)
        assert len(await empty.migrate(tmp_path)) == (1 if place > count + 1 else count + 1)
        if place < count + 3:
            assert await empty.migrate() == []
    with pytest.raises(StoreError, match=r"newer than this program.*install version 99\.0"):
        await empty.migrate()


@pytest.mark.parametrize("name", ["0001_Upper.sql", "1_short.sql", "0002_gap.sql"])
def test_a_wrong_file_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(StoreError, match=name):
        migrations.read(tmp_path)


async def test_a_tiny_cost_is_kept(store: Store) -> None:
    await store.execute(
        "INSERT INTO api_usage (agent, provider, model, input_tokens, output_tokens, cost_usd)"
        " VALUES ('code', 'p', 'm', 1, 0, $1)",
        0.00000003,
    )
    assert await store.fetchval("SELECT sum(cost_usd) FROM api_usage") == 0.00000003
    await store.tidy()
    day = await store.fetchrow("SELECT * FROM api_usage_daily")
    assert day is not None
    assert day["date"] == datetime.now(UTC).date()
    assert day["total_cost"] == 0.00000003


async def _audit(store: Store, at: datetime) -> None:
    await store.execute(
        "INSERT INTO audit_logs (timestamp, event_type, actor_type, actor_id, action, outcome)"
        " VALUES ($1, 'auth', 'user', 'u', 'login', 'success')",
        at,
    )


async def _partition(store: Store, at: datetime) -> str:
    sql = "SELECT tableoid::regclass::text FROM audit_logs WHERE timestamp = $1"
    return str(await store.fetchval(sql, at))


async def test_audit_rows_lie_in_their_month(store: Store) -> None:
    now = datetime.now(UTC)
    await _audit(store, now)
    assert await _partition(store, now) == f"audit_logs_y{now:%Y}m{now:%m}"
    ahead = [name for name in await _tables(store) if name.startswith("audit_logs_y")]
    assert len(ahead) == 4


async def test_audit_rows_without_a_month_wait_for_it(store: Store) -> None:
    last = datetime(2031, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    first = datetime(2032, 1, 1, tzinfo=UTC)
    for at in (last, first):
        await _audit(store, at)
        assert await _partition(store, at) == "audit_logs_default"
    made = "SELECT audit_logs_make_partitions()"
    assert await store.fetchval(made) == 2
    assert await _partition(store, last) == "audit_logs_y2031m12"
    assert await _partition(store, first) == "audit_logs_y2032m01"
    assert await store.fetchval(made) == 0
    assert await store.fetchval("SELECT count(*) FROM audit_logs") == 2


async def test_partitions_made_at_once_by_many(store: Store) -> None:
    made = "SELECT audit_logs_make_partitions(24)"
    assert sum(await asyncio.gather(*(store.fetchval(made) for _ in range(6)))) == 21


async def test_a_heartbeat_may_name_a_task_that_is_gone(store: Store) -> None:
    gone = "11111111-1111-1111-1111-111111111111"
    await store.execute(
        "INSERT INTO agent_heartbeats (agent_name, status, current_task_id)"
        " VALUES ('code', 'busy', $1)",
        gone,
    )
    assert await store.fetchval("SELECT current_task_id FROM agent_heartbeats") == gone


async def test_deleting_a_user_takes_all_but_what_was_spent(store: Store) -> None:
    user = await store.fetchval(USER)
    conversation = await store.fetchval(
        "INSERT INTO conversations (user_id) VALUES ($1) RETURNING id", user
    )
    task = await store.fetchval(
        "INSERT INTO tasks (conversation_id, user_id, assigned_agent, type, input)"
        " VALUES ($1, $2, 'code', 'request', '{}') RETURNING id",
        *(conversation, user),
    )
    await store.execute(
        "INSERT INTO api_usage (agent, provider, model, input_tokens, output_tokens, cost_usd,"
        " task_id) VALUES ('code', 'p', 'm', 1, 1, 1, $1)",
        task,
    )
    await store.execute("DELETE FROM users WHERE id = $1", user)
    assert await store.fetchval("SELECT count(*) FROM tasks") == 0
    assert await store.fetchval("SELECT sum(cost_usd) FROM api_usage WHERE task_id IS NULL") == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [("status", "done"), ("priority", 11), ("effort", "huge"), ("priority", 2**40)],
)
async def test_a_value_out_of_the_list_is_bad_input(
    store: Store, column: str, value: object
) -> None:
    sql = f"INSERT INTO tasks (assigned_agent, type, input, {column}) VALUES ('c', 't', '{{}}', $1)"
    with pytest.raises(InputError):
        await store.execute(sql, value)
