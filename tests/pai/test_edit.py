"""Changing a memory by hand, and looking through memory without a question."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from keeper_world import World, memory

from base import streams
from base.errors import ConflictError, InputError, NotFoundError
from pai.keeper import take
from pai.points import said
from pai.shapes import SHARED, Browse, Collection, Edit, Learned, Query, Tier, Told

pytestmark = pytest.mark.asyncio(loop_scope="module")
ALL = tuple(Tier)


async def texts(made: World, text: str, **fields: object) -> list[str]:
    found = await made.client.search(Query(text=text, user_id="ann", **fields))  # type: ignore[arg-type]
    return [item.memory.text for item in found.items]


def change(id: str, text: str, **fields: object) -> Edit:
    return Edit(user_id="ann", id=id, text=text, **fields)  # type: ignore[arg-type]


async def test_an_edit_replaces_text_words_and_vector_and_keeps_the_rest(made: World) -> None:
    for fields, tier in (({}, "warm"), ({"task_id": "t", "agent": "code"}, "hot")):
        await made.empty()
        one = memory("The pump room has the code 4711.", speaker="Ann", **fields)
        twin = memory(one.text, **fields)
        await made.client.remember(one)
        await made.client.remember(twin)
        key = streams.embedding(made.worker.model, said(one))
        assert (await made.bus.call(("EXISTS", key))) == [1]
        answer = await made.client.edit(change(one.id, "Its door opens with zebra.", kind="rule"))
        card = answer["card"]
        assert (card["memory"]["id"], card["memory"]["kind"], card["tier"]) == (
            one.id,
            "rule",
            tier,
        )
        assert (card["memory"]["speaker"], card["support"]) == ("Ann", 1)
        assert datetime.fromisoformat(card["memory"]["created_at"]) == one.created_at
        assert card["memory"]["extra"]["edited"]["times"] == 1
        assert await texts(made, "code 4711 pump room") in ([], ["Its door opens with zebra."])
        (hit,) = (await made.client.search(Query(text="zebra", user_id="ann"))).items
        assert hit.memory.id == one.id
        assert "4711" not in str(await made.card(one.id))
        assert (await made.bus.call(("EXISTS", key))) == [0]
        (point,) = (
            await made.stores.warm.get("memories", [one.id], vectors=True)
            if tier == "warm"
            else [made.stores.index.get(one.id)]
        )
        assert point is not None
        assert point.payload["text"] == "Its door opens with zebra."
        near = await made.stores.meaning.of([said(hit.memory)], "query", 5.0)
        assert near is not None
        assert float(point.dense["dense"] @ near.matrix[0]) > 0.999


async def test_the_old_text_told_again_does_not_undo_the_edit(made: World) -> None:
    one = memory("The office is in Berlin.", collection="knowledge", file="/a.md", seq=0)
    await made.client.remember(one)
    await made.client.edit(change(one.id, "The office is in Hamburg."))
    assert await made.client.remember(one) == [one.id]
    assert await texts(made, "where is the office?") == ["The office is in Hamburg."]
    new = one.model_copy(update={"text": "The office is in Kiel."})
    await made.client.remember(new)  # the file itself says something new
    assert await texts(made, "where is the office?") == ["The office is in Kiel."]


async def test_what_is_not_yours_or_changed_meanwhile_stays(made: World) -> None:
    mine, theirs = memory("I like tea."), memory("Bob likes tea.", user_id="bob")
    shared = memory("Tea is at four.", user_id=SHARED, collection="knowledge")
    await made.client.remember(mine, theirs, shared)
    for id in (theirs.id, shared.id, str(uuid.uuid4())):
        with pytest.raises(NotFoundError):
            await made.client.edit(change(id, "Coffee."))
    for bad in ("not an id", mine.id):
        with pytest.raises(InputError):
            await made.client.edit(change(bad, " " if bad == mine.id else "x"))
    (card,) = await made.client.about("ann", [mine.id, theirs.id])
    await made.client.edit(change(mine.id, "I like mate.", seen=card.hash))
    with pytest.raises(ConflictError):
        await made.client.edit(change(mine.id, "I like rum.", seen=card.hash))
    assert sorted(await texts(made, "who likes what tea?", limit=9)) == [
        "I like mate.",
        "Tea is at four.",
    ]


async def test_a_cold_memory_that_is_edited_is_warm_and_its_line_is_swept(made: World) -> None:
    one = memory("The old boiler was green.")
    await made.client.remember(one)
    await made.pass_(now=datetime.now(UTC) + timedelta(days=32))
    (card,) = await made.client.about("ann", [one.id])
    assert (card.tier, card.memory.text) == (Tier.COLD, one.text)
    answer = await made.client.edit(change(one.id, "The old boiler was red."))
    assert answer["card"]["tier"] == "warm"
    assert any("archive" in line for line in answer["kept"])
    await made.pass_(now=datetime.now(UTC) + timedelta(hours=2))
    assert await made.stores.archive.mentions([one.id]) == {one.id: 0}
    assert await texts(made, "boiler", tiers=ALL) == ["The old boiler was red."]


async def test_a_learnings_own_page_is_written_anew(made: World) -> None:
    lesson = Learned(
        phase="BUILD", lesson="Look first.", applies_when="a file exists", outcome="success"
    )
    task_id = str(uuid.uuid4())
    told = Told(verb="learned", user_id="ann", agent="code", task_id=task_id, learned=(lesson,))
    await take(made.stores, told)
    wanted = Browse(user_id="ann", collections=(Collection.LEARNINGS,), phase="BUILD")
    (card,) = (await made.client.browse(wanted)).cards
    assert card.usefulness == 0.5
    await made.client.edit(change(card.memory.id, "Look twice."))
    page = (made.stores.settings.memory / card.memory.file).read_text()
    assert "Look twice." in page
    assert "Look first." not in page


async def test_browsing_is_paged_filtered_and_in_order(made: World) -> None:
    now = datetime.now(UTC)
    mine = [
        memory(f"Fact number {at} is about a thing of its own {'x' * at}.",
               created_at=now - timedelta(minutes=at), kind="odd" if at % 2 else "even")
        for at in range(7)
    ]  # fmt: skip
    alien = memory("Bob's fact.", user_id="bob")
    note = memory("A note.", collection="knowledge", created_at=now - timedelta(days=9))
    await made.client.remember(*mine, alien, note)
    await made.stores.store.execute(
        "UPDATE memory SET access_count = 5, utility = 0.1 WHERE id = $1", mine[3].id
    )
    seen: list[str] = []
    wanted = Browse(user_id="ann", limit=3)
    while True:
        page = await made.client.browse(wanted)
        seen += [card.memory.id for card in page.cards]
        if page.next is None:
            break
        wanted = wanted.model_copy(update={"after": page.next})
    assert seen == [*(one.id for one in mine), note.id]

    async def first(**fields: object) -> list[str]:
        page = await made.client.browse(Browse(user_id="ann", **fields))  # type: ignore[arg-type]
        return [card.memory.id for card in page.cards]

    assert (await first(order="used"))[0] == mine[3].id
    assert (await first(order="utility"))[0] == mine[3].id
    assert await first(collections=["knowledge"]) == [note.id]
    assert set(await first(kind="odd")) == {one.id for one in mine[1::2]}
    assert note.id not in await first(since=now - timedelta(days=1))
    assert await first(tiers=["cold"]) == []
    paged = await made.client.browse(Browse(user_id="ann", order="utility", limit=4))
    rest = await made.client.browse(
        Browse(user_id="ann", order="utility", limit=9, after=paged.next)
    )
    assert len({card.memory.id for card in (*paged.cards, *rest.cards)}) == 8
    for after in ("x", '["a"]', '["2026-01-01", "no"]', "[1, 2, 3]", paged.next):
        with pytest.raises(InputError):
            await made.client.browse(Browse(user_id="ann", after=after))
    with pytest.raises(InputError):
        await made.client.about("ann", ["nonsense"])
