"""Approvals as people meet them: the API, the command, `ai-infra ask`, and the chat page's fold.

The supervisor's verbs are the real ones, over the real record and wire; no loop runs beside them.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest_asyncio

from base import budgets, policy, roster, streams
from base.approvals import Approval, ApprovalRequest
from base.bus import Bus
from base.deadline import Deadline
from base.levels import Levels
from base.llm import LLM
from base.messages import Event, Kind
from base.prices import Models
from base.store import Store
from pai.hooks import Hooks
from pai.telos import Telos
from portal import auth, work
from portal.pages import draw, view
from supervisor import approvals, asks
from supervisor.parts import Parts
from tests.portal.conftest import REPO, Person, Portal, Stage, asked, person

EVIL = "main\x1b[2J\u202eniam"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clerk:
    """The supervisor's verbs, and an agent that asks."""

    parts: Parts
    store: Store
    bus: Bus

    async def subtask(self, root_id: str) -> dict[str, Any]:
        """A part of that request, at work with the agent `code`."""
        root = await self.store.fetchrow("SELECT * FROM tasks WHERE id = $1", root_id)
        assert root is not None
        task_id = str(uuid.uuid4())
        await self.store.execute(
            "INSERT INTO tasks (id, root_id, parent_task_id, conversation_id, user_id, type,"
            " assigned_agent, status, input, key, title, epoch, lease_until) VALUES ($1, $2, $2,"
            " $3, $4, 'subtask', 'code', 'in_progress', '{}', 's1', 'push', 1,"
            " now() + interval '1 hour')",
            *(task_id, root_id, root["conversation_id"], root["user_id"]),
        )
        await self.store.execute("UPDATE tasks SET status = 'in_progress' WHERE id = $1", root_id)
        return {"task_id": task_id, "root_id": root_id, "user_id": root["user_id"]}

    async def escalate(self, task: dict[str, Any], **fields: Any) -> Approval:
        given: dict[str, Any] = {
            **task,
            "epoch": 1,
            "agent": "code",
            "call_id": uuid.uuid4().hex,
            "kind": "tool",
            "tool": "git",
            "argv": ["git", "push", EVIL],
            "cwd": "/ws",
            "level": 1,
            "reason": "the user asked",
            **fields,
        }
        request = ApprovalRequest.model_validate(given)
        await self.store.execute(
            "UPDATE approvals SET created_at = created_at - interval '1 hour',"
            " status = CASE WHEN status = 'pending' THEN 'expired' ELSE status END"
            " WHERE task_id <> $1",
            request.task_id,
        )
        answer = await self.bus.ask(
            streams.SERVICE_SUPERVISOR,
            {"verb": "escalate", "request": request.model_dump(mode="json")},
            deadline=Deadline.after(10),
        )
        return Approval.model_validate(answer["approval"])


@pytest_asyncio.fixture(loop_scope="session")
async def clerk(portal: Portal, bus: Bus, store: Store) -> AsyncIterator[Clerk]:
    async def free(_: Any) -> None: ...

    models = Models.load()
    parts = Parts(
        settings=portal.settings,
        bus=bus,
        store=store,
        llm=LLM(portal.settings, models, on_call=free),
        models=models,
        roster=roster.load(),
        budgets=budgets.load(portal.settings),
        levels=Levels.load(),
        policy=policy.load(),
        tell=lambda line: None,
        hooks=Hooks(portal.settings.config, lambda fault: None),
        telos=Telos(portal.settings, lambda fault: None),
    )
    serving = asyncio.create_task(
        bus.serve(streams.SERVICE_SUPERVISOR, asks.Asks(parts).answer), name="clerk"
    )
    yield Clerk(parts=parts, store=store, bus=bus)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


@pytest_asyncio.fixture(loop_scope="session")
async def owner(portal: Portal, store: Store) -> Person:
    return await person(portal, store)


async def waiting(clerk: Clerk, portal: Portal, who: Person, **fields: Any) -> Approval:
    """A request of `who`'s that waits for an answer."""
    _, sent = await asked(portal, who.token)
    return await clerk.escalate(await clerk.subtask(sent["task_id"]), **fields)


def http(portal: Portal, token: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=portal.url, headers={"Authorization": f"Bearer {token}"}, timeout=20
    )


