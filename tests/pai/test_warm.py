"""What every warm store promises, asked of each engine."""

from __future__ import annotations

import asyncio
import uuid
import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient
from warm_points import DIM, MINE, asked, copy_of, dense, id_of, point, unit
from warm_stand_in import KEY, StandIn, stand_in

from base.errors import ConflictError, InputError, WarmError
from base.settings import load
from pai.brief import Brief
from pai.warm import COLLECTIONS, Keep, Look, Point, Sparse, Warm, open_warm
from pai.warm_edge import EdgeWarm
from pai.warm_server import ServerWarm


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with stand_in() as one:
        yield one


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an embedded store that was prepared and closed."""

    async def prepare() -> None:
        warm = EdgeWarm(folder)
        await warm.prepare(DIM, "one")
        while await warm.tidy():
            pass
        await warm.close()

    folder = tmp_path_factory.mktemp("warm") / "qdrant"
    asyncio.run(prepare())
    return folder


@pytest.fixture(params=["edge", "local mode", "http"])
async def warm(
    request: pytest.FixtureRequest, tmp_path: Path, server: StandIn, prepared: Path
) -> AsyncIterator[Warm]:
    found: Warm
    warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
    warnings.filterwarnings("ignore", "Payload indexes have no effect")
    match request.param:
        case "edge":
            found = EdgeWarm(copy_of(prepared, tmp_path / "qdrant"))
        case "local mode":
            found = ServerWarm(AsyncQdrantClient(":memory:"), "local mode")
        case _:
            found = ServerWarm.at(server.url, KEY)
            await found.reset()
    await found.prepare(DIM, "one")
    yield found
    await found.close()


async def test_what_is_nearest_in_meaning_comes_first(warm: Warm) -> None:
    await warm.put("memories", [point(n) for n in range(1, 30)])
    [hits] = await warm.search("memories", [dense(7, limit=5)], MINE)
    assert hits[0].id == id_of(7)
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    assert hits[0].payload == point(7).payload
    assert len(hits) == 5
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    expected = float(unit(7) @ unit(int(uuid.UUID(hits[1].id))))
    assert hits[1].score == pytest.approx(expected, abs=1e-3)


async def test_without_payloads_the_same_is_found_and_its_brief_is_as_the_payload(
    warm: Warm,
) -> None:
    await warm.put("memories", [point(n) for n in range(1, 30)])
    await warm.put("memories", [point(n, kind="rule") for n in (3, 4)])
    await warm.set("memories", id_of(5), {"agent": "qa", "tainted": True})
    await warm.remove("memories", [id_of(6)])
    looks = [dense(4, limit=20), asked("tea disk")]
    for keep in (MINE, replace(MINE, any_of={**MINE.any_of, "tainted": [False]})):
        whole = await warm.search("memories", looks, keep)
        found = await warm.search("memories", looks, keep, whole=False)
        assert [[(hit.id, hit.score) for hit in hits] for hits in found] == [
            [(hit.id, hit.score) for hit in hits] for hits in whole
        ]
        for hit, same in zip(found[0], whole[0], strict=True):
            assert same.payload is not None
            assert hit.brief == same.brief == Brief.of(same.payload)
    briefs = {hit.id: hit.brief for hit in (await warm.search("memories", [dense(1, 99)], MINE))[0]}
    assert len(briefs) == 28
    assert (briefs[id_of(3)].kind, briefs[id_of(5)].agent) == ("rule", "qa")
    assert [id for id, one in briefs.items() if one.tainted] == [id_of(5)]


async def test_words_find_by_stem_and_a_rare_word_weighs_more(warm: Warm) -> None:
    await warm.put("memories", [point(n) for n in range(5)])
    [hits] = await warm.search("memories", [asked("Is the backup on a second disk?")], MINE)
    assert [hit.brief.seq for hit in hits] == [4, 0]
    [hits] = await warm.search("memories", [asked("what is it that they were?")], MINE)
    assert hits == []


async def test_several_looks_are_one_trip_and_come_in_their_order(warm: Warm) -> None:
    await warm.put("memories", [point(n) for n in range(5)])
    looks = [asked("tea"), dense(3, limit=1), asked("of the"), dense(2, limit=0)]
    tea, near, none, zero = await warm.search("memories", looks, MINE)
    assert [hit.brief.seq for hit in tea] == [1]
    assert [hit.brief.seq for hit in near] == [3]
    assert none == zero == []


async def test_several_collections_share_the_limit_of_a_look(warm: Warm) -> None:
    await warm.put("memories", [point(n) for n in (1, 2, 3)])
    await warm.put("knowledge", [point(n) for n in (4, 5, 6)])
    found = await warm.search_all(["memories", "knowledge"], [dense(2, limit=3)], MINE)
    everything = {n: float(unit(2) @ unit(n)) for n in range(1, 7)}
    best = sorted(everything, key=lambda n: -everything[n])[:3]
    assert {hit.brief.seq for lists in found.values() for hit in lists[0]} == set(best)
    assert {hit.brief.seq for hit in found["memories"][0]} == {n for n in best if n < 4}


async def test_another_users_memory_is_never_found(warm: Warm) -> None:
    await warm.put("memories", [point(1, "bob"), point(2, "ann"), point(3, "*")])
    near, tea = await warm.search("memories", [dense(1), asked("tea")], MINE)
    assert {hit.brief.user_id for hit in near} == {"ann", "*"}
    assert tea == []
    with pytest.raises(InputError, match="whose"):
        await warm.search("memories", [dense(1)], Keep())
    nobody = Keep(any_of={"user_id": []})
    assert await warm.search("memories", [dense(1)], nobody) == [[]]
    assert await warm.count("memories", nobody) == 0
    assert await warm.find("memories", nobody, 10) == []


async def test_one_foreign_memory_among_many_of_ones_own_stays_hidden(warm: Warm) -> None:
    await warm.put("memories", [point(n) for n in range(60)])
    assert len((await warm.search("memories", [dense(70)], MINE))[0]) == 10
    await warm.put("memories", [point(70, "bob")])
    [hits] = await warm.search("memories", [dense(70, limit=100)], MINE)
    assert len(hits) == 60
    assert id_of(70) not in {hit.id for hit in hits}


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (Keep(any_of={"kind": ["fact"]}), {1, 2, 3, 4}),
        (Keep(any_of={"kind": ["rule", "note"]}), {5, 6}),
        (Keep(any_of={"tainted": [True]}), {2, 4, 6}),
        (Keep(any_of={"tainted": [False, True], "kind": ["fact"]}), {1, 2, 3, 4}),
        (Keep(any_of={"seq": [1, 5, 9]}), {1, 5}),
        (Keep(any_of={"source": ["b"]}), {3, 4}),
        (Keep(ranges={"seq": (2, 4)}), {2, 3, 4}),
        (Keep(ranges={"seq": (None, 2)}), {1, 2}),
        (Keep(ranges={"created_at": ("2026-01-05T00:00:00+00:00", None)}), {4, 5, 6}),
        (Keep(ranges={"created_at": (None, "2026-01-05T13:00:00+01:00")}), {1, 2, 3, 4}),
        (Keep(not_ids=[id_of(1), id_of(2)]), {3, 4, 5, 6}),
        (Keep(any_of={"kind": ["fact"]}, ranges={"seq": (3, None)}, not_ids=[id_of(4)]), {3}),
        (Keep(any_of={"domain": ["x"]}), set()),
        (Keep(), {1, 2, 3, 4, 5, 6}),
    ],
)
async def test_filters(warm: Warm, keep: Keep, expected: set[int]) -> None:
    kinds = {5: "rule", 6: "note"}
    sources = {3: ["a", "b"], 4: ["b"], 5: ["c"]}
    await warm.put(
        "memories",
        [
            point(n, kind=kinds.get(n, "fact"), tainted=n % 2 == 0, source=sources.get(n, []))
            for n in range(1, 7)
        ],
    )
    assert await warm.count("memories", keep) == len(expected)
    found = await warm.find("memories", keep, 10)
    assert [one.payload["seq"] for one in found] == sorted(expected)
    mine = Keep(
        any_of={**keep.any_of, "user_id": ["ann"]}, ranges=keep.ranges, not_ids=keep.not_ids
    )
    for look in (dense(1), asked("paper tea certificate deployment backups")):
        [hits] = await warm.search("memories", [look], mine)
        assert {hit.brief.seq for hit in hits} == expected


def test_a_filter_by_what_filters_do_not_name_is_refused() -> None:
    with pytest.raises(InputError, match="'tags'"):
        Keep(any_of={"tags": ["a"]})
    with pytest.raises(InputError, match="'text'"):
        Keep(ranges={"text": ("a", None)})


async def test_put_replaces_and_set_merges(warm: Warm) -> None:
    await warm.put("memories", [point(1), point(2)])
    await warm.put("memories", [point(1, kind="rule")])
    await warm.set("memories", id_of(1), {"tainted": True, "utility_score": 0.25})
    await warm.set("memories", id_of(99), {"tainted": True})
    [one] = await warm.get("memories", [id_of(1)])
    assert one.payload == {
        **point(1, kind="rule").payload,
        "tainted": True,
        "utility_score": 0.25,
    }
    assert await warm.count("memories") == 2
    [hits] = await warm.search("memories", [dense(1, limit=1)], MINE)
    assert hits[0].id == id_of(1)


async def test_get_keeps_the_order_and_gives_vectors_when_asked(warm: Warm) -> None:
    await warm.put("memories", [point(n) for n in (1, 2, 3)])
    found = await warm.get("memories", [id_of(3), id_of(9), id_of(1)], vectors=True)
    assert [one.id for one in found] == [id_of(3), id_of(1)]
    assert found[0].dense["dense"] == pytest.approx(unit(3), abs=1e-3)
    assert found[0].model == "one"
    expected = point(3).sparse["words"]
    assert dict(
        zip(found[0].sparse["words"].indices, found[0].sparse["words"].values, strict=True)
    ) == pytest.approx(dict(zip(expected.indices, expected.values, strict=True)), rel=1e-5)
    [bare] = await warm.get("memories", [id_of(3)])
    assert (bare.dense, bare.sparse) == ({}, {})
    assert await warm.get("memories", []) == []


async def test_find_pages_by_id(warm: Warm) -> None:
    await warm.put("memories", [point(n) for n in range(1, 8)])
    seen: list[int] = []
    after: str | None = None
    while page := await warm.find("memories", Keep(), 3, after=after):
        seen += [one.payload["seq"] for one in page]
        after = page[-1].id
    assert seen == [1, 2, 3, 4, 5, 6, 7]


async def test_removed_is_gone_and_removing_twice_is_safe(warm: Warm) -> None:
    await warm.put("memories", [point(n) for n in (1, 2, 3)])
    for _ in range(2):
        await warm.remove("memories", [id_of(1), id_of(2)])
    assert await warm.count("memories") == 1
    assert await warm.get("memories", [id_of(1)]) == []
    near, paper = await warm.search("memories", [dense(1), asked("tea certificate")], MINE)
    assert [hit.id for hit in near] == [id_of(3)]
    assert paper == []
    await warm.remove("memories", [])


async def test_a_point_without_a_vector_is_missing_until_it_is_filled(warm: Warm) -> None:
    bare = Point(id=id_of(1), payload=point(1).payload, sparse=point(1).sparse)
    await warm.put("memories", [bare, point(2)])
    near, tea = await warm.search("memories", [dense(1), asked("tea")], MINE)
    assert [hit.id for hit in near] == [id_of(2)]
    assert [hit.id for hit in tea] == [id_of(1)]
    assert [one.id for one in await warm.missing("memories", 10)] == [id_of(1)]
    await warm.fill("memories", {id_of(1): {"dense": unit(1)}, id_of(50): {"dense": unit(5)}})
    assert await warm.missing("memories", 10) == []
    assert await warm.count("memories") == 2
    near, tea = await warm.search("memories", [dense(1, limit=1), asked("tea")], MINE)
    assert near[0].id == tea[0].id == id_of(1)


async def test_a_new_model_lives_beside_the_old_until_all_is_made_anew(warm: Warm) -> None:
    await warm.put("memories", [point(n) for n in range(1, 6)])
    await warm.put("knowledge", [point(9)])
    await warm.prepare(8, "two")
    places = await warm.places()
    assert (places.active.model, places.coming and places.coming.model) == ("one", "two")
    # The old one answers in full; what comes in is of the new one.
    assert len((await warm.search("memories", [dense(3)], MINE))[0]) == 5
    new = Point(id=id_of(6), payload=point(6).payload, dense={"dense": unit(6, 8)}, model="two")
    await warm.put("memories", [new])
    assert await warm.count_missing("memories") == 5
    with pytest.raises(ConflictError, match="have no vector of 'two'"):
        await warm.switch()
    # A death in between changes nothing: preparing again goes on.
    await warm.prepare(8, "two")
    while page := await warm.missing("memories", 2):
        filled = {one.id: {"dense": unit(one.payload["seq"], 8)} for one in page}
        await warm.fill("memories", filled, model="two")
    look = Look(name="dense", vector=unit(6, 8), limit=1, model="two")
    assert (await warm.search("memories", [look], MINE))[0][0].id == id_of(6)
    await warm.fill("knowledge", {id_of(9): {"dense": unit(9, 8)}})
    await warm.switch()
    await warm.switch()
    places = await warm.places()
    assert (places.active.model, places.coming) == ("two", None)
    [hits] = await warm.search("memories", [Look(name="dense", vector=unit(2, 8), limit=10)], MINE)
    assert hits[0].id == id_of(2)
    assert len(hits) == 6
    with pytest.raises(ConflictError, match="no vectors of the model 'one'"):
        await warm.search("memories", [dense(3, model="one")], MINE)
    [hits] = await warm.search("memories", [asked("tea")], MINE)
    assert {hit.brief.seq for hit in hits} == {1}


async def test_going_back_to_the_old_model_forgets_the_new(warm: Warm) -> None:
    await warm.put("memories", [point(1)])
    await warm.prepare(8, "two")
    await warm.fill("memories", {id_of(1): {"dense": unit(1, 8)}})
    await warm.prepare(DIM, "one")
    assert (await warm.places()).coming is None
    assert await warm.missing("memories", 10) == []
    await warm.prepare(8, "two")
    assert await warm.count_missing("memories") == 1


async def test_reset_leaves_nothing(warm: Warm) -> None:
    await warm.put("memories", [point(1)])
    await warm.reset()
    with pytest.raises(WarmError, match="not open"):
        await warm.count("memories")
    await warm.prepare(8, "two")
    assert [await warm.count(name) for name in COLLECTIONS] == [0] * 4
    assert (await warm.places()).active.model == "two"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Point(id="7", payload={}), "is a UUID"),
        (Point(id=id_of(1), payload={}, dense={"dense": unit(1, 8)}), "16 finite numbers"),
        (Point(id=id_of(1), payload={}, dense={"dense": unit(1) * np.nan}), "16 finite numbers"),
        (Point(id=id_of(1), payload={}, dense={"other": unit(1)}), "no dense vector named"),
        (Point(id=id_of(1), payload={}, sparse={"other": Sparse(indices=(1,), values=(1.0,))}),
         "no sparse vector named"),
    ],
)  # fmt: skip
async def test_a_point_that_cannot_be_is_refused(warm: Warm, bad: Point, said: str) -> None:
    with pytest.raises(InputError, match=said):
        await warm.put("memories", [bad])
    assert await warm.count("memories") == 0


async def test_an_unknown_collection_is_refused(warm: Warm) -> None:
    with pytest.raises(InputError, match="no collection named 'diary'"):
        await warm.put("diary", [point(1)])
    with pytest.raises(InputError, match="no collection named"):
        await warm.search_all(["memories", "diary"], [dense(1)], MINE)


async def test_closing_twice_is_safe_and_nothing_works_after(warm: Warm) -> None:
    await warm.close()
    await warm.close()
    with pytest.raises(WarmError):
        await warm.put("memories", [point(1)])


async def test_the_settings_choose_the_engine(
    tmp_path: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AI_INFRA_HOME", str(tmp_path))
    edge = await open_warm(load())
    await edge.prepare(DIM, "one")
    await edge.close()
    assert (tmp_path / "data" / "qdrant" / "state.json").exists()
    monkeypatch.setenv("QDRANT_URL", server.url)
    (tmp_path / "secrets").mkdir(mode=0o700)
    (tmp_path / "secrets" / "qdrant-api-key").write_text(KEY)
    (tmp_path / "secrets" / "qdrant-api-key").chmod(0o600)
    remote = await open_warm(load())
    await remote.reset()
    await remote.prepare(DIM, "one")
    assert await server.client.collection_exists("learnings")
    await remote.close()
