"""The embedded warm store: what a death leaves, who else may open it, and its room."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge as edge
from warm_points import DIM, MINE, asked, copy_of, dense, id_of, point, unit

from base.errors import ConflictError, TornError
from pai import warm_edge
from pai.warm import COLLECTIONS, Keep, Place, Places
from pai.warm_edge import EdgeWarm
from pai.warm_shard import Shard

#: Puts, says so, and dies before anything is flushed; then once more in the middle of a write.
DIES = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
from warm_points import DIM, point, id_of
from pai.warm_edge import EdgeWarm
async def main():
    warm = EdgeWarm(Path(sys.argv[1]))
    await warm.prepare(DIM, "one")
    await warm.put("memories", [point(n) for n in range(300)])
    await warm.set("memories", id_of(7), {"kind": "rule"})
    await warm.remove("memories", [id_of(8)])
    print("put", flush=True)
    await warm.put("memories", [point(n) for n in range(300, 100_000)])
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    async def prepare() -> None:
        warm = EdgeWarm(folder)
        await warm.prepare(DIM, "one")
        while await warm.tidy():
            pass
        await warm.close()

    folder = tmp_path_factory.mktemp("warm") / "qdrant"
    asyncio.run(prepare())
    return folder


@pytest.fixture
async def warm(tmp_path: Path, prepared: Path) -> AsyncIterator[EdgeWarm]:
    found = EdgeWarm(copy_of(prepared, tmp_path / "qdrant"))
    await found.prepare(DIM, "one")
    yield found
    await found.close()


async def test_what_put_returned_for_survives_a_kill(tmp_path: Path, prepared: Path) -> None:
    folder = copy_of(prepared, tmp_path / "qdrant")
    here = str(Path(__file__).parent)
    child = subprocess.Popen(
        [sys.executable, "-c", DIES, str(folder), here], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    assert child.stdout.readline() == "put\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    warm = EdgeWarm(folder)
    await warm.prepare(DIM, "one")
    first = Keep(ranges={"seq": (None, 299)})
    assert await warm.count("memories", first) == 299
    assert [one.id for one in await warm.find("memories", Keep(any_of={"kind": ["rule"]}), 9)] == [
        id_of(7)
    ]
    near, _ = await warm.search("memories", [dense(299, limit=1), asked("tea")], MINE)
    assert near[0].id == id_of(299)
    await warm.close()


async def test_a_second_one_is_refused(warm: EdgeWarm, tmp_path: Path) -> None:
    second = EdgeWarm(tmp_path / "qdrant")
    with pytest.raises(ConflictError, match="another process has the warm store"):
        await second.prepare(DIM, "one")
    with pytest.raises(ConflictError, match="another process"):
        await second.reset()
    await second.close()
    await warm.put("memories", [point(1)])
    await warm.close()
    third = EdgeWarm(tmp_path / "qdrant")
    await third.prepare(DIM, "one")
    assert await third.count("memories") == 1
    await third.close()


@pytest.mark.parametrize("what", ["state", "no state", "shard", "segment", "log"])
async def test_a_torn_store_says_so_and_starts_anew_when_told(
    warm: EdgeWarm, tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "qdrant"
    await warm.put("memories", [point(n) for n in range(100)])
    await warm.close()
    shard = folder / "shards" / "memories-1"
    match what:
        case "state":
            (folder / "state.json").write_text('{"places": ')
        case "no state":
            (folder / "state.json").unlink()
        case "shard":
            shard.rename(folder / "elsewhere")
        case "segment":
            [segment] = (shard / "segments").glob("*/segment.json")
            segment.write_bytes(segment.read_bytes()[:40])
        case "log":
            for path in (shard / "wal").iterdir():
                path.write_bytes(b"\xff" * 64)
    again = EdgeWarm(folder)
    with pytest.raises(TornError):
        await again.prepare(DIM, "one")
    await again.reset()
    await again.prepare(DIM, "two")
    assert [await again.count(name) for name in COLLECTIONS] == [0] * 4
    await again.put("memories", [point(1)])
    assert await again.count("memories") == 1
    await again.close()


async def test_tidying_wins_room_back_while_reads_and_writes_go_on(
    warm: EdgeWarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_edge, "HOLES", 300)
    await warm.put("memories", [point(n) for n in range(1200)])
    while await warm.tidy():
        pass
    await warm.remove("memories", [id_of(n) for n in range(1200) if n % 3])
    await warm.prepare(8, "two")  # both models' vectors go over
    await warm.fill("memories", {id_of(0): {"dense": unit(0, 8)}})
    going = asyncio.create_task(_tidy_all(warm))
    kept = warm._kept["memories"]
    while kept.copy is None or not kept.copy.count(None):
        await asyncio.sleep(0.001)
    await warm.put("memories", [replace(point(n), model="one") for n in (1, 5000)])
    await warm.set("memories", id_of(1197), {"kind": "rule"})
    await warm.remove("memories", [id_of(3), id_of(1194)])
    seen = 0
    while not going.done():
        [hits] = await warm.search("memories", [asked("tea", 1)], MINE)
        assert len(hits) == 1
        seen += 1
    assert await going
    assert seen > 1
    assert {path.name for path in (tmp_path / "qdrant" / "shards").iterdir()} == {
        "memories-2", *(f"{name}-1" for name in COLLECTIONS if name != "memories")
    }  # fmt: skip
    expected = {n for n in range(1200) if n % 3 == 0} - {3, 1194} | {1, 5000}
    for _ in range(2):
        found = await warm.find("memories", Keep(), 5000)
        assert {one.payload["seq"] for one in found} == expected
        assert [one.payload["seq"] for one in found if one.payload["kind"] == "rule"] == [1197]
        [hits] = await warm.search("memories", [dense(600, limit=1)], MINE)
        assert hits[0].id == id_of(600)
        assert await warm.count_missing("memories") == len(expected) - 1
        assert not await warm.tidy()
        await warm.close()
        warm = EdgeWarm(tmp_path / "qdrant")
        await warm.prepare(8, "two")
    await warm.close()


async def test_a_copy_that_was_not_finished_is_swept(warm: EdgeWarm, tmp_path: Path) -> None:
    await warm.put("memories", [point(1)])
    await warm.close()
    stray = tmp_path / "qdrant" / "shards" / "memories-2"
    (stray / "segments").mkdir(parents=True)
    again = EdgeWarm(tmp_path / "qdrant")
    await again.prepare(DIM, "one")
    assert not stray.exists()
    assert await again.count("memories") == 1
    await again.close()


async def test_vectors_of_a_model_that_is_gone_are_dropped_at_the_next_start(
    warm: EdgeWarm, tmp_path: Path
) -> None:
    """The death was between writing down that the new one is alone and dropping the old."""
    await warm.put("memories", [point(1)])
    old = (await warm.places()).active
    await warm.prepare(8, "two")
    await warm.fill("memories", {id_of(1): {"dense": unit(1, 8)}})
    await warm.close()
    path = tmp_path / "qdrant" / "state.json"
    state = json.loads(path.read_text())
    assert old.of("dense") in state["names"]
    state["places"] = {"active": state["places"]["coming"], "coming": None}
    path.write_text(json.dumps(state))
    again = EdgeWarm(tmp_path / "qdrant")
    await again.prepare(8, "two")
    assert old.of("dense") not in json.loads(path.read_text())["names"]
    await again.prepare(DIM, "one")
    assert await again.count_missing("memories") == 1
    await again.close()


async def test_a_search_does_not_wait_for_a_long_write(warm: EdgeWarm) -> None:
    await warm.put("memories", [point(1)])
    writing = asyncio.create_task(warm.put("memories", [point(n) for n in range(2, 3000)]))
    await asyncio.sleep(0)
    for _ in range(3):
        [hits] = await warm.search("memories", [dense(1, limit=1)], MINE)
        assert hits[0].id == id_of(1)
    assert await warm.count("memories") < 2999
    await writing
    assert await warm.count("memories") == 2999


async def test_who_waits_together_shares_one_sync_and_none_returns_before_it(
    warm: EdgeWarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = Shard.sync

    def sync(shard: Shard) -> None:
        time.sleep(0.02)  # as a disk takes; meanwhile others write
        real(shard)
        synced.append(shard.count(None))

    monkeypatch.setattr(Shard, "sync", sync)

    async def put(n: int) -> None:
        await warm.put("memories", [point(n)])
        assert synced
        assert synced[-1] >= 1

    await asyncio.gather(*(put(n) for n in range(1, 21)))
    assert synced[-1] == 20
    assert len(synced) < 20


async def test_the_log_is_cut_by_tidying(warm: EdgeWarm) -> None:
    assert not await warm.tidy()
    await warm.put("memories", [point(n) for n in range(10)])
    assert await warm.tidy()
    assert not await warm.tidy()


async def test_vectors_keep_their_direction(warm: EdgeWarm) -> None:
    """Two bytes a number: the cosine to what was given stays above 0.9995."""
    await warm.put("memories", [point(n) for n in range(200)])
    found = await warm.get("memories", [id_of(n) for n in range(200)], vectors=True)
    assert (
        min(float(np.dot(one.dense["dense"], unit(one.payload["seq"]))) for one in found) > 0.9995
    )


async def _tidy_all(warm: EdgeWarm) -> bool:
    done = False
    while await warm.tidy():
        done = True
    return done


async def test_indexes_are_made_behind_the_start_and_what_is_left_at_the_next(
    tmp_path: Path,
) -> None:
    warm = EdgeWarm(tmp_path / "qdrant")
    await warm.prepare(DIM, "one")
    await warm.put("memories", [point(1), point(2, "bob")])
    [hits] = await warm.search("memories", [dense(1)], MINE)
    assert [hit.id for hit in hits] == [id_of(1)]
    await warm.close()
    again = EdgeWarm(tmp_path / "qdrant")
    await again.prepare(DIM, "one")
    while await again.tidy():
        pass
    await again.close()
    shard = Shard(tmp_path / "qdrant" / "shards" / "memories-1", "memories", _places(), new=False)
    assert not shard.add_index()
    assert shard.count(Keep(any_of={"user_id": ["bob"]})) == 1
    shard.close()


def _places() -> Places:
    return Places(active=Place(model="one", dim=DIM))


async def test_an_estimate_that_lies_shows_nobody_elses(
    warm: EdgeWarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search leaves out what all points seem to satisfy; what it finds is looked at again."""
    await warm.put("memories", [point(n, "ann" if n % 2 else "bob") for n in range(20)])
    monkeypatch.setattr(Shard, "likely", lambda _shard, keep: replace(keep, any_of={}))
    [hits] = await warm.search("memories", [dense(2, limit=20)], MINE)
    assert {hit.brief.user_id for hit in hits} == {"ann"}
    assert len(hits) == 10


