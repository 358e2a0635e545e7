"""Approvals against the real record and wire: asked, decided, used once, expired, survived."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from stage import Player, World, until

from base import streams
from base.approvals import Approval, ApprovalRequest, binding
from base.deadline import Deadline
from base.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    NoAnswerError,
    NotFoundError,
    StaleLeaseError,
    TooManyError,
)
from base.messages import Kind, Message, Outcome, Status, WorkOrder
from supervisor import docket

ARGV = ("git", "push", "origin", "main")


class Asker:
    """An agent that takes its order and then does as the test says, call by call."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.order: WorkOrder | None = None
        self.go_on = asyncio.Event()
        world.act = self.act

    async def act(self, player: Player, order: WorkOrder) -> Outcome | None:
        self.order = order
        await self.go_on.wait()
        return player.outcome(order)

    async def started(self, agent: str = "code", content: str = "push it") -> str:
        """The root's id once its order was taken."""
        root_id = await self.world.ask(content, agent=agent)

        async def working() -> bool:
            return self.order is not None and self.order.root_id == root_id

        await until("the order is taken", working)
        return root_id

    def request(self, call_id: str = "c1", **fields: Any) -> ApprovalRequest:
        order = self.order
        assert order is not None
        given: dict[str, Any] = {
            "task_id": order.task_id,
            "root_id": order.root_id,
            "epoch": order.epoch,
            "agent": order.agent,
            "user_id": order.user_id,
            "call_id": call_id,
            "kind": "tool",
            "tool": "git",
            "argv": ARGV,
            "cwd": order.workspace,
            "level": 1,
            **fields,
        }
        return ApprovalRequest(**given)

    async def escalate(self, request: ApprovalRequest) -> Approval:
        answer = await self.world.verb("escalate", request=request.model_dump(mode="json"))
        return Approval.model_validate(answer["approval"])

    async def redeem(self, found: Approval, **fields: Any) -> Approval:
        given = {
            "approval_id": found.id,
            "binding": binding(found.request),
            "agent": found.request.agent,
            "task_id": found.request.task_id,
            "epoch": found.request.epoch,
            **fields,
        }
        return Approval.model_validate((await self.world.verb("redeem", **given))["approval"])

    async def decide(self, found: Approval, approve: bool = True, **fields: Any) -> Approval:
        given = {"by": "window", "via": "window", **fields}
        answer = await self.world.verb("decide", approval_id=found.id, approve=approve, **given)
        return Approval.model_validate(answer["approval"])

    async def status(self) -> str:
        assert self.order is not None
        return str((await self.world.row(self.order.task_id))["status"])


@pytest.fixture
async def asker(world: World) -> Asker:
    made = Asker(world)
    await world.play("code", "infra")
    world.start()
    return made


async def audited(world: World, what: str) -> list[dict[str, Any]]:
    """Audit events of that kind that were promised, oldest first."""
    rows = await world.store.fetch("SELECT body FROM outbox WHERE stream = 'audit' ORDER BY id")
    found = [Message.model_validate_json(bytes(row["body"])).payload for row in rows]
    return [one for one in found if one["details"]["event"] == what]


async def events(world: World, kind: Kind) -> list[dict[str, Any]]:
    return [one.data for _, one in await world.bus.events_after("0") if one.kind is kind]


async def policy(world: World, text: str) -> None:
    """The owner's policy, which the supervisor reads when it starts."""
    (world.settings.config / "approvals.toml").write_text(text)


