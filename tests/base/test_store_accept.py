"""Accepted requests and the outbox, on a real PostgreSQL and a real Redis."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from base import streams
from base.bus import Bus
from base.errors import BusError, ConflictError, InputError, NotFoundError
from base.messages import Effort, Message, Type, decode
from base.outbox import Request
from base.store import Store


@pytest_asyncio.fixture
async def store(postgres_dsn: str) -> AsyncIterator[Store]:
    store = await Store.open(postgres_dsn)
    await store.migrate()
    yield store
    await store.close()


@pytest_asyncio.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    bus = await Bus.open(redis_url, "test")
    yield bus
    await bus.close()


async def _user(store: Store, email: str) -> tuple[str, str]:
    """A new user and a conversation of theirs."""
    user = await store.fetchval("INSERT INTO users (email) VALUES ($1) RETURNING id", email)
    sql = "INSERT INTO conversations (user_id) VALUES ($1) RETURNING id"
    return user, await store.fetchval(sql, user)


@pytest_asyncio.fixture
async def request_(store: Store) -> Request:
    user, conversation = await _user(store, "a@b.c")
    return Request(user_id=user, conversation_id=conversation, content="hello")


async def _counts(store: Store) -> dict[str, int]:
    tables = ("messages", "tasks", "outbox", "idempotency")
    return {name: await store.fetchval(f"SELECT count(*) FROM {name}") for name in tables}


async def _sent(bus: Bus, stream: str = streams.TASKS_NEW) -> list[bytes]:
    """Everything on a stream so far."""
    found: list[bytes] = []
    async for batch in bus.tail(stream, after="0", block_s=0.2):
        found += [raw for _, raw in batch]
        if len(found) >= await bus.depth(stream):
            break
    return found


# Accept --------------------------------------------------------------------------------------


async def test_accept_writes_message_task_and_outbox(store: Store, request_: Request) -> None:
    before = await store.fetchval("SELECT updated_at FROM conversations")
    request = replace(request_, effort=Effort.DEEP, agent="code", workspace="w", priority=9)
    accepted = await store.accept(request)
    assert not accepted.repeated
    message = await store.fetchrow("SELECT * FROM messages")
    assert message is not None
    assert (message["id"], message["role"]) == (accepted.message_id, "user")
    assert message["content"] == "hello"
    task = await store.fetchrow("SELECT * FROM tasks")
    assert task is not None
    assert {name: task[name] for name in EXPECTED} == EXPECTED
    assert task["id"] == task["root_id"] == accepted.task_id
    assert task["message_id"] == accepted.message_id
    assert (task["user_id"], task["conversation_id"]) == (request.user_id, request.conversation_id)
    row = await store.fetchrow("SELECT * FROM outbox")
    assert row is not None
    assert (row["stream"], row["sent_at"]) == (streams.TASKS_NEW, None)
    order = decode(row["body"])
    assert (order.type, order.priority) == (Type.TASK, 9)
    assert order.payload == {"task_id": accepted.task_id}
    assert await store.fetchval("SELECT updated_at FROM conversations") > before


EXPECTED: dict[str, Any] = {
    "type": "request",
    "assigned_agent": "supervisor",
    "status": "pending",
    "priority": 9,
    "effort": "deep",
    "requested_agent": "code",
    "workspace": "w",
    "epoch": 0,
    "depends_on": [],
    "usage": {},
    "input": {"content": "hello", "effort": "deep", "agent": "code", "workspace": "w"},
}


async def test_unknown_foreign_and_deleted_conversations_look_the_same(
    store: Store, request_: Request
) -> None:
    _, foreign = await _user(store, "other@b.c")
    deleted = await store.fetchval(
        "INSERT INTO conversations (user_id, status) VALUES ($1, 'deleted') RETURNING id",
        request_.user_id,
    )
    for wrong in (foreign, deleted, "11111111-1111-1111-1111-111111111111", "no uuid", "\ud800"):
        with pytest.raises(NotFoundError, match="no conversation"):
            await store.accept(replace(request_, conversation_id=wrong), key="k")
    assert await _counts(store) == {"messages": 0, "tasks": 0, "outbox": 0, "idempotency": 0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"content": "ab\0c"}, "the message has a NUL character at position 2"),
        ({"content": "a\udc00"}, "half a surrogate pair at position 1"),
        ({"priority": 11}, "priority must be 1 to 10"),
        ({"workspace": "a\0"}, "NUL"),
    ],
)
async def test_bad_requests_leave_nothing(
    store: Store, request_: Request, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        await store.accept(replace(request_, **change), key="k")
    assert await _counts(store) == {"messages": 0, "tasks": 0, "outbox": 0, "idempotency": 0}


@pytest.mark.parametrize("key", ["", "x" * 256, "a\0", "\ud800"])
async def test_a_key_that_is_none_is_bad_input(store: Store, request_: Request, key: str) -> None:
    with pytest.raises(InputError, match="Idempotency-Key"):
        await store.accept(request_, key=key)


# Idempotency ---------------------------------------------------------------------------------


async def test_twenty_identical_requests_at_once_are_one(store: Store, request_: Request) -> None:
    all_of_them = await asyncio.gather(*(store.accept(request_, key="k") for _ in range(20)))
    assert len({accepted.task_id for accepted in all_of_them}) == 1
    assert sum(not accepted.repeated for accepted in all_of_them) == 1
    assert await _counts(store) == {"messages": 1, "tasks": 1, "outbox": 1, "idempotency": 1}


async def test_twenty_different_requests_with_one_key(store: Store, request_: Request) -> None:
    requests = [replace(request_, content=str(number)) for number in range(20)]
    done = await asyncio.gather(
        *(store.accept(request, key="k") for request in requests), return_exceptions=True
    )
    assert sum(isinstance(one, ConflictError) for one in done) == 19
    assert (await _counts(store))["tasks"] == 1


async def test_a_key_belongs_to_its_user(store: Store, request_: Request) -> None:
    user, conversation = await _user(store, "other@b.c")
    mine = await store.accept(request_, key="k")
    theirs = await store.accept(
        replace(request_, user_id=user, conversation_id=conversation), key="k"
    )
    assert mine.task_id != theirs.task_id


@pytest.mark.parametrize(
    "change", [{"priority": 1}, {"agent": "qa"}, {"effort": Effort.DEEP}, {"workspace": "w"}]
)
async def test_every_field_counts_for_the_key(
    store: Store, request_: Request, change: dict[str, Any]
) -> None:
    await store.accept(request_, key="k")
    with pytest.raises(ConflictError):
        await store.accept(replace(request_, **change), key="k")


# Relay ---------------------------------------------------------------------------------------


async def test_relay_sends_each_row_once_in_order(
    store: Store, bus: Bus, request_: Request
) -> None:
    tasks = [(await store.accept(request_)).task_id for _ in range(5)]
    assert await store.relay(bus, limit=3) == 3
    assert await store.relay(bus) == 2
    assert await store.relay(bus) == 0
    assert [decode(raw).payload["task_id"] for raw in await _sent(bus)] == tasks


async def test_two_relays_at_once_double_nothing(
    store: Store, bus: Bus, request_: Request, postgres_dsn: str
) -> None:
    async with store.transaction() as tx:
        for number in range(500):
            await tx.publish(
                streams.TASKS_NEW if number % 2 else streams.agent("code"),
                Message(source="t", target="t", type=Type.TASK, payload={"number": number}),
            )
    other = await Store.open(postgres_dsn)

    async def drain(store: Store) -> int:
        total = 0
        while await store.fetchval("SELECT count(*) FROM outbox WHERE sent_at IS NULL"):
            total += await store.relay(bus, limit=7)
        return total

    counts = await asyncio.gather(drain(store), drain(other), drain(store), drain(other))
    await other.close()
    assert sum(counts) == 500
    sent = await _sent(bus) + await _sent(bus, streams.agent("code"))
    assert sorted(decode(raw).payload["number"] for raw in sent) == list(range(500))


class _Failing:
    """A bus that refuses, after having sent when `after` is given."""

    def __init__(self, after: Bus | None = None) -> None:
        self.after = after

    async def publish_raw(self, stream: str, *bodies: bytes) -> None:
        if self.after is not None:
            await self.after.publish_raw(stream, *bodies)
        raise BusError("gone")


async def test_rows_wait_while_the_bus_refuses(store: Store, bus: Bus, request_: Request) -> None:
    await store.accept(request_)
    with pytest.raises(BusError):
        await store.relay(_Failing())
    assert await store.relay(bus) == 1
    assert len(await _sent(bus)) == 1


async def test_a_crash_between_sending_and_commit_sends_the_same_again(
    store: Store, bus: Bus, request_: Request
) -> None:
    await store.accept(request_)
    with pytest.raises(BusError):
        await store.relay(_Failing(after=bus))
    assert await store.relay(bus) == 1
    first, second = await _sent(bus)
    assert first == second


CRASHING = """
import asyncio, sys, time
from base.outbox import Request
from base.store import Store
async def main():
    store = await Store.open(sys.argv[1])
    request = Request(user_id=sys.argv[2], conversation_id=sys.argv[3], content="hello")
    print((await store.accept(request)).task_id, flush=True)
    time.sleep(60)
