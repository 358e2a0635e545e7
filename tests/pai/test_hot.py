"""The hot index finds what the warm store would; the hashes in Redis are there and go."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest
from keeper_world import DIM, memory, vector

from base.bus import Bus
from pai import points
from pai.hot import GROW_ROWS, Index, Shared, key
from pai.shapes import Memory
from pai.warm import Keep, Look, Point
from pai.words import query


def point(one: Memory, *, dense: bool = True) -> Point:
    return points.point(one, vector(one.text) if dense else None, model="hash-64")


def look(text: str, limit: int = 10) -> list[Look]:
    return [
        Look(name="dense", vector=vector(text), limit=limit),
        Look(name="words", vector=query(text), limit=limit),
    ]


KEEP = Keep(any_of={"user_id": ["ann", "*"]})


def test_best_first_by_meaning_and_by_words() -> None:
    index = Index()
    many = [memory(text) for text in ("red fox", "red red wine", "blue whale", "the whale is big")]
    index.put(point(one) for one in many)
    dense, words = index.search(look("blue whale"), KEEP)
    assert dense[0].id == words[0].id == many[2].id
    assert dense[0].score == pytest.approx(1.0, abs=1e-5)
    assert {hit.id for hit in words} == {many[2].id, many[3].id}
    assert len(dense) == 4
    assert len(index.search(look("blue whale", limit=2), KEEP)[0]) == 2


def test_filters() -> None:
    index = Index()
    kept = memory("one thing", agent="code", source="b", seq=5, file="f")
    index.put(
        [
            point(kept),
            point(memory("one thing", user_id="bob")),
            point(memory("one thing", agent="data")),
            point(memory("one thing", agent="code", tainted=True)),
        ]
    )

    def found(keep: Keep) -> list[str]:
        return [hit.id for hit in index.search(look("one thing"), keep)[1]]

    users = {"user_id": ["ann"]}
    assert len(found(Keep(any_of=users))) == 3
    assert found(Keep(any_of={**users, "agent": ["code"], "tainted": [False]})) == [kept.id]
    assert found(Keep(any_of={**users, "source": ["b", "z"]})) == [kept.id]
    assert found(Keep(any_of=users, ranges={"seq": (5, None)})) == [kept.id]
    assert found(Keep(any_of=users, ranges={"seq": (6, None)})) == []
    assert kept.id not in found(Keep(any_of=users, not_ids=[kept.id]))
    assert found(Keep(any_of={"user_id": []})) == []


def test_what_is_removed_or_replaced_is_not_found() -> None:
    index = Index()
    one, other = memory("green apple"), memory("yellow pear")
    index.put([point(one), point(other)])
    index.put([point(one.model_copy(update={"text": "purple plum"}))])
    assert [hit.id for hit in index.search(look("green apple"), KEEP)[1]] == []
    assert [hit.id for hit in index.search(look("purple plum"), KEEP)[1]] == [one.id]
    index.remove([one.id])
    index.remove([one.id])
    assert [hit.id for hit in index.search(look("purple plum"), KEEP)[0]] == [other.id]
    assert len(index) == 1


def test_it_grows_and_uses_free_rows_again() -> None:
    index = Index()
    many = [memory(f"number {number}") for number in range(GROW_ROWS + 10)]
    index.put(point(one) for one in many)
    assert index.search(look(f"number {GROW_ROWS + 5}"), KEEP)[0][0].id == many[GROW_ROWS + 5].id
    index.remove([one.id for one in many[:100]])
    index.put(point(memory(f"again {number}")) for number in range(100))
    assert len(index._points) == GROW_ROWS + 10


def test_without_a_vector_words_find_it_and_another_models_query_does_not() -> None:
    index = Index()
    one = memory("lonely words")
    index.put([point(one, dense=False), point(memory("with a vector"))])
    dense, words = index.search(look("lonely words"), KEEP)
    assert one.id not in [hit.id for hit in dense]
    assert [hit.id for hit in words] == [one.id]
    strange = Look(name="dense", vector=np.ones(DIM * 2, dtype=np.float32), limit=5)
    assert index.search([strange], KEEP) == [[]]


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    bus = await Bus.open(redis_url, "hot-test")
    yield bus
    await bus.close()


async def test_redis_has_the_seed_plans_hash(bus: Bus) -> None:
    shared, one = Shared(bus), memory("seen from outside", task_id="t")
    await shared.put([one])
    (content,) = await bus.call(("HGET", key(one.id), "content"))
    assert content.decode() == one.text
    assert await shared.there([one.id, "nobody"]) == 1
    assert await shared.remove([one.id]) == 1
    assert await shared.remove([one.id]) == 0
    assert await shared.remove([]) == 0