async def test_wait_approve_go_on(world: World, asker: Asker) -> None:
    root_id = await asker.started()
    found = await asker.escalate(asker.request())
    assert (found.status, found.risk) == ("pending", "medium")
    assert await asker.status() == "waiting"
    assert (await asker.escalate(asker.request())).id == found.id
    done = await asker.decide(found)
    assert (done.status, done.decided_by, done.decided_via) == ("approved", "window", "window")
    assert await asker.status() == "in_progress"

    async def told() -> bool:
        return any(one.verb == "approval" for one in world.players["code"].controls)

    await until("the agent hears of it", told)
    (control,) = [one for one in world.players["code"].controls if one.verb == "approval"]
    assert (control.text, control.task_id) == (found.id, found.request.task_id)
    used = await asker.redeem(found)
    assert used.status == "used"
    asker.go_on.set()
    assert (await world.ended(root_id))["status"] == "completed"
    assert [one["status"] for one in await events(world, Kind.APPROVAL)] == [
        *("pending", "approved", "used")
    ]
    waits = [one for one in await events(world, Kind.TASK) if one["status"] == "waiting"]
    assert found.sentence in waits[0]["why"]
    for what, outcome in (
        ("requested", "success"),
        ("decided", "success"),
        ("redeemed", "success"),
    ):
        (entry,) = await audited(world, f"approval {what}")
        assert (entry["outcome"], entry["event_type"]) == (outcome, "escalation")
        assert entry["details"]["approval_id"] == found.id


async def test_wait_deny_tells_why(world: World, asker: Asker) -> None:
    await asker.started()
    found = await asker.escalate(asker.request())
    done = await asker.decide(found, approve=False, reason="not on a Friday")
    assert (done.status, done.decided_why) == ("denied", "not on a Friday")
    assert await asker.status() == "in_progress"
    with pytest.raises(ForbiddenError, match="denied, not approved"):
        await asker.redeem(found)
    (entry,) = await audited(world, "approval decided")
    assert (entry["outcome"], entry["actor_type"], entry["actor_id"]) == (
        "denied",
        "user",
        "window",
    )


async def test_wait_expire_counts_as_denied(world: World, asker: Asker) -> None:
    await world.halt()
    await policy(world, "expires_s = 0.6\n")
    world.start()
    await asker.started()
    found = await asker.escalate(asker.request())

    async def over() -> bool:
        return await asker.status() == "in_progress"

    await until("it expires", over)
    again = await asker.escalate(asker.request())
    assert (again.id, again.status) == (found.id, "expired")
    with pytest.raises(ForbiddenError, match="expired"):
        await asker.redeem(found)
    with pytest.raises(ConflictError, match="expired at"):
        await asker.decide(found)
    (entry,) = await audited(world, "approval expired")
    assert (entry["outcome"], entry["actor_type"]) == ("denied", "system")
    assert world.players["code"].controls[-1].text == found.id


async def test_an_approved_one_expires_too(world: World, asker: Asker) -> None:
    await world.halt()
    await policy(world, "expires_s = 0.5\n")
    world.start()
    await asker.started()
    found = await asker.decide(await asker.escalate(asker.request()))
    await asyncio.sleep(0.6)
    with pytest.raises(ForbiddenError, match="expired"):
        await asker.redeem(found)


async def test_what_expired_is_not_used_even_before_the_sweep(world: World, asker: Asker) -> None:
    await asker.started()
    found = await asker.decide(await asker.escalate(asker.request()))
    bound = (found.binding, found.request.task_id, "code")
    async with world.store.transaction() as tx:
        await tx.execute("UPDATE approvals SET expires_at = NOW() - INTERVAL '1 s'")
        assert not await docket.use(tx, found.id, *bound)
        await tx.execute("UPDATE approvals SET expires_at = NOW() + INTERVAL '1 min'")
        assert await docket.use(tx, found.id, *bound)
        assert not await docket.use(tx, found.id, *bound)


async def test_a_second_decision_says_what_was_decided(world: World, asker: Asker) -> None:
    await asker.started()
    found = await asker.decide(await asker.escalate(asker.request()))
    for approve in (True, False):
        with pytest.raises(ConflictError, match=r"was approved by window \(window\) at"):
            await asker.decide(found, approve)
    await asker.redeem(found)
    with pytest.raises(ConflictError, match="approved and used"):
        await asker.decide(found, False)


