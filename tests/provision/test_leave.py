"""Who may say what, and an agent's leave: a process that lies gains nothing by it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from base.approvals import ApprovalStatus
from base.messages import Kind
from base.verbs import By, DomainAdd, DomainRemove
from tests.provision.rig import NOBODY, Record, Rig, two_users
from tests.provision.test_broker import eventually

pytestmark = two_users
AGENT = NOBODY.pw_uid


@pytest.fixture
async def by(record: Record) -> By:
    """An agent at work for an admin."""
    user = await record.user("admin")
    return By(user_id=user, agent="infra", task_id=await record.task(user))


def ask(rig: Rig, verb: str, request: Any, by: By, **more: Any) -> dict[str, Any]:
    """As the agents' user, in the agent's own words."""
    said = by.model_dump() | more.pop("lie", {})
    given = request.model_dump(mode="json")
    return rig.order(verb, given, uid=AGENT, **more, **said)


async def test_leave_is_used_once_and_for_exactly_that(
    rig: Rig, record: Record, by: By, bus: Any
) -> None:
    wanted, admin = DomainAdd(domain="leave.example.org"), await record.user("admin")
    found = await record.approval("domain.add", wanted, by, decided_by=admin)
    other = DomainAdd(domain="leave.example.org", subdomains=("www",))
    held = by.model_copy(update={"approval_id": found.id})
    assert "another verb or request" in ask(rig, "domain.add", other, held)["error"]
    assert (
        "another verb or request"
        in ask(rig, "domain.remove", DomainRemove(domain="leave.example.org"), held)["error"]
    )
    said = ask(rig, "domain.add", wanted, held)
    assert (said["ok"], rig.did[-1]) == (True, "added leave.example.org for infra")
    used = await record.store.fetchval("SELECT status FROM approvals WHERE id = $1", found.id)
    assert used == ApprovalStatus.USED
    assert "used already" in ask(rig, "domain.add", wanted, held)["error"]
    rows = await eventually(bus, "leave.example.org", 5)
    assert [(one["outcome"], one["actor_type"], one["actor_id"]) for one in rows] == [
        ("denied", "agent", "infra"), ("denied", "agent", "infra"),
        ("success", "agent", "infra"), ("success", "agent", "infra"),
        ("denied", "agent", "infra"),
    ]  # fmt: skip
    assert rows[2]["details"]["approval_id"] == found.id
    told = [one for _, one in await bus.newest_events(50) if one.kind is Kind.BROKER]
    assert (told[-1].user_id, told[-1].task_id) == (by.user_id, by.task_id)
    assert told[-1].root_id == by.task_id
    uses = [one for _, one in await bus.newest_events(50) if one.kind is Kind.APPROVAL]
    assert [one.data["status"] for one in uses if one.data["id"] == found.id] == ["used"]


async def test_leave_that_does_not_hold(rig: Rig, record: Record, by: By) -> None:
    wanted, admin = DomainAdd(domain="never.example.org"), await record.user("admin")
    user = await record.user()

    async def fault(**given: Any) -> str:
        asked = given.pop("asked", by)
        given.setdefault("decided_by", admin)
        verb, request = given.pop("verb", "domain.add"), given.pop("request", wanted)
        found = await record.approval(verb, request, by, **given)
        held = asked.model_copy(update={"approval_id": found.id})
        said = ask(rig, verb, request, held)
        assert (said["ok"], said["kind"]) == (False, "ForbiddenError"), said
        return str(said["error"])

    removed = {"verb": "domain.remove", "request": DomainRemove(domain="never.example.org")}
    assert "denied, not approved" in await fault(approve=False)
    assert "expired" in await fault(expires_s=-1)
    assert "no admin gave it" in await fault(decided_by=user)
    assert "no admin gave it" in await fault(decided_by="somebody")
    assert "asked at level 1" in await fault(level=1)
    assert "asked at level 2" in await fault(level=2, **removed)
    assert "no rule can give it" in await fault(decided_by="policy", via="policy", **removed)
    assert "no rule can give it" in await fault(decided_by="policy", via="policy", tainted=True)
    assert "nobody gave it" in await fault(decided_by=admin, via="supervisor")
    assert "no admin gave it" in await fault(consent=False)  # what the wire alone told of
    assert "own window" in await fault(decided_by="window", via="window")
    assert "something else" in await fault(kind="tool")
    assert "something else" in await fault(tool="shell")
    assert "another verb" in await fault(argv=("domain.add", 'domain="other.example.org"'))
    assert "another agent" in await fault(asked=by.model_copy(update={"agent": "code"}))
    theirs = by.model_copy(update={"task_id": await record.task(str(by.user_id))})
    assert "another agent or task" in await fault(asked=theirs)
    for made_up in (None, "x", "00000000-0000-0000-0000-000000000000"):
        held = by.model_copy(update={"approval_id": made_up})
        assert ask(rig, "domain.add", wanted, held)["kind"] == "ForbiddenError"
    found = await record.approval("domain.add", wanted, by, decided_by=admin)
    await record.store.execute(
        "UPDATE approvals SET request = jsonb_set(request, '{argv}', $2) WHERE id = $1",
        *(found.id, ["domain.add", 'domain="x.example.org"']),
    )
    held = by.model_copy(update={"approval_id": found.id})
    assert "record was changed" in ask(rig, "domain.add", wanted, held)["error"]
    assert not any("never.example.org" in line for line in rig.did)


async def test_a_rule_of_the_owner_gives_leave_for_what_is_clean(
    rig: Rig, record: Record, by: By
) -> None:
    wanted = DomainAdd(domain="policy.example.org")
    found = await record.approval(
        "domain.add", wanted, by, decided_by="policy", via="policy", level=2
    )
    held = by.model_copy(update={"approval_id": found.id})
    assert ask(rig, "domain.add", wanted, held)["ok"]


async def test_of_many_at_once_one_uses_it(rig: Rig, record: Record, by: By) -> None:
    wanted, admin = DomainAdd(domain="race.example.org"), await record.user("admin")
    found = await record.approval("domain.add", wanted, by, decided_by=admin)
    held = by.model_copy(update={"approval_id": found.id})
    asked = (asyncio.to_thread(ask, rig, "domain.add", wanted, held) for _ in range(6))
    said = await asyncio.gather(*asked)
    assert sorted(one["ok"] for one in said) == [False] * 5 + [True]
    refused = [one["error"] for one in said if not one["ok"]]
    assert all("approval does not hold" in error for error in refused), refused
    assert sum("begun race.example.org" in line for line in rig.did) == 1


async def test_what_agents_may_not_say(rig: Rig, record: Record, by: By) -> None:
    wanted, admin = DomainAdd(domain="lie.example.org"), await record.user("admin")
    lies: list[dict[str, Any]] = [
        {"role": "admin"},
        {"role": "system"},
        {"agent": None, "role": "admin", "user_id": admin},
        {"agent": None, "task_id": None, "role": "user", "user_id": admin},
        {"task_id": None},
        {"user_id": None},
    ]
    for lie in lies:
        said = ask(rig, "domain.add", wanted, by, lie=lie)
        assert "speaks for agents" in said["error"], (lie, said)
    dry = ask(rig, "domain.add", wanted, by, dry_run=True)  # free
    assert dry["plan"][0] == "write the site lie.example.org"
    assert rig.order("domain.list", {}, uid=AGENT, **by.model_dump())["ok"]
    for person in ({"agent": "infra"}, {"approval_id": "x"}, {"task_id": by.task_id}):
        said = rig.order("domain.list", {}, role="admin", **person)
        assert "speaks for people" in said["error"]
    gone = await record.user("admin", active=False)
    said = rig.order("domain.list", {}, user_id=gone, role="admin")
    assert "no active user" in said["error"]
    assert (
        "a person's decision"
        in rig.order("domain.remove", {"domain": "lie.example.org"}, role="system")["error"]
    )
    assert not any("lie.example.org" in line for line in rig.did)


async def test_others_are_not_heard(own: Rig) -> None:
    own.rules(people="root", agents="daemon")
    own.start()
    said = own.order("domain.list", {}, uid=AGENT, role="admin")
    assert "may not speak to the broker" in said["error"]
    own.socket.chmod(0o660)
    os.chown(own.socket, 0, 0)
    raw = json.dumps({"id": "1", "verb": "domain.list", "by": {}}).encode() + b"\n"
    assert own.lines(raw, uid=AGENT) == [{"refused": "Permission denied"}]
    assert Path(own.socket).is_socket()
