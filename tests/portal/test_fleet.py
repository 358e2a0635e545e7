"""The fleet over the API: what each agent does, who may see it, logs, start, and words in tasks."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from base import streams
from base.bus import Bus
from base.errors import ConflictError
from base.messages import Event, Kind
from base.store import Store
from portal.activity import Activity, Doing, after
from supervisor.load import measure
from tests.portal.conftest import Portal, asked, person

pytestmark = pytest.mark.xdist_group("fleet")
RUNNING = {"state": "running", "restarts": 0, "pid": 1, "since": 1.0, "cpu_percent": 12.5,
           "rss_bytes": 50_000_000}  # fmt: skip


class Watchdog:
    """Answers as the watchdog does."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        names = ("supervisor", "code", "data", "infra", "research", "qa")
        self.windows: dict[str, Any] = dict.fromkeys(names, RUNNING)

    async def answer(self, payload: dict[str, Any]) -> dict[str, Any]:
        if payload["verb"] == "windows":
            return self.windows
        self.asked.append(payload)
        if payload["verb"] == "start" and self.windows[payload["agent"]]["state"] == "running":
            raise ConflictError(f"{payload['agent']} is running already")
        return {"ok": True}


@contextlib.asynccontextmanager
async def watching(bus: Bus) -> AsyncIterator[Watchdog]:
    made = Watchdog()
    serving = asyncio.create_task(bus.serve(streams.SERVICE_WATCH, made.answer), name="watchdog")
    try:
        yield made
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def beat(
    store: Store, agent: str, status: str, task_id: str | None = None, **more: Any
) -> None:
    await store.execute(
        "INSERT INTO agent_heartbeats (agent_name, status, last_heartbeat, current_task_id,"
        " metrics) VALUES ($1, $2, now() - make_interval(secs => $5), $3, $4)"
        " ON CONFLICT (agent_name) DO UPDATE SET status = $2, current_task_id = $3, metrics = $4,"
        " last_heartbeat = now() - make_interval(secs => $5)",
        *(agent, status, task_id, more, float(more.pop("age_s", 0.0))),
    )


async def fleet(portal: Portal, token: str) -> dict[str, Any]:
    with portal.client(token) as client:
        answer = await asyncio.to_thread(client.get, "/api/fleet")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found | {"by": {one["agent"]["name"]: one for one in found["agents"]}}


async def test_the_fleet_tells_the_owner_and_hides_from_others(
    portal: Portal, store: Store, bus: Bus
) -> None:
    owner, other = await person(portal, store), await person(portal, store)
    boss = await person(portal, store, "admin")
    _, sent = await asked(portal, owner.token, "Count the words of a secret file")
    task_id = sent["task_id"]
    await store.execute("UPDATE tasks SET title = 'Secret title' WHERE id = $1", task_id)
    await beat(store, "code", "busy", task_id, phase="EXECUTE", paused=False)
    await beat(store, "data", "idle", paused=True)
    await beat(store, "qa", "idle", age_s=300.0)
    started = datetime.now(UTC) - timedelta(seconds=700)
    await bus.emit(
        Event(
            kind=Kind.TOOL,
            agent="code",
            user_id=owner.id,
            root_id=task_id,
            task_id=task_id,
            timestamp=started,
            data={"name": "shell", "state": "started", "summary": "secret command", "call_id": "1"},
        )
    )
    async with watching(bus) as watchdog:
        watchdog.windows["infra"] = RUNNING | {"state": "fatal", "restarts": 3, "pid": None}
        await asyncio.sleep(0.1)
        found = await fleet(portal, owner.token)
        for _ in range(60):  # what was known of the watchdog before is kept for some seconds
            if found["watchdog"] and found["by"]["infra"]["window"] == "fatal":
                break
            await asyncio.sleep(0.25)
            found = await fleet(portal, owner.token)
        code = found["by"]["code"]
        assert code["title"] == "Secret title"
        assert code["root_id"] == task_id
        assert code["tool"] == "shell secret command"
        assert (code["phase"], code["cpu_percent"], code["restarts"]) == ("EXECUTE", 12.5, 0)
        assert code["trouble"]["kind"] == "tool"
        assert found["by"]["infra"]["trouble"]["kind"] == "gave up"
        assert found["by"]["qa"]["trouble"]["kind"] == "silent"
        assert found["by"]["data"]["trouble"] is None
        seen = await fleet(portal, other.token)
        assert "ecret" not in str(seen["by"]["code"])
        assert task_id not in str(seen["by"]["code"])
        assert seen["by"]["code"]["trouble"]["kind"] == "tool"
        whole = await fleet(portal, boss.token)
        assert whole["by"]["code"]["tool"] == "shell secret command"
        assert whole["by"]["code"]["root_id"] is None  # its page is the owner's alone
        with portal.client(boss.token) as client:
            refused = await asyncio.to_thread(client.post, "/api/agents/code/start")
            assert refused.status_code == 409, refused.text
            done = await asyncio.to_thread(client.post, "/api/agents/infra/start")
            assert done.status_code == 200, done.text
        assert [one["verb"] for one in watchdog.asked] == ["start", "start"]
        with portal.client(other.token) as client:
            refused = await asyncio.to_thread(client.post, "/api/agents/infra/start")
            assert refused.status_code == 403
            for place in ("/agents", "/agents/code", "/agents?view=windows"):
                seen_page = (await asyncio.to_thread(client.get, place)).text
                assert "ecret" not in seen_page
                assert task_id not in seen_page
                assert "terminal.js" not in seen_page
            assert (
                "only admins may look in"
                in (await asyncio.to_thread(client.get, "/agents/code")).text
            )
    await store.execute("DELETE FROM agent_heartbeats")


