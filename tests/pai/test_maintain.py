"""Maintenance: what is due moves, what is too much leaves, duplicates become one."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from keeper_world import World, memory, rules

from base.bus import Bus
from base.errors import DamagedError
from pai import cards, intake, keeper, maintain
from pai.cards import Use
from pai.hot import Shared
from pai.shapes import Memory, Query, Tier, Told

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY = timedelta(days=1)


def now() -> datetime:
    return datetime.now(UTC)


async def places(made: World, one: Memory) -> dict[str, int]:
    """How many copies there are of it, by place."""
    stores = made.stores
    lines = [
        line
        for month in stores.archive.months()
        for _, line in stores.archive.lines(f"memories-{month}.jsonl.gz")
    ]
    found = {
        "hot": int(one.id in stores.index),
        "redis": await stores.shared.there([one.id]),
        "warm": len(await stores.warm.get(one.collection, [one.id])),
        "cold": sum(line["id"] == one.id for line in lines),
    }
    return {name: count for name, count in found.items() if count}


async def find(made: World, text: str, *tiers: Tier, **fields: object) -> list[Tier]:
    query = Query(text=text, user_id="ann", tiers=tiers or tuple(Tier), **fields)  # type: ignore[arg-type]
    found = await made.client.search(query)
    return [item.tier for item in found.items if item.memory.text == text]


async def test_the_life_of_a_memory(made: World) -> None:
    one = memory("the build needs seven minutes", task_id="t", agent="code")
    await made.client.remember(one)
    assert await places(made, one) == {"hot": 1, "redis": 1}
    assert await find(made, one.text) == [Tier.HOT]

    assert await made.pass_(now=now() + timedelta(hours=23)) == {}
    assert await made.pass_(now=now() + timedelta(hours=25)) == {"promoted": 1}
    assert await places(made, one) == {"warm": 1}
    assert await find(made, one.text) == [Tier.WARM]

    assert "demoted" not in await made.pass_(now=now() + 29 * DAY)
    assert (await made.pass_(now=now() + 32 * DAY))["demoted"] == 1
    assert await places(made, one) == {"cold": 1}
    card = await made.card(one.id)
    assert card is not None
    assert (card["text"], card["sweep"]) == (None, [])
    assert await find(made, one.text, Tier.HOT, Tier.WARM) == []
    assert await find(made, one.text) == [Tier.COLD]

    assert (await made.pass_(now=now() + 500 * DAY))["cold_evicted"] == 1
    assert await places(made, one) == {}
    assert await made.card(one.id) is None


async def test_the_end_of_a_request_moves_what_its_tasks_wrote(made: World) -> None:
    root = "8b0c8d3e-0000-4000-8000-000000000001"
    one, other = memory("one", task_id=root), memory("two", task_id="another")
    await made.client.remember(one, other)
    told = Told(verb="ended", user_id="ann", root_id=root, status="completed")
    await keeper.take(made.stores, told)
    await keeper.take(made.stores, told)
    assert await made.pass_() == {"promoted": 1}
    assert await places(made, one) == {"warm": 1}
    assert await places(made, other) == {"hot": 1, "redis": 1}


async def test_use_keeps_a_memory_warm_and_raises_its_utility(made: World) -> None:
    used, unused = memory("the router is in the cellar"), memory("grass is green")
    await made.client.remember(used, unused)
    before = await made.card(used.id)
    await find(made, used.text, task_id="task-1")
    await find(made, used.text, task_id="task-1")  # the same task again counts once
    await made.pass_()
    card = await made.card(used.id)
    assert before is not None
    assert card is not None
    assert card["access_count"] == 1
    assert card["rank_sum"] == 1.0
    assert card["utility"] > before["utility"]
    later = now() + timedelta(days=29)
    made.stores.uses.append(Use(memory_id=used.id, task_id="task-2", rank=2, at=later))
    await made.pass_()
    assert (await made.pass_(now=now() + 31 * DAY))["demoted"] == 1
    assert await places(made, used) == {"warm": 1}
    assert await places(made, unused) == {"cold": 1}


async def test_a_cold_memory_that_a_task_was_given_is_warm_again(made: World) -> None:
    one, other = memory("the vault code is in the binder"), memory("the binder is red")
    await made.client.remember(one, other)
    await made.pass_(now=now() + 31 * DAY)
    assert await places(made, one) == {"cold": 1}
    assert await find(made, one.text) == [Tier.COLD]
    assert "thawed" not in await made.pass_()
    await find(made, one.text, task_id="task-1", limit=1)
    assert (await made.pass_())["thawed"] == 1
    assert await places(made, one) == {"warm": 1}
    assert await places(made, other) == {"cold": 1}
    assert await find(made, one.text) == [Tier.WARM]
    await made.pass_(now=now() + 62 * DAY)
    assert await places(made, one) == {"cold": 1}


async def test_an_agents_least_recently_used_leave_the_hot_tier(made: World) -> None:
    small = made.under(rules(hot={"items_per_agent": 2}))
    many = [memory(f"note {word}", task_id="t", agent="code") for word in "abcd"]
    other = memory("note of data", task_id="t", agent="data")
    for one in (*many, other):
        await made.client.remember(one)
    at = now() + timedelta(minutes=1)
    made.stores.uses.append(Use(memory_id=many[0].id, task_id="t2", rank=1, at=at))
    done = await small.pass_()
    assert done["hot_evicted"] == 2
    kept = [one for one in (*many, other) if "hot" in await places(made, one)]
    assert kept == [many[0], many[3], other]
    assert await places(made, many[1]) == {"warm": 1}


async def test_above_the_warm_limit_the_least_useful_leave(made: World) -> None:
    small = made.under(rules(warm={"items": 2}))
    many = [memory(f"fact {word}") for word in ("alpha", "beta", "gamma", "delta")]
    await made.client.remember(*many)
    for rank, number in ((1, 1), (3, 3)):
        made.stores.uses.append(Use(memory_id=many[number].id, task_id="t", rank=rank, at=now()))
    done = await small.pass_()
    assert done["warm_evicted"] == 2
    assert [await places(made, one) for one in many] == [
        {"cold": 1}, {"warm": 1}, {"cold": 1}, {"warm": 1},
    ]  # fmt: skip


async def test_above_the_cold_limit_the_oldest_leave(made: World) -> None:
    first, second = memory("the first to go " + "x" * 50), memory("the second to go")
    await made.client.remember(first)
    await made.pass_(now=now() + 31 * DAY)
    await made.client.remember(second)
    await made.pass_(now=now() + 31 * DAY)
    size_bytes = made.stores.archive.memory_bytes
    small = made.under(rules(cold={"size_bytes": size_bytes - 1}))
    assert (await small.pass_())["cold_evicted"] == 1
    assert await places(made, first) == {}
    assert await places(made, second) == {"cold": 1}
    assert await find(made, second.text) == [Tier.COLD]


async def test_near_duplicates_become_one_with_their_support(made: World) -> None:
    words = (
        "the nightly backup of the main database runs at two and is checked every single morning"
    )
    old = memory(words, created_at=now() - 9 * DAY)
    young = memory(words + " please")
    assert await made.client.remember(old) == [old.id]
    assert await made.client.remember(young) == [old.id]
    card = await made.card(old.id)
    assert card is not None
    assert (card["support"], card["first_seen"]) == (2, old.created_at)
    await made.pass_()
    assert await made.card(young.id) is None
    assert await places(made, young) == {}
    assert await made.client.remember(young) == [old.id]  # a second delivery
    card = await made.card(old.id)
    assert card is not None
    assert card["support"] == 2


@pytest.mark.parametrize(
    "other",
    [
        {"user_id": "bob"},
        {"tainted": True},
        {"collection": "conversations"},
        {"seq": 4, "file": "f"},
    ],
)
async def test_what_differs_in_kind_stays_apart(made: World, other: dict[str, object]) -> None:
    words = (
        "the nightly backup of the main database runs at two and is checked every single morning"
    )
    one, two = memory(words), memory(words, **other)
    await made.client.remember(one)
    assert await made.client.remember(two) == [two.id]
    await made.pass_()
    for each in (one, two):
        assert await places(made, each) == {"warm": 1}
        card = await made.card(each.id)
        assert card is not None
        assert (card["support"], card["tainted"]) == (1, each.tainted)


async def test_a_large_batch_is_compared_in_the_background(made: World) -> None:
    words = (
        "the nightly backup of the main database runs at two and is checked every single morning"
    )
    many = [memory(f"thing number {number} is {number * 7}") for number in range(20)]
    twins = [memory(words + end) for end in ("", " please", " indeed")]
    ids = await made.client.remember(*many, *twins)
    assert ids == [one.id for one in (*many, *twins)]
    assert (await made.pass_())["merged"] == 2
    kept = [one for one in twins if await places(made, one)]
    assert len(kept) == 1
    card = await made.card(kept[0].id)
    assert card is not None
    assert card["support"] == 3


async def test_a_flushed_redis_loses_nothing(made: World) -> None:
    one = memory("what agents share", task_id="t")
    await made.client.remember(one)
    await made.bus.call(("FLUSHALL",))
    await asyncio.sleep(0.2)
    assert await find(made, one.text) == [Tier.HOT]
    await made.pass_()
    assert await places(made, one) == {"hot": 1, "redis": 1}


async def test_without_redis_a_pass_ends_and_the_next_one_sweeps(
    made: World, redis_server: str
) -> None:
    one = memory("what agents share", task_id="t")
    await made.client.remember(one)
    away = await Bus.open(redis_server, "away")
    await away.close()
    await cards.leave(made.stores.store, [one.id])
    async with asyncio.timeout(60):
        await maintain.once(replace(made.stores, shared=Shared(away)))
    assert await places(made, one) == {"redis": 1}
    await made.pass_()
    assert await places(made, one) == {}


async def test_what_the_warm_store_lost_is_placed_again(made: World) -> None:
    one = memory("the office is in Berlin")
    await made.client.remember(one)
    await made.stores.warm.remove(one.collection, [one.id])
    await made.stores.store.execute("UPDATE memory SET compared = FALSE")
    async with asyncio.timeout(60):
        await made.pass_()
        await made.pass_()
    assert await places(made, one) == {"warm": 1}


async def test_without_a_worker_words_decide_and_vectors_come_later(made: World) -> None:
    one = memory("the invoice template lives in the shared drive")
    made.stores.meaning._away_until_s = float("inf")
    await made.client.remember(one)
    found = await made.client.search(Query(text="invoice template", user_id="ann"))
    assert [item.memory.id for item in found.items] == [one.id]
    assert not found.dense
    assert (await made.client.stats())["pending"]["embed"] == 1
    made.stores.meaning._away_until_s = 0.0
    assert (await made.pass_())["embedded"] == 1
    found = await made.client.search(Query(text="invoice template", user_id="ann"))
    assert found.dense
    assert (await made.client.stats())["pending"]["embed"] == 0


async def test_a_writer_that_died_is_gone_on_for(made: World) -> None:
    one, two = memory("written but not placed"), memory("hot and not placed", task_id="t")
    await intake.record(made.stores, [one, two])
    assert await find(made, one.text) == []
    assert (await made.client.stats())["pending"]["place"] == 2
    assert (await made.pass_())["placed"] == 2
    assert (await made.client.stats())["pending"]["place"] == 0
    assert await find(made, one.text) == [Tier.WARM]
    assert await find(made, two.text) == [Tier.HOT]


async def test_what_leaves_before_it_was_placed_waits_for_nothing(made: World) -> None:
    one = memory("gone before anybody placed it")
    await intake.record(made.stores, [one])
    await made.client.forget("ann", [one.id])
    await made.pass_()
    assert (await made.client.stats())["pending"]["place"] == 0
    assert await places(made, one) == {}


async def test_what_no_store_has_is_given_no_vector_there(made: World) -> None:
    one = memory("not placed, and of a model that has gone")
    await intake.record(made.stores, [one])
    await made.stores.store.execute("UPDATE memory SET vector_of = 'gone' WHERE id = $1", one.id)
    assert await maintain.embed(made.stores, now()) == 0
    pending = (await made.client.stats())["pending"]
    assert (pending["place"], pending["embed"]) == (1, 0)
    await made.stores.store.execute("UPDATE memory SET vector_of = NULL WHERE id = $1", one.id)
    assert (await made.client.stats())["pending"]["place"] == 1
    await made.pass_()
    assert await find(made, one.text) == [Tier.WARM]


@pytest.mark.parametrize("known", [True, False])
async def test_a_card_whose_model_was_foreseen_is_written_once(made: World, known: bool) -> None:
    one, store = memory(f"written once: {known}"), made.stores.store
    _, fresh = await intake.record(made.stores, [one])
    written = await store.fetchval("SELECT xmin::text FROM memory WHERE id = $1", one.id)
    own = await made.stores.meaning.of([one.text], "bulk", 5) if known else None
    if own is None:  # as it goes without a worker
        made.stores.meaning._away_until_s = float("inf")
    await intake.place(made.stores, fresh, wait_s=5, vectors=own)
    made.stores.meaning._away_until_s = 0.0
    row = await store.fetchrow("SELECT xmin::text, vector_of FROM memory WHERE id = $1", one.id)
    assert row is not None
    assert row["vector_of"] == (made.stores.meaning.model if known else "")
    assert (row["xmin"] == written) == known
    assert (await made.client.stats())["pending"]["place"] == 0


async def test_a_changed_text_replaces_the_old_one_wherever_it_is(made: World) -> None:
    one = memory("the office is in Berlin")
    await made.client.remember(one)
    await made.pass_(now=now() + 31 * DAY)
    changed = one.model_copy(update={"text": "the office moved to Hamburg"})
    assert await made.client.remember(changed) == [one.id]
    assert await find(made, one.text) == []
    assert await find(made, changed.text) == [Tier.WARM]
    await made.pass_()
    assert await places(made, one) == {"warm": 1}


async def test_another_model_takes_over_without_losing_recall(made: World) -> None:
    many = [memory(f"entry {word} of the ledger") for word in ("ox", "cat", "dog", "bee")]
    await made.client.remember(*many)
    made.worker.model, made.worker.dim = "hash-32", 32
    try:
        found = await made.client.search(Query(text="ledger entry cat", user_id="ann"))
        assert found.items[0].memory.id == many[1].id  # by words
        stats = await made.client.stats()
        assert stats["reembedding"] == {"from": "hash-64", "to": "hash-32", "done": 0, "of": 4}
        assert (await made.pass_())["embedded"] == 4
        stats = await made.client.stats()
        assert (stats["reembedding"], stats["model"]) == (None, "hash-32")
        found = await made.client.search(Query(text="ledger entry cat", user_id="ann"))
        assert found.items[0].memory.id == many[1].id
        assert any("meaning" in why for why in found.items[0].why)
    finally:
        made.worker.model, made.worker.dim = "hash-64", 64
        await find(made, "back again")
        await made.pass_()


async def test_ended_tasks_folders_move_into_the_archive(made: World) -> None:
    home = made.stores.settings.work
    for name, end, days in (
        ("20260101-000000_done-aaaaaaaa", True, 40),
        ("20260101-000001_open-bbbbbbbb", False, 40),
        (f"{now():%Y%m%d-%H%M%S}_young-cccccccc", True, 0),
    ):
        folder = home / name
        folder.mkdir(parents=True)
        records: list[dict[str, object]] = [
            {"kind": "order", "order": {"task_id": "8b0c8d3e-0000-4000-8000-00000000000a"}}
        ]
        if end:
            records.append({"kind": "end", "outcome": {"handoff_to": None}})
        journal = folder / "journal.jsonl"
        journal.write_text("".join(json.dumps(one) + "\n" for one in records))
        (folder / "PRD.md").write_text("# what was wanted\n")
        old_s = (now() - days * DAY).timestamp()
        os.utime(journal, (old_s, old_s))
    assert (await made.pass_())["folders_archived"] == 1
    assert sorted(path.name[16:] for path in home.iterdir()) == ["open-bbbbbbbb", "young-cccccccc"]
    ((_, line),) = made.stores.archive.lines(f"tasks-{now():%Y-%m}.jsonl.gz")
    assert line["files"]["PRD.md"]["text"] == "# what was wanted\n"
    assert "journal.jsonl" in line["files"]
    assert "folders_archived" not in await made.pass_()


async def test_a_damaged_month_holds_nothing_else_up(made: World) -> None:
    one = memory("the build needs seven minutes", task_id="t", agent="code")
    await made.client.remember(one)
    for days in (2, 33):
        await made.pass_(now=now() + days * DAY)
    assert await places(made, one) == {"cold": 1}
    (path,) = made.stores.archive.folder.glob("memories-*.jsonl.gz")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    await cards.leave(made.stores.store, [one.id])
    other = memory("another")
    await made.client.remember(other)
    await made.stores.store.execute(
        "INSERT INTO memory_use (memory_id, task_id, rank, at) VALUES ($1, 't', 1, $2)",
        *(other.id, now() - 100 * DAY),
    )
    with pytest.raises(DamagedError, match=path.name):
        await made.pass_()
    assert await made.stores.store.fetchval("SELECT COUNT(*) FROM memory_use") == 0
    assert await made.card(one.id) is not None
