"""Whole conversations: found, renamed, archived and brought back, exported; and their branches."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from base.errors import InputError, NotFoundError
from base.store import Store
from portal import auth, conversations, recalled, talk, thread
from portal.auth import Caller
from portal.desk import Desk
from tests.portal.conftest import Portal, Stage, asked, door, person


@dataclass
class Room:
    """Just enough of a desk for functions that only read and write the record."""

    store: Store
    settings: Any
    auth: auth.Auth

    def tell(self, found: object) -> None: ...

    async def missing(self, *_: object) -> None: ...


@pytest_asyncio.fixture(loop_scope="session")
async def room(portal: Portal, store: Store) -> AsyncIterator[tuple[Desk, Caller, str]]:
    who = await person(portal, store)
    guard = door(portal, store)
    desk: Any = Room(store=store, settings=portal.settings, auth=guard)
    yield desk, await guard.by_token(who.token), who.token


async def test_found_by_title_and_by_what_was_said(
    room: tuple[Desk, Caller, str], portal: Portal, store: Store, stage: Stage
) -> None:
    desk, caller, token = room
    said, _ = await asked(portal, token, "Plan the garden")
    other, sent = await asked(portal, token, "Something else")
    await stage.end(sent["task_id"], "Grow 100% more TOMATOES_here")
    stranger = await person(portal, store)
    await asked(portal, stranger.token, "garden of somebody else")

    async def found(words: str, **more: Any) -> list[str]:
        page = await conversations.search(desk, caller, words, **more)
        return [one.id for one in page.conversations]

    assert await found("GARDEN") == [said]
    assert await found("tomatoes_") == [other]
    assert await found("100% more") == [other]
    assert await found("100%more") == []
    assert await found("tomatoesXhere") == []  # what was typed is no pattern
    for bad in ("", "  ", "x" * 201, "a\0b"):
        with pytest.raises(InputError):
            await conversations.search(desk, caller, bad)
    first = await conversations.search(desk, caller, "e", limit=1)
    assert first.next_cursor is not None
    rest = await conversations.search(desk, caller, "e", limit=1, cursor=first.next_cursor)
    assert {one.id for one in (*first.conversations, *rest.conversations)} == {said, other}
    assert rest.next_cursor is None
    await talk.archive(desk, caller, said)
    assert await found("garden") == []
    assert await found("garden", status="archived") == [said]


async def test_renamed_archived_and_back_where_it_was(
    room: tuple[Desk, Caller, str], portal: Portal, store: Store
) -> None:
    desk, caller, token = room
    ids = [(await asked(portal, token, name))[0] for name in ("one", "two", "three")]
    renamed = await conversations.rename(desk, caller, ids[0], "  A\nnew   title ")
    assert renamed.title == "A new title"
    for bad in ("", " \n ", "x" * 256):
        with pytest.raises(InputError):
            await conversations.rename(desk, caller, ids[0], bad)
    before = [one.id for one in (await talk.conversations(desk, caller)).conversations]
    assert before == ids[::-1]
    await talk.archive(desk, caller, ids[1])
    assert [one.id for one in (await talk.conversations(desk, caller)).conversations] == [
        ids[2], ids[0],
    ]  # fmt: skip
    for _ in range(2):
        assert (await conversations.restore(desk, caller, ids[1])).status == "active"
    assert [one.id for one in (await talk.conversations(desk, caller)).conversations] == before
    stranger: Any = (await person(portal, store)).token
    theirs, _ = await asked(portal, stranger, "not yours")
    with pytest.raises(NotFoundError):
        await conversations.rename(desk, caller, theirs, "mine now")
    with pytest.raises(NotFoundError):
        await conversations.export(desk, caller, theirs, "json")


async def test_branches_as_turns_and_their_export(
    room: tuple[Desk, Caller, str], portal: Portal, store: Store, stage: Stage
) -> None:
    desk, caller, token = room
    where, sent = await asked(portal, token, "first")
    await stage.end(sent["task_id"], "answer one")
    with portal.client(token) as client:

        def say(content: str, **more: Any) -> dict[str, Any]:
            body = {"content": content, **more}
            answer = client.post(f"/api/conversations/{where}/messages", json=body)
            assert answer.status_code == 202, answer.text
            made: dict[str, Any] = answer.json()
            return made

        second = say("second")
        third = say("third")
        edited = say("second, edited", edits=second["message_id"])
        whole = await thread.branch(desk, caller, where)
        assert [turn.message.content for turn in whole.turns] == ["first", "second, edited"]
        assert whole.newest
        assert whole.turns[1].versions == [second["message_id"], edited["message_id"]]
        assert [one.content for one in whole.turns[0].answers] == ["answer one"]
        old = await thread.branch(desk, caller, where, at=second["message_id"])
        assert [turn.message.content for turn in old.turns] == ["first", "second", "third"]
        assert (old.tip, old.newest) == (third["message_id"], False)
        say("fourth", follows=third["message_id"])
        old = await thread.branch(desk, caller, where, at=second["message_id"], limit=2)
        assert [turn.message.content for turn in old.turns] == ["third", "fourth"]
        assert old.more
        first = old.turns[0].message.id
        up = await thread.branch(desk, caller, where, at=old.tip, before=first, limit=5)
        assert [turn.message.content for turn in up.turns] == ["first", "second"]
        assert not up.more
        for bad in ({"edits": str(uuid.uuid4())}, {"follows": str(uuid.uuid4())}):
            body = {"content": "x", **bad}
            lost = client.post(f"/api/conversations/{where}/messages", json=body)
            assert lost.status_code == 404
        both = {"content": "x", "edits": second["message_id"], "follows": third["message_id"]}
        assert client.post(f"/api/conversations/{where}/messages", json=both).status_code == 422
        made = client.get(f"/api/conversations/{where}/export")
        assert made.headers["content-disposition"].startswith("attachment; filename=")
        assert "## You, " in made.text
        assert "version 2 of 2\n\nsecond, edited" in made.text
        data = client.get(f"/api/conversations/{where}/export", params={"format": "json"})
        messages = json.loads(data.text)["messages"]
        assert [one["content"] for one in messages] == [
            "first", "answer one", "second", "third", "second, edited", "fourth",
        ]  # fmt: skip
        assert messages[4]["parent_message_id"] == messages[0]["id"]


async def test_memories_of_a_request_and_why(
    room: tuple[Desk, Caller, str], portal: Portal, store: Store
) -> None:
    desk, caller, token = room
    _, sent = await asked(portal, token, "what do you know?")
    task_id, stranger = sent["task_id"], str(uuid.uuid4())
    mine, theirs = str(uuid.uuid4()), str(uuid.uuid4())
    for memory_id, owner in ((mine, caller.user_id), (theirs, stranger)):
        await store.execute(
            "INSERT INTO memory (id, collection, user_id, tier, text, kind, speaker, created_at,"
            " first_seen, hash) VALUES ($1, 'memories', $2, 'warm', 'Tea, not coffee.', 'fact',"
            " 'ada', NOW(), NOW(), $3)",
            *(memory_id, owner, memory_id.replace("-", "") * 2),
        )
        await store.execute(
            "INSERT INTO memory_use (task_id, memory_id, root_id, rank) VALUES ($1, $2, $1, 1)",
            *(task_id, memory_id),
        )
    found = await recalled.given(desk, caller, task_id)
    assert [(one.memory_id, one.text, one.why) for one in found.memories] == [
        (mine, "Tea, not coffee.", [])
    ]
    folder = portal.settings.work / f"20261128-120000_what-{task_id[:8]}"
    folder.mkdir(parents=True)
    records = [
        {"kind": "order"},
        {
            "kind": "recalled",
            "items": [{"id": mine, "why": ["words: tea"], "score": 0.81}],
            "learnings": [],
            "note": "found by words alone",
        },
    ]
    (folder / "journal.jsonl").write_text("\n".join(map(json.dumps, records)) + "\ntorn {")
    found = await recalled.given(desk, caller, task_id)
    assert [(one.why, one.score) for one in found.memories] == [(["words: tea"], 0.81)]
    assert found.notes == ["found by words alone"]
    with portal.client(token) as client:
        told = client.get(f"/api/tasks/{task_id}/memories").json()
    assert told == found.model_dump(mode="json")
