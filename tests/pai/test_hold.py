"""Standing still for a backup: a copy that opens as it was, nothing moves until it is released,
and after a restore the stores are of one mind again.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from keeper_world import World, memory

from base.errors import ConflictError
from pai import hold
from pai.rebuild import rebuild
from pai.shapes import Collection, Query
from pai.warm_edge import EdgeWarm

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def asked(made: World, verb: str) -> dict[str, object]:
    from pai import keeper

    return await keeper.ask(made.stores, {"verb": verb})


async def test_the_copy_is_whole_and_of_that_moment(made: World, tmp_path: Path) -> None:
    one = memory("the harbour opens at six", kind="fact")
    await made.client.remember(one)
    await made.pass_()
    assert await asked(made, "hold") == {"copied": True}
    late = memory("the ferry sails at nine", kind="fact")
    remembering = asyncio.create_task(made.client.remember(late), name="late")
    maintaining = asyncio.create_task(made.pass_(), name="pass")
    assert made.stores.lock.locked()  # nothing moves
    assert made.stores.archive.lock.locked()
    await asyncio.sleep(0.1)
    assert not maintaining.done()
    found = await made.client.search(Query(text="harbour", user_id="ann"))
    assert [item.memory.id for item in found.items] == [one.id]  # and searches go on
    with pytest.raises(ConflictError, match="another backup"):
        await asked(made, "hold")
    copies = hold.copies(made.stores)
    shutil.copytree(copies / "vectors", tmp_path / "qdrant")
    assert await asked(made, "release") == {"held": True}
    await asyncio.gather(remembering, maintaining)
    assert await asked(made, "release") == {"held": False}
    places = await made.stores.warm.places()
    other = EdgeWarm(tmp_path / "qdrant")
    try:
        await other.prepare(places.active.dim, places.active.model)
        kept = await other.get(one.collection, [one.id], vectors=True)
        assert [point.id for point in kept] == [one.id]
        assert kept[0].dense["dense"].shape == (places.active.dim,)
        assert await other.get(late.collection, [late.id]) == []
    finally:
        await other.close()


async def test_who_asked_and_went_away_holds_nothing_up(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "HOLD_S", 0.2)
    await asked(made, "hold")
    await made.client.remember(memory("told while it was held", kind="fact"))
    await made.pass_()
    assert not made.stores.held


async def test_what_cannot_be_copied_is_told(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(folder: Path) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(made.stores.warm, "copy", full)
    with pytest.raises(OSError, match="No space"):
        await asked(made, "hold")
    monkeypatch.undo()
    assert await asked(made, "hold") == {"copied": True}
    await asked(made, "release")


async def test_after_a_restore_cards_and_vectors_agree(made: World) -> None:
    kept, forgotten, lost = (memory(f"number {n} of three", kind="fact") for n in range(3))
    await made.client.remember(kept, forgotten, lost)
    await made.pass_()
    # The vectors are older than the cards in one place and younger in another.
    await made.stores.store.execute("DELETE FROM memory WHERE id = $1::uuid", forgotten.id)
    await made.stores.warm.remove(lost.collection, [lost.id])
    await rebuild(made.stores)  # the numbers are equal: a plain start sees nothing
    assert await made.stores.warm.count(Collection(kept.collection)) == 2
    await rebuild(made.stores, thorough=True)
    assert await made.stores.warm.get(forgotten.collection, [forgotten.id]) == []
    await made.pass_()
    there = await made.stores.warm.get(kept.collection, [kept.id, lost.id])
    assert {point.id for point in there} == {kept.id, lost.id}
