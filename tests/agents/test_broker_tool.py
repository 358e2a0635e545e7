"""The infra agent's way to the broker: plan free, doing by leave that the broker itself checks."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from agent_rig import Rig, order, script
from test_escalate import DONE, FRAME, WRITE, equip, results

from agents.tools import TOOLS, fault
from base.approvals import Approval, ApprovalStatus, binding
from base.messages import Kind, Status, WorkOrder
from base.store import Store
from base.verbs import VERBS, DomainAdd, words
from tests.provision.rig import ME, Record, made
from tests.provision.rig import Rig as Broker

pytest_plugins = ["boxed"]
SITE = {"domain": "agent.example.org"}


def verb(name: str, request: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tool": "broker", "input": {"verb": name, "request": request, **more}}


class World:
    """A broker that hears this user's processes as agents, and the record that it looks into."""

    def __init__(self, broker: Broker, store: Store, rig: Rig) -> None:
        self.broker, self.store, self.rig = broker, store, rig
        self.record = Record(store)

    async def send(self, *lines: dict[str, Any], **fields: Any) -> WorkOrder:
        user = await self.record.user("admin")
        task = await self.record.task(user)
        equip(self.rig, ["broker", "write", "shell"], "infra")
        self.rig.start("infra", AI_INFRA_BROKER=str(self.broker.socket))
        given = {"agent": "infra", "level": 2, "user_id": user, "task_id": task} | fields
        return await self.rig.send(order(script(FRAME, *lines, WRITE, DONE), **given))

    async def pending(self) -> Approval:
        found: Approval = (await self.rig.until("a request", lambda: self.rig.clerk.pending))[0]
        return found

    async def keep(self, asked: Approval, *, real: bool = True) -> None:
        """What the supervisor would write; `real` False: what the agent alone says is approved."""
        if real:
            request = asked.request
            await self.store.execute(
                "INSERT INTO approvals (id, task_id, user_id, agent, call_id, request, binding,"
                " subject, status, risk, sentence, expires_at, decided_by, decided_via) VALUES"
                " ($1, $2, $3, $4, $5, $6, $7, $7, 'approved', 'high', 's',"
                " NOW() + INTERVAL '1 minute', $8, 'api')",
                *(asked.id, request.task_id, request.user_id, request.agent, request.call_id),
                *(request.model_dump(mode="json"), binding(request), request.user_id),
            )
            await self.store.execute(
                "INSERT INTO consents (approval_id, user_id, binding) VALUES ($1, $2, $3)",
                *(asked.id, request.user_id, binding(request)),
            )
        await self.rig.decide(True, name="infra")

    async def status(self, asked: Approval) -> str:
        found: str = await self.store.fetchval(
            "SELECT status FROM approvals WHERE id = $1", asked.id
        )
        return found


@pytest_asyncio.fixture
async def world(rig: Rig, redis_url: str, postgres_dsn: str) -> AsyncIterator[World]:
    store = await Store.open(postgres_dsn, "test")
    await store.migrate()
    with made(redis_url, postgres_dsn) as broker:
        broker.rules('units = ["web.service"]', people="daemon", agents=ME)
        await asyncio.to_thread(broker.start)
        yield World(broker, store, rig)
    await store.close()


async def test_a_plan_is_free_and_doing_waits_for_leave(world: World) -> None:
    rig = world.rig
    told = await world.send(
        verb("domain.list", {}),
        verb("domain.add", SITE, dry_run=True),
        verb("domain.add", {"domain": "far.invalid"}),
        verb("domain.add", {"domain": "no name"}),
        verb("domain.add", SITE),
        verb("domain.remove", SITE),
    )
    asked = await world.pending()
    request = asked.request
    assert (request.kind, request.tool, request.level) == ("command", "broker", 2)
    assert request.argv == words("domain.add", DomainAdd(domain="agent.example.org"))
    assert request.operands == ()
    assert "domain.add would: write the site agent.example.org; " in request.reason
    assert not any("agent.example.org" in line for line in world.broker.did)
    await world.keep(asked)
    second = await world.pending()
    assert (second.request.level, second.request.destructive) == (3, True)
    assert await world.status(asked) == ApprovalStatus.USED
    await rig.decide(False, name="infra")
    outcome = await rig.ended(told)
    assert outcome.status is Status.COMPLETED
    listed, plan, cannot, shape, done, denied = results(rig, told, "broker")
    assert '"sites": []' in listed["text"]
    assert "Nothing was changed. It would:\n1. write the site agent.example.org" in plan["text"]
    assert (cannot["ok"], "does not lead to this server" in cannot["text"]) == (False, True)
    assert "domain.add: domain: " in shape["text"]
    assert done["ok"]
    assert '"ssl_status": "active"' in done["text"]
    assert "denied by u1" in denied["text"]
    assert world.broker.did[-1] == "added agent.example.org for infra"
    assert rig.clerk.redeemed == []  # it was the broker that used it
    assert "» asking for the certificate" in rig.screen("infra")
    rows = [one for one in rig.audited(told) if one.details.get("tool") == "broker"]
    assert rows[4].resource_path == 'broker domain.add {"domain":"agent.example.org"}'
    steps = [one for one in rig.events if one.kind is Kind.BROKER]
    assert {one.root_id for one in steps} == {told.root_id}