async def command(portal: Portal, *words: str) -> tuple[int, str, str]:
    """`ai-infra` with these words: exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "portal.cli", *words),
        cwd=REPO,
        env=environment(portal),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def environment(portal: Portal) -> dict[str, str]:
    return {
        **os.environ,
        "AI_INFRA_HOME": str(portal.settings.home),
        "AI_INFRA_PORT": str(portal.settings.port),
    }


async def test_the_owner_of_a_task_sees_and_answers(
    portal: Portal, clerk: Clerk, owner: Person
) -> None:
    found = await waiting(clerk, portal, owner)
    async with http(portal, owner.token) as client:
        page = (await client.get("/api/approvals")).json()
        assert [one["id"] for one in page["approvals"]] == [found.id]
        one = (await client.get(f"/api/approvals/{found.id}")).json()
        assert one["request"]["argv"] == ["git", "push", EVIL]
        assert "\x1b" not in one["sentence"]
        assert "␛" in one["sentence"]
        task = (await client.get(f"/api/tasks/{found.request.root_id}")).json()
        assert [one["id"] for one in task["approvals"]] == [found.id]
        assert task["subtasks"][0]["status"] == "waiting"
        answer = await client.post(
            f"/api/approvals/{found.id}/decision", json={"approve": True, "reason": "fine"}
        )
        assert answer.status_code == 200, answer.text
        assert (answer.json()["status"], answer.json()["decided_via"]) == ("approved", "api")
        assert answer.json()["decided_by"] == owner.id
        assert (await client.get("/api/approvals")).json()["approvals"] == []
        assert len((await client.get("/api/approvals?all=true")).json()["approvals"]) == 1
        task = (await client.get(f"/api/tasks/{found.request.root_id}")).json()
        assert task["approvals"] == []
        assert task["subtasks"][0]["status"] == "in_progress"
        again = await client.post(f"/api/approvals/{found.id}/decision", json={"approve": False})
        assert again.status_code == 409
        assert "was approved by" in again.json()["detail"]


async def test_nobody_else_sees_or_answers_it(
    portal: Portal, store: Store, clerk: Clerk, owner: Person
) -> None:
    found = await waiting(clerk, portal, owner)
    other = await person(portal, store)
    async with http(portal, other.token) as client:
        assert (await client.get("/api/approvals?all=true")).json()["approvals"] == []
        for answer in (
            await client.get(f"/api/approvals/{found.id}"),
            await client.post(f"/api/approvals/{found.id}/decision", json={"approve": True}),
        ):
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"
    async with http(portal, "x.y.z") as client:
        assert (await client.get("/api/approvals")).status_code == 401


async def test_above_the_own_level_an_admin_has_to(
    portal: Portal, store: Store, clerk: Clerk, owner: Person
) -> None:
    found = await waiting(clerk, portal, owner, level=2)
    admin = await person(portal, store, "admin")
    path = f"/api/approvals/{found.id}/decision"
    async with http(portal, owner.token) as client:
        answer = await client.post(path, json={"approve": True})
        assert answer.status_code == 403
        assert "an admin has to" in answer.json()["detail"]
    async with http(portal, admin.token) as client:
        assert (await client.post(path, json={"approve": True})).json()["status"] == "approved"


async def test_a_yes_to_the_broker_is_the_persons_own(
    portal: Portal, clerk: Clerk, owner: Person, store: Store
) -> None:
    """The portal writes it down itself; what the supervisor refuses, or another kind, has none."""
    fields = {"kind": "command", "tool": "broker", "argv": ["unit.restart", 'unit="a.service"']}
    wide = await waiting(clerk, portal, owner, level=3, **fields)

    async def consents() -> list[Any]:
        rows = await store.fetch("SELECT approval_id, user_id, binding FROM consents")
        return [tuple(str(value) for value in row.values()) for row in rows]

    async with http(portal, owner.token) as mine:
        said = await mine.post(f"/api/approvals/{wide.id}/decision", json={"approve": True})
        assert said.status_code == 403, said.text
    assert await consents() == []
    admin = await person(portal, store, "admin")
    async with http(portal, admin.token) as theirs:
        said = await theirs.post(f"/api/approvals/{wide.id}/decision", json={"approve": True})
        assert said.status_code == 200, said.text
    assert await consents() == [(wide.id, admin.id, wide.binding)]
    plain = await waiting(clerk, portal, owner)
    async with http(portal, owner.token) as mine:
        said = await mine.post(f"/api/approvals/{plain.id}/decision", json={"approve": True})
        assert said.status_code == 200, said.text
    assert len(await consents()) == 1


async def test_a_yes_to_the_broker_is_to_the_words_that_were_shown(
    portal: Portal, clerk: Clerk, owner: Person, store: Store
) -> None:
    """Whatever the agents' account made of the request beside them."""
    fields = {"kind": "command", "tool": "broker", "argv": ["unit.restart", 'unit="a.service"']}
    wide = await waiting(clerk, portal, owner, level=3, **fields)
    admin = await person(portal, store, "admin")
    await store.execute("UPDATE approvals SET sentence = 'harmless' WHERE id = $1", wide.id)
    async with http(portal, admin.token) as theirs:
        shown = (await theirs.get(f"/api/approvals/{wide.id}")).json()["sentence"]
        assert shown == 'code wants to have the server do `unit.restart unit="a.service"`.'
        changed = "UPDATE approvals SET request = jsonb_set(request, '{argv,1}', '\"x\"')"
        await store.execute(f"{changed} WHERE id = $1", wide.id)
        said = await theirs.post(f"/api/approvals/{wide.id}/decision", json={"approve": True})
        assert (said.status_code, "was changed" in said.json()["detail"]) == (409, True)
    assert not await store.fetch("SELECT 1 FROM consents WHERE approval_id = $1", wide.id)


