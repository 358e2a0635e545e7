"""The keeper answers: remember, search, write, forget, stats, maintain; and reads the stream."""

from __future__ import annotations

import asyncio
import gzip
from datetime import UTC, datetime, timedelta

import pytest
from keeper_world import World, memory

from base import streams
from base.errors import InputError, NotFoundError
from pai.client import told
from pai.shapes import SHARED, Query, Tier, Told

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def texts(made: World, text: str, user_id: str = "ann", **fields: object) -> list[str]:
    found = await made.client.search(Query(text=text, user_id=user_id, **fields))  # type: ignore[arg-type]
    return [item.memory.text for item in found.items]


async def test_what_is_remembered_is_found_by_its_user_alone(made: World) -> None:
    await made.client.remember(
        memory("The backup runs at night on host borg."),
        memory("Bob likes the backup by day.", user_id="bob"),
        memory("Everybody's backup policy: three copies.", user_id=SHARED, collection="knowledge"),
    )
    assert "The backup runs at night on host borg." in await texts(made, "when is the backup?")
    both = {*await texts(made, "backup"), *await texts(made, "backup", "bob")}
    assert len(both) == 3
    assert "Bob likes the backup by day." not in await texts(made, "backup")
    assert await texts(made, "backup", "eve") == ["Everybody's backup policy: three copies."]


async def test_the_same_again_changes_nothing(made: World) -> None:
    one = memory("The password of the door is in the safe.")
    assert await made.client.remember(one) == await made.client.remember(one) == [one.id]
    card = await made.card(one.id)
    assert card is not None
    assert card["support"] == 1
    assert await texts(made, "door password") == [one.text]


async def test_an_exact_duplicate_raises_support(made: World) -> None:
    one, again = memory("Deploys happen on Tuesdays."), memory("Deploys happen on Tuesdays.")
    await made.client.remember(one)
    assert await made.client.remember(again) == [one.id]
    assert await made.client.remember(again) == [one.id]  # a second delivery
    card = await made.card(one.id)
    assert card is not None
    assert card["support"] == 2
    assert card["first_seen"] == min(one.created_at, again.created_at)


async def test_forget_removes_and_proves_it(made: World) -> None:
    one, other = memory("My number is 0170 5551234."), memory("The sky is blue.")
    await made.client.remember(one, other)
    with pytest.raises(NotFoundError):
        await made.client.forget("bob", [one.id])
    with pytest.raises(NotFoundError):
        await made.client.forget("ann", [one.id, "6f1f3f4e-0000-4000-8000-000000000000"])
    proof = await made.client.forget("ann", [one.id])
    assert proof["proved"]
    assert proof["forgotten"][0]["removed"]["warm"] == 1
    assert proof["forgotten"][0]["removed"]["cache"] == 1
    assert one.text not in await texts(made, "number 0170 5551234")
    assert await made.card(one.id) is None
    assert await made.card(other.id) is not None


async def test_another_turn_with_the_same_words_is_named_and_stays(made: World) -> None:
    one, same = (
        memory("Yes.", collection="conversations", conversation_id="c", seq=seq) for seq in (1, 5)
    )
    theirs = memory("Yes.", user_id="bob")
    await made.client.remember(one, same, theirs)
    proof = await made.client.forget("ann", [one.id])
    assert proof["proved"]
    assert proof["forgotten"][0]["same_text"] == [same.id]
    assert await made.card(same.id) is not None


async def test_nothing_of_it_is_left_on_the_disk(made: World) -> None:
    """Hot, warm and cold: a raw look through the files and keys finds no byte of its text."""
    word = "Zwiebelfisch"
    stores = made.stores
    hot, warm, cold, twin = (
        memory(f"the {word} is in the {place}", **fields)
        for place, fields in (
            ("kitchen of the old mill", {"task_id": "t"}),
            ("cellar of the new house", {}),
            ("attic under the red roof", {}),
            ("cellar of the new house", {}),
        )
    )
    other = memory("nothing but other things")
    await made.client.remember(cold, other)
    await made.pass_(now=datetime.now(UTC) + timedelta(days=31))
    await made.client.remember(hot, warm)
    assert await made.client.remember(twin) == [warm.id]

    def raw() -> list[str]:
        found = []
        for path in stores.settings.home.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                if path.name.endswith(".gz"):
                    content = gzip.decompress(content)
                if word.encode() in content:
                    found.append(path.name)
        return found

    assert raw()
    proof = await made.client.forget("ann", [hot.id, twin.id, cold.id])
    assert proof["proved"], proof
    by_id = {one["id"]: one["removed"] for one in proof["forgotten"]}
    assert (by_id[hot.id]["hot"], by_id[cold.id]["cold"]) == (2, 1)
    assert by_id[twin.id]["merged"] == [twin.id]
    assert raw() == []
    for key in (await made.bus.call(("KEYS", "*")))[0]:
        assert hot.id.encode() not in key
    assert await texts(made, word, tiers=tuple(Tier)) == []
    assert "conversation" in " ".join(proof["kept"])


async def test_stats_count_by_tier(made: World) -> None:
    await made.client.remember(memory("a fact"), memory("a hot thing", task_id="t1", agent="code"))
    found = await made.client.stats()
    assert found["tiers"]["warm"]["memories"]["count"] == 1
    assert found["tiers"]["hot"]["memories"]["count"] == 1
    assert (await made.client.stats("bob"))["tiers"]["warm"]["memories"]["count"] == 0


async def test_what_an_agent_writes_is_hot_and_found(made: World) -> None:
    payload = {"verb": "write", "text": "The test needs port 8080.", "user_id": "ann"}
    answer = await made.client._ask(
        "write", {**payload, "agent": "code", "task_id": "t1", "kind": "fact"}, None, 5
    )
    card = await made.card(answer["id"])
    assert card is not None
    assert card["tier"] == Tier.HOT
    assert await texts(made, "which port?") == ["The test needs port 8080."]
    with pytest.raises(InputError):
        await made.client._ask("write", {**payload, "user_id": SHARED}, None, 5)


async def test_the_stream_is_read_once(made: World) -> None:
    one = memory("Ann asked for a report.", collection="conversations")
    message = told("supervisor", Told(verb="remember", user_id="ann", memories=(one,)))
    await made.bus.publish(streams.MEMORY, message, message)
    bad = told("supervisor", Told(verb="remember", user_id="bob", memories=(one,)))
    await made.bus.publish(streams.MEMORY, bad)
    while await made.bus.depth(streams.MEMORY):
        await asyncio.sleep(0.02)
    assert await texts(made, "report") == [one.text]
    assert len(await made.bus.dead(streams.MEMORY)) == 1


async def test_a_verb_that_is_none_is_refused(made: World) -> None:
    with pytest.raises(InputError, match="no verb 'guess'"):
        await made.client._ask("guess", {}, None, 5)
    with pytest.raises(InputError, match="ids is missing"):
        await made.client._ask("forget", {"user_id": "ann"}, None, 5)
    with pytest.raises(InputError):
        await made.client._ask("search", {"query": {"text": "", "user_id": "ann"}}, None, 5)