async def test_a_user_whom_nobody_shares_with_is_not_asked_for_both(warm: EdgeWarm) -> None:
    await warm.put("memories", [point(1), point(2, "bob")])
    while await warm.tidy():
        pass
    shard = warm._kept["memories"].shard
    assert shard.likely(MINE).any_of == {"user_id": ("ann",)}
    nobody = Keep(any_of={"user_id": ["eve", "*"]})
    assert shard.likely(nobody).any_of == {"user_id": ("eve",)}
    assert await warm.search("memories", [dense(1)], nobody) == [[]]
    await warm.put("memories", [point(3, "*")])
    [hits] = await warm.search("memories", [dense(1)], MINE)
    assert {hit.id for hit in hits} == {id_of(1), id_of(3)}
    await warm.remove("memories", [id_of(1)])
    assert shard.likely(MINE).any_of == {"user_id": ("*",)}


async def test_briefs_are_read_ahead_and_follow_what_is_written(
    warm: EdgeWarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await warm.put("memories", [point(n, tainted=False) for n in range(1, 200)])
    await warm.close()
    again = EdgeWarm(tmp_path / "qdrant")
    await again.prepare(DIM, "one")
    while await again.tidy():
        pass
    monkeypatch.setattr(Shard, "payloads", lambda *_: pytest.fail("a search read a payload"))
    clean = Keep(any_of={**MINE.any_of, "tainted": [False]})
    [hits] = await again.search("memories", [dense(7, 9)], clean, whole=False)
    assert hits[0].id == id_of(7)
    assert len(hits) == 9
    monkeypatch.undo()
    await again.set("memories", id_of(7), {"tainted": True})
    [hits] = await again.search("memories", [dense(7, 500)], clean, whole=False)
    assert len(hits) == 198
    assert id_of(7) not in [hit.id for hit in hits]
    await again.close()


async def test_a_copy_takes_the_briefs_along(
    warm: EdgeWarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    await warm.put("memories", [point(n) for n in range(1, 50)])
    await warm.remove("memories", [id_of(1)])
    monkeypatch.setattr(warm_edge, "HOLES", 0)
    assert await warm.wipe(["memories"])
    monkeypatch.setattr(Shard, "payloads", lambda *_: pytest.fail("a search read a payload"))
    [hits] = await warm.search("memories", [dense(7, 99)], MINE, whole=False)
    assert len(hits) == 48


async def test_what_need_not_stay_in_memory_is_let_go(warm: EdgeWarm, tmp_path: Path) -> None:
    await warm.put("memories", [point(n) for n in range(1, 2_000)])
    while await warm.tidy():
        pass
    assert _resident_bytes(tmp_path / "qdrant") < 1_000_000
    [hits] = await warm.search("memories", [dense(7, 1)], MINE)
    assert hits[0].id == id_of(7)


def _resident_bytes(folder: Path) -> int:
    """Of the files below that this process has mapped, what counts as its memory now."""
    total, mine = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.startswith("Rss:") and mine:
            total += int(line.split()[1]) * 1024
        elif "-" in line.split(" ", 1)[0]:
            mine = f"{folder}/" in line
    return total


async def test_what_was_stored_field_by_field_is_read_as_it_was_put(warm: EdgeWarm) -> None:
    """As stores have it that an earlier version wrote."""
    whole = point(3, tags=["a"], extra={"n": [1, None, 2.5]}, tainted=True)
    await warm.put("memories", [whole])
    shard = warm._kept["memories"].shard._shard
    old = {**whole.payload, "tainted": 1}
    shard.update(edge.UpdateOperation.overwrite_payload([whole.id], old))
    assert [one.payload for one in await warm.get("memories", [whole.id])] == [whole.payload]
    await warm.set("memories", whole.id, {"text": "other", "tainted": False})
    [[hit]] = await warm.search("memories", [dense(3)], MINE)
    assert hit.payload == {**whole.payload, "text": "other", "tainted": False}
    await warm.put("memories", [whole])
    await warm.set("memories", whole.id, {"text": "new"})
    assert (await warm.find("memories", Keep(), 1))[0].payload == {**whole.payload, "text": "new"}