async def test_an_idempotency_key_answers_twice_and_decides_once(
    portal: Portal, clerk: Clerk, owner: Person
) -> None:
    found = await waiting(clerk, portal, owner)
    path, headers = f"/api/approvals/{found.id}/decision", {"Idempotency-Key": uuid.uuid4().hex}
    async with http(portal, owner.token) as client:
        first = await client.post(path, json={"approve": False}, headers=headers)
        again = await client.post(path, json={"approve": False}, headers=headers)
        assert (first.status_code, again.status_code) == (200, 200)
        assert first.json() == again.json()
        other = await client.post(path, json={"approve": True}, headers=headers)
        assert other.status_code in {409, 422}


async def test_a_bad_answer_is_a_problem(portal: Portal, clerk: Clerk, owner: Person) -> None:
    found = await waiting(clerk, portal, owner)
    path = f"/api/approvals/{found.id}/decision"
    bodies: list[Any] = [{}, {"approve": "yes"}, {"approve": 1}, {"approve": True, "x": 1}, []]
    bodies += [{"approve": True, "reason": "a\0b"}, {"approve": True, "reason": "x" * 501}]
    async with http(portal, owner.token) as client:
        for body in bodies:
            answer = await client.post(path, json=body)
            assert answer.status_code == 422, body
            assert answer.json()["faults"]
        assert (await client.get("/api/approvals/nonsense")).status_code == 422
        assert (await client.get(f"/api/approvals/{uuid.uuid4()}")).status_code == 404
        assert (await client.get("/api/approvals?prefix=%25")).status_code == 422
        assert (await client.get(f"/api/approvals/{found.id}")).json()["status"] == "pending"


async def test_the_command_lists_shows_and_answers(
    portal: Portal, clerk: Clerk, owner: Person
) -> None:
    found = await waiting(clerk, portal, owner)
    short = found.id[:8]
    code, out, _ = await command(portal, "approvals")
    assert (code, short in out, "␛[2J⟨U+202E⟩niam" in out) == (0, True, True)
    code, out, _ = await command(portal, "approvals", "--json")
    assert [one["id"] for one in json.loads(out)["approvals"]] == [found.id]
    code, out, _ = await command(portal, "approvals", "show", short)
    assert code == 0
    assert '"git" "push" "main\\u001b[2J\\u202eniam"' in out
    assert "agent says   the user asked" in out
    assert "\x1b[2J" not in out
    code, out, _ = await command(portal, "approvals", "deny", short, "--reason", "not now")
    assert (code, "denied" in out) == (0, True)
    code, out, _ = await command(portal, "approvals")
    assert (code, out) == (0, "nothing waits for approval\n")
    code, out, _ = await command(portal, "approvals", "--all")
    assert "denied by" in out
    assert "(cli): not now" in out
    code, _, err = await command(portal, "approvals", "approve", short)
    assert (code, "was denied by" in err) == (1, True)