async def test_leave_that_only_the_agent_saw_does_nothing(world: World) -> None:
    told = await world.send(verb("domain.add", SITE))
    asked = await world.pending()
    await world.keep(asked, real=False)
    await world.rig.ended(told)
    (result,) = results(world.rig, told, "broker")
    assert (result["ok"], "there is no such approval" in result["text"]) == (False, True)
    assert world.broker.did == []


async def test_interrupted_while_it_was_done_it_is_looked_at_first(world: World) -> None:
    rig = world.rig
    slow = {"domain": "slow.example.org"}
    told = await world.send(verb("domain.add", slow))
    asked = await world.pending()
    await world.keep(asked)
    await rig.until("it is under way", lambda: "begun slow.example.org" in world.broker.did)
    rig.kill("infra")
    (world.broker.state / "go").touch()
    await rig.until("it is done", lambda: len(world.broker.did) > 1)
    rig.start("infra", AI_INFRA_BROKER=str(world.broker.socket))
    again = told.model_copy(update={"epoch": 2, "delivery": 2})
    await rig.send(again)
    await rig.ended(told)
    (result,) = results(rig, told, "broker")
    assert "UNKNOWN" in result["text"]
    assert sum("begun" in line for line in world.broker.did) == 1


async def test_files_that_change_after_consent_are_not_deployed(world: World) -> None:
    rig = world.rig
    user = await world.record.user("admin")
    (rig.workspace(user) / "dist").mkdir(parents=True)
    page = rig.workspace(user) / "dist" / "index.html"
    page.write_text("one")
    (world.broker.state / "played.json").write_text(json.dumps({"a.example.org": {}}))
    source = {"kind": "folder", "path": str(page.parent)}
    told = await world.send(
        verb("site.deploy", {"domain": "a.example.org", "source": source}),
        user_id=user,
        task_id=await world.record.task(user),
    )
    asked = await world.pending()
    assert [one.path for one in asked.request.operands] == [str(page.parent)]
    page.write_text("two")
    await world.keep(asked)
    await rig.ended(told)
    (result,) = results(rig, told, "broker")
    assert "changed since it was asked" in result["text"]
    assert await world.status(asked) == ApprovalStatus.APPROVED


async def test_without_a_broker_there_is_no_such_tool(rig: Rig) -> None:
    equip(rig, ["broker", "write"], "infra")
    rig.start("infra")
    told = await rig.send(
        order(script(FRAME, verb("domain.list", {}), WRITE, DONE), agent="infra", level=2)
    )
    await rig.ended(told)
    (result,) = results(rig, told, "broker")
    assert result["text"] == "broker is not one of your tools; there are: write"


def test_every_verb_is_told_to_the_model() -> None:
    text = TOOLS["broker"].description
    assert all(f"\n{name} {{" in text for name in VERBS)
    assert 'kind: "git", url, ref?, folder?}' in text
    assert fault("broker", {"verb": "domain.add", "request": SITE}) is None
    assert fault("broker", {"verb": "root.shell"}) is not None
    assert fault("broker", {"verb": "domain.list", "command": "id"}) is not None


@pytest.mark.parametrize("name", ["agent", "ffa0c1"])
def test_words_are_the_same_for_the_same(name: str) -> None:
    one = DomainAdd(domain=f"{name}.example.org", subdomains=("b", "a"))
    assert words("domain.add", one) == words(
        "domain.add", DomainAdd.model_validate(one.model_dump())
    )
    assert words("domain.add", one) != words(
        "domain.add", DomainAdd(domain=f"{name}.example.org", subdomains=("a", "b"))
    )


def test_who_loads_an_agent_builds_no_request_of_the_broker() -> None:
    """They are many, and the agents of an installation without a broker never need one."""
    code = (
        "import agents.__main__; from base.verb_words import Ask;"
        "print([one.__name__ for one in Ask.__subclasses__() if one.__pydantic_complete__])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
