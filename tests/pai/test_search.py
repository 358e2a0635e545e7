"""A search as the keeper does it: names, neighbours, the cross-encoder."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from keeper_world import World, memory
from recall_cases import SAID

from base import streams
from base.errors import InputError
from pai import search
from pai.shapes import Collection, Found, Memory, Query
from pai.warm import Point

pytestmark = pytest.mark.asyncio(loop_scope="module")


def talk(user_id: str = "ann", conversation: str = "c", start: int = 0) -> list[Memory]:
    return [
        memory(
            said, user_id=user_id, collection=Collection.CONVERSATIONS, kind="message",
            speaker=speaker, conversation_id=conversation, seq=at,
        )
        for at, (speaker, said) in enumerate(SAID)
        if at >= start
    ]  # fmt: skip


async def ask(made: World, text: str, **fields: Any) -> Found:
    return await made.client.search(Query(**{"text": text, "user_id": "ann", **fields}))


async def test_who_is_named_is_looked_for_among_who_spoke(made: World) -> None:
    await made.client.remember(*talk())
    found = await ask(made, "Which flour does Tom take for rye bread?", limit=1, neighbours=1)
    assert found.items[0].memory.text == "The dark one from the mill in Plön."
    assert found.items[0].why[-2:] == ("said by Tom", "answers a question that matches")
    assert [near.seq for near in found.items[0].around] == [12, 14]
    assert made.worker.asked[-1]["texts"] == ["Which flour does take for rye bread?"]


async def test_names_are_known_as_soon_as_they_spoke_and_to_their_user_alone(made: World) -> None:
    assert not (await ask(made, "What did Tom say?")).items
    await made.client.remember(*talk())
    await ask(made, "What did Tom say of beans?")
    assert made.worker.asked[-1]["texts"] == ["What did say of beans?"]
    await ask(made, "What did Tom say of beans?", user_id="bob")
    assert made.worker.asked[-1]["texts"] == ["What did Tom say of beans?"]


async def test_what_is_embedded_names_who_said_it(made: World) -> None:
    await made.client.remember(memory("It is cold.", speaker="Tom"), memory("It is warm."))
    assert made.worker.asked[-1]["texts"] == ["Tom: It is cold.", "It is warm."]


async def test_words_are_looked_for_while_the_vector_is_made(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made.client.remember(memory("The dark rye is from the mill."))
    looked, told = asyncio.Event(), asyncio.Event()
    of, search_all = made.stores.meaning.of, made.stores.warm.search_all

    async def late(*given: Any) -> Any:
        told.set()
        async with asyncio.timeout(5):
            await looked.wait()
        return await of(*given)

    async def look(*given: Any, **named: Any) -> Any:
        assert told.is_set(), "the look would hold up the question to the worker"
        found = await search_all(*given, **named)
        looked.set()
        return found

    monkeypatch.setattr(made.stores.meaning, "of", late)
    monkeypatch.setattr(made.stores.warm, "search_all", look)
    (item,) = (await ask(made, "Which rye is dark?", limit=1)).items
    assert item.why[0].startswith("meaning")
    assert item.why[1].startswith("words")


@contextlib.asynccontextmanager
async def scorer(made: World, answer: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(made.worker.bus.serve(streams.SERVICE_SCORE, answer), name="score")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_cross_encoder_decides_if_set_and_if_it_answers(made: World) -> None:
    await made.client.remember(*talk())
    settings = made.stores.settings.model_copy(update={"rerank_model": Path("/nowhere")})
    stores = replace(made.stores, settings=settings)
    query = Query(text="Tell me of the boat course", user_id="ann", limit=20)
    before = await search.search(stores, query)
    asked: list[dict[str, Any]] = []

    async def likes_lighthouses(payload: dict[str, Any]) -> dict[str, Any]:
        asked.append(payload)
        return {"scores": [float("lighthouses" in text) for text in payload["texts"]]}

    async def refuses(payload: dict[str, Any]) -> dict[str, Any]:
        raise InputError("no rerank_model is set")

    async with scorer(made, likes_lighthouses):
        found = await search.search(stores, query)
        unset = await search.search(made.stores, query)
    assert "lighthouses" in found.items[0].memory.text
    assert [item.memory.id for item in unset.items] == [item.memory.id for item in before.items]
    assert [one["query"] for one in asked] == [query.text]
    assert "rerank" in found.took_ms
    async with scorer(made, refuses):
        refused = await search.search(stores, query)
    assert [item.memory.id for item in refused.items] == [item.memory.id for item in before.items]


async def test_what_is_gone_or_not_his_when_it_is_read_is_not_told(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await made.client.remember(*(memory(f"The oven has {n} bricks.") for n in range(4)))
    query = Query(text="How many bricks has the oven?", user_id="ann", limit=2)
    first = [item.memory.id for item in (await search.search(made.stores, query)).items]
    read = made.stores.warm.get

    async def reads(collection: str, ids: list[str], **how: Any) -> list[Point]:
        found = await read(collection, ids, **how)
        stolen = [replace(one, payload={**one.payload, "user_id": "bob"}) for one in found]
        there = [one for one in found if one.id not in first]
        return [*there, *(one for one in stolen if one.id == first[1])]

    monkeypatch.setattr(made.stores.warm, "get", reads)
    then = [item.memory.id for item in (await search.search(made.stores, query)).items]
    assert len(then) == 2
    assert set(then) == set(ids) - set(first)