async def test_the_command_says_what_is_wrong_with_an_id(
    portal: Portal, store: Store, clerk: Clerk, owner: Person
) -> None:
    found = await waiting(clerk, portal, owner)
    task = found.request.model_dump(include={"task_id", "root_id", "user_id"})
    other = await clerk.escalate(task)
    twin = found.id[:8] + other.id[8:]
    await store.execute("UPDATE approvals SET id = $2 WHERE id = $1", other.id, twin)
    cases = {
        found.id[:8]: (2, "is not unique"),
        "nonsense": (2, "is no approval's id"),
        "00000000": (2, "no approval 00000000"),
        str(uuid.uuid4()): (2, "no approval"),
    }
    for word, (expected, said) in cases.items():
        code, _, err = await command(portal, "approvals", "approve", word)
        assert (code, said in err) == (expected, True), err
    await store.execute("UPDATE approvals SET expires_at = now() WHERE id = $1", found.id)
    code, _, err = await command(portal, "approvals", "approve", found.id)
    assert (code, "expired at" in err) == (1, True), err
    code, out, _ = await command(portal, "approvals", "approve", twin, "--json")
    assert (code, json.loads(out)["status"]) == (0, "approved")


async def test_ask_says_what_waits_and_how_to_answer(
    portal: Portal, store: Store, clerk: Clerk, stage_end: Stage
) -> None:
    asking = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "portal.cli", "ask", "push it, please"),
        cwd=REPO,
        env=environment(portal),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    root_id = None
    for _ in range(300):
        root_id = await store.fetchval(
            "SELECT id FROM tasks WHERE user_id = $1 AND input->>'content' = 'push it, please'",
            auth.ADMIN_ID,
        )
        if root_id is not None:
            break
        await asyncio.sleep(0.1)
    assert root_id is not None
    found = await clerk.escalate(await clerk.subtask(root_id))
    _code, out, _ = await command(portal, "tasks", "show", root_id)
    assert f"waits for approval {found.id[:8]}" in out
    assert (await command(portal, "approvals", "approve", found.id[:8]))[0] == 0
    await store.execute("UPDATE tasks SET output = $2 WHERE id = $1", root_id, {"answer": "pushed"})
    await stage_end.end(root_id, "pushed")
    out_bytes, err_bytes = await asyncio.wait_for(asking.communicate(), 30)
    err = err_bytes.decode()
    assert (asking.returncode, out_bytes.decode().strip()) == (0, "pushed"), err
    assert f"code waits for approval {found.id[:8]} (high risk):" in err
    assert found.sentence in err
    assert f"ai-infra approvals show {found.id[:8]}   approve {found.id[:8]}" in err
    assert f"approval {found.id[:8]} approved" in err


@pytest_asyncio.fixture(loop_scope="session")
async def stage_end(bus: Bus, store: Store) -> Stage:
    """Ends tasks as the supervisor does, without answering in its place."""
    return Stage(bus, store)


async def test_expiry_is_told_to_the_live_view(
    portal: Portal, store: Store, clerk: Clerk, owner: Person
) -> None:
    found = await waiting(clerk, portal, owner)
    await store.execute("UPDATE approvals SET expires_at = now() WHERE id = $1", found.id)
    await approvals.sweep(clerk.parts)
    told = [
        event
        for _, event in await clerk.bus.newest_events(50)
        if event.kind is Kind.APPROVAL and event.data["id"] == found.id
    ]
    assert [event.data["status"] for event in told] == ["pending", "expired"]
    assert {event.user_id for event in told} == {owner.id}


async def test_the_page_says_what_a_step_waits_for(
    portal: Portal, clerk: Clerk, owner: Person
) -> None:
    found = await waiting(clerk, portal, owner)
    data = {"id": found.id, "status": "pending", "risk": "high", "sentence": found.sentence}
    run = view.Run(root_id=found.request.root_id)
    event = Event(
        kind=Kind.APPROVAL,
        agent="code",
        root_id=run.root_id,
        task_id=found.request.task_id,
        data=data,
    )
    run = view.apply(run, event)
    call = {"name": "request_permission", "state": "started"}
    run = view.apply(run, event.model_copy(update={"kind": Kind.TOOL, "data": call}))
    step = run.steps[found.request.task_id]
    assert step.waits.startswith(f"Approval {found.id[:8]}, high risk: {found.sentence} ")
    assert f"ai-infra approvals approve {found.id[:8]}" in step.waits
    run = view.apply(run, event.model_copy(update={"data": {**data, "status": "approved"}}))
    assert run.steps[found.request.task_id].waits == ""
    async with http(portal, owner.token) as client:
        body = (await client.get(f"/api/tasks/{run.root_id}")).json()
    opened = view.opened(work.TaskWhole.model_validate(body))
    assert found.id[:8] in opened.steps[found.request.task_id].waits
    shown = draw.panel(opened)
    assert ">waits for approval</em>" in shown
