"""The REST interface: what it takes, what it refuses and in which words."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from base import streams
from base.bus import Bus
from base.messages import Event, Kind, Status, answer_id
from base.store import Store
from portal.auth import ADMIN_ID
from tests.portal.conftest import REPO, Portal, Stage, asked, free_port, person


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of `answer`, complete."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert {"type", "title", "status", "detail", "instance"} <= set(body)
    assert body["instance"] == answer.request.url.path
    return body


@pytest.fixture
def admin(portal: Portal) -> Iterator[httpx.Client]:
    with portal.admin() as client:
        yield client


@pytest.fixture
def conversation(admin: httpx.Client) -> str:
    made = admin.post("/api/conversations", json={"title": "tests"})
    assert made.status_code == 201
    found: str = made.json()["id"]
    return found


def test_a_message_becomes_a_task_and_is_kept_byte_for_byte(
    admin: httpx.Client, conversation: str
) -> None:
    content = "  <b>$(rm -rf /)</b> `ls` | cat && é \U0001f600\r\n\ttrailing  "
    sent = admin.post(f"/api/conversations/{conversation}/messages", json={"content": content})
    assert sent.status_code == 202
    got = sent.json()
    assert got["answer_message_id"] == answer_id(got["task_id"])
    page = admin.get(f"/api/conversations/{conversation}/messages").json()
    assert page["messages"][0]["content"] == content
    assert page["messages"][0]["task_id"] == got["task_id"]
    task = admin.get(f"/api/tasks/{got['task_id']}").json()
    assert task["task"]["status"] == "pending"
    assert task["task"]["type"] == "request"
    assert task["subtasks"] == task["logs"] == []
    assert admin.get(f"/api/conversations/{conversation}").json()["messages"] == page["messages"]


async def test_the_task_reaches_the_wire(portal: Portal, bus: Bus, admin: httpx.Client) -> None:
    before = await bus.depth(streams.TASKS_NEW)
    await asked(portal, admin.headers["Authorization"].split()[1])
    assert await bus.depth(streams.TASKS_NEW) == before + 1


def test_the_limits_of_a_message(admin: httpx.Client, conversation: str) -> None:
    path = f"/api/conversations/{conversation}/messages"
    assert admin.post(path, json={"content": "x" * 50_000}).status_code == 202
    cases: list[tuple[dict[str, Any], str]] = [
        ({"content": "x" * 50_001}, "50,001 characters; the limit is 50,000"),
        ({"content": ""}, "empty"),
        ({"content": " \n "}, "empty"),
        ({}, "content"),
        ({"content": 5}, "string"),
        ({"content": "a\0b"}, "NUL"),
        ({"content": "x", "effort": "heroic"}, "minimal, standard, extended, deep"),
        ({"content": "x", "agent": "nobody"}, "code, data, infra, research, qa"),
        ({"content": "x", "priority": 11}, "10"),
        ({"content": "x", "priority": 0}, "1"),
        ({"content": "x", "workspace": "../../etc"}, "workspace"),
        ({"content": "x", "attachments": ["a.txt"]}, "UUID"),
        ({"content": "x", "surprise": 1}, "surprise"),
    ]
    for body, words in cases:
        assert words in problem(admin.post(path, json=body), 422)["detail"], body
    half = admin.post(
        path, content=b'{"content": "\\ud800"}', headers={"Content-Type": "application/json"}
    )
    assert "surrogate" in problem(half, 422)["detail"]
    taken = admin.post(
        path,
        json={"content": "x", "effort": "deep", "agent": "qa", "workspace": "w1", "priority": 9},
    )
    task = admin.get(f"/api/tasks/{taken.json()['task_id']}").json()["task"]
    assert (task["effort"], task["requested_agent"]) == ("deep", "qa")
    assert (task["workspace"], task["priority"]) == ("w1", 9)


def test_bodies_that_are_none(admin: httpx.Client, conversation: str) -> None:
    path = f"/api/conversations/{conversation}/messages"
    as_json = {"Content-Type": "application/json"}
    for raw in (b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000):
        answer = admin.post(path, content=raw, headers=as_json)
        problem(answer, answer.status_code)
        assert answer.status_code in {400, 422}
    problem(admin.post(path, content=b"x" * 1_000_001, headers=as_json), 413)
    ten_mb = (b"x" * 100_000 for _ in range(100))
    answer = admin.post(path, content=ten_mb, headers=as_json)
    assert "1,000,000" in problem(answer, 413)["detail"]


def test_addresses_that_are_none(admin: httpx.Client, conversation: str) -> None:
    problem(admin.get("/api/nothing/here"), 404)
    problem(admin.get("/api/conversations/no-uuid"), 422)
    problem(admin.get(f"/api/conversations/{uuid.uuid4()}"), 404)
    problem(admin.get("/api/agents/nobody"), 404)
    refused = admin.put("/api/conversations")
    problem(refused, 405)
    assert refused.headers["Allow"] == "GET, POST"
    problem(admin.get("/api/tasks?status=sleeping"), 422)
    problem(admin.get("/api/tasks?cursor=bm9uc2Vuc2U="), 422)
    problem(admin.get("/api/conversations?limit=1000"), 422)
    problem(admin.get("/api/events?after=yesterday"), 422)
    problem(admin.post("/api/dlq/no%20such/1-0/replay"), 404)
    before = {"before": str(uuid.uuid4())}
    problem(admin.get(f"/api/conversations/{conversation}/messages", params=before), 404)


def test_lists_go_on_by_cursor(admin: httpx.Client) -> None:
    made = [
        admin.post("/api/conversations", json={"title": f"c{n}"}).json()["id"] for n in range(5)
    ]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = admin.get("/api/conversations", params=params).json()
        assert len(page["conversations"]) <= 2
        seen += [one["id"] for one in page["conversations"]]
        cursor = page["next_cursor"]
        if cursor is None or set(made) <= set(seen):
            break
    assert [one for one in seen if one in made] == made[::-1]
    assert len(seen) == len(set(seen))


def test_messages_go_back_by_before(admin: httpx.Client, conversation: str) -> None:
    path = f"/api/conversations/{conversation}/messages"
    for at in range(5):
        admin.post(path, json={"content": f"m{at}"})
    newest = admin.get(path, params={"limit": 2}).json()
    assert [one["content"] for one in newest["messages"]] == ["m3", "m4"]
    assert newest["more"]
    older = admin.get(path, params={"limit": 3, "before": newest["messages"][0]["id"]}).json()
    assert [one["content"] for one in older["messages"]] == ["m0", "m1", "m2"]
    assert not older["more"]


def test_archive_and_titles(admin: httpx.Client) -> None:
    made = admin.post("/api/conversations", json={}).json()["id"]
    admin.post(f"/api/conversations/{made}/messages", json={"content": "# Fix it\nplease"})
    assert admin.get(f"/api/conversations/{made}").json()["conversation"]["title"] == "Fix it"
    assert admin.delete(f"/api/conversations/{made}").status_code == 204
    assert admin.delete(f"/api/conversations/{made}").status_code == 204
    active = admin.get("/api/conversations", params={"limit": 200}).text
    archived = admin.get("/api/conversations", params={"status": "archived"}).text
    assert made not in active
    assert made in archived


async def test_idempotency_keys(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    headers = {"Authorization": f"Bearer {somebody.token}"}
    async with httpx.AsyncClient(base_url=portal.url, verify=False, headers=headers) as client:
        key = {"Idempotency-Key": str(uuid.uuid4())}
        made = [
            (await client.post("/api/conversations", json={"title": "k"}, headers=key)).json()["id"]
            for _ in range(2)
        ]
        assert made[0] == made[1]
        path = f"/api/conversations/{made[0]}/messages"
        key = {"Idempotency-Key": str(uuid.uuid4())}
        sent = await asyncio.gather(
            *(client.post(path, json={"content": "once"}, headers=key) for _ in range(20))
        )
        assert {one.status_code for one in sent} == {202}
        assert len({one.json()["task_id"] for one in sent}) == 1
        other = await client.post(path, json={"content": "twice"}, headers=key)
        problem(other, 409)
        too_long = await client.post(
            path, json={"content": "x"}, headers={"Idempotency-Key": "k" * 300}
        )
        problem(too_long, 422)
        assert len((await client.get(path)).json()["messages"]) == 1


async def test_cancel_retry_steer_and_control_go_to_their_services(
    portal: Portal, stage: Stage
) -> None:
    with portal.admin() as admin:
        token = admin.headers["Authorization"].split()[1]
        _, sent = await asked(portal, token)
        task = f"/api/tasks/{sent['task_id']}"

        async def post(path: str, body: Any = None, **headers: str) -> httpx.Response:
            return await asyncio.to_thread(admin.post, path, json=body, headers=headers)

        assert (await post(f"{task}/cancel")).json() == {"status": "cancelled"}
        assert (await post(f"{task}/steer", {"text": "faster"})).status_code == 202
        key = {"Idempotency-Key": str(uuid.uuid4())}
        first = await post(f"{task}/retry", **key)
        again = await post(f"{task}/retry", **key)
        assert first.status_code == 202
        assert first.json() == again.json()
        assert (await post("/api/agents/code/restart")).json() == {"ok": True}
        assert (await post("/api/agents/code/pause")).json() == {"ok": True}
        assert "stopped" in problem(await post("/api/agents/qa/resume"), 409)["detail"]
        problem(await post("/api/agents/nobody/pause"), 404)
        problem(await post("/api/agents/code/explode"), 404)
    assert [one["verb"] for one in stage.asked] == [
        "cancel",
        "steer",
        "retry",
        "restart",
        "control",
        "control",
    ]
    assert stage.asked[1]["text"] == "faster"


async def test_a_cut_off_key_says_so_and_a_failed_one_is_free_again(
    portal: Portal, store: Store, stage: Stage
) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    with portal.admin() as admin:
        for _ in range(2):
            failed = await asyncio.to_thread(admin.post, "/api/agents/qa/pause", headers=key)
            problem(failed, 409)
        assert len(stage.asked) == 2
        async with store.transaction() as tx:
            await tx.remember(
                user_id=ADMIN_ID,
                key="cut",
                request=["pause", "code"],
                status=202,
                response={"pending": True},
            )
        cut = await asyncio.to_thread(
            admin.post, "/api/agents/code/pause", headers={"Idempotency-Key": "cut"}
        )
        assert "not ended" in problem(cut, 409)["detail"]


async def test_a_task_with_its_parts_and_logs(
    portal: Portal, store: Store, admin: httpx.Client
) -> None:
    _, sent = await asked(portal, admin.headers["Authorization"].split()[1])
    root, part = sent["task_id"], str(uuid.uuid4())
    await store.execute(
        "INSERT INTO tasks (id, root_id, parent_task_id, user_id, conversation_id, type, title,"
        " assigned_agent, input, status, usage) SELECT $1, id, id, user_id, conversation_id,"
        " 'subtask', 'a part', 'code', '{}', 'completed', $3 FROM tasks WHERE id = $2",
        *(part, root, {"cost_usd": 0.5}),
    )
    await store.execute(
        "INSERT INTO task_logs (task_id, level, message) VALUES ($1, 'info', 'took it')", part
    )
    whole = admin.get(f"/api/tasks/{root}").json()
    assert [one["id"] for one in whole["subtasks"]] == [part]
    assert [one["message"] for one in whole["logs"]] == ["took it"]
    by_agent = admin.get("/api/tasks", params={"agent": "code", "status": "completed"}).json()
    assert part in [one["id"] for one in by_agent["tasks"]]
    assert part not in admin.get("/api/tasks").text


async def test_agents_show_their_state(portal: Portal, store: Store, admin: httpx.Client) -> None:
    _, sent = await asked(portal, admin.headers["Authorization"].split()[1])
    await store.execute(
        "INSERT INTO agent_heartbeats (agent_name, status, last_heartbeat, current_task_id)"
        " VALUES ('data', 'busy', now(), $1), ('infra', 'idle', now() - interval '5 minutes', NULL)"
        " ON CONFLICT (agent_name) DO NOTHING",
        sent["task_id"],
    )
    found = {one["name"]: one for one in admin.get("/api/agents").json()["agents"]}
    assert next(iter(found)) == "supervisor"
    assert found["data"]["status"] == "busy"
    assert found["infra"]["status"] == "offline"
    whole = admin.get("/api/agents/data").json()
    assert whole["current_task"]["id"] == sent["task_id"]
    somebody = await person(portal, store)
    with portal.client(somebody.token) as other:
        assert other.get("/api/agents/data").json()["agent"]["current_task_id"] is None
    health = admin.get("/api/health/agents").json()["agents"]
    assert health["data"] == "ok"
    assert health["infra"] == "stale"
    assert health["research"] == "unknown"


async def test_events_without_a_cursor_are_the_newest(bus: Bus, admin: httpx.Client) -> None:
    me = admin.get("/api/auth/me").json()["id"]
    said = [
        Event(kind=Kind.TEXT, agent="code", user_id=me, data={"content": str(number)})
        for number in range(30)
    ]
    await bus.emit(*said)
    page = admin.get("/api/events", params={"limit": 3}).json()
    assert [one["event"]["data"]["content"] for one in page["events"]] == ["27", "28", "29"]
    await bus.emit(said[0])
    after = admin.get("/api/events", params={"after": page["cursor"]}).json()
    assert [one["event"]["data"]["content"] for one in after["events"]] == ["0"]


async def test_usage_and_budget(portal: Portal, store: Store, admin: httpx.Client) -> None:
    await store.execute("DELETE FROM api_usage")
    _, sent = await asked(portal, admin.headers["Authorization"].split()[1])
    await store.execute(
        "INSERT INTO api_usage (agent, provider, model, input_tokens, output_tokens, cost_usd,"
        " task_id, latency_ms, timestamp) VALUES ('code', 'p', 'm', 10, 5, 60.5, $1, 200, now()),"
        " ('code', 'p', 'm', 1, 1, 0.5, NULL, 100, now() - interval '2 days')",
        sent["task_id"],
    )
    await store.execute(
        "INSERT INTO api_usage (agent, provider, model, input_tokens, output_tokens, cost_usd)"
        " VALUES ('data', 'rehearsal', 'm', 0, 0, 999)"
    )
    spent = admin.get("/api/usage/budget").json()["spent_usd"]
    assert spent == 60.5, "nobody charges for the rehearsal model"
    await store.execute("DELETE FROM api_usage WHERE provider = 'rehearsal'")
    today = admin.get("/api/usage/daily").json()
    assert today["usage"][0]["input_tokens"] == 10
    assert today["cost_usd"] == 60.5
    assert admin.get("/api/usage/daily", params={"date": "2001-01-01"}).json()["usage"] == []
    problem(admin.get("/api/usage/daily", params={"date": "soon"}), 422)
    budget = admin.get("/api/usage/budget").json()
    assert (budget["spent_usd"], budget["state"]) == (60.5, "warning")
    somebody = await person(portal, store)
    with portal.client(somebody.token) as other:
        assert other.get("/api/usage/daily").json()["usage"] == []
    await store.execute("DELETE FROM api_usage")


async def test_dead_letters(bus: Bus, admin: httpx.Client) -> None:
    await bus.bury_raw("results", "supervisor", "0-1", b"\xff no json", "broken", 3)
    letters = admin.get("/api/dlq", params={"stream": "results"}).json()["letters"]
    assert letters[0]["original_message"] == "\\xff no json"
    assert letters[0]["attempts"] == 3
    replayed = admin.post(f"/api/dlq/{letters[0]['id']}/replay")
    assert replayed.status_code == 200, replayed.text
    problem(admin.post(f"/api/dlq/{letters[0]['id']}/replay"), 404)
    await bus.bury_raw("results", "supervisor", "0-1", b"x", "broken", 3)
    assert admin.post("/api/dlq/purge", json={"stream": "results"}).json()["purged"] == 1
    assert admin.get("/api/dlq").json()["letters"] == []


def test_metrics_count_requests_by_route(portal: Portal, admin: httpx.Client) -> None:
    admin.get(f"/api/tasks/{uuid.uuid4()}")
    with portal.client() as client:
        text = client.get("/metrics").text
        assert 'endpoint="/api/tasks/{task_id}"' in text
        assert "api_request_duration_seconds_bucket" in text
        refused = client.get("/metrics", headers={"X-Forwarded-For": "10.0.0.1"})
        assert refused.status_code == 401


def test_every_answer_carries_the_safe_headers(portal: Portal, admin: httpx.Client) -> None:
    for path in ("/api/tasks", "/login", "/api/nothing", "/static/portal.css"):
        headers = admin.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert "http" not in admin.get("/login").text.replace("http-equiv", "")


def test_health(portal: Portal) -> None:
    with portal.client() as client:
        assert client.get("/api/health/live").json()["status"] == "ok"
        ready = client.get("/api/health/ready").json()
        assert ready["checks"] == {"redis": "ok", "postgres": "ok"}


def test_a_port_in_use_is_one_line_and_no_traceback(portal: Portal) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "AI_INFRA_HOME": str(portal.settings.home),
        "AI_INFRA_PORT": str(portal.settings.port),
        "AI_INFRA_REDIS_URL": portal.settings.redis,
        "AI_INFRA_POSTGRES_DSN": portal.settings.postgres,
    }
    second = subprocess.run(
        [sys.executable, "-m", "portal"],
        cwd=REPO,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert len(second.stderr.strip().splitlines()) == 1
    assert f":{portal.settings.port}" in second.stderr
    assert "in use" in second.stderr


def test_no_database_is_one_line(portal: Portal, tmp_path: Any) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "AI_INFRA_HOME": str(tmp_path / "home"),
        "AI_INFRA_PORT": str(free_port()),
        "AI_INFRA_POSTGRES_DSN": f"postgresql://x@/x?host={tmp_path}",
    }
    second = subprocess.run(
        [sys.executable, "-m", "portal"],
        cwd=REPO,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert len(second.stderr.strip().splitlines()) == 1, second.stderr


def test_openapi_is_whole(admin: httpx.Client) -> None:
    spec = admin.get("/openapi.json").json()
    assert "application/problem+json" in json.dumps(spec)
    assert all(
        one.get("description") or one.get("summary")
        for item in spec["paths"].values()
        for one in item.values()
    )
    assert set(Status) <= set(json.dumps(spec).replace('"', " ").replace(",", " ").split())


def test_conversations_are_renamed_archived_and_found(admin: httpx.Client) -> None:
    word = uuid.uuid4().hex
    made = [admin.post("/api/conversations", json={"title": f"{n}"}).json()["id"] for n in "ab"]
    said = {"content": f"where is the ZEBRA_{word}?"}
    admin.post(f"/api/conversations/{made[0]}/messages", json=said)

    def found(**params: str) -> list[str]:
        page = admin.get("/api/conversations", params=params).json()
        return [one["id"] for one in page["conversations"]]

    before = admin.get(f"/api/conversations/{made[1]}").json()["conversation"]
    renamed = admin.patch(f"/api/conversations/{made[1]}", json={"title": f"%Élan {word}"})
    assert renamed.json() == before | {"title": f"%Élan {word}"}
    assert found(q=f"zebra_{word}") == [made[0]]
    assert found(q=f"%élan {word}") == [made[1]]
    assert found(q=f"zebra%{word}") == []
    assert sorted(found(q=word)) == sorted(made)
    archived = admin.patch(f"/api/conversations/{made[0]}", json={"status": "archived"})
    assert archived.json()["status"] == "archived"
    assert found(q=word) == [made[1]]
    assert found(q=word, status="archived") == [made[0]]
    admin.patch(f"/api/conversations/{made[0]}", json={"status": "active", "title": "back"})
    assert found(limit="1") == [made[0]]
    for body in ({}, {"title": ""}, {"status": "deleted"}, {"title": "a\0b"}, {"other": 1}):
        problem(admin.patch(f"/api/conversations/{made[0]}", json=body), 422)
    problem(admin.patch(f"/api/conversations/{uuid.uuid4()}", json={"title": "x"}), 404)
    problem(admin.get("/api/conversations", params={"q": "a\0b"}), 422)


async def test_usage_by_day_agent_and_model(
    portal: Portal, store: Store, admin: httpx.Client
) -> None:
    await store.execute("DELETE FROM api_usage")
    rows = [
        ("code", "m1", 1.0, "2026-03-01T00:00:00Z"),
        ("code", "m2", 2.0, "2026-03-01T23:59:59Z"),
        ("data", "m1", 4.0, "2026-03-03T12:00:00Z"),
        ("data", "m1", 8.0, "2026-03-04T00:00:00Z"),
    ]
    await store.execute(
        "INSERT INTO api_usage (agent, provider, model, input_tokens, output_tokens, cost_usd,"
        " timestamp) SELECT a, 'p', m, 10, 5, c, t FROM unnest($1::text[], $2::text[],"
        " $3::numeric[], $4::timestamptz[]) AS given (a, m, c, t)",
        *([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]),
        [datetime.fromisoformat(row[3]) for row in rows],
    )
    path, span = "/api/usage/daily", {"since": "2026-03-01", "until": "2026-03-03"}
    whole = admin.get(path, params=span).json()
    assert (whole["cost_usd"], whole["requests"]) == (7.0, 3)
    assert [(day["date"], day["cost_usd"]) for day in whole["days"]] == [
        ("2026-03-01", 3.0),
        ("2026-03-02", 0.0),
        ("2026-03-03", 4.0),
    ]
    assert [row["date"] for row in whole["usage"]] == ["2026-03-03", "2026-03-01", "2026-03-01"]
    assert admin.get(path, params=span | {"agent": "code"}).json()["cost_usd"] == 3.0
    assert admin.get(path, params=span | {"model": "m1"}).json()["cost_usd"] == 5.0
    one = admin.get(path, params={"date": "2026-03-04"}).json()
    assert (one["cost_usd"], one["since"], one["until"]) == (8.0, "2026-03-04", "2026-03-04")
    problem(admin.get(path, params={"date": "2026-03-04", "since": "2026-03-01"}), 422)
    problem(admin.get(path, params={"since": "2026-03-04", "until": "2026-03-01"}), 422)
    problem(admin.get(path, params={"since": "2024-03-04", "until": "2026-03-01"}), 422)
    somebody = await person(portal, store)
    with portal.client(somebody.token) as other:
        assert other.get(path, params=span).json()["cost_usd"] == 0
    await store.execute("DELETE FROM api_usage")