async def test_a_log_is_filtered_redacted_and_for_admins(portal: Portal, store: Store) -> None:
    plain, boss = await person(portal, store), await person(portal, store, "admin")
    lines = [
        "timestamp=1 level=info event=started",
        "timestamp=2 level=warning event='took long' task_id=abc",
        "timestamp=3 level=error event='no answer' key=sk-ant-api03-" + "A" * 40,
        "a line\x1b]0;owned\x07 of a traceback",
    ]
    (portal.settings.logs / "code.log").write_text("\n".join(lines) + "\n")
    with portal.client(boss.token) as client:

        def read(**asked: Any) -> list[str]:
            answer = client.get("/api/agents/code/logs", params=asked)
            assert answer.status_code == 200, answer.text
            found: list[str] = answer.json()["lines"]
            return found

        assert len(read()) == 4
        assert "sk-ant" not in str(read())
        assert "\x1b" not in str(read())
        assert read(words="LONG abc") == [lines[1]]
        assert len(read(level="warning")) == 3
        assert len(read(lines=1)) == 1
        for name in ("nobody", "..", "%2e%2e%2fsecrets", "jwt-secret"):
            assert client.get(f"/api/agents/{name}/logs").status_code == 404
        assert client.get("/api/agents/code/logs", params={"lines": 0}).status_code == 422
    with portal.client(plain.token) as client:
        assert client.get("/api/agents/code/logs").status_code == 403


async def test_tasks_are_found_by_words_page_by_page(portal: Portal, store: Store) -> None:
    someone = await person(portal, store)
    for text in ("Paint the boat blue", "Paint the house", "Sell the BOAT", "100% of _it_"):
        await asked(portal, someone.token, text)
    with portal.client(someone.token) as client:

        def ask(**given: Any) -> tuple[list[str], str | None]:
            answer = client.get("/api/tasks", params=given).json()
            return [one["input"]["content"] for one in answer["tasks"]], answer["next_cursor"]

        assert ask(words="boat")[0] == ["Sell the BOAT", "Paint the boat blue"]
        assert ask(words="PAINT boat")[0] == ["Paint the boat blue"]
        assert ask(words="%")[0] == ["100% of _it_"]
        assert ask(words="nothing such")[0] == []
        first, cursor = ask(words="the", limit=2)
        assert first == ["Sell the BOAT", "Paint the house"]
        assert ask(words="the", limit=2, cursor=cursor) == (["Paint the boat blue"], None)


def test_what_an_agent_does_is_folded_from_its_events() -> None:
    def tell(kind: Kind, task_id: str | None = "t", **data: Any) -> Event:
        return Event(kind=kind, agent="code", root_id="r", task_id=task_id, data=data)

    doing = after(Doing(), tell(Kind.TASK, status="in_progress", title="Do it", progress=0.3))
    doing = after(doing, tell(Kind.TOOL, name="shell", summary="ls", state="started"))
    assert (doing.task_id, doing.tool, doing.progress) == ("t", "shell ls", 0.3)
    began = doing.tool_since
    doing = after(doing, tell(Kind.TEXT, content="hm"))
    assert (doing.tool, doing.tool_since) == ("shell ls", began)
    doing = after(doing, tell(Kind.TOOL, name="shell", state="ended", ok=True))
    assert (doing.tool, doing.tool_since, doing.title) == ("", None, "Do it")
    doing = after(doing, tell(Kind.TEXT, task_id="other", content="hm"))
    assert (doing.task_id, doing.title) == ("other", "")
    doing = after(doing, tell(Kind.TASK, task_id="other", status="failed"))
    assert (doing.task_id, doing.at is None) == (None, False)
    assert after(doing, tell(Kind.AGENT, task_id=None, status="idle")) == Doing(at=doing.at)


async def test_a_queue_is_compared_with_a_minute_ago(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"a{uuid.uuid4().hex[:8]}"
    activity, now_s = Activity(bus), 1_000.0
    monkeypatch.setattr("portal.activity.time.monotonic", lambda: now_s)
    assert (await activity.depths([name]))[name].before is None
    await bus.publish_raw(streams.agent(name), b"one", b"two")
    now_s = 1_030.0
    assert (await activity.depths([name]))[name].before is None
    now_s = 1_062.0
    found = (await activity.depths([name]))[name]
    assert (found.now, found.before) == (2, 0)
    now_s = 1_125.0
    assert (await activity.depths([name]))[name].before == 2


async def test_a_load_counts_what_a_program_started() -> None:
    code = "import subprocess, sys; subprocess.run(['sleep', '60'])"
    process = await asyncio.create_subprocess_exec("python3", "-c", code)
    try:
        children: list[psutil.Process] = []
        while not children or children[0].name() != "sleep":
            await asyncio.sleep(0.02)
            children = psutil.Process(process.pid).children()
        found = measure({"it": process.pid, "its": children[0].pid, "gone": 2**22 + 1})
        own_bytes = psutil.Process(process.pid).memory_info().rss
        assert found["it"].rss_bytes == own_bytes + found["its"].rss_bytes
        assert set(found) == {"it", "its"}
    finally:
        for child in psutil.Process(process.pid).children():
            child.kill()
        process.kill()
        await process.wait()