async def test_two_decide_at_once_and_one_is_heard(world: World, asker: Asker) -> None:
    await asker.started()
    found = await asker.escalate(asker.request())
    answers = await asyncio.gather(
        *(asker.decide(found, approve) for approve in (True, False) * 4), return_exceptions=True
    )
    assert sum(isinstance(one, Approval) for one in answers) == 1
    assert sum(isinstance(one, ConflictError) for one in answers) == 7
    assert len(await audited(world, "approval decided")) == 1


async def test_of_many_who_redeem_at_once_one_wins(world: World, asker: Asker) -> None:
    await asker.started()
    found = await asker.decide(await asker.escalate(asker.request()))
    answers = await asyncio.gather(*(asker.redeem(found) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(one, Approval) for one in answers) == 1
    refused = [one for one in answers if isinstance(one, ForbiddenError)]
    assert len(refused) == 7
    assert "used already" in str(refused[0])
    assert len(await audited(world, "approval redeemed")) == 1
    assert len(await audited(world, "approval redeem refused")) == 7


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"binding": "0" * 64}, ForbiddenError, "not the one that was approved"),
        ({"agent": "infra"}, StaleLeaseError, "is with code"),
        ({"task_id": "6a1a2f0e-7a83-4f0c-9d5c-8d2b8f7d0a11"}, ForbiddenError, "another task"),
        ({"epoch": 9}, StaleLeaseError, "epoch"),
        ({"epoch": "1"}, InputError, "epoch"),
        ({"approval_id": "nobody"}, NotFoundError, "no approval"),
    ],
)
async def test_what_was_approved_is_redeemed_and_nothing_else(
    world: World, asker: Asker, change: dict[str, Any], error: type[Exception], said: str
) -> None:
    await asker.started()
    found = await asker.decide(await asker.escalate(asker.request()))
    with pytest.raises(error, match=said):
        await asker.redeem(found, **change)
    if error in {ForbiddenError, StaleLeaseError}:
        (entry,) = await audited(world, "approval redeem refused")
        assert (entry["outcome"], entry["actor_type"]) == ("denied", "agent")
    assert (await asker.redeem(found)).status == "used"


async def test_pending_is_not_redeemed(world: World, asker: Asker) -> None:
    await asker.started()
    found = await asker.escalate(asker.request())
    with pytest.raises(ForbiddenError, match="pending, not approved"):
        await asker.redeem(found)


async def test_the_same_call_cannot_ask_for_something_else(world: World, asker: Asker) -> None:
    await asker.started()
    found = await asker.decide(await asker.escalate(asker.request()))
    with pytest.raises(ForbiddenError, match="something else"):
        await asker.escalate(asker.request(argv=(*ARGV, "--force")))
    (entry,) = await audited(world, "approval refused")
    assert entry["outcome"] == "denied"
    assert (await asker.redeem(found)).status == "used"


async def test_forged_requests_are_refused(world: World, asker: Asker) -> None:
    await asker.started()
    other = "6a1a2f0e-7a83-4f0c-9d5c-8d2b8f7d0a11"
    for field in ("user_id", "root_id"):
        with pytest.raises(ForbiddenError, match="another request or user"):
            await asker.escalate(asker.request(**{field: other}))
    assert len(await audited(world, "approval refused")) == 2
    with pytest.raises(StaleLeaseError):
        await asker.escalate(asker.request(epoch=7))
    with pytest.raises(StaleLeaseError):
        await asker.escalate(asker.request(agent="infra"))
    with pytest.raises(NotFoundError):
        await asker.escalate(asker.request(task_id=other))
    for broken in ({}, {"request": None}, {"request": {"task_id": 3}}):
        with pytest.raises(InputError, match="request"):
            await world.verb("escalate", **broken)
    assert await world.store.fetchval("SELECT COUNT(*) FROM approvals") == 0


