"""The Qdrant server when it is away, slow, refuses, forgot, or is too old."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from warm_points import DIM, MINE, asked, dense, id_of, point
from warm_stand_in import KEY, StandIn, stand_in

from base.errors import TornError, WarmError
from pai import warm_server
from pai.warm_server import ServerWarm

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def running() -> Iterator[StandIn]:
    with stand_in() as one:
        yield one


@pytest.fixture
async def server(running: StandIn, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StandIn]:
    monkeypatch.setattr(warm_server, "PAUSES_S", (0.01, 0.02))
    running.faults, running.pause_s = [], 0.0
    yield running
    running.faults, running.pause_s = [], 0.0


@pytest.fixture
async def warm(server: StandIn) -> AsyncIterator[ServerWarm]:
    found = ServerWarm.at(server.url, KEY)
    await found.reset()
    await found.prepare(DIM, "one")
    server.calls.clear()
    yield found
    await found.close()


async def test_many_looks_are_one_request(warm: ServerWarm, server: StandIn) -> None:
    await warm.search("memories", [dense(1), asked("tea"), asked("paper")], MINE)
    assert server.calls == [("POST", "/collections/memories/points/query/batch")]


async def test_many_points_go_in_slices(
    warm: ServerWarm, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_server, "SLICE", 10)
    await warm.put("memories", [point(n) for n in range(25)])
    assert server.calls == [("PUT", "/collections/memories/points")] * 3
    assert await warm.count("memories") == 25


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_server_that_stumbles_is_asked_again(
    warm: ServerWarm, server: StandIn, status: int
) -> None:
    server.faults = [status, status]
    await warm.put("memories", [point(1)])
    assert len(server.calls) == 3
    assert [one.id for one in await warm.get("memories", [id_of(1)])] == [id_of(1)]


async def test_one_that_stays_down_is_an_error_and_may_come_back(
    warm: ServerWarm, server: StandIn
) -> None:
    server.faults = [503] * 3
    with pytest.raises(WarmError, match="refused \\(503\\)"):
        await warm.count("memories")
    assert len(server.calls) == 3
    assert await warm.count("memories") == 0


async def test_one_that_is_not_there_is_named(server: StandIn) -> None:
    nowhere = ServerWarm.at("http://127.0.0.1:9", KEY)
    with pytest.raises(WarmError, match=r"http://127.0.0.1:9 cannot be reached"):
        await nowhere.prepare(DIM, "one")
    await nowhere.close()


async def test_one_that_is_too_slow_is_given_up(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_server, "REQUEST_S", 1)
    monkeypatch.setattr(warm_server, "PAUSES_S", ())
    slow = ServerWarm.at(server.url, KEY)
    server.pause_s = 3.0
    with pytest.raises(WarmError, match="cannot be reached"):
        await slow.prepare(DIM, "one")
    await slow.close()


async def test_a_wrong_key_is_named_and_not_tried_again(server: StandIn) -> None:
    server.calls.clear()
    wrong = ServerWarm.at(server.url, "another-key")
    with pytest.raises(WarmError, match=r"refuses the key.*qdrant-api-key") as caught:
        await wrong.prepare(DIM, "one")
    assert "another-key" not in str(caught.value)
    assert len(server.calls) == 1
    await wrong.close()


async def test_a_collection_that_is_gone_is_torn(warm: ServerWarm, server: StandIn) -> None:
    await warm.put("memories", [point(1)])
    await server.client.delete_collection("learnings")
    with pytest.raises(TornError, match="lost"):
        await warm.count("learnings")
    again = ServerWarm.at(server.url, KEY)
    with pytest.raises(TornError, match="has lost its learnings"):
        await again.prepare(DIM, "one")
    await again.reset()
    await again.prepare(DIM, "one")
    assert await again.count("memories") == 0
    await again.close()


async def test_a_refusal_says_what_the_server_said(warm: ServerWarm, server: StandIn) -> None:
    server.faults = [400]
    with pytest.raises(WarmError, match=r"refused \(400\): .*as ordered") as caught:
        await warm.put("memories", [point(1)])
    assert not isinstance(caught.value, TornError)
    assert len(server.calls) == 1


async def test_an_old_server_cannot_take_a_second_model(
    warm: ServerWarm, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise ValueError("not found: no such path")

    monkeypatch.setattr(server.client, "create_vector_name", refuse)
    with pytest.raises(WarmError, match=r"1\.18 or newer") as caught:
        await warm.prepare(8, "two")
    assert not isinstance(caught.value, TornError)
    assert (await warm.places()).coming is None
    await warm.put("memories", [point(1)])


async def test_a_restart_finds_what_was_stored(warm: ServerWarm, server: StandIn) -> None:
    await warm.put("memories", [point(1)])
    again = ServerWarm.at(server.url, KEY)
    await again.prepare(8, "two")
    places = await again.places()
    assert (places.active.model, places.coming and places.coming.model) == ("one", "two")
    assert await again.count_missing("memories") == 1
    await again.close()
