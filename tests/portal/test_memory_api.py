"""Memory over REST: whose it is, what the keeper is asked, what people's feedback becomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from base import streams
from base.bus import Bus
from base.errors import NotFoundError
from base.messages import Kind
from base.store import Store
from pai.shapes import Found, Item, Memory, Signal, Tier, Told
from tests.portal.conftest import Portal, Stage, asked, person


class Keeper:
    """Plays the keeper of memory: notes what it is asked and finds one thing."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def answer(self, payload: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(payload)
        match payload["verb"]:
            case "search":
                memory = Memory(user_id=payload["query"]["user_id"], text="The port is 8000.")
                item = Item(memory=memory, tier=Tier.WARM, score=0.9, why=("words",))
                return Found(items=(item,)).model_dump(mode="json")
            case "recent":
                memory = Memory(user_id=payload["user_id"], text="Look first.", phase="BUILD")
                return {"memories": [memory.model_dump(mode="json")]}
            case "about":
                return {"cards": []}
            case "remember":
                return {"ids": [one["id"] for one in payload["memories"]]}
            case "forget":
                if payload["user_id"] == "*":
                    raise NotFoundError("no such memory")
                return {"forgotten": payload["ids"]}
            case _:
                return {"user_id": payload.get("user_id")}


@pytest_asyncio.fixture(loop_scope="session")
async def keeper(bus: Bus) -> AsyncIterator[Keeper]:
    playing = Keeper()
    serving = asyncio.create_task(
        bus.serve(streams.SERVICE_MEMORY, playing.answer), name="stage memory"
    )
    yield playing
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def call(client: httpx.Client, method: str, path: str, **more: Any) -> httpx.Response:
    ask: Callable[..., httpx.Response] = client.request
    return await asyncio.to_thread(ask, method, path, **more)