async def test_who_may_answer(world: World, asker: Asker) -> None:
    await asker.started()
    admin, other = await _person(world, "admin"), await _person(world, "user")
    low = await asker.escalate(asker.request("low", level=1))
    high = await asker.escalate(asker.request("high", level=2))
    with pytest.raises(ForbiddenError, match="only an admin, or the one whose task"):
        await asker.decide(low, by=other, via="api")
    with pytest.raises(ForbiddenError, match="an admin has to"):
        await asker.decide(high, by=world.user, via="api")
    assert len(await audited(world, "approval decision refused")) == 2
    with pytest.raises(ForbiddenError):
        await asker.decide(low, approve=False, by=other, via="api")
    assert (await asker.decide(low, by=world.user, via="api")).decided_by == world.user
    assert await asker.status() == "waiting"
    assert (await asker.decide(high, by=admin, via="cli", ip="192.0.2.7")).decided_via == "cli"
    assert (await audited(world, "approval decided"))[-1]["actor_ip"] == "192.0.2.7"
    assert await asker.status() == "in_progress"
    mine = await asker.escalate(asker.request("mine", level=2))
    denied = await asker.decide(mine, approve=False, by=world.user, via="api")
    assert denied.status == "denied"
    wrong: dict[str, Any]
    for wrong in ({"by": "window", "via": "api"}, {"by": admin, "via": "window"}, {"via": "x"}):
        with pytest.raises(InputError, match="via"):
            await asker.decide(mine, **wrong)
    await world.store.execute("UPDATE users SET is_active = FALSE WHERE id = $1", admin)
    last = await asker.escalate(asker.request("last", level=2))
    with pytest.raises(ForbiddenError):
        await asker.decide(last, by=admin, via="cli")


async def test_policy_approves_and_taint_takes_it_away(world: World, asker: Asker) -> None:
    await asker.started()
    domain = {"kind": "domain", "tool": "web_fetch", "argv": (), "host": "docs.python.org:443"}
    clean = await asker.escalate(asker.request("a", **domain))
    assert (clean.status, clean.decided_by, clean.decided_via) == ("approved", "policy", "policy")
    assert clean.decided_why == "rule reference"
    assert await asker.status() == "in_progress"
    (entry,) = await audited(world, "approval decided")
    assert (entry["actor_type"], entry["actor_id"]) == ("system", "policy")
    tainted = await asker.escalate(asker.request("b", **domain, tainted=True))
    assert tainted.status == "pending"
    assert await asker.status() == "waiting"


async def test_files_that_a_tainted_task_left_take_automatic_approval_away(
    world: World, asker: Asker
) -> None:
    domain = {"kind": "domain", "tool": "web_fetch", "argv": (), "host": "docs.python.org:443"}
    first = await asker.started()
    assert (await asker.escalate(asker.request("a", **domain))).status == "approved"
    assert asker.order is not None
    await world.players["code"].send(world.players["code"].outcome(asker.order, tainted=True))
    await world.ended(first)
    asker.go_on.set()
    await world.store.execute(
        "UPDATE messages SET metadata = '{}' WHERE conversation_id = $1", world.conversation
    )
    asker.go_on = asyncio.Event()
    await asker.started()
    assert not asker.order.tainted
    found = await asker.escalate(asker.request("b", **domain))
    assert found.status == "pending"
    entry = (await audited(world, "approval requested"))[-1]
    assert "same workspace" in entry["details"]["why"]
    await world.store.execute("UPDATE tasks SET workspace = 'other' WHERE id = $1", first)
    await world.store.execute("UPDATE tasks SET workspace = 'other' WHERE root_id = $1", first)
    assert (await asker.escalate(asker.request("c", **domain))).status == "approved"


async def test_a_flood_is_refused(world: World, asker: Asker) -> None:
    await asker.started()
    for number in range(5):
        await asker.escalate(asker.request(f"c{number}", argv=(f"{number}",)))
    with pytest.raises(TooManyError) as caught:
        await asker.escalate(asker.request("c5"))
    assert 0 < caught.value.retry_after_s <= 60
    assert (await asker.escalate(asker.request("c0", argv=("0",)))).status == "pending"
    await world.store.execute("UPDATE approvals SET created_at = created_at - INTERVAL '2 min'")
    with pytest.raises(TooManyError, match="5 requests waiting"):
        await asker.escalate(asker.request("c6"))
    assert len(await audited(world, "approval refused")) == 2


