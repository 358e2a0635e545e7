"""What is written down of people's doings: every kind of it, once, and nothing that they wrote."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from present import need
from websockets.asyncio.client import connect

from base import streams
from base.audit import AuditEvent
from base.bus import Bus, Delivery
from base.messages import Message, Type, decode
from base.settings import Settings
from base.store import Store
from portal import configuration
from portal.auth import ADMIN_ID, local_token
from portal.trail import Trail, event
from tests.conftest import wait_for
from tests.portal.conftest import Portal, Stage, asked, person

SECRET = "hunter2-prompt-text-that-must-not-be-kept"


async def written(
    bus: Bus, store: Store, wanted: Callable[[AuditEvent], bool], wait_s: float = 10.0
) -> list[AuditEvent]:
    """The events that are `wanted`, from the stream and the outbox, once there is one."""
    end = time.monotonic() + wait_s
    while True:
        await store.relay(bus)
        found = [AuditEvent.model_validate(one.payload) for one in await everything(bus)]
        if (hits := [one for one in found if wanted(one)]) or time.monotonic() > end:
            return hits
        await asyncio.sleep(0.05)


async def everything(bus: Bus) -> list[Message]:
    rows = (await bus.call(("XRANGE", streams.AUDIT, "-", "+")))[0] or []
    return [decode(fields[1]) for _, fields in rows]


def like(actor: str, action: str, outcome: str, path: str = "") -> Callable[[AuditEvent], bool]:
    return lambda one: (
        (one.actor_id, one.action, one.outcome) == (actor, action, outcome)
        and path in (one.resource_path or "")
    )


async def test_logins_good_bad_and_over(portal: Portal, bus: Bus, store: Store) -> None:
    somebody = await person(portal, store)
    nobody = f"{SECRET}@nowhere"
    with portal.client() as client:
        right = {"email": somebody.email, "password": somebody.password}
        client.post("/api/auth/login", json={**right, "password": SECRET})
        client.post("/api/auth/login", json={"email": nobody, "password": SECRET})
        token = client.post("/api/auth/login", json=right).json()["token"]
        client.headers["Authorization"] = f"Bearer {token}"
        new = {"new_password": SECRET, "current_password": somebody.password}
        assert client.post("/api/auth/password", json=new).status_code == 200
        assert client.post("/api/auth/logout").status_code == 204
    (failed,) = await written(bus, store, like(somebody.id, "login", "failure"))
    assert failed.event_type == "auth"
    assert str(failed.actor_ip) == "127.0.0.1"
    assert failed.details == {"reason": "wrong password"}
    # Two logins: the one that `person` made here, and the one over HTTP.
    good = await written(bus, store, like(somebody.id, "login", "success"))
    assert [one.details["by"] for one in good] == ["password"] * 2
    (left,) = await written(bus, store, like(somebody.id, "logout", "success", "sessions/"))
    assert left.resource_path != f"users/{somebody.id}/sessions"
    (changed,) = await written(bus, store, like(somebody.id, "write", "success", "/password"))
    assert changed.risk_level == "medium"
    (revoked,) = await written(
        bus, store, like(somebody.id, "logout", "success", f"users/{somebody.id}/sessions")
    )
    assert revoked.details["sessions"] == 1
    assert await written(bus, store, like("anonymous", "login", "failure"))


async def test_a_used_link_and_a_login_by_link(portal: Portal, bus: Bus, store: Store) -> None:
    with portal.admin() as admin:
        link = admin.post("/api/auth/links").json()
    with portal.client() as client:
        client.get(link["path"])
        client.get(link["path"])
    good = await written(bus, store, like(ADMIN_ID, "login", "success"))
    assert any(one.details["by"] == "login link" for one in good)
    bad = await written(
        bus, store, lambda one: one.details.get("reason") == "wrong or used login link"
    )
    assert bad
    assert link["token"] not in json.dumps([one.model_dump(mode="json") for one in good + bad])


async def test_who_was_turned_away(portal: Portal, bus: Bus, store: Store) -> None:
    owner, other = await person(portal, store), await person(portal, store)
    where, sent = await asked(portal, owner.token, SECRET)
    path = f"/api/tasks/{uuid.uuid4()}"
    with portal.client("nonsense") as client:
        assert client.get(path).status_code == 401
    async with connect(f"{portal.ws}?token={SECRET}"):
        pass
    with portal.client(other.token) as client:
        assert client.post("/api/agents/code/restart").status_code == 403
        assert client.get(f"/api/tasks/{sent['task_id']}").status_code == 404
        assert client.get(f"/api/tasks/{uuid.uuid4()}").status_code == 404
        body = {"content": SECRET}
        assert client.post(f"/api/conversations/{where}/messages", json=body).status_code == 404
    (unknown,) = await written(bus, store, like("anonymous", "read", "denied", path))
    assert unknown.details == {"method": "GET", "status": 401}
    assert unknown.resource_type == "endpoint"
    assert str(unknown.actor_ip) == "127.0.0.1"
    assert await written(bus, store, like("anonymous", "read", "denied", "/ws"))
    (role,) = await written(bus, store, like(other.id, "write", "denied", "/api/agents/code"))
    assert role.risk_level == "medium"
    foreign = await written(
        bus, store, lambda one: one.actor_id == other.id and one.details.get("status") == 404
    )
    assert {one.resource_path for one in foreign} == {
        f"tasks/{sent['task_id']}",
        f"conversations/{where}",
    }


async def test_tasks_agents_and_dead_letters(
    portal: Portal, stage: Stage, bus: Bus, store: Store
) -> None:
    somebody = await person(portal, store, role="admin")
    _, sent = await asked(portal, somebody.token, SECRET)
    task = sent["task_id"]
    letter = Message(source="test", target="x", type=Type.TASK, payload={"text": SECRET})
    await bus.bury(
        streams.RESULTS, streams.GROUP_SUPERVISOR, Delivery(id="1-1", message=letter, count=3), "x"
    )
    headers = {"Authorization": f"Bearer {somebody.token}"}
    async with httpx.AsyncClient(base_url=portal.url, verify=False, headers=headers) as client:
        for verb in ("cancel", "retry"):
            assert (await client.post(f"/api/tasks/{task}/{verb}")).is_success
        assert (await client.post(f"/api/tasks/{task}/steer", json={"text": SECRET})).is_success
        for verb in ("pause", "resume", "restart"):
            assert (await client.post(f"/api/agents/code/{verb}")).is_success
        assert (await client.post("/api/agents/qa/pause")).status_code == 409
        assert (await client.post("/api/dlq/results/9-9/replay")).status_code == 404
        assert (await client.post("/api/dlq/purge", json={"stream": "results"})).json()[
            "purged"
        ] == 1
    (made,) = await written(bus, store, like(somebody.id, "write", "success", f"tasks/{task}"))
    assert made.event_type == "action"
    assert made.details["workspace"] == "main"
    for path in (
        *(f"tasks/{task}/{verb}" for verb in ("cancel", "retry", "steer")),
        *(f"agents/code/{verb}" for verb in ("pause", "resume", "restart")),
    ):
        (done,) = await written(bus, store, like(somebody.id, "execute", "success", path))
        assert str(done.actor_ip) == "127.0.0.1"
    (refused,) = await written(bus, store, like(somebody.id, "execute", "failure", "agents/qa"))
    assert refused.details == {"reason": "ConflictError"}
    (missed,) = await written(bus, store, like(somebody.id, "execute", "failure", "dlq/results"))
    assert missed.details == {"reason": "NotFoundError"}
    (purged,) = await written(bus, store, like(somebody.id, "delete", "success", "dlq/results"))
    assert purged.details == {"letters": 1}


async def test_nothing_that_people_wrote_is_kept(portal: Portal, bus: Bus, store: Store) -> None:
    somebody = await person(portal, store)
    await asked(portal, somebody.token, SECRET)
    assert await written(bus, store, like(somebody.id, "write", "success", "tasks/"))
    raw = "".join(one.model_dump_json() for one in await everything(bus))
    assert SECRET not in raw
    assert somebody.token not in raw
    assert somebody.password not in raw
    assert local_token(portal.settings).rpartition(".")[2] not in raw


async def test_the_first_admin_is_written_down(portal: Portal, bus: Bus, store: Store) -> None:
    rows = await store.fetch("SELECT body FROM outbox WHERE stream = $1", streams.AUDIT)
    found = [AuditEvent.model_validate(decode(row["body"]).payload) for row in rows]
    made = [one for one in found if one.resource_path == f"users/{ADMIN_ID}"]
    made = [one for one in made if one.actor_id != ADMIN_ID]  # what other tests changed of it
    if not made:
        sent = [AuditEvent.model_validate(one.payload) for one in await everything(bus)]
        made = [one for one in sent if one.resource_path == f"users/{ADMIN_ID}"]
        made = [one for one in made if one.actor_id == "portal"][:1]
    assert [(one.actor_type, one.actor_id, one.action) for one in made] == [
        ("system", "portal", "write")
    ]


async def test_a_changed_configuration_is_told_once_also_over_a_restart(
    tmp_path: Path, bus: Bus, store: Store
) -> None:
    settings = Settings(home=tmp_path / "home", redis_url=None)
    settings.prepare()
    levels = settings.config / "levels.toml"
    levels.write_text("[standard]\n")
    told: list[AuditEvent] = []
    trail = Trail(store, bus)
    trail.tell = told.append  # type: ignore[method-assign]

    async def life(change: Callable[[], Any]) -> None:
        watching = asyncio.create_task(configuration.watch(settings, trail, 0.02), name="watch")
        await asyncio.sleep(0.2)
        change()
        await asyncio.sleep(0.3)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    await life(lambda: None)
    assert told == []  # what was there from the start is no change
    await life(lambda: levels.write_text("[standard]\nexecute = true\n"))
    (changed,) = told
    assert changed.resource_path == "levels.toml"
    assert changed.risk_level == "high"
    assert changed.details["sha256_before"] != changed.details["sha256_after"]
    levels.unlink()
    (settings.config / "agents" / "mine.toml").write_text('title = "Mine"\n')
    await life(lambda: None)
    assert [(one.action, one.resource_path) for one in told[1:]] == [
        ("write", "agents/mine.toml"),
        ("delete", "levels.toml"),
    ]


async def test_what_redis_did_not_take_comes_later_or_from_the_outbox(
    short_tmp: Path, store: Store
) -> None:
    folder = Path(tempfile.mkdtemp(dir=short_tmp))
    path = folder / "r.sock"
    line = [need("redis-server"), "--port", "0", "--unixsocket", str(path), "--save", ""]
    server = subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL)
    wait_for("redis", path.exists)
    bus = await Bus.open(f"unix://{path}", "test")
    server.kill()
    server.wait(10)
    trail = Trail(store, bus)
    running = asyncio.create_task(trail.run(), name="trail")
    ids = []
    for _ in range(3):
        told = event("access", "read", "/x", outcome="denied")
        ids.append(str(told.id))
        trail.tell(told)
    await asyncio.sleep(0.3)
    path.unlink(missing_ok=True)
    server = subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL)
    wait_for("redis", path.exists)
    try:
        end = time.monotonic() + 20
        while len(found := await everything(bus)) < 3 and time.monotonic() < end:
            await asyncio.sleep(0.1)
        assert [one.id for one in found] == ids
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        server.kill()
        server.wait(10)
    last = event("access", "read", "/y", outcome="denied")
    trail.tell(last)
    await trail.close()
    row = await store.fetchrow("SELECT body FROM outbox ORDER BY id DESC LIMIT 1")
    assert row is not None
    assert decode(row["body"]).id == str(last.id)
    await bus.close()