async def test_search_is_for_the_caller_alone(portal: Portal, store: Store, keeper: Keeper) -> None:
    somebody = await person(portal, store)
    with portal.client(somebody.token) as client:
        body = {
            "query": "which port?",
            "limit": 3,
            "filters": {"tier": "cold", "agent": "code", "since": "2026-01-01T00:00:00Z"},
        }
        answer = await call(client, "POST", "/api/memory/search", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["items"][0]["memory"]["text"] == "The port is 8000."
    (query,) = [one["query"] for one in keeper.asked]
    assert query["user_id"] == somebody.id
    assert (query["tiers"], query["agent"], query["limit"]) == (["cold"], "code", 3)
    assert query["since"] == "2026-01-01T00:00:00Z"
    with portal.client(somebody.token) as client:
        body = {"query": "x", "user_id": "somebody else"}
        answer = await call(client, "POST", "/api/memory/search", json=body)
    assert answer.status_code == 422
    assert answer.json()["faults"][0]["at"] == "body.user_id"


async def test_learnings_and_stats(portal: Portal, store: Store, keeper: Keeper) -> None:
    somebody = await person(portal, store)
    with portal.client(somebody.token) as client:
        found = await call(client, "GET", "/api/memory/learnings?phase=BUILD")
        assert found.json()["learnings"][0]["text"] == "Look first."
        assert (keeper.asked[-1]["phase"], keeper.asked[-1]["user_id"]) == ("BUILD", somebody.id)
        wrong = await call(client, "GET", "/api/memory/learnings?phase=LUNCH")
        assert wrong.status_code == 422
        own = await call(client, "GET", "/api/memory/stats")
        assert own.json() == {"user_id": somebody.id}
        alien = await call(client, "GET", "/api/memory/stats?everybody=true")
        assert alien.status_code == 403
    with portal.admin() as admin:
        every = await call(admin, "GET", "/api/memory/stats?everybody=true")
    assert every.json() == {"user_id": None}


async def test_remember_and_forget(portal: Portal, store: Store, keeper: Keeper) -> None:
    somebody = await person(portal, store)
    with portal.client(somebody.token) as client:
        body = {"text": "I like tea.", "tags": ["taste"], "kind": "preference"}
        headers = {"Idempotency-Key": "once"}
        first = await call(client, "POST", "/api/memory", json=body, headers=headers)
        assert first.status_code == 201, first.text
        again = await call(client, "POST", "/api/memory", json=body, headers=headers)
        assert again.json() == first.json()
        (memory,) = keeper.asked[-1]["memories"]
        assert (memory["user_id"], memory["text"]) == (somebody.id, "I like tea.")
        assert (memory["collection"], memory["seq"]) == ("memories", None)
        (own,) = first.json()["ids"]
        gone = await call(client, "DELETE", f"/api/memory/{own}")
        assert gone.json() == {"forgotten": [own]}
        assert keeper.asked[-1]["user_id"] == somebody.id
        for wrong in ({"text": " "}, {"text": "x" * 20_001}, {"text": []}, {"text": "a\0b"}, {}):
            answer = await call(client, "POST", "/api/memory", json=wrong)
            assert answer.status_code == 422, wrong
            assert answer.headers["content-type"] == "application/problem+json"


async def test_a_file_keeps_its_place_and_shared_is_the_owners(
    portal: Portal, store: Store, keeper: Keeper
) -> None:
    body = {"text": ["one", "two"], "file": "/a.md", "first": 4, "knowledge": True, "shared": True}
    somebody = await person(portal, store, role="admin")
    with portal.client(somebody.token) as client:
        refused = await call(client, "POST", "/api/memory", json=body)
        assert refused.status_code == 403
        refused = await call(
            client, "POST", "/api/memory/forget", json={"ids": [somebody.id], "shared": True}
        )
        assert refused.status_code == 403
    assert keeper.asked == []
    with portal.admin() as owner:
        first = await call(owner, "POST", "/api/memory", json=body)
        again = await call(owner, "POST", "/api/memory", json=body)
        assert first.json() == again.json()
        body["text"] = ["one"]
        own = await call(owner, "POST", "/api/memory", json={**body, "shared": False})
        assert own.json()["ids"][0] not in first.json()["ids"]
        gone = await call(
            owner, "POST", "/api/memory/forget", json={"ids": [somebody.id], "shared": True}
        )
        assert gone.status_code == 404
    memories = keeper.asked[0]["memories"]
    assert [one["seq"] for one in memories] == [4, 5]
    assert {one["user_id"] for one in memories} == {"*"}
    assert {one["collection"] for one in memories} == {"knowledge"}


async def test_without_a_keeper_it_is_a_problem_of_503(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    with portal.client(somebody.token) as client:
        answer = await call(client, "POST", "/api/memory/search", json={"query": "x"})
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert "memory" in answer.json()["detail"]


async def signals(store: Store, root_id: str) -> list[Signal]:
    rows = await store.fetch(
        "SELECT convert_from(body, 'UTF8')::jsonb->'payload' AS payload FROM outbox"
        " WHERE stream = $1 ORDER BY id",
        streams.MEMORY,
    )
    found = [Told.model_validate(row["payload"]) for row in rows]
    return [one.signal for one in found if one.signal and one.root_id == root_id]


async def test_feedback_becomes_a_signal_of_the_task(
    portal: Portal, store: Store, stage: Stage
) -> None:
    somebody, stranger = await person(portal, store), await person(portal, store)
    _, sent = await asked(portal, somebody.token)
    await stage.end(sent["task_id"], "Here you are.")
    await stage.tell(sent["task_id"], Kind.TASK, status="completed")
    path = f"/api/messages/{sent['answer_message_id']}/feedback"
    with portal.client(somebody.token) as client:
        for body in ({"rating": 5, "comment": "yes"}, {"rating": 5, "comment": "yes"},
                     {"rating": 1}, {"kind": "correction", "comment": "It is 8001."}):  # fmt: skip
            answer = await call(client, "POST", path, json=body)
            assert answer.status_code == 202, answer.text
        for body in ({"rating": 6}, {"rating": 3, "kind": "edit"}, {}, {"kind": "hate"}):
            assert (await call(client, "POST", path, json=body)).status_code == 422, body
    with portal.client(stranger.token) as client:
        assert (await call(client, "POST", path, json={"rating": 1})).status_code == 404
    found = await signals(store, sent["task_id"])
    assert [(one.kind.value, one.rating, one.weight) for one in found] == [
        ("user_rating", 5, 1.0),
        ("user_rating", 5, 1.0),
        ("user_rating", 1, -1.0),
        ("user_correction", None, 1.0),
    ]
    assert found[0].id == found[1].id
    assert len({one.id for one in found}) == 3
    assert {one.user_id for one in found} == {somebody.id}


@pytest.mark.parametrize(
    ("path", "body", "faults"),
    [
        ("", {"text": ""}, [("body.text", "there is nothing in it to remember")]),
        ("", {"text": ["a", " "]}, [("body.text.1", "there is nothing in it to remember")]),
        (
            "/search",
            {"query": "x", "filters": {"tier": ["warm", "luke"]}},
            [("body.filters.tier.1", "Input should be 'hot', 'warm' or 'cold'")],
        ),
        (
            "/search",
            {"query": "x", "filters": {"tier": "luke"}},
            [("body.filters.tier", "Input should be 'hot', 'warm' or 'cold'")],
        ),
    ],
)
async def test_a_wrong_field_is_named_once_and_plainly(
    portal: Portal, store: Store, path: str, body: dict[str, Any], faults: list[tuple[str, str]]
) -> None:
    somebody = await person(portal, store)
    with portal.client(somebody.token) as client:
        answer = await call(client, "POST", f"/api/memory{path}", json=body)
    assert answer.status_code == 422
    assert [(one["at"], one["message"]) for one in answer.json()["faults"]] == faults


async def test_a_search_for_nothing_or_in_no_time_is_refused(
    portal: Portal, store: Store, keeper: Keeper
) -> None:
    somebody = await person(portal, store)
    turned = {"since": "2026-05-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}
    with portal.client(somebody.token) as client:
        for body in ({"query": " \n"}, {"query": "x", "filters": turned}):
            answer = await call(client, "POST", "/api/memory/search", json=body)
            assert answer.status_code == 422, body
    assert keeper.asked == []


async def test_learnings_about_the_whole_way_of_working(
    portal: Portal, store: Store, keeper: Keeper
) -> None:
    somebody = await person(portal, store)
    with portal.client(somebody.token) as client:
        found = await call(client, "GET", "/api/memory/learnings?phase=ALGORITHM")
        assert found.status_code == 200
        assert keeper.asked[-1]["phase"] == "ALGORITHM"
        assert (await call(client, "GET", "/api/memory/learnings?phase=X")).status_code == 422


async def test_a_place_that_no_file_has_is_refused(portal: Portal, keeper: Keeper) -> None:
    with portal.admin() as admin:
        body = {"text": ["one"], "file": "/a.md", "first": 2**31}
        answer = await call(admin, "POST", "/api/memory", json=body)
    assert answer.status_code == 422
    assert answer.json()["faults"][0]["at"] == "body.first"
    assert keeper.asked == []