async def test_nagging_ends(world: World, asker: Asker) -> None:
    await asker.started()
    for call_id in ("a", "b"):
        await asker.decide(await asker.escalate(asker.request(call_id)), approve=False)
    with pytest.raises(ForbiddenError, match="denied 2 times"):
        await asker.escalate(asker.request("c"))
    other = await asker.escalate(asker.request("d", argv=("git", "push", "other")))
    assert other.status == "pending"


async def test_a_killed_supervisor_changes_nothing(world: World, asker: Asker) -> None:
    await asker.started()
    found = await asker.escalate(asker.request())
    assert world.supervisor is not None
    world.supervisor.cancel()
    await asyncio.gather(world.supervisor, return_exceptions=True)
    world.supervisor = None
    with pytest.raises(NoAnswerError):
        await world.bus.ask(
            "supervisor",
            {"verb": "decide", "approval_id": found.id, "approve": False},
            deadline=Deadline.after(0.3),
        )
    assert await asker.status() == "waiting"
    world.start()
    again = await asker.escalate(asker.request())
    assert (again.id, again.status) == (found.id, "pending")
    assert (await asker.decide(found)).status == "approved"
    assert (await asker.redeem(found)).status == "used"


async def test_flushall_loses_no_decision(world: World, asker: Asker) -> None:
    await asker.started()
    found = await asker.escalate(asker.request())
    await world.bus.call(("FLUSHALL",))
    again = await asker.escalate(asker.request())
    assert (again.id, again.status) == (found.id, "pending")
    await asker.decide(found)
    await world.bus.call(("FLUSHALL",))
    assert (await asker.escalate(asker.request())).status == "approved"
    assert (await asker.redeem(found)).status == "used"


async def test_an_agent_that_came_back_asks_again(world: World, asker: Asker) -> None:
    await asker.started()
    found = await asker.escalate(asker.request())
    assert asker.order is not None
    order = asker.order
    await world.verb("take", task_id=order.task_id, epoch=order.epoch, agent="code")
    assert await asker.status() == "in_progress"
    assert (await asker.escalate(asker.request())).id == found.id
    assert await asker.status() == "waiting"
    assert (await asker.decide(found)).status == "approved"


async def test_a_new_epoch_asks_again_and_the_old_one_is_refused(
    world: World, asker: Asker
) -> None:
    await asker.started()
    first = asker.order
    assert first is not None
    found = await asker.escalate(asker.request())
    old = asker.request()
    await world.players["code"].send(
        world.players["code"].outcome(first, status=Status.PENDING, answer="")
    )
    asker.go_on.set()
    asker.order = None
    asker.go_on = asyncio.Event()

    async def again() -> bool:
        return asker.order is not None and asker.order.epoch > first.epoch

    await until("a new order", again)
    with pytest.raises(StaleLeaseError):
        await asker.escalate(old)
    fresh = await asker.escalate(asker.request())
    assert (fresh.id, fresh.status) == (found.id, "pending")
    done = await asker.decide(found)
    with pytest.raises(StaleLeaseError):
        await asker.redeem(found)
    assert (await asker.redeem(done, epoch=fresh.request.epoch)).status == "used"


async def test_cancel_and_the_end_close_what_is_open(world: World, asker: Asker) -> None:
    root_id = await asker.started()
    approved = await asker.decide(await asker.escalate(asker.request("a")))
    pending = await asker.escalate(asker.request("b", argv=("b",)))
    await world.verb("cancel", task_id=root_id)
    rows = await world.store.fetch("SELECT status FROM approvals")
    assert {row["status"] for row in rows} == {"expired"}
    with pytest.raises(ConflictError, match="expired"):
        await asker.decide(pending)
    with pytest.raises(StaleLeaseError):
        await asker.redeem(approved)
    assert len(await audited(world, "approval expired")) == 2
    asker.go_on.set()