asyncio.run(main())
"""


async def test_an_acceptor_killed_before_its_relay_loses_nothing(
    store: Store, bus: Bus, request_: Request, postgres_dsn: str
) -> None:
    arguments = [postgres_dsn, request_.user_id, request_.conversation_id]
    with subprocess.Popen(
        [sys.executable, "-c", CRASHING, *arguments], stdout=subprocess.PIPE, text=True
    ) as acceptor:
        assert acceptor.stdout is not None
        task_id = (await asyncio.to_thread(acceptor.stdout.readline)).strip()
        os.kill(acceptor.pid, signal.SIGKILL)
    assert await store.relay(bus) == 1
    (raw,) = await _sent(bus)
    assert decode(raw).payload == {"task_id": task_id}


async def test_tidy_drops_what_is_old_and_sent_only(
    store: Store, bus: Bus, request_: Request
) -> None:
    await store.execute(
        "INSERT INTO outbox (stream, body, created_at, sent_at)"
        " SELECT 's', 'b', NOW() - INTERVAL '3 days', NOW() - INTERVAL '25 hours'"
        " FROM generate_series(1, 2500)"
    )
    await store.execute(
        "INSERT INTO outbox (stream, body, created_at)"
        " VALUES ('waits', 'b', NOW() - INTERVAL '30 days')"
    )
    await store.accept(request_, key="new")
    await store.accept(request_, key="old")
    await store.execute(
        "UPDATE idempotency SET created_at = NOW() - INTERVAL '8 days' WHERE key = 'old'"
    )
    assert await store.relay(bus, limit=3) == 3
    assert await store.tidy() == 2501
    assert await store.tidy() == 0
    assert await store.fetchval("SELECT count(*) FROM outbox") == 3
    assert await store.fetchval("SELECT key FROM idempotency") == "new"


# Odd messages --------------------------------------------------------------------------------

PIECES = [
    "$(rm -rf /); `id` && echo $HOME | tee > /dev/null # \\",
    "'; DROP TABLE messages; -- $1 %s %(x)s {} \"",
    "<script>alert('x')</script>&amp;<img src=x onerror=y>",
    "\u202eright to left\u202c \u2066x\u2069 שלום مرحبا",
    "👩‍👩‍👧‍👦🏳️‍🌈🇩🇪 \U0001f9d1\U0001f3ff\u200d\U0001f4bb",
    "e\u0301 é \ufb01 Å Å \u1e9e İ ı",
    "\r\n\t\x01\x07\x1b[31m\x7f\x85\u2028\u2029\ufeff",
    "\uffff\U0010ffff\ue000\x00"[:-1],
    "\\u0000 \\x00 \\ud800 \\n \\\\",
    '{"a": "\\u0000", "b": [1e999]}',
    "   leading and trailing   ",
]


def _odd_messages() -> list[str]:
    dice = random.Random(7)
    mixed = ["".join(dice.choices(PIECES, k=dice.randint(2, 9))) for _ in range(200)]
    return [*PIECES, *mixed, "x" * 50_000, "🦉" * 50_000, "\\" * 50_000]


async def test_odd_messages_are_stored_byte_for_byte(store: Store, request_: Request) -> None:
    odd = _odd_messages()
    assert len(odd) > 200
    for content in odd:
        accepted = await store.accept(replace(request_, content=content), key=content[:200])
        row = await store.fetchrow(
            "SELECT convert_to(m.content, 'UTF8') AS raw, m.content, t.input FROM messages m"
            " JOIN tasks t ON t.message_id = m.id WHERE m.id = $1",
            accepted.message_id,
        )
        assert row is not None
        assert row["raw"] == content.encode()
        assert row["content"] == row["input"]["content"] == content
