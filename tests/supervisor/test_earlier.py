"""What a request is told of its conversation: its own branch, its files, and nothing else."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import httpx
from stage import World

from base import branches
from base.outbox import Request
from supervisor import earlier, record
from supervisor.tasks import Task

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))


async def say(world: World, content: str, **fields: Any) -> tuple[str, Task]:
    """One more message; its id and its request."""
    accepted = await world.store.accept(
        Request(user_id=world.user, conversation_id=world.conversation, content=content, **fields)
    )
    root = await record.find(world.store, accepted.task_id)
    assert root is not None
    return accepted.message_id, root


async def reply(world: World, message_id: str, content: str, *, tainted: bool = False) -> None:
    await world.store.execute(
        "INSERT INTO messages (conversation_id, role, content, parent_message_id, metadata,"
        " created_at) VALUES ($1, 'assistant', $2, $3, $4, clock_timestamp())",
        *(world.conversation, content, message_id, {"tainted": tainted}),
    )


async def keep(world: World, name: str, data: bytes, kind: str, media_type: str) -> str:
    """A file as the portal keeps it."""
    digest = hashlib.sha256(data).hexdigest()
    folder = world.settings.attachments / world.user
    folder.mkdir(parents=True, exist_ok=True)
    (folder / digest).write_bytes(data)
    made = str(uuid.uuid4())
    await world.store.execute(
        "INSERT INTO attachments (id, user_id, filename, mime_type, kind, size_bytes, sha256,"
        " storage_path) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        *(made, world.user, name, media_type, kind, len(data), digest, f"{world.user}/{digest}"),
    )
    return made


async def heard(world: World, root: Task) -> list[str]:
    return [turn.content for turn in await earlier.history(world.store, root)]


async def test_a_branch_hears_its_own_line_alone(world: World) -> None:
    first, _ = await say(world, "first")
    await reply(world, first, "answer to first")
    second, _ = await say(world, "second")
    await reply(world, second, "a poor answer", tainted=True)
    await reply(world, second, "a better answer")
    third, old = await say(world, "third")
    assert await heard(world, old) == [
        "first", "answer to first", "second", "a better answer",
    ]  # fmt: skip
    assert not await earlier.tainted(world.store, old)
    edited, root = await say(world, "second, other words", edits=second)
    assert await heard(world, root) == ["first", "answer to first"]
    await reply(world, edited, "foreign", tainted=True)
    _, on = await say(world, "goes on")
    assert await heard(world, on) == [
        "first", "answer to first", "second, other words", "foreign",
    ]  # fmt: skip
    assert await earlier.tainted(world.store, on)
    _, back = await say(world, "back to the first line", follows=third)
    assert (await heard(world, back))[-1] == "third"
    assert not await earlier.tainted(world.store, back)
    _, anew = await say(world, "another beginning", edits=first)
    assert await heard(world, anew) == []


async def test_a_long_conversation_is_heard_from_its_end(world: World) -> None:
    for at in range(earlier.DEPTH + 5):
        await say(world, f"message {at}")
    _, root = await say(world, "last")
    said = await heard(world, root)
    assert said == [f"message {at}" for at in range(5, earlier.DEPTH + 5)]


async def test_files_follow_the_branch_and_each_is_sent_once(world: World) -> None:
    picture = await keep(world, "a.png", PNG, "image", "image/png")
    notes = await keep(world, "notes.txt", b"remember", "text", "text/plain")
    first, root = await say(world, "look", attachments=(picture, notes))
    assert [one.name for one in await earlier.attached(world.store, root)] == [
        "a.png", "notes.txt",
    ]  # fmt: skip
    _, on = await say(world, "and now?")
    assert [one.name for one in await earlier.attached(world.store, on)] == ["a.png", "notes.txt"]
    edited, root = await say(world, "look again", edits=first, attachments=(notes,))
    assert [one.name for one in await earlier.attached(world.store, root)] == ["notes.txt"]
    kept = await branches.attached(world.store, first, 1)
    assert [one.name for one in kept] == ["a.png", "notes.txt"]  # nothing was taken from it
    assert edited != first


async def test_planner_and_order_get_the_files(world: World) -> None:
    await world.play("code")
    world.start()
    picture = await keep(world, "a.png", PNG, "image", "image/png")
    code = await keep(world, "count.py", b"print(1)\n", "text", "text/plain")
    accepted = await world.store.accept(
        Request(
            user_id=world.user,
            conversation_id=world.conversation,
            content="Write a program that does what the picture shows, with tests and notes.",
            attachments=(picture, code),
        )
    )
    await world.store.relay(world.bus)
    await world.ended(accepted.task_id)
    orders = [order for player in world.players.values() for order in player.orders]
    assert [[one.name for one in order.attachments] for order in orders] == [["a.png", "count.py"]]
    async with httpx.AsyncClient() as client:
        seen = (await client.get(f"{world.settings.model_url}/rehearsal/calls")).json()["recent"]
    (plan,) = [call for call in seen if call["user_id"] == f"{accepted.task_id}/supervisor/plan"]
    assert [(one["type"], one["size_bytes"], one["sha256"]) for one in plan["files"]] == [
        ("image", len(PNG), hashlib.sha256(PNG).hexdigest()),
        ("document", 9, hashlib.sha256(b"print(1)\n").hexdigest()),
    ]