async def test_an_outcome_closes_what_is_open(world: World, asker: Asker) -> None:
    root_id = await asker.started()
    found = await asker.escalate(asker.request())
    asker.go_on.set()
    assert (await world.ended(root_id))["status"] == "completed"
    with pytest.raises(ConflictError, match="expired"):
        await asker.decide(found)


async def test_no_level_is_above_the_users_and_it_is_written_down(
    world: World, asker: Asker
) -> None:
    await asker.started("infra")
    assert asker.order is not None
    assert asker.order.level == 1
    (entry,) = await audited(world, "level cut")
    assert (entry["details"]["from"], entry["details"]["to"]) == (2, 1)
    assert entry["resource_path"] == "agent:infra"


async def test_an_admins_work_has_the_agents_own_level(world: World, asker: Asker) -> None:
    await world.store.execute("UPDATE users SET role = 'admin' WHERE id = $1", world.user)
    await asker.started("infra")
    assert asker.order is not None
    assert asker.order.level == 2
    assert await audited(world, "level cut") == []


async def test_a_handoff_gives_no_more_than_it_had_and_carries_the_taint(world: World) -> None:
    await world.store.execute("UPDATE users SET role = 'admin' WHERE id = $1", world.user)
    orders: list[WorkOrder] = []

    async def act(player: Player, order: WorkOrder) -> Outcome | None:
        orders.append(order)
        if player.name == "code":
            return player.outcome(
                order, status=Status.WAITING, handoff_to="infra", notes="yours", tainted=True
            )
        return player.outcome(order)

    world.act = act
    await world.play("code", "infra")
    world.start()
    row = await world.ended(await world.ask("restart it", agent="code"))
    assert row["status"] == "completed", row["error"]
    assert [(one.agent, one.level, one.tainted) for one in orders] == [
        ("code", 1, False),
        ("infra", 1, True),
    ]
    (entry,) = await audited(world, "level cut")
    assert entry["details"]["handed_on_at"] == 1
    assert row["output"]["tainted"] is True
    await world.ended(await world.ask("and again", agent="infra"))
    assert (orders[-1].level, orders[-1].tainted) == (2, True)


async def test_a_subtasks_result_carries_its_taint(world: World) -> None:
    async def act(player: Player, order: WorkOrder) -> Outcome | None:
        return player.outcome(order, tainted=player.name == "research")

    world.act = act
    await world.play("research", "code", "data")
    world.start()
    steps = [
        {
            "key": key,
            "agent": agent,
            "instruction": f"do {key}",
            "effort": "standard",
            "depends_on": after,
        }
        for key, agent, after in (("a", "research", []), ("b", "code", ["a"]), ("c", "data", []))
    ]
    plan = {"for": "planner", "plan": {"summary": "s", "subtasks": steps}}
    text = f"look it up\n\n```rehearsal\n{json.dumps(plan)}\n```\n"
    await world.ended(await world.ask(text))
    told = {name: player.orders[0] for name, player in world.players.items()}
    assert (told["code"].tainted, told["code"].inputs[0].tainted) == (True, True)
    assert (told["research"].tainted, told["data"].tainted) == (False, False)


async def test_no_secret_reaches_the_audit(world: World, asker: Asker) -> None:
    await asker.started()
    key = "ghp_" + "a1B2" * 9
    await asker.escalate(asker.request(argv=("git", "push", f"https://x:{key}@example.org")))
    rows = await world.store.fetch("SELECT body FROM outbox WHERE stream = $1", streams.AUDIT)
    assert rows
    assert all(key.encode() not in bytes(row["body"]) for row in rows)


async def _person(world: World, role: str) -> str:
    found: str = await world.store.fetchval(
        "INSERT INTO users (email, role) VALUES (gen_random_uuid()::text, $1) RETURNING id", role
    )
    return found
